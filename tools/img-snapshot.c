/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img snapshot: list, take, apply and delete the snapshots inside an image. */
#include "miniblk/osdep.h"
#include "miniblk/snapshot.h"
#include "tools/img.h"

#define USEC_PER_SEC 1000000
#define NSEC_PER_USEC 1000

/* ---- lists (img_info() prints them, too) ------------------------------------------ */

static json_t *describe(const QEMUSnapshotInfo *sn)
{
    json_t *out = json_object();

    if (sn->icount != UINT64_MAX) {
        json_object_set_new(out, "icount", json_integer((json_int_t)sn->icount));
    }
    json_object_set_new(out, "vm-clock-nsec", json_integer(sn->vm_clock_nsec % 1000000000));
    json_object_set_new(out, "name", img_json_string(sn->name));
    json_object_set_new(out, "date-sec", json_integer(sn->date_sec));
    json_object_set_new(out, "date-nsec", json_integer(sn->date_nsec));
    json_object_set_new(out, "vm-clock-sec", json_integer(sn->vm_clock_nsec / 1000000000));
    json_object_set_new(out, "id", img_json_string(sn->id_str));
    json_object_set_new(out, "vm-state-size", json_integer((json_int_t)sn->vm_state_size));
    return out;
}

json_t *img_snapshots(BlockDriverState *bs)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    int count = bdrv_snapshot_list(bs, &list);

    if (count <= 0) {
        return NULL;            /* none, or a format without */
    }
    json_t *out = json_array();
    for (int i = 0; i < count; i++) {
        json_array_append_new(out, describe(&list[i]));
    }
    return out;
}

static int64_t number_of(const json_t *sn, const char *key)
{
    return json_integer_value(json_object_get(sn, key));
}

static const char *string_of(const json_t *sn, const char *key)
{
    return json_string_value(json_object_get(sn, key));
}

static void print_snapshot(const json_t *sn, int indent)
{
    g_autoptr(GDateTime) taken = g_date_time_new_from_unix_local(number_of(sn, "date-sec"));
    g_autofree char *date = g_date_time_format(taken, "%Y-%m-%d %H:%M:%S");
    g_autofree char *size = img_size_text(number_of(sn, "vm-state-size"));
    int64_t clock_s = number_of(sn, "vm-clock-sec");
    g_autofree char *clock = g_strdup_printf("%02" PRId64 ":%02d:%02d.%03d", clock_s / 3600,
                                             (int)(clock_s / 60 % 60), (int)(clock_s % 60),
                                             (int)(number_of(sn, "vm-clock-nsec") / 1000000));
    const json_t *icount = json_object_get(sn, "icount");
    g_autofree char *counted = icount ? g_strdup_printf("%" JSON_INTEGER_FORMAT,
                                                        json_integer_value(icount))
                                      : g_strdup("");

    printf("%*s%-9s %-16s %8s%20s%13s%11s\n", indent, "", string_of(sn, "id"),
           string_of(sn, "name"), size, date, clock, counted);
}

void img_print_snapshots(const json_t *snapshots, int indent)
{
    if (json_array_size(snapshots) == 0) {
        return;
    }
    printf("%*sSnapshot list:\n%*s%-9s %-16s %8s%20s%13s%11s\n", indent, "", indent, "", "ID",
           "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < json_array_size(snapshots); i++) {
        print_snapshot(json_array_get(snapshots, i), indent);
    }
}

/* ---- reading one (convert and measure do that) ------------------------------------ */

/* "snapshot.id=ID,snapshot.name=NAME" in parts; false after a message. */
static bool parse_param(const char *param, char **id, char **name)
{
    const char *rest = param;

    for (;;) {
        g_autofree char *element = img_next_element(&rest);
        if (!element) {
            return true;
        }
        char *equals = strchr(element, '=');
        g_autofree char *key = equals ? g_strndup(element, equals - element)
                                      : g_strdup(element);
        char **value = !strcmp(key, "snapshot.id") ? id :
                       !strcmp(key, "snapshot.name") ? name : NULL;
        if (!value || !equals) {
            error_report("Invalid parameter '%s'", key);
            error_report("Failed in parsing snapshot param '%s'", param);
            return false;
        }
        g_free(*value);
        *value = g_strdup(equals + 1);
    }
}

bool img_load_snapshot(BlockDriverState *bs, const char *param)
{
    g_autofree char *id = NULL, *name = NULL;
    Error *err = NULL;
    int ret;

    if (g_str_has_prefix(param, "snapshot.")) {
        if (!parse_param(param, &id, &name)) {
            return false;
        }
        ret = bdrv_snapshot_load_tmp(bs, id, name, &err);
    } else {
        ret = bdrv_snapshot_load_tmp_by_id_or_name(bs, param, &err);
    }
    if (ret < 0) {
        error_reportf_err(err, "Failed to load snapshot: ");
    }
    return ret >= 0;
}

/* ---- actions ---------------------------------------------------------------------- */

static bool list_snapshots(BlockDriverState *bs, const char *unused)
{
    json_t *snapshots = img_snapshots(bs);

    img_print_snapshots(snapshots, 0);
    json_decref(snapshots);
    return true;
}

static bool take_snapshot(BlockDriverState *bs, const char *name)
{
    QEMUSnapshotInfo sn = { 0 };
    int64_t now_us = g_get_real_time();

    if (g_strlcpy(sn.name, name, sizeof(sn.name)) >= sizeof(sn.name)) {
        warn_report("The name is too long, using '%s'", sn.name);
    }
    sn.date_sec = (uint32_t)(now_us / USEC_PER_SEC);
    sn.date_nsec = (uint32_t)(now_us % USEC_PER_SEC) * NSEC_PER_USEC;
    int ret = bdrv_snapshot_create(bs, &sn);
    if (ret < 0) {
        error_report("Could not create snapshot '%s': %d (%s)", name, ret, strerror(-ret));
    }
    return ret >= 0;
}

static bool apply_snapshot(BlockDriverState *bs, const char *name)
{
    Error *err = NULL;

    if (bdrv_snapshot_goto(bs, name, &err) < 0) {
        error_reportf_err(err, "Could not apply snapshot '%s': ", name);
        return false;
    }
    return true;
}

static bool delete_snapshot(BlockDriverState *bs, const char *name)
{
    QEMUSnapshotInfo sn;
    Error *err = NULL;

    if (bdrv_snapshot_find(bs, &sn, name) < 0) {
        error_report("Could not delete snapshot '%s': snapshot not found", name);
        return false;
    }
    if (bdrv_snapshot_delete(bs, sn.id_str, sn.name, &err) < 0) {
        error_reportf_err(err, "Could not delete snapshot '%s': ", name);
        return false;
    }
    return true;
}

/* ---- command line ----------------------------------------------------------------- */

typedef struct Action {
    int option;
    bool (*run)(BlockDriverState *bs, const char *name);
} Action;

static const Action actions[] = {
    { 'l', list_snapshots }, { 'c', take_snapshot }, { 'a', apply_snapshot },
    { 'd', delete_snapshot },
};

static void set_action(const Action **action, int option)
{
    if (*action) {
        img_usage_error("Cannot mix '-l', '-a', '-c', '-d'");
    }
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (actions[i].option == option) {
            *action = &actions[i];
        }
    }
}

int img_snapshot(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { NULL },
    };
    ImgSource src = { 0 };
    const Action *action = NULL;
    const char *name = NULL;
    int c;

    while ((c = img_getopt(argc, argv, "la:c:d:qU", longopts)) != -1) {
        switch (c) {
        case 'l': case 'a': case 'c': case 'd':
            set_action(&action, c);
            name = optarg;
            break;
        case 'q': break;        /* there is no output but the list that was asked for */
        case 'U': src.force_share = true; break;
        case IMG_OPT_IMAGE_OPTS: src.image_opts = true; break;
        }
    }
    img_take_filename(&src, argc, argv);

    /* A list disturbs nobody and needs no permission to look. */
    bool look_only = !action || action->option == 'l';
    src.look = look_only;
    BlockBackend *blk = img_open(&src, look_only ? BDRV_O_NO_IO
                                                 : BDRV_O_RDWR | BDRV_O_UNMAP);
    if (!blk) {
        return EXIT_FAILURE;
    }
    bool ok = !action || action->run(blk_bs(blk), name);
    if (ok && !look_only) {
        ok = img_flush(blk, src.name);
    }
    blk_unref(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
