/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random commands of the image tool on a random set of images, by ours and by the peer's: each
 * works in a directory of its own and must say the same, end alike and leave images that show
 * the same, have the same map and the same description. See diff.h.
 *
 *     files a ... f: raw and qcow2 images, some with others of them behind them
 *         ours/a ... ours/f   <- miniblk-img     peer/a ... peer/f   <- qemu-img
 *     after each command: the image that it was about; at the end of a round: all
 */
#include "tests/interop/diff.h"

#include <string.h>

enum { FILES = 6, FIRST_COMMANDS = 10, COMMANDS = 40 };

typedef struct Image {
    char name[2];
    bool exists;                /* and can be opened without what is behind it */
    bool raw;
    bool zstd, v2;
    bool below;                 /* behind another one: not changed, as what shows through is
                                   for each tool to choose */
    bool loose;                 /* what of it is defined differs, as it is a copy */
    const struct Image *behind; /* NULL: nothing, or something else */
    gint64 length, cluster_bytes;
} Image;

typedef struct World {
    GRand *rand;
    Image images[FILES];
} World;

/* One command: what is run, and which image it may change (NULL: it looks only). */
typedef struct Command {
    GString *text;
    Image *target, *second_target;
    bool copies;                /* a new image is made, or what is in one is chosen anew */
} Command;

/* ---- choices ---------------------------------------------------------------------- */

static int below(World *w, int n)
{
    return g_rand_int_range(w->rand, 0, n);
}

static bool one_in(World *w, int n)
{
    return below(w, n) == 0;
}

static const char *pick(World *w, const char *const *words)
{
    return words[below(w, (int)g_strv_length((char **)words))];
}
#define PICK(w, ...) pick(w, (const char *const[]){ __VA_ARGS__, NULL })

static void add(Command *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void add(Command *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_c(c->text, ' ');
    g_string_append_vprintf(c->text, fmt, ap);
    va_end(ap);
}

/* An image; mostly one that is there. */
static Image *some_image(World *w)
{
    Image *image = NULL;

    for (int i = 0; i < 10; i++) {
        image = &w->images[below(w, FILES)];
        if (image->exists) {
            return image;
        }
    }
    return image;
}

static Image *some_qcow2(World *w)
{
    Image *image = NULL;

    for (int i = 0; i < 20; i++) {
        image = some_image(w);
        if (image->exists && !image->raw) {
            return image;
        }
    }
    return image;
}

/* One to be overwritten: no other one depends on it. There is always one. */
static Image *some_place(World *w)
{
    Image *image;

    do {
        image = &w->images[below(w, FILES)];
    } while (image->below);
    return image;
}

/* One to be changed: mostly one that is there, and qcow2 if QCOW2. */
static Image *some_target(World *w, bool qcow2)
{
    Image *image;

    for (int i = 0; i < 20; i++) {
        image = some_place(w);
        if (image->exists && !(qcow2 && image->raw)) {
            break;
        }
    }
    return image;
}

/*
 * One that may get behind IMAGE, or NULL: not such that IMAGE is behind it, which the peer
 * does not survive.
 */
static const Image *some_backing(World *w, const Image *image)
{
    const Image *backing = some_image(w), *i = backing;

    while (i && i != image) {
        i = i->behind;
    }
    return i ? NULL : backing;
}

static const char *format_of(const Image *image)
{
    return image->raw ? "raw" : "qcow2";
}

/*
 * "-f FORMAT", or nothing. Never raw for what is qcow2: where things lie in a file is for each
 * tool to choose.
 */
static void add_format(World *w, Command *c, const char *option, const Image *image)
{
    if (one_in(w, 3)) {
        add(c, "%s %s", option, format_of(image));
    } else if (image->raw && one_in(w, 10)) {
        add(c, "%s qcow2", option);
    }
}

static gint64 some_length(World *w)
{
    gint64 length = (gint64)below(w, 12 << 20) / 65536 * 65536;

    return MAX(length + 512 * (one_in(w, 3) ? below(w, 128) : 0), 512);
}

/* A list for -o of create, convert, measure; version 3 options only with version 3. */
static char *qcow2_options(World *w, bool preallocate)
{
    GString *s = g_string_new("");
    bool v2 = one_in(w, 6), subclusters = !v2 && one_in(w, 4);

    if (v2) {
        g_string_append(s, "compat=0.10,");
    }
    if (subclusters) {          /* when it refuses to, the peer deletes what was there */
        g_string_append_printf(s, "extended_l2=on,cluster_size=%s,",
                               PICK(w, "16k", "64k", "128k", "2M"));
    } else if (one_in(w, 2)) {
        g_string_append_printf(s, "cluster_size=%s,", PICK(w, "512", "1k", "4k", "16k", "64k",
                                                           "128k", "2M"));
    }
    if (!v2 && one_in(w, 4)) {
        g_string_append_printf(s, "refcount_bits=%s,", PICK(w, "1", "8", "16", "32", "64"));
    }
    if (!v2 && one_in(w, 5)) {
        g_string_append(s, "lazy_refcounts=on,");
    }
    if (!v2 && one_in(w, 4)) {
        g_string_append(s, "compression_type=zstd,");
    }
    if (preallocate && one_in(w, 8)) {
        g_string_append_printf(s, "preallocation=%s,", PICK(w, "off", "metadata", "falloc",
                                                            "full"));
    }
    if (s->len) {
        g_string_truncate(s, s->len - 1);
    }
    return g_string_free(s, FALSE);
}

static void add_qcow2_options(World *w, Command *c, bool preallocate)
{
    g_autofree char *list = qcow2_options(w, preallocate);

    if (*list) {
        add(c, "-o %s", list);
    }
}

/* ---- commands --------------------------------------------------------------------- */

static void make_create(World *w, Command *c)
{
    Image *image = some_place(w);

    c->target = image;
    add(c, "create");
    if (one_in(w, 4)) {
        add(c, "-f raw %s %" G_GINT64_FORMAT, image->name, some_length(w));
        return;
    }
    add(c, "-f qcow2");
    const Image *behind = one_in(w, 2) ? some_backing(w, image) : NULL;
    if (behind) {
        add(c, "-b %s -F %s", behind->name, format_of(behind));
    }
    add_qcow2_options(w, c, !behind);
    add(c, "%s", image->name);
    if (!behind || one_in(w, 3)) {
        add(c, "%" G_GINT64_FORMAT, some_length(w));
    }
}

/*
 * One request of a guest. Not compressed, as the peer corrupts images then; and zeroes by the
 * cluster, as it differs what becomes of a cluster that is zero before and after.
 */
static void add_request(World *w, Command *c, const Image *image)
{
    int kind = below(w, 10);
    /* In version 2 the peer takes -z for -zu. */
    const char *what = kind < 7 ? "write -P" : kind < 8 && !image->v2 ? "write -z" :
                       kind < 9 ? "write -zu" : "discard";
    gint64 unit = kind < 7 ? 512 : MAX(image->cluster_bytes, 512);
    gint64 units = MAX(image->length / unit, 1);
    gint64 offset = g_rand_int_range(w->rand, 0, (gint32)units) * unit;
    gint64 bytes = one_in(w, 2) ? 65536 * (1 + below(w, 8)) : 512 * (1 + below(w, 300));

    bytes = MIN((bytes + unit - 1) / unit * unit, image->length - offset);
    add(c, "-c '%s", what);
    if (kind < 7) {
        add(c, "%d", below(w, 256));
    }
    add(c, "%" G_GINT64_FORMAT " %" G_GINT64_FORMAT "'", offset, bytes);
}

/* What a guest does. */
static void make_work(World *w, Command *c)
{
    Image *image = some_target(w, false);

    c->target = image;
    g_string_assign(c->text, "qemu-io");
    add(c, "-f %s", format_of(image));
    for (int i = below(w, 6); i >= 0; i--) {
        add_request(w, c, image);
    }
    add(c, "%s", image->name);
}

/* Options of convert that say how, not what. */
static void add_convert_style(World *w, Command *c)
{
    if (one_in(w, 4)) {
        add(c, "-W");
    }
    if (one_in(w, 4)) {
        add(c, "-m %d", 1 + below(w, 16));
    }
    if (one_in(w, 6)) {
        add(c, "-p -q");
    }
    if (one_in(w, 4)) {
        add(c, "-S %s", PICK(w, "0", "512", "4k", "64k", "1M", "3000"));
    }
    if (one_in(w, 8)) {
        add(c, "-t %s", PICK(w, "none", "writeback", "writethrough", "unsafe"));
    }
    if (one_in(w, 8)) {
        add(c, "-T %s", PICK(w, "none", "writeback", "writethrough", "unsafe"));
    }
    if (one_in(w, 10)) {
        add(c, "--salvage");
    }
}

/* What is copied: one image or several, or a snapshot. */
static void add_convert_sources(World *w, Command *c)
{
    Image *image = some_image(w);

    if (one_in(w, 6)) {
        image = some_qcow2(w);
        add(c, "-l %s", PICK(w, "s0", "s1", "s2", "1", "snapshot.name=s0"));
    }
    add_format(w, c, "-f", image);
    add(c, "%s", image->name);
    while (one_in(w, 8)) {
        add(c, "%s", some_image(w)->name);
    }
}

static void make_convert(World *w, Command *c)
{
    bool raw = one_in(w, 3), compress = !raw && one_in(w, 3);

    c->target = some_place(w);
    c->copies = true;
    add(c, "convert");
    add_convert_style(w, c);
    if (compress || one_in(w, 20)) {
        add(c, "-c");
    }
    if (raw) {
        add(c, "%s", one_in(w, 2) ? "-O raw" : "");
    } else {
        add(c, "-O qcow2");
        add_qcow2_options(w, c, !compress);
    }
    const Image *behind = one_in(w, 8) ? some_backing(w, c->target) : NULL;
    if (behind) {
        add(c, "-B %s -F %s", behind->name, format_of(behind));
    }
    if (one_in(w, 8)) {
        add(c, "--bitmaps");
    }
    add_convert_sources(w, c);
    add(c, "%s", c->target->name);
}

/* Onto an image that is there. */
static void make_convert_onto(World *w, Command *c)
{
    Image *target = some_target(w, false);

    c->target = target;
    c->copies = true;
    add(c, "convert -n");
    add_convert_style(w, c);
    add(c, "-O %s", format_of(target));
    if (one_in(w, 8)) {
        add(c, "--bitmaps");
    }
    add_convert_sources(w, c);
    add(c, "%s", target->name);
}

static void make_compare(World *w, Command *c)
{
    Image *a = some_image(w), *b = some_image(w);

    add(c, "compare");
    if (one_in(w, 4)) {
        add(c, "-s");
    }
    if (one_in(w, 8)) {
        add(c, "%s", PICK(w, "-q", "-U", "-T none"));
    }
    add_format(w, c, "-f", a);
    add_format(w, c, "-F", b);
    add(c, "%s %s", a->name, b->name);
}

static void make_measure(World *w, Command *c)
{
    add(c, "measure");
    if (one_in(w, 2)) {
        add(c, "--output=json");
    }
    if (!one_in(w, 4)) {
        add(c, "-O qcow2");
        add_qcow2_options(w, c, true);
    }
    if (one_in(w, 5)) {
        add(c, "--size %" G_GINT64_FORMAT, some_length(w) << below(w, 30));
        return;
    }
    if (one_in(w, 5)) {
        add(c, "-l %s", PICK(w, "s0", "s1", "2"));
    }
    Image *image = some_image(w);
    add_format(w, c, "-f", image);
    add(c, "%s", image->name);
}

static void make_resize(World *w, Command *c)
{
    Image *image = some_target(w, false);

    c->target = image;
    c->copies = true;           /* zeroes, where what is behind would show */
    add(c, "resize");
    add_format(w, c, "-f", image);
    if (one_in(w, 3)) {
        add(c, "--shrink");
    }
    if (one_in(w, 6)) {
        add(c, "--preallocation=%s", PICK(w, "off", "metadata", "falloc", "full"));
    }
    add(c, "%s", image->name);
    if (one_in(w, 2)) {
        add(c, "%" G_GINT64_FORMAT, some_length(w));
    } else {
        add(c, "%s%d", PICK(w, "+", "-"), 65536 * below(w, 50));
    }
}

static void make_rebase(World *w, Command *c)
{
    Image *image = some_target(w, true);
    const Image *behind = some_backing(w, image);

    c->target = image;
    c->copies = image->loose || (behind && behind->loose);
    add(c, "rebase");
    add_format(w, c, "-f", image);
    if (one_in(w, 6)) {
        add(c, "-p -q");
    }
    if (!behind || one_in(w, 5)) {
        add(c, "-b ''");
    } else {
        add(c, "-b %s -F %s", behind->name, format_of(behind));
    }
    add(c, "%s", image->name);
}

static void make_commit(World *w, Command *c)
{
    Image *image = some_target(w, true), *base = (Image *)image->behind;

    c->target = image;
    add(c, "commit");
    add_format(w, c, "-f", image);
    if (one_in(w, 3)) {
        add(c, "-d");
    }
    if (one_in(w, 6)) {
        add(c, "-q -p");
    }
    if (base && one_in(w, 4)) {
        base = base->behind ? (Image *)base->behind : base;
        add(c, "-b %s", base->name);
    }
    c->second_target = base;
    c->copies = image->loose;
    add(c, "%s", image->name);
}

static void make_amend(World *w, Command *c)
{
    Image *image = some_target(w, true);
    const char *option = PICK(w, "compat=0.10", "compat=1.1", "compat=v3", "lazy_refcounts=on",
                         "lazy_refcounts=off", "refcount_bits=1", "refcount_bits=8",
                         "refcount_bits=64", "refcount_bits=16,compat=1.1",
                         "compat=0.10,refcount_bits=16", "cluster_size=64k",
                         "extended_l2=on", "compression_type=zlib", "preallocation=off",
                         "backing_file=,size=8M", "size=4M", "size=8M");

    c->target = image;
    add(c, "amend");
    add_format(w, c, "-f", image);
    if (image->zstd && strstr(option, "compat=0.10")) {
        option = "compat=1.1";  /* the peer forgets how such an image is compressed */
    }
    c->copies = strstr(option, "size=") != NULL;
    add(c, "-o %s", option);
    add(c, "%s", image->name);
}

static void make_dd(World *w, Command *c)
{
    Image *image = some_image(w);

    do {                        /* the peer empties what is to be copied onto itself */
        c->target = some_place(w);
    } while (c->target == image);
    c->copies = true;
    add(c, "dd");
    add_format(w, c, "-f", image);
    if (one_in(w, 2)) {
        add(c, "-O %s", PICK(w, "raw", "qcow2"));
    }
    if (!one_in(w, 3)) {
        add(c, "bs=%s", PICK(w, "512", "4k", "1000", "64k", "1M", "3M"));
    }
    if (one_in(w, 3)) {
        add(c, "count=%d", below(w, 200));
    }
    if (one_in(w, 3)) {
        add(c, "skip=%d", below(w, 50));
    }
    add(c, "if=%s of=%s", image->name, c->target->name);
}

static void make_bitmap(World *w, Command *c)
{
    Image *image = some_target(w, true);

    c->target = image;
    add(c, "bitmap");
    for (int i = below(w, 2); i >= 0; i--) {
        const char *action = PICK(w, "--add", "--add", "--add", "--clear", "--enable",
                                  "--disable", "--remove", "--merge");
        add(c, "%s", action);
        if (!strcmp(action, "--add") && one_in(w, 2)) {
            add(c, "-g %s", PICK(w, "512", "64k", "1M", "1000"));
        } else if (!strcmp(action, "--merge")) {
            add(c, "%s", PICK(w, "b0", "b1", "b2"));
            if (one_in(w, 2)) {
                add(c, "-b %s -F qcow2", some_qcow2(w)->name);
            }
        }
    }
    add_format(w, c, "-f", image);
    add(c, "%s %s", image->name, PICK(w, "b0", "b1", "b2"));
}

static void make_snapshot(World *w, Command *c)
{
    Image *image = some_target(w, true);

    c->target = image;
    add(c, "snapshot");
    if (one_in(w, 4)) {
        add(c, "-l %s", image->name);
    } else {
        add(c, "%s %s %s", PICK(w, "-c", "-c", "-a", "-d"), PICK(w, "s0", "s1", "s2", "1"),
            image->name);
    }
}

static void make_look(World *w, Command *c)
{
    Image *image = some_image(w);

    add(c, "%s", PICK(w, "info", "info --backing-chain", "info --backing-chain --output=json",
                      "check", "check --output=json",
                      "map --output=json --start-offset=70000",
                      "map --output=json --max-length=1M", "map"));
    add_format(w, c, "-f", image);
    add(c, "%s", image->name);
}

static void make_repair(World *w, Command *c)
{
    Image *image = some_target(w, false);

    c->target = image;
    add(c, "check %s %s", PICK(w, "-r leaks", "-r all", "-r all --output=json"), image->name);
}

static const struct {
    void (*make)(World *w, Command *c);
    int weight;
} makers[] = {
    { make_create, 10 }, { make_work, 20 }, { make_convert, 14 },
    { make_convert_onto, 6 }, { make_compare, 4 },
    { make_measure, 6 }, { make_resize, 6 },
    { make_rebase, 10 }, { make_commit, 6 }, { make_amend, 6 },
    { make_dd, 5 }, { make_bitmap, 7 }, { make_snapshot, 7 },
    { make_look, 5 }, { make_repair, 3 },
};

static void command_free(Command *c)
{
    g_string_free(c->text, TRUE);
    g_free(c);
}

static Command *command_new(World *w, void (*make)(World *w, Command *c))
{
    Command *c = g_new0(Command, 1);

    c->text = g_string_new("qemu-img");
    make(w, c);
    return c;
}

static Command *random_command(World *w)
{
    int total = 0;
    gsize i = 0;

    for (gsize k = 0; k < G_N_ELEMENTS(makers); k++) {
        total += makers[k].weight;
    }
    for (int left = below(w, total); left >= makers[i].weight; i++) {
        left -= makers[i].weight;
    }
    return command_new(w, makers[i].make);
}

/* ---- running and comparing -------------------------------------------------------- */

/*
 * TEXT without what each tool chooses for itself, unless PLACES: where in a file data lies,
 * and so how far the file goes and how scattered it is; and which zeroes are data.
 */
static char *without_places(const char *text, bool places)
{
    static const char *const patterns[] = {
        "^ *\"(image-end-offset|fragmented-clusters)\": .*\n",
        "^Image end offset: .*\n", "^[0-9]+/[0-9]+ = .* allocated, .*\n",
        "^ *\"(total|allocated|compressed)-clusters\": .*\n",
    };
    char *out = g_strdup(text);

    for (gsize i = 0; !places && i < G_N_ELEMENTS(patterns); i++) {
        g_autoptr(GRegex) regex = g_regex_new(patterns[i], G_REGEX_MULTILINE, 0, NULL);
        char *next = g_regex_replace(regex, out, -1, 0, "", 0, NULL);
        g_free(out);
        out = next;
    }
    return out;
}

/* The tools run TEXT, each in the directory given. */
static bool same_run(const char *text, const char *our_dir, const char *peer_dir)
{
    bool map = strstr(text, "map --output=json") != NULL;
    bool places = !strcmp(our_dir, peer_dir);
    int our_status, peer_status;
    g_autofree char *ours = diff_run(DIFF_OURS, &our_status, our_dir, "%s", text);
    g_autofree char *peer = diff_run(DIFF_PEER, &peer_status, peer_dir, "%s", text);
    g_autofree char *a = map ? diff_canonical_map(ours, places) : without_places(ours, places);
    g_autofree char *b = map ? diff_canonical_map(peer, places) : without_places(peer, places);

    if (!diff_texts(text, a, b)) {
        return false;
    }
    if (our_status != peer_status) {
        g_test_message("%s: ours ends with %d, the peer with %d; both print\n%s", text,
                       our_status, peer_status, ours);
    }
    return our_status == peer_status;
}

/*
 * The peer sees the layer NAME define the same in both directories. Only for qcow2: which
 * zeroes of a raw file are holes is for each tool to choose.
 */
static bool same_map(const char *name)
{
    g_autofree char *command = g_strdup_printf("qemu-img map --output=json 'json:{"
        "\"driver\": \"qcow2\", \"backing\": null, \"file\": {\"driver\": \"file\", "
        "\"filename\": \"%s\"}}'", name);
    g_autofree char *a = diff_run(DIFF_PEER, NULL, "ours", "%s", command);
    g_autofree char *b = diff_run(DIFF_PEER, NULL, "peer", "%s", command);
    g_autofree char *ours = diff_canonical_map(a, false);
    g_autofree char *peer = diff_canonical_map(b, false);

    return diff_texts("map of the layer by the peer", ours, peer);
}

/* NAME shows the same, is described the same and is without fault in both directories. */
static bool same_image(const Image *image)
{
    const char *name = image->name;
    int status;
    g_autofree char *info = g_strdup_printf("qemu-img info --output=json %s", name);
    g_autofree char *check = g_strdup_printf("qemu-img check %s", name);

    if (!same_run(info, "ours", "peer") || !same_run(check, "ours", "peer") ||
        (!image->loose && !same_map(name))) {
        return false;
    }
    g_autofree char *check_out = diff_run(DIFF_PEER, &status, "ours", "%s", check);
    if (status != 0 && status != 63 && status != 1) {
        g_test_message("the peer says about ours/%s: %s", name, check_out);
        return false;
    }
    g_autofree char *out = diff_run(DIFF_PEER, &status, ".",
                                    "qemu-img compare ours/%s peer/%s", name, name);
    if (status == 1 || status > 2) {
        g_test_message("ours/%s and peer/%s: %s", name, name, out);
        return false;
    }
    return true;
}

/* ---- the set of images ------------------------------------------------------------ */

static void look_at(World *w, Image *image)
{
    g_autofree char *text = NULL;
    t_run2(&text, NULL, "cd peer && qemu-img info --output=json %s", image->name);
    json_t *info = json_loads(text, 0, NULL);
    const char *behind = json_string_value(json_object_get(info, "backing-filename"));

    image->exists = info != NULL;
    image->raw = !g_strcmp0(json_string_value(json_object_get(info, "format")), "raw");
    json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    image->zstd = !g_strcmp0(json_string_value(json_object_get(specific, "compression-type")),
                             "zstd");
    image->v2 = !g_strcmp0(json_string_value(json_object_get(specific, "compat")), "0.10");
    image->length = json_integer_value(json_object_get(info, "virtual-size"));
    image->cluster_bytes = json_integer_value(json_object_get(info, "cluster-size"));
    image->behind = NULL;
    for (int i = 0; behind && i < FILES; i++) {
        if (!strcmp(w->images[i].name, behind)) {
            w->images[i].below = true;
            image->behind = &w->images[i];
        }
    }
    json_decref(info);
}

static void look_at_all(World *w)
{
    for (int i = 0; i < FILES; i++) {
        w->images[i].below = false;
    }
    for (int i = 0; i < FILES; i++) {
        look_at(w, &w->images[i]);
    }
}

/* The peer has found fault with what it has written itself: then there is nothing to learn. */
static bool peer_failed(const Image *image)
{
    int status;
    g_autofree char *out = diff_run(DIFF_PEER, &status, "peer", "qemu-img check %s",
                                    image->name);

    if (status == 2 || status == 3) {
        g_test_message("the peer has damaged its own image: %s", out);
    }
    return status == 2 || status == 3;
}

/* False when the round is over; then *OK says whether all was well. */
static bool run_command(World *w, const Command *c, bool *ok)
{
    *ok = c->target ? same_run(c->text->str, "ours", "peer")
                    : same_run(c->text->str, "ours", "ours") &&
                      same_run(c->text->str, "peer", "peer");
    if (!*ok || !c->target) {
        return *ok;
    }
    if (peer_failed(c->target)) {
        return false;
    }
    c->target->loose = c->copies || (c->target->loose && !strstr(c->text->str, "img create"));
    if (c->second_target) {
        c->second_target->loose |= c->copies;
    }
    *ok = same_image(c->target) && (!c->second_target || same_image(c->second_target));
    look_at_all(w);
    return *ok;
}

static void random_commands(GRand *rand)
{
    World w = { .rand = rand };
    bool ok = true, more = true;

    g_free(t_run_ok("mkdir ours peer"));
    for (int i = 0; i < FILES; i++) {
        w.images[i].name[0] = (char)('a' + i);
    }
    for (int i = 0; more && i < COMMANDS; i++) {
        Command *c = i >= FIRST_COMMANDS ? random_command(&w) :
                     command_new(&w, i % 2 ? make_work : make_create);
        g_test_message("%s", c->text->str);
        more = run_command(&w, c, &ok);
        command_free(c);
    }
    for (int i = 0; more && ok && i < FILES; i++) {
        ok = same_image(&w.images[i]);
    }
    if (!ok) {
        g_test_fail();
    }
}

static void test_random_commands(void)
{
    if (diff_need_peer()) {
        diff_rounds(20, random_commands);
    }
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/diff/img/random-commands", test_random_commands);
    return t_main();
}
