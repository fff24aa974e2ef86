/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of test-diff-img; see diff-img.h. */
#include "tests/interop/diff-img.h"

#include <string.h>

enum { FIRST_COMMANDS = 10 };

/* ---- words ------------------------------------------------------------------------ */

static void add(Command *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void add(Command *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_c(c->text, ' ');
    g_string_append_vprintf(c->text, fmt, ap);
    va_end(ap);
}

/*
 * "-f FORMAT", or nothing. Never raw for what is qcow2: where things lie in a file is for each
 * tool to choose.
 */
static void add_format(World *w, Command *c, const char *option, const Image *image)
{
    if (w_one_in(w, 3)) {
        add(c, "%s %s", option, w_format(image));
    } else if (image->raw && w_one_in(w, 10)) {
        add(c, "%s qcow2", option);
    }
}

/* A list for -o of create, convert, measure; version 3 options only with version 3. */
static char *qcow2_options(World *w, bool preallocate)
{
    GString *s = g_string_new("");
    bool v2 = w_one_in(w, 6), subclusters = !v2 && w_one_in(w, 4);

    if (v2) {
        g_string_append(s, "compat=0.10,");
    }
    if (subclusters) {          /* when it refuses to, the peer deletes what was there */
        g_string_append_printf(s, "extended_l2=on,cluster_size=%s,",
                               W_PICK(w, "16k", "64k", "128k", "2M"));
    } else if (w_one_in(w, 2)) {
        g_string_append_printf(s, "cluster_size=%s,",
                               W_PICK(w, "512", "1k", "4k", "16k", "64k", "128k", "2M"));
    }
    if (!v2 && w_one_in(w, 4)) {
        g_string_append_printf(s, "refcount_bits=%s,", W_PICK(w, "1", "8", "16", "32", "64"));
    }
    if (!v2 && w_one_in(w, 5)) {
        g_string_append(s, "lazy_refcounts=on,");
    }
    if (!v2 && w_one_in(w, 4)) {
        g_string_append(s, "compression_type=zstd,");
    }
    if (preallocate && w_one_in(w, 8)) {
        g_string_append_printf(s, "preallocation=%s,", W_PICK(w, "off", "metadata", "falloc",
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
    Image *image = w_place(w);

    c->target = image;
    add(c, "create");
    if (w_one_in(w, 4)) {
        add(c, "-f raw %s %" G_GINT64_FORMAT, image->name, w_length(w));
        return;
    }
    add(c, "-f qcow2");
    const Image *behind = w_one_in(w, 2) ? w_backing(w, image) : NULL;
    if (behind) {
        add(c, "-b %s -F %s", behind->name, w_format(behind));
    }
    add_qcow2_options(w, c, !behind);
    add(c, "%s", image->name);
    if (!behind || w_one_in(w, 3)) {
        add(c, "%" G_GINT64_FORMAT, w_length(w));
    }
}

/*
 * One request of a guest. Not compressed, as the peer corrupts images then.
 */
static void add_request(World *w, Command *c, const Image *image)
{
    int kind = w_roll(w, 10);
    /* In version 2 the peer takes -z for -zu. */
    const char *what = kind < 7 ? "write -P" : kind < 8 && !image->v2 ? "write -z" :
                       kind < 9 ? "write -zu" : "discard";
    gint64 units = MAX(image->length / 512, 1);
    gint64 offset = g_rand_int_range(w->rand, 0, (gint32)units) * 512;
    gint64 bytes = w_one_in(w, 2) ? 65536 * (1 + w_roll(w, 8)) : 512 * (1 + w_roll(w, 300));

    bytes = MIN(bytes, image->length - offset);
    add(c, "-c '%s", what);
    if (kind < 7) {
        add(c, "%d", w_roll(w, 256));
    }
    add(c, "%" G_GINT64_FORMAT " %" G_GINT64_FORMAT "'", offset, bytes);
}

/* What a guest does. */
static void make_work(World *w, Command *c)
{
    Image *image = w_target(w, false);

    c->target = image;
    g_string_assign(c->text, "qemu-io");
    add(c, "-f %s", w_format(image));
    for (int i = w_roll(w, 6); i >= 0; i--) {
        add_request(w, c, image);
    }
    add(c, "%s", image->name);
}

/* Options of convert that say how, not what. */
static void add_convert_style(World *w, Command *c)
{
    if (w_one_in(w, 4)) {
        add(c, "-m %d", 1 + w_roll(w, 16));
    }
    if (w_one_in(w, 6)) {
        add(c, "-p -q");
    }
    if (w_one_in(w, 4)) {
        add(c, "-S %s", W_PICK(w, "0", "512", "4k", "64k", "1M", "3000"));
    }
    if (w_one_in(w, 8)) {
        add(c, "-t %s", W_PICK(w, "none", "writeback", "writethrough", "unsafe"));
    }
    if (w_one_in(w, 8)) {
        add(c, "-T %s", W_PICK(w, "none", "writeback", "writethrough", "unsafe"));
    }
    if (w_one_in(w, 10)) {
        add(c, "%s", W_PICK(w, "--salvage", "-C", "-r 1G"));
    }
}

/* What is copied: one image or several, or a snapshot. Whether one of them is loose. */
static bool add_convert_sources(World *w, Command *c)
{
    Image *image = w_one_in(w, 6) ? w_qcow2(w) : w_image(w);
    bool snapshot = !image->raw && !image->resized && w_one_in(w, 4), loose = false;

    if (snapshot) {
        add(c, "-l %s", W_PICK(w, "s0", "s1", "s2", "1", "snapshot.name=s0"));
    }
    if (snapshot || !w_one_in(w, 8)) {
        add_format(w, c, "-f", image);
        add(c, "%s", image->name);
        return image->loose;
    }
    for (int i = w_roll(w, 3); i >= 0; i--) {
        image = w_image(w);
        loose |= image->loose;
        add(c, "%s", image->name);
    }
    return loose;
}

static void make_convert(World *w, Command *c)
{
    bool raw = w_one_in(w, 3), compress = !raw && w_one_in(w, 3);

    c->target = w_place(w);
    const Image *behind = w_one_in(w, 8) ? w_backing(w, c->target) : NULL;
    c->copies = true;
    add(c, "convert");
    add_convert_style(w, c);
    if (!behind && w_one_in(w, 4)) {
        add(c, "-W");           /* with -B the peer loses zeroes in parts of clusters */
    }
    if (compress || w_one_in(w, 20)) {
        add(c, "-c");
    }
    if (raw) {
        add(c, "%s", W_PICK(w, "-O raw", "-O raw -o preallocation=falloc", ""));
    } else {
        add(c, "-O qcow2");
        add_qcow2_options(w, c, !compress && !behind);
    }
    if (w_one_in(w, 8)) {
        add(c, "--bitmaps%s", w_one_in(w, 3) ? " --skip-broken-bitmaps" : "");
    }
    bool loose = add_convert_sources(w, c);
    if (behind && !loose) {     /* else what shows through differs */
        add(c, "-B %s -F %s", behind->name, w_format(behind));
    }
    add(c, "%s", c->target->name);
}

/* Onto an image that is there. */
static void make_convert_onto(World *w, Command *c)
{
    Image *target = w_target(w, false);

    c->target = target;
    c->copies = true;
    add(c, "convert -n");
    add_convert_style(w, c);
    if (w_one_in(w, 4)) {
        add(c, "-W");
    }
    add(c, "-O %s", w_format(target));
    if (w_one_in(w, 8)) {
        add(c, "--bitmaps%s", w_one_in(w, 3) ? " --skip-broken-bitmaps" : "");
    }
    add_convert_sources(w, c);
    add(c, "%s", target->name);
}

static void make_compare(World *w, Command *c)
{
    Image *a = w_image(w), *b = w_image(w);

    add(c, "compare");          /* not -s: for the peer the end of a file is a kind of data */
    if (w_one_in(w, 8)) {
        add(c, "%s", W_PICK(w, "-q", "-U", "-T none"));
    }
    add_format(w, c, "-f", a);
    add_format(w, c, "-F", b);
    add(c, "%s %s", a->name, b->name);
}

static void make_measure(World *w, Command *c)
{
    add(c, "measure");
    if (w_one_in(w, 2)) {
        add(c, "--output=json");
    }
    if (!w_one_in(w, 4)) {
        add(c, "-O qcow2");
        add_qcow2_options(w, c, true);
    }
    if (w_one_in(w, 5)) {
        add(c, "--size %" G_GINT64_FORMAT, w_length(w) << w_roll(w, 30));
        return;
    }
    Image *image = w_image(w);
    if (!image->resized && w_one_in(w, 5)) {
        add(c, "-l %s", W_PICK(w, "s0", "s1", "2"));
    }
    add_format(w, c, "-f", image);
    add(c, "%s", image->name);
}

static void make_resize(World *w, Command *c)
{
    Image *image = w_target(w, false);

    c->target = image;
    c->copies = true;           /* zeroes, where what is behind would show */
    add(c, "resize");
    add_format(w, c, "-f", image);
    if (w_one_in(w, 3)) {
        add(c, "--shrink");
    }
    /* The peer takes old tables of bitmaps for zeroes, and loses a compressed last cluster. */
    bool sound = !image->bitmaps && image->length % MAX(image->cluster_bytes, 512) == 0;
    if (sound && w_one_in(w, 4)) {
        add(c, "--preallocation=%s", W_PICK(w, "off", "metadata", "falloc", "full"));
    }
    gint64 length = w_one_in(w, 2) ? w_length(w)
                                   : image->length + 65536 * (w_roll(w, 99) - 49);
    if (image->v2 && image->behind) {
        length = MIN(length, image->length);        /* the peer cannot have these grow */
    }
    if (length < image->length && !image->raw) {
        /* No cuts in clusters: the peer shows the rest again when the image has grown. */
        length -= length % MAX(image->cluster_bytes, 1);
    }
    if (image->bitmaps) {                           /* the peer loses those of nothing */
        length = MAX(length, image->cluster_bytes);
    }
    if (length < 0 || w_one_in(w, 2)) {
        add(c, "%s %+" G_GINT64_FORMAT, image->name, length - image->length);
    } else {
        add(c, "%s %" G_GINT64_FORMAT, image->name, length);
    }
}

static void make_rebase(World *w, Command *c)
{
    Image *image = w_target(w, true);
    const Image *behind = w_backing(w, image);

    c->target = image;
    c->copies = image->loose || (behind && behind->loose);
    c->moves = true;
    add(c, "rebase");
    add_format(w, c, "-f", image);
    if (w_one_in(w, 6)) {
        add(c, "%s", W_PICK(w, "-p -q", "-t writethrough", "-T none"));
    }
    if (!image->loose && w_one_in(w, 6)) {
        add(c, "-u");           /* shows what is behind by what the image defines */
    }
    if (!behind || w_one_in(w, 5)) {
        add(c, "-b ''");
    } else {
        add(c, "-b %s -F %s", behind->name, w_format(behind));
    }
    add(c, "%s", image->name);
}

static void make_commit(World *w, Command *c)
{
    Image *image = w_target(w, true), *base = (Image *)image->behind;

    c->target = image;
    add(c, "commit");
    add_format(w, c, "-f", image);
    if (w_one_in(w, 3)) {
        add(c, "-d");
    }
    if (w_one_in(w, 6)) {
        add(c, "%s", W_PICK(w, "-q -p", "-t unsafe", "-r 1G"));
    }
    if (base && w_one_in(w, 4)) {
        base = base->behind ? (Image *)base->behind : base;
        add(c, "-b %s", base->name);
    }
    c->second_target = base;
    /*
     * A base that grows gets zeroes as far as what is behind it reaches, or to its new end.
     * And the zeroes around data in a cluster may be a hole of the file, which a base of
     * smaller clusters then does not get; with the peer that depends on the file system.
     */
    c->copies = image->loose || (base && base->behind && base->length < image->length) ||
                (base && !base->raw && base->cluster_bytes < image->cluster_bytes);
    c->moves = true;
    add(c, "%s", image->name);
}

/* Not refcount_bits together with compat=0.10: when the peer refuses, one is done. */
static void make_amend(World *w, Command *c)
{
    Image *image = w_target(w, true);
    const char *option = W_PICK(w, "compat=0.10", "compat=1.1", "compat=v3",
        "lazy_refcounts=on", "lazy_refcounts=off", "refcount_bits=1", "refcount_bits=8",
        "refcount_bits=64", "refcount_bits=16,compat=1.1", "refcount_bits=16",
        "cluster_size=64k", "extended_l2=on", "compression_type=zlib", "preallocation=off",
        "backing_file=,size=8M", "size=4M", "size=8M");

    c->target = image;
    add(c, "amend");
    add_format(w, c, "-f", image);
    if (image->zstd && strstr(option, "compat=0.10")) {
        option = "compat=1.1";  /* the peer forgets how such an image is compressed */
    }
    if (image->v2 && image->behind && strstr(option, "size=")) {
        option = "compat=1.1";
    }
    c->copies = strstr(option, "size=") != NULL;
    const Image *behind = image->loose ? NULL : w_backing(w, image);
    if (behind && w_one_in(w, 6)) {
        add(c, "-o backing_file=%s,backing_fmt=%s", behind->name, w_format(behind));
    } else {
        add(c, "-o %s", option);
    }
    add(c, "%s", image->name);
}

static void make_dd(World *w, Command *c)
{
    Image *image = w_image(w);

    do {                        /* the peer empties what is to be copied onto itself */
        c->target = w_place(w);
    } while (c->target == image);
    c->copies = true;
    add(c, "dd");
    add_format(w, c, "-f", image);
    if (w_one_in(w, 2)) {
        add(c, "-O %s", W_PICK(w, "raw", "qcow2"));
    }
    if (!w_one_in(w, 3)) {
        add(c, "bs=%s", W_PICK(w, "512", "4k", "1000", "64k", "1M", "3M"));
    }
    if (w_one_in(w, 3)) {
        add(c, "count=%d", w_roll(w, 200));
    }
    if (w_one_in(w, 3)) {
        add(c, "skip=%d", w_roll(w, 50));
    }
    add(c, "if=%s of=%s", image->name, c->target->name);
}

static void make_bitmap(World *w, Command *c)
{
    Image *image = w_target(w, true);

    c->target = image;
    add(c, "bitmap");
    for (int i = w_roll(w, 2); i >= 0; i--) {
        const char *action = W_PICK(w, "--add", "--add", "--add", "--clear", "--enable",
                                    "--disable", "--remove", "--merge");
        if (image->length == 0 && !strcmp(action, "--add")) {
            action = "--remove";        /* as in make_resize() */
        }
        add(c, "%s", action);
        if (!strcmp(action, "--add") && w_one_in(w, 2)) {
            add(c, "-g %s", W_PICK(w, "512", "64k", "1M", "1000"));
        } else if (!strcmp(action, "--merge")) {
            add(c, "%s", W_PICK(w, "b0", "b1", "b2"));
            if (w_one_in(w, 2)) {
                add(c, "-b %s -F qcow2", w_qcow2(w)->name);
            }
        }
    }
    add_format(w, c, "-f", image);
    add(c, "%s %s", image->name, W_PICK(w, "b0", "b1", "b2"));
}

static void make_snapshot(World *w, Command *c)
{
    Image *image = w_target(w, true);

    c->target = image;
    add(c, "snapshot");
    /* Refcounts of one bit leave room for a snapshot only if there are no clusters at all. */
    if (w_one_in(w, 4) || (image->one_bit && image->moved)) {
        add(c, "-l %s", image->name);
    } else {
        /* Going to one of a raw image, the peer opens it twice, and warns twice. */
        const char *what = image->raw ? W_PICK(w, "-c", "-d")
                         : W_PICK(w, "-c", "-c", "-a", "-d");
        add(c, "%s %s %s", what, W_PICK(w, "s0", "s1", "s2", "1"), image->name);
    }
}

/* The guest's view of what is allocated. */
static void make_io_look(World *w, Command *c)
{
    Image *image = w_image(w);
    gint64 offset = w_length(w) / 512 * 512;

    g_string_assign(c->text, "qemu-io");
    add(c, "-r -f %s -c map -c length -c 'alloc %" G_GINT64_FORMAT " 1M'"
        " -c 'read -v %" G_GINT64_FORMAT " 64' -c info %s", w_format(image), offset,
        MAX(offset - 32, 0), image->name);
}

static void make_look(World *w, Command *c)
{
    Image *image = w_image(w);

    add(c, "%s", W_PICK(w, "info", "info --backing-chain",
                      "info --backing-chain --output=json",
                      "check", "check --output=json",
                      "map --output=json --start-offset=70000",
                      "map --output=json --max-length=1M", "map"));
    add_format(w, c, "-f", image);
    add(c, "%s", image->name);
}

static void make_repair(World *w, Command *c)
{
    Image *image = w_target(w, false);

    c->target = image;
    add(c, "check");
    if (!image->snapshots || !image->bitmaps) {     /* the peer forgets the snapshots then */
        add(c, "%s", W_PICK(w, "-r leaks", "-r all", "-r all --output=json"));
    }
    add(c, "%s", image->name);
}

static const struct {
    void (*make)(World *w, Command *c);
    int weight;
} makers[] = {
    { make_create, 10 }, { make_work, 20 }, { make_convert, 14 },
    { make_convert_onto, 6 }, { make_compare, 4 },
    { make_measure, 6 }, { make_resize, 6 },
    { make_rebase, 10 }, { make_commit, 6 }, { make_amend, 6 },
    { make_dd, 5 }, { make_bitmap, 12 }, { make_snapshot, 7 },
    { make_look, 5 }, { make_io_look, 2 }, { make_repair, 3 },
};

void w_command_free(Command *c)
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

Command *w_command(World *w, int n)
{
    int total = 0;
    gsize i = 0;

    if (n < FIRST_COMMANDS) {
        return command_new(w, n % 2 ? make_work : make_create);
    }
    for (gsize k = 0; k < G_N_ELEMENTS(makers); k++) {
        total += makers[k].weight;
    }
    for (int left = w_roll(w, total); left >= makers[i].weight; i++) {
        left -= makers[i].weight;
    }
    return command_new(w, makers[i].make);
}
