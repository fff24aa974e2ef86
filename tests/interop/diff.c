/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rounds, random geometries and scripts, running both tools; see diff.h. */
#include "tests/interop/diff.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- both tools ------------------------------------------------------------------- */

/* A directory with our tools under the peer's names. */
static const char *our_dir(void)
{
    static char *dir;

    if (!dir) {
        g_autofree char *img = t_tool("miniblk-img");
        g_autofree char *io = t_tool("miniblk-io");
        dir = t_path("as-peer");
        g_free(t_run_ok("mkdir -p %s && ln -sf %s %s/qemu-img && ln -sf %s %s/qemu-io", dir,
                        img, dir, io, dir));
    }
    return dir;
}

bool diff_need_peer(void)
{
    return t_need("qemu-img") && t_need("qemu-io");
}

/*
 * What differs between releases of the peer or from run to run:
 * - disk size: a file system's business, and how each tool lays the file out
 * - the block of each child node (since 8.0), and with it "children" in JSON
 * - "compressed" in a JSON map (since 8.2); times; who holds a lock, and
 *   what to do about it, which the peer does not say
 */
static char *filtered(const char *text)
{
    static const struct {
        const char *pattern, *replacement;
    } filters[] = {
        { "disk size: .*", "disk size: X" },
        { "\"actual-size\": [0-9]+", "\"actual-size\": X" },
        { ", \"compressed\": (true|false)", "" },
        { "^Child node.*\n(    .*\n)*", "" },
        { "^( {4}| {8})\"children\": \\[\n(.*\n)*?\\1\\],\n", "" },
        { "; .*\\(.*ops/sec\\)", "; TIME" },
        { "#block[0-9]+", "#blockN" }, { "device '#blockN'", "device ''" },
        { "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}", "DATE" },
        { "\"(date|vm-clock)-n?sec\": [0-9]+", "\"\\1\": X" },
        { " \\(process [^)]*\\)$", "" },
        { "^With -U it is read all the same.*\n", "" },
        { "\n\n+", "\n" },
    };
    char *out = g_strdup(text);

    for (gsize i = 0; i < G_N_ELEMENTS(filters); i++) {
        g_autoptr(GRegex) regex = g_regex_new(filters[i].pattern, G_REGEX_MULTILINE, 0, NULL);
        char *next = g_regex_replace(regex, out, -1, 0, filters[i].replacement, 0,
                                             NULL);
        g_free(out);
        out = next;
    }
    return out;
}

static char *run(DiffTool tool, int *status, const char *dir, const char *command)
{
    g_autofree char *out = NULL;
    int ret = t_run(&out, "cd %s && PATH=%s:$PATH && %s", dir,
                    tool == DIFF_OURS ? our_dir() : "/nowhere", command);

    if (status) {
        *status = ret;
    }
    return filtered(out);
}

char *diff_run(DiffTool tool, int *status, const char *dir, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return run(tool, status, dir, command);
}

bool diff_texts(const char *what, const char *ours, const char *peer)
{
    g_auto(GStrv) a = g_strsplit(ours, "\n", -1);
    g_auto(GStrv) b = g_strsplit(peer, "\n", -1);
    guint i = 0;

    while (a[i] && b[i] && !strcmp(a[i], b[i])) {
        i++;
    }
    if (!a[i] && !b[i]) {
        return true;
    }
    g_test_message("%s, line %u\n  ours: %s\n  peer: %s", what, i + 1, a[i] ? a[i] : "(end)",
                   b[i] ? b[i] : "(end)");
    return false;
}

bool diff_good(const char *dir, const char *command)
{
    int our_status, peer_status;
    g_autofree char *ours = run(DIFF_OURS, &our_status, dir, command);
    g_autofree char *peer = run(DIFF_PEER, &peer_status, dir, command);
    g_autofree char *what = g_strdup_printf("%s: %s", dir, command);
    if (!diff_texts(what, ours, peer)) {
        return false;
    }
    if (our_status != 0 || peer_status != 0) {
        g_test_message("%s: ours ends with %d, the peer with %d, both print\n%s", what,
                       our_status, peer_status, ours);
        return false;
    }
    return true;
}

/* The place of a map's ENTRY in the file relative to that in the guest, and what it is. */
static char *describe_places(json_t *entry)
{
    json_int_t start = json_integer_value(json_object_get(entry, "start"));
    json_int_t offset = json_integer_value(json_object_get(entry, "offset"));
    bool data = json_is_true(json_object_get(entry, "data"));

    return g_strdup_printf(", zero %d, data %d, shift %" JSON_INTEGER_FORMAT,
                           json_is_true(json_object_get(entry, "zero")), data,
                           data ? offset - start : 0);
}

char *diff_canonical_map(const char *text, bool places)
{
    json_t *map = json_loads(text, 0, NULL), *entry;
    GString *out = g_string_new(map ? NULL : text);
    g_autofree char *previous = g_strdup("");
    size_t i;

    json_array_foreach(map, i, entry) {
        g_autofree char *place = places ? describe_places(entry) : g_strdup("");
        char *now = g_strdup_printf("depth %d, present %d%s\n",
            (int)json_integer_value(json_object_get(entry, "depth")),
            json_is_true(json_object_get(entry, "present")), place);
        if (strcmp(now, previous) != 0) {
            g_string_append_printf(out, "%" JSON_INTEGER_FORMAT ": %s",
                                   json_integer_value(json_object_get(entry, "start")), now);
        }
        g_free(previous);
        previous = now;
    }
    json_decref(map);
    return g_string_free(out, FALSE);
}

/* ---- rounds ----------------------------------------------------------------------- */

static void run_round(guint32 seed, void (*round)(GRand *rand))
{
    GRand *rand = g_rand_new_with_seed(seed);

    g_free(t_run_ok("rm -rf ours peer"));
    round(rand);
    g_rand_free(rand);
    if (g_test_failed()) {
        g_test_message("that was MINIBLK_SEED=%u", seed);
    }
}

void diff_rounds(int rounds, void (*round)(GRand *rand))
{
    const char *only = g_getenv("MINIBLK_SEED");
    const char *seconds = g_getenv("MINIBLK_DIFF_SECONDS");
    gint64 end = g_get_monotonic_time() + G_TIME_SPAN_SECOND * (seconds ? atoi(seconds) : 0);
    guint32 seed = seconds ? g_random_int() : 1;
    int n = 0;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    rounds /= 2;        /* the first of those that run natively, too */
#endif

    if (only) {
        run_round((guint32)strtoul(only, NULL, 10), round);
        return;
    }
    while (!g_test_failed() && (seconds ? g_get_monotonic_time() < end : n < rounds)) {
        run_round(seed + n, round);
        n++;
    }
    g_test_message("%d rounds from MINIBLK_SEED=%u on", n, seed);
}

/* ---- geometries ------------------------------------------------------------------- */

static gint64 pick(GRand *rand, const gint64 *values, int n)
{
    return values[g_rand_int_range(rand, 0, n)];
}
#define PICK(rand, ...)                                                         \
    pick(rand, (const gint64[]){ __VA_ARGS__ },                                 \
         sizeof((const gint64[]){ __VA_ARGS__ }) / sizeof(gint64))

static bool one_in(GRand *rand, int n)
{
    return g_rand_int_range(rand, 0, n) == 0;
}

/* Whether our tools can do what a shell command tries. Asked once. */
static bool can(const char *command)
{
    static GHashTable *answers;
    int status;

    answers = answers ? answers : g_hash_table_new(g_str_hash, g_str_equal);
    if (!g_hash_table_contains(answers, command)) {
        g_free(t_run_ok("mkdir -p probe"));
        g_free(run(DIFF_OURS, &status, "probe", command));
        bool peer_too = false;
        if (status == 0) {
            g_free(run(DIFF_PEER, &status, "probe", command));
            peer_too = status == 0;
        }
        g_hash_table_insert(answers, (gpointer)command, GINT_TO_POINTER(peer_too));
    }
    return GPOINTER_TO_INT(g_hash_table_lookup(answers, command));
}

static void add_option(DiffGeometry *g, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void add_option(DiffGeometry *g, const char *fmt, ...)
{
    va_list ap;

    if (g->options->len) {
        g_string_append_c(g->options, ',');
    }
    va_start(ap, fmt);
    g_string_append_vprintf(g->options, fmt, ap);
    va_end(ap);
}

static void add_features(DiffGeometry *g, GRand *rand)
{
    bool raw_data = false;

    int refcount_bits = (int)PICK(rand, 1, 2, 4, 8, 16, 16, 16, 32, 64);
    add_option(g, "refcount_bits=%d", refcount_bits);
    /* Each compressed cluster counts, and only ours writes them: where it ends differs. */
    g->snapshots = refcount_bits >= 16;
    if (one_in(rand, 3)) {
        add_option(g, "lazy_refcounts=on");
    }
    if (g->cluster_bytes >= 16384 && one_in(rand, 3) &&
        can("qemu-img create -f qcow2 -o extended_l2=on,cluster_size=64k x 1M")) {
        add_option(g, "extended_l2=on");
        g->same_layers = false;     /* a discard looks at what holds a place in the file */
    }
    if (one_in(rand, 3) &&
        can("qemu-img create -f qcow2 -o compression_type=zstd x 1M && "
            "qemu-io -c 'write -c 0 64k' x")) {
        add_option(g, "compression_type=zstd");
    }
    if (one_in(rand, 5) &&
        can("qemu-img create -f qcow2 -o data_file=d,data_file_raw=on x 1M && "
            "qemu-io -c 'write 0 64k' x")) {
        raw_data = !*g->backing && one_in(rand, 2);
        add_option(g, "data_file=$PWD/img.data%s", raw_data ? ",data_file_raw=on" : "");
        g->compress = false;
        g->snapshots = false;
    }
}

static void add_backing(DiffGeometry *g, GRand *rand)
{
    gint64 base_length = MAX(512, g->length * PICK(rand, 1, 2, 3, 4, 6) / 4 / 512 * 512);
    bool raw = one_in(rand, 2);
    const char *format = raw ? "raw" : "qcow2";
    GString *s = g_string_new(NULL);

    g_string_printf(s, "qemu-img create -q -f %s base %" G_GINT64_FORMAT
                    " && qemu-io -f %s", format, base_length, format);
    for (gint64 pos = 0; pos < base_length; pos += base_length / 4 + 1) {
        g_string_append_printf(s, " -c 'write -P %d %" G_GINT64_FORMAT " %" G_GINT64_FORMAT
                               "'", g_rand_int_range(rand, 1, 256), pos,
                               MIN(base_length / 6 + 1, base_length - pos));
    }
    g_string_append(s, " base");
    g_free(g->base_create);
    g_free(g->backing);
    g->base_create = g_string_free(s, FALSE);
    g->backing = g_strdup_printf("-b base -F %s", format);
}

DiffGeometry *diff_geometry_new(GRand *rand)
{
    DiffGeometry *g = g_new0(DiffGeometry, 1);

    g->cluster_bytes = PICK(rand, 512, 512, 1024, 2048, 4096, 4096, 8192, 16384, 32768,
                            65536, 65536, 131072, 524288, 2097152);
    g->length = MIN(g->cluster_bytes * g_rand_int_range(rand, 3, 3000), 24 << 20) +
                512 * PICK(rand, 0, 0, 1, g_rand_int_range(rand, 0, 100));
    g->v2 = one_in(rand, 5);
    g->compress = true;
    g->snapshots = true;
    g->same_layers = !g->v2;        /* which takes zeroes for data, or leaves them out */
    g->options = g_string_new(NULL);
    g->base_create = g_strdup("");
    g->backing = g_strdup("");
    add_option(g, "cluster_size=%" G_GINT64_FORMAT, g->cluster_bytes);
    if (one_in(rand, 2)) {
        add_backing(g, rand);
    } else if (one_in(rand, 4)) {
        add_option(g, "preallocation=metadata");
        g->compress = false;
    }
    if (g->v2) {
        add_option(g, "compat=0.10");
    } else {
        add_features(g, rand);
    }
    return g;
}

void diff_geometry_free(DiffGeometry *g)
{
    g_string_free(g->options, TRUE);
    g_free(g->base_create);
    g_free(g->backing);
    g_free(g);
}

void diff_create(DiffTool tool, const DiffGeometry *g, const char *dir)
{
    int status;

    g_free(t_run_ok("mkdir -p %s", dir));
    g_autofree char *out = diff_run(tool, &status, dir,
        "%s%s qemu-img create -q -f qcow2 -o %s %s img %" G_GINT64_FORMAT, g->base_create,
        *g->base_create ? " >/dev/null &&" : "", g->options->str, g->backing, g->length);
    if (status != 0) {
        g_test_message("create -o %s %s: %s", g->options->str, g->backing, out);
        g_test_fail();
    }
}

/* ---- scripts ---------------------------------------------------------------------- */

typedef struct Range {
    gint64 offset, bytes;
} Range;

/* Where something goes wrong, if it does: at and around the ends of clusters. */
static Range random_range(GRand *rand, const DiffGeometry *g)
{
    gint64 bytes_max = MIN(g->length, MAX(4 * g->cluster_bytes, 64 << 10));
    gint64 clusters = (g->length + g->cluster_bytes - 1) / g->cluster_bytes;
    Range r;

    r.offset = g_rand_int_range(rand, 0, clusters) * g->cluster_bytes;
    if (one_in(rand, 2)) {
        r.offset += PICK(rand, -512, -1, 1, 511, 512, g->cluster_bytes / 2,
                         g->cluster_bytes / 32);
    }
    r.bytes = one_in(rand, 2) ? g->cluster_bytes * g_rand_int_range(rand, 1, 4)
                              : g_rand_int_range(rand, 1, bytes_max + 1);
    r.offset = CLAMP(r.offset, 0, g->length - 1);
    r.bytes = MIN(r.bytes, g->length - r.offset);
    return r;
}

static void add_command(GString *s, const char *command, Range r)
{
    g_string_append_printf(s, "%s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT "\n", command,
                           r.offset, r.bytes);
}

/*
 * Not for version 2 images with a backing file: the peer does not let them grow. And no cuts
 * within a cluster: the peer shows the rest of it again when the image grows.
 */
static void add_truncate(GString *s, GRand *rand, DiffGeometry *g)
{
    gint64 clusters = g->length / g->cluster_bytes + g_rand_int_range(rand, -20, 40);
    gint64 length = CLAMP(clusters, 2, 65536) * g->cluster_bytes;

    if (length > g->length) {
        length += 512 * PICK(rand, 0, 0, 1, 3);
        g->same_layers &= !*g->backing;     /* zeroes where that reaches, or everywhere */
    }
    g->length = length;
    g_string_append_printf(s, "truncate %" G_GINT64_FORMAT "\n", g->length);
}

/* Some bytes around an end of R. */
static void add_look(GString *s, GRand *rand, const DiffGeometry *g, Range r)
{
    gint64 at = one_in(rand, 2) ? r.offset : r.offset + r.bytes;
    Range look = { .offset = CLAMP(at - 8, 0, g->length - 1) };

    look.bytes = MIN(24, g->length - look.offset);
    add_command(s, "read -v", look);
}

static void add_random_command(GString *s, GRand *rand, DiffGeometry *g)
{
    Range r = random_range(rand, g);
    int kind = g_rand_int_range(rand, 0, 100);

    if (kind < 45) {
        g_autofree char *command = g_strdup_printf("write -P %d",
                                                   g_rand_int_range(rand, 0, 256));
        add_command(s, command, r);
    } else if (kind < 60) {
        add_command(s, one_in(rand, 2) ? "write -z" : "write -zu", r);
    } else if (kind < 72) {
        add_command(s, "discard", r);
    } else if (kind < 82 && g->compress) {
        g_autofree char *command = g_strdup_printf(DIFF_COMPRESS " -P %d",
                                                   g_rand_int_range(rand, 1, 256));
        gint64 end = MIN(r.offset + r.bytes + g->cluster_bytes, g->length);
        r.offset -= r.offset % g->cluster_bytes;
        r.bytes = end == g->length ? end - r.offset
                                   : (end - r.offset) / g->cluster_bytes * g->cluster_bytes;
        add_command(s, command, r);
    } else if (kind < 84 && !(g->v2 && *g->backing) && !g->snapshots_taken) {
        add_truncate(s, rand, g);
        return;
    } else if (kind < 87) {
        g_string_append(s, "flush\n");
        return;
    } else {
        add_look(s, rand, g, r);
        return;
    }
    add_look(s, rand, g, r);
}

char *diff_script(GRand *rand, DiffGeometry *g, int n)
{
    GString *s = g_string_new(NULL);

    for (int i = 0; i < n; i++) {
        add_random_command(s, rand, g);
    }
    return g_string_free(s, FALSE);
}

char *diff_plain_script(const char *script)
{
    g_auto(GStrv) parts = g_strsplit(script, DIFF_COMPRESS, -1);

    return g_strjoinv("write", parts);
}

char *diff_snapshot_command(GRand *rand, DiffGeometry *g)
{
    int which = g_rand_int_range(rand, 0, g->snapshots_taken + 1);

    if (!g->snapshots || one_in(rand, 2)) {
        return NULL;
    }
    if (which == g->snapshots_taken) {
        return g_strdup_printf("qemu-img snapshot -c s%d img", g->snapshots_taken++);
    }
    return g_strdup_printf("qemu-img snapshot %s s%d img", one_in(rand, 2) ? "-a" : "-d",
                           which);
}
