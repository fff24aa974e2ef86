/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img info: what an image is, for people and for programs. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#define CHAIN_INDENT 4

typedef struct InfoRequest {
    ImgSource src;
    ImgOutput output;
    bool chain;                 /* those behind it as well */
} InfoRequest;

/* ---- collecting ------------------------------------------------------------------- */

static void put(json_t *info, const char *key, json_t *value)
{
    json_object_set_new(info, key, value);
}

static json_t *node_info(BlockDriverState *bs, Error **errp);

/* NULL with ERRP set. */
static json_t *children_info(BlockDriverState *bs, Error **errp)
{
    json_t *children = json_array();
    BdrvChild *child;

    QLIST_FOREACH(child, &bs->children, next) {
        json_t *below = node_info(child->bs, errp);
        if (!below) {
            json_decref(children);
            return NULL;
        }
        json_t *entry = json_object();
        put(entry, "name", json_string(child->name));
        put(entry, "info", below);
        json_array_append_new(children, entry);
    }
    return children;
}

/* NULL with ERRP set. */
static json_t *node_info(BlockDriverState *bs, Error **errp)
{
    BlockDriverInfo bdi = { 0 };
    int64_t length = bdrv_getlength(bs);

    if (length < 0) {
        error_setg_errno(errp, (int)-length, "Can't get image size '%s'", bs->exact_filename);
        return NULL;
    }
    json_t *children = children_info(bs, errp);
    if (!children) {
        return NULL;
    }
    json_t *info = json_object();
    put(info, "children", children);
    bool has_backing = bs->backing_file && *bs->backing_file;
    if (has_backing && bs->backing_format && *bs->backing_format) {
        put(info, "backing-filename-format", img_json_string(bs->backing_format));
    }
    json_t *snapshots = img_snapshots(bs);
    if (snapshots) {
        put(info, "snapshots", snapshots);
    }
    put(info, "virtual-size", json_integer(ROUND_UP(length, (int64_t)BDRV_SECTOR_SIZE)));
    put(info, "filename", img_json_string(bs->filename ? bs->filename : ""));

    bool has_bdi = bdrv_get_info(bs, &bdi) >= 0;
    if (has_bdi && bdi.cluster_size > 0) {
        put(info, "cluster-size", json_integer(bdi.cluster_size));
    }
    put(info, "format", json_string(bs->drv->format_name));
    int64_t allocated = bdrv_get_allocated_file_size(bs);
    if (allocated >= 0) {
        put(info, "actual-size", json_integer(allocated));
    }
    json_t *specific = bs->drv->bdrv_get_specific_info ?
                       bs->drv->bdrv_get_specific_info(bs) : NULL;
    if (specific) {
        put(info, "format-specific", specific);
    }
    if (has_backing) {
        g_autofree char *full = img_full_backing_name(bs, NULL);
        if (full) {
            put(info, "full-backing-filename", img_json_string(full));
        }
    }
    if (json_object_get(json_object_get(specific, "data"), "encrypt")) {
        put(info, "encrypted", json_true());
    }
    if (has_backing) {
        put(info, "backing-filename", img_json_string(bs->backing_file));
    }
    if (has_bdi) {
        put(info, "dirty-flag", json_boolean(bdi.is_dirty));
    }
    return info;
}

/*
 * Describe the image SRC and, with CHAIN, all those behind it: an array of objects, or NULL
 * after a message. Each is opened on its own, without what is behind it, so that an image
 * can be looked at while its backing file is missing.
 */
static json_t *collect(const ImgSource *src, bool chain)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    json_t *infos = json_array();
    ImgSource next = *src;
    g_autofree char *name = g_strdup(src->name);
    g_autofree char *format = g_strdup(src->format);

    do {
        Error *err = NULL;
        if (!g_hash_table_add(seen, g_strdup(name))) {
            error_report("Backing file '%s' creates an infinite loop.", name);
            goto fail;
        }
        next.name = name;
        next.format = format;
        BlockBackend *blk = img_open(&next, BDRV_O_NO_BACKING | BDRV_O_NO_IO);
        if (!blk) {
            goto fail;
        }
        BlockDriverState *bs = blk_bs(blk);
        json_t *info = node_info(bs, &err);
        if (!info) {
            error_report_err(err);
            blk_unref(blk);
            goto fail;
        }
        json_array_append_new(infos, info);

        g_free(name);
        g_free(format);
        name = chain ? img_full_backing_name(bs, &err) : NULL;
        format = bs->backing_format && *bs->backing_format ? g_strdup(bs->backing_format)
                                                           : NULL;
        next.image_opts = false;
        blk_unref(blk);
        if (err) {
            error_report_err(err);
            goto fail;
        }
    } while (name);
    return infos;

fail:
    json_decref(infos);
    return NULL;
}

/* ---- printing --------------------------------------------------------------------- */

static const char *string_of(const json_t *info, const char *key)
{
    return json_string_value(json_object_get(info, key));
}

static void print_size(const json_t *info, const char *label, const char *key, int indent)
{
    uint64_t bytes = json_integer_value(json_object_get(info, key));
    g_autofree char *text = img_size_text(bytes);

    printf("%*s%s: %s (%" PRIu64 " bytes)\n", indent, "", label, text, bytes);
}

static void print_backing(const json_t *info, int indent)
{
    const char *name = string_of(info, "backing-filename");
    const char *full = string_of(info, "full-backing-filename");
    const char *format = string_of(info, "backing-filename-format");

    if (!name) {
        return;
    }
    printf("%*sbacking file: %s", indent, "", name);
    if (!full) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(name, full) != 0) {
        printf(" (actual path: %s)", full);
    }
    printf("\n");
    if (format) {
        printf("%*sbacking file format: %s\n", indent, "", format);
    }
}

/* Whether INFO is of a protocol node: where bytes live, below any format. */
static bool is_protocol(const json_t *info)
{
    BlockDriver *drv = bdrv_find_format(string_of(info, "format"));

    return drv && (drv->bdrv_file_open || drv->protocol_name);
}

static void print_node(const json_t *info, int indent, bool protocol)
{
    const json_t *allocated = json_object_get(info, "actual-size");
    const json_t *cluster = json_object_get(info, "cluster-size");
    const json_t *specific = json_object_get(json_object_get(info, "format-specific"),
                                             "data");
    g_autofree char *disk = allocated ? img_size_text(json_integer_value(allocated))
                                      : g_strdup("unavailable");

    printf("%*s%s: %s\n", indent, "", protocol ? "filename" : "image",
           string_of(info, "filename"));
    printf("%*s%s: %s\n", indent, "", protocol ? "protocol type" : "file format",
           string_of(info, "format"));
    print_size(info, protocol ? "file length" : "virtual size", "virtual-size", indent);
    printf("%*sdisk size: %s\n", indent, "", disk);
    if (json_is_true(json_object_get(info, "encrypted"))) {
        printf("%*sencrypted: yes\n", indent, "");
    }
    if (cluster) {
        printf("%*scluster_size: %" JSON_INTEGER_FORMAT "\n", indent, "",
               json_integer_value(cluster));
    }
    if (json_is_true(json_object_get(info, "dirty-flag"))) {
        printf("%*scleanly shut down: no\n", indent, "");
    }
    print_backing(info, indent);
    img_print_snapshots(json_object_get(info, "snapshots"), indent);
    if (json_object_size(specific) > 0) {
        printf("%*sFormat specific information:\n", indent, "");
        img_print_nested(specific, indent + CHAIN_INDENT);
    }
}

/* PATH is where INFO is found below the image, "" for the image itself. */
static void print_children(const json_t *info, const char *path, int indent)
{
    const json_t *children = json_object_get(info, "children");

    for (size_t i = 0; i < json_array_size(children); i++) {
        const json_t *child = json_array_get(children, i);
        const json_t *below = json_object_get(child, "info");
        g_autofree char *name = g_strconcat(path, "/", string_of(child, "name"), NULL);
        printf("%*sChild node '%s':\n", indent, "", name);
        print_node(below, indent + CHAIN_INDENT, is_protocol(below));
        print_children(below, name, indent + CHAIN_INDENT);
    }
}

/* Of the whole chain, or of the one image alone. */
static void print_infos(const json_t *infos, bool chain, ImgOutput output)
{
    if (output == IMG_OUTPUT_JSON) {
        img_print_json(chain ? infos : json_array_get(infos, 0));
        return;
    }
    for (size_t i = 0; i < json_array_size(infos); i++) {
        const json_t *info = json_array_get(infos, i);
        printf("%s", i ? "\n" : "");
        print_node(info, 0, false);
        print_children(info, "", 0);
    }
}

static bool take_option(InfoRequest *req, int c)
{
    switch (c) {
    case 'f': req->src.format = optarg; break;
    case 'U': req->src.force_share = true; break;
    case IMG_OPT_OUTPUT: return img_parse_output(optarg, &req->output);
    case IMG_OPT_BACKING_CHAIN: req->chain = true; break;
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    }
    return true;
}

int img_info(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "output", required_argument, NULL, IMG_OPT_OUTPUT },
        { "backing-chain", no_argument, NULL, IMG_OPT_BACKING_CHAIN },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { NULL },
    };
    /* Looking never disturbs a user of the image, and needs no permission to look. */
    InfoRequest req = { .src.look = true };
    int c;

    while ((c = img_getopt(argc, argv, "f:U", longopts)) != -1) {
        if (!take_option(&req, c)) {
            return EXIT_FAILURE;
        }
    }
    img_take_filename(&req.src, argc, argv);

    json_t *infos = collect(&req.src, req.chain);
    if (!infos) {
        return EXIT_FAILURE;
    }
    print_infos(infos, req.chain, req.output);
    json_decref(infos);
    return EXIT_SUCCESS;
}
