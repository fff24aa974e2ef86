/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 and power failures, on the evidence of what reached the protocol layer: a mixed
 * workload (writes, discards, zeroes, compressed writes, resizes, snapshots) runs above the
 * filter "blklogwrites". Then power fails at every place of the log:
 *
 *     log:   w w w F w w w w F w w            kind 0: what stands before "here", all of it
 *                        ^ here               kind 1: of what no flush covers, any part
 *                                             kind 2: and of these, any sectors
 *
 * What is then on the disk must be an image that our checker, and now and then the peer's,
 * find without corruption, as it lies there (leaks are fine; with lazy refcounts, after it was
 * opened for writing). A repair leaves no leaks, and loses nothing. Its
 * size and each of its sectors must be as after the last flush the guest saw the end of, or
 * as after something done since; and each snapshot must show what it was taken of. Rounds go
 * on until the time is over; MINIBLK_SEED=N repeats one, MINIBLK_CRASH_SECONDS=N makes the
 * time longer.
 */
#include "qcow2-test.h"
#include "log-writes.h"
#include "memory-disk.h"
#include "miniblk/snapshot.h"

enum {
    SECTOR = 512, SECTORS_MIN = 64, SECTORS_MAX = 1536, STEPS = 24, SNAPSHOTS_MAX = 64,
    PLACES_PER_ROUND = 80, SECONDS = 12,
};

/* What the guest sees: one value for each sector. */
typedef struct View {
    int sectors;
    uint8_t value[SECTORS_MAX];
} View;

typedef struct Step {
    char *what;
    uint64_t log_begin, log_end;        /* bytes of the log when it began and had ended */
    bool flush;                         /* all before it is durable when it has ended */
    int64_t disk_bytes;                 /* of the image: the log does not tell of cuts */
    View after;
} Step;

typedef struct Round {
    GRand *rand;
    guint32 seed;
    char *create;
    char *disk, *log_path;
    GByteArray *before;                 /* the image's file when logging began */
    GArray *steps;                      /* Step; the first is the state at that time */
    GHashTable *snapshots;              /* name -> View */
    int snapshots_taken;
    Log log;
} Round;

static bool one_in(Round *r, int n)
{
    return g_rand_int_range(r->rand, 0, n) == 0;
}

/* ---- the workload ------------------------------------------------------------------ */

static void read_view(BlockBackend *blk, View *view)
{
    int64_t bytes = blk_getlength(blk);

    g_assert_cmpint(bytes, >=, 0);
    g_assert_cmpint(bytes, <=, SECTORS_MAX * SECTOR);
    view->sectors = bytes / SECTOR;
    g_autofree uint8_t *data = g_malloc(bytes);
    g_assert_cmpint(blk_pread(blk, 0, bytes, data, 0), ==, 0);
    for (int i = 0; i < view->sectors; i++) {
        view->value[i] = data[i * SECTOR];
        assert_bytes(data + i * SECTOR, SECTOR, view->value[i]);
    }
}

typedef enum StepKind { STEP_CHANGE, STEP_FLUSH } StepKind;

static void end_step(Round *r, BlockBackend *blk, char *what, StepKind kind)
{
    Step step = { .what = what, .flush = kind == STEP_FLUSH };

    if (r->steps->len) {
        step.log_begin = g_array_index(r->steps, Step, r->steps->len - 1).log_end;
    }
    step.log_end = file_bytes(r->log_path);
    step.disk_bytes = file_bytes(r->disk);
    read_view(blk, &step.after);
    g_array_append_val(r->steps, step);
}

/* Requests of several kinds, at once, on ranges that do not overlap. */
static void step_requests(Round *r, BlockBackend *blk)
{
    static const OpType types[] = { OP_WRITE, OP_WRITE, OP_WRITE, OP_ZERO, OP_UNMAP,
                                    OP_DISCARD };
    enum { BATCH = 5 };
    int sectors = blk_getlength(blk) / SECTOR, pos = 0, n = 0;
    GString *what = g_string_new(NULL);
    Op ops[BATCH];

    while (n < BATCH) {
        int first = pos + g_rand_int_range(r->rand, 0, sectors / 2);
        int len = g_rand_int_range(r->rand, 1, sectors / 4);
        if (first >= sectors) {
            break;
        }
        len = MIN(len, sectors - first);
        ops[n] = (Op){ .blk = blk, .offset = first * SECTOR, .bytes = len * SECTOR,
                       .type = types[g_rand_int_range(r->rand, 0, ARRAY_SIZE(types))],
                       .buf = g_malloc(len * SECTOR) };
        memset(ops[n].buf, g_rand_int_range(r->rand, 1, 256), len * SECTOR);
        g_string_append_printf(what, "%s%d %d+%d", n ? ", " : "", ops[n].type, first, len);
        pos = first + len;
        n++;
    }
    run_ops(ops, n);
    for (int i = 0; i < n; i++) {
        g_assert_cmpint(ops[i].ret, ==, 0);
        g_free(ops[i].buf);
    }
    end_step(r, blk, g_string_free(what, FALSE), STEP_CHANGE);
}

static void step_compressed(Round *r, BlockBackend *blk)
{
    BlockDriverInfo bdi;
    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &bdi), ==, 0);
    int64_t clusters = blk_getlength(blk) / bdi.cluster_size;
    g_autofree uint8_t *buf = g_malloc(bdi.cluster_size);

    for (int i = g_rand_int_range(r->rand, 1, 5); i > 0 && clusters > 0; i--) {
        memset(buf, g_rand_int_range(r->rand, 1, 256), bdi.cluster_size);
        int64_t at = g_rand_int_range(r->rand, 0, clusters) * (int64_t)bdi.cluster_size;
        int ret = blk_pwrite_compressed(blk, at, bdi.cluster_size, buf);
        g_assert_cmpint(ret, ==, 0);
    }
    end_step(r, blk, g_strdup("compressed writes"), STEP_CHANGE);
}

static void step_resize(Round *r, BlockBackend *blk)
{
    int sectors = g_rand_int_range(r->rand, SECTORS_MIN, SECTORS_MAX + 1);
    Error *err = NULL;
    int ret = blk_truncate(blk, sectors * SECTOR, true, PREALLOC_MODE_OFF, 0, &err);

    /* Not every image lets itself be resized while it has snapshots. */
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -ENOTSUP);
        error_free(err);
    }
    end_step(r, blk, g_strdup_printf("resize to %d: %d", sectors, ret), STEP_CHANGE);
}

/* (durable when the call returns) */
static void step_snapshot(Round *r, BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree QEMUSnapshotInfo *list = NULL;
    int n = bdrv_snapshot_list(bs, &list);
    int which = n > 0 ? g_rand_int_range(r->rand, 0, n) : 0;

    g_assert_cmpint(n, >=, 0);
    if (n > 0 && one_in(r, 3)) {
        int ret = bdrv_snapshot_delete(bs, list[which].id_str, NULL, &error_abort);
        g_assert_cmpint(ret, ==, 0);
        end_step(r, blk, g_strdup_printf("delete %s", list[which].name), STEP_FLUSH);
    } else if (n > 0 && one_in(r, 2)) {
        Error *err = NULL;
        int ret = bdrv_snapshot_goto(bs, list[which].id_str, &err);
        g_assert_true(ret == 0 || ret == -EINVAL);      /* counts of few bits */
        error_free(err);
        end_step(r, blk, g_strdup_printf("go to %s: %d", list[which].name, ret),
                 ret == 0 ? STEP_FLUSH : STEP_CHANGE);
    } else {
        QEMUSnapshotInfo sn = { .icount = UINT64_MAX };
        View *view = g_new(View, 1);
        g_snprintf(sn.name, sizeof(sn.name), "s%d", r->snapshots_taken++);
        read_view(blk, view);
        g_hash_table_insert(r->snapshots, g_strdup(sn.name), view);
        int ret = bdrv_snapshot_create(bs, &sn);
        g_assert_true(ret == 0 || ret == -EINVAL);      /* counts of few bits */
        end_step(r, blk, g_strdup_printf("create %s: %d", sn.name, ret),
                 ret == 0 ? STEP_FLUSH : STEP_CHANGE);
    }
}

static void step_flush(Round *r, BlockBackend *blk)
{
    g_assert_cmpint(blk_flush(blk), ==, 0);
    end_step(r, blk, g_strdup("flush"), STEP_FLUSH);
}

static void random_step(Round *r, BlockBackend *blk)
{
    int kind = g_rand_int_range(r->rand, 0, 20);

    if (kind < 9) {
        step_requests(r, blk);
    } else if (kind < 11) {
        step_compressed(r, blk);
    } else if (kind < 13) {
        step_resize(r, blk);
    } else if (kind < 16) {
        step_snapshot(r, blk);
    } else {
        step_flush(r, blk);
    }
}

/* ---- recording ---------------------------------------------------------------------- */

static void make_image(Round *r)
{
    static const int cluster_bytes[] = { 512, 512, 1024, 4096, 4096, 16384 };
    static const int refcount_bits[] = { 1, 2, 8, 16, 16, 64 };
    bool v2 = one_in(r, 5);
    int sectors = g_rand_int_range(r->rand, SECTORS_MIN, SECTORS_MAX);
    GString *s = g_string_new(NULL);

    g_string_append_printf(s, "size=%d,cluster_size=%d,compat=%s", sectors * SECTOR,
                           cluster_bytes[g_rand_int_range(r->rand, 0, 6)], v2 ? "v2" : "v3");
    if (!v2) {
        g_string_append_printf(s, ",refcount_bits=%d%s%s",
                               refcount_bits[g_rand_int_range(r->rand, 0, 6)],
                               one_in(r, 3) ? ",lazy_refcounts=on" : "",
                               one_in(r, 4) && strstr(s->str, "16384")
                               ? ",extended_l2=on" : "");
    }
    r->create = g_string_free(s, FALSE);
    qcow2_create(r->disk, r->create);

    BlockBackend *blk = qcow2_open_file(r->disk, "");
    write_pattern(blk, 0, sectors / 2 * SECTOR, 0xaa);
    blk_unref(blk);
}

static void record(Round *r)
{
    char *bytes;
    gsize length;

    make_image(r);
    g_assert_true(g_file_get_contents(r->disk, &bytes, &length, NULL));
    r->before = g_byte_array_new_take((guint8 *)bytes, length);
    unlink(r->log_path);
    g_free(scratch_file("crash.log", 0));

    BlockBackend *blk = open_rw(options_of(
        "driver=qcow2,discard=unmap,file.driver=blklogwrites,file.discard=unmap,"
        "file.file.driver=file,file.file.discard=unmap,file.file.filename=%s,"
        "file.log.driver=file,file.log.filename=%s,file.log-sector-size=512",
        r->disk, r->log_path));
    end_step(r, blk, g_strdup("open"), STEP_FLUSH);
    for (int i = 0; i < STEPS; i++) {
        random_step(r, blk);
    }
    blk_unref(blk);
    r->log = log_read(r->log_path);
}

/* ---- power failures ----------------------------------------------------------------- */

/* Apply E; with TORN only some of its sectors. What was discarded may read as anything. */
static void apply(Round *r, GByteArray *data, const LogEntry *e, bool torn)
{
    if (e->flags & LOG_FLUSH) {
        return;
    }
    if (e->offset + e->bytes > data->len) {
        if (!e->data) {
            return;
        }
        memory_disk_resize(data, e->offset + e->bytes);
    }
    for (uint64_t i = 0; i < e->bytes; i += SECTOR) {
        if (torn && one_in(r, 2)) {
            continue;
        }
        if (e->data) {
            memcpy(data->data + e->offset + i, e->data + i, SECTOR);
        } else {
            memset(data->data + e->offset + i, 0xdd, SECTOR);
        }
    }
}

static MemoryDisk *disk_after_failure(Round *r, guint place, int kind)
{
    MemoryDisk *d = memory_disk_new(r->before->data, r->before->len);
    guint durable = 0;

    for (guint i = 0; i < place; i++) {
        durable = g_array_index(r->log.entries, LogEntry, i).flags & LOG_FLUSH ? i : durable;
    }
    for (guint i = 0, step = 0; i < place; i++) {
        LogEntry *e = &g_array_index(r->log.entries, LogEntry, i);
        for (; step < r->steps->len; step++) {
            const Step *s = &g_array_index(r->steps, Step, step);
            if (s->log_end >= e->end) {
                break;
            }
            if (s->disk_bytes < d->data->len) {
                memory_disk_resize(d->data, s->disk_bytes);
            }
        }
        bool safe = i < durable || (e->flags & LOG_FUA);
        if (safe || kind == 0 || one_in(r, 2)) {
            apply(r, d->data, e, !safe && kind == 2);
        }
    }
    return d;
}

/* ---- what must be left -------------------------------------------------------------- */

/* The steps the disk may show the outcome of when LOG_BYTES had been logged: *FIRST, ... */
static guint possible_steps(Round *r, uint64_t log_bytes, guint *first)
{
    guint end = 0;

    *first = 0;
    for (guint i = 0; i < r->steps->len; i++) {
        Step *s = &g_array_index(r->steps, Step, i);
        if (s->log_begin <= log_bytes) {
            end = i + 1;
        }
        if (s->flush && s->log_end <= log_bytes) {
            *first = i;
        }
    }
    return end;
}

/* "" when VIEW is possible; else what is wrong. Newly allocated. */
static char *judge(Round *r, const View *view, guint first, guint end)
{
    bool size_ok = false;

    for (guint i = first; i < end; i++) {
        size_ok |= g_array_index(r->steps, Step, i).after.sectors == view->sectors;
    }
    if (!size_ok) {
        return g_strdup_printf("it has %d sectors", view->sectors);
    }
    for (int sector = 0; sector < view->sectors; sector++) {
        bool ok = false;
        for (guint i = first; i < end && !ok; i++) {
            const View *v = &g_array_index(r->steps, Step, i).after;
            /* A step that makes the image longer may show what was there before. */
            ok = sector < v->sectors ? v->value[sector] == view->value[sector]
                                     : view->value[sector] == 0;
        }
        if (!ok) {
            return g_strdup_printf("sector %d holds 0x%02x", sector, view->value[sector]);
        }
    }
    return g_strdup("");
}

static BlockBackend *open_disk(MemoryDisk *disk, bool writable)
{
    memory_disk_to_open = disk;
    return open_with_perms(options_of("driver=qcow2,file.driver=memory-disk%s",
                                      writable ? "" : ",read-only=on"),
                           writable ? BDRV_O_RDWR : 0,
                           writable ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                           &error_abort);
}

/* Each snapshot that the image lists shows what it was taken of. */
static void check_snapshots(Round *r, MemoryDisk *disk, const char *where)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    BlockBackend *blk = open_disk(disk, false);
    int n = bdrv_snapshot_list(blk_bs(blk), &list);

    blk_unref(blk);
    for (int i = 0; i < n; i++) {
        const View *taken = g_hash_table_lookup(r->snapshots, list[i].name);
        View view;
        g_assert_nonnull(taken);
        blk = open_disk(disk, false);
        bdrv_snapshot_load_tmp(blk_bs(blk), list[i].id_str, NULL, &error_abort);
        read_view(blk, &view);
        if (view.sectors != taken->sectors ||
            memcmp(view.value, taken->value, view.sectors) != 0) {
            g_error("%s: snapshot %s is not what it was", where, list[i].name);
        }
        blk_unref(blk);
    }
}

static void check_by_peer(MemoryDisk *disk, const char *where)
{
    g_autofree char *path = scratch_path("after-crash.qcow2");
    g_autofree char *command = g_strdup_printf("qemu-img check -q -f qcow2 %s", path);
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    enum { PEER_FOUND_LEAKS = 3 };
    int status;

    if (!peer) {
        return;
    }
    g_assert_true(g_file_set_contents(path, (char *)disk->data->data, disk->data->len, NULL));
    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status, NULL));
    g_assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != PEER_FOUND_LEAKS) {
        g_error("%s: the peer's check ends with %d", where, WEXITSTATUS(status));
    }
}

static void assert_sound(BlockBackend *blk, bool leaks_allowed, const char *where)
{
    BdrvCheckResult res;

    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    if (res.corruptions || res.check_errors || (!leaks_allowed && res.leaks)) {
        g_error("%s: %d corruptions, %d errors, %d leaks", where, res.corruptions,
                res.check_errors, res.leaks);
    }
}

/* A repair of DISK leaves an image without leaks that shows VIEW. */
static void check_repair(Round *r, MemoryDisk *disk, const View *view, const char *where)
{
    BlockBackend *blk = open_disk(disk, true);
    BdrvCheckResult res;
    View now;

    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS), ==, 0);
    assert_sound(blk, false, where);
    read_view(blk, &now);
    if (now.sectors != view->sectors || memcmp(now.value, view->value, now.sectors) != 0) {
        g_error("%s: the repair changes what the guest sees", where);
    }
    blk_unref(blk);
    check_snapshots(r, disk, where);
}

static void fail_power(Round *r, guint place, int kind)
{
    uint64_t log_bytes = place ? g_array_index(r->log.entries, LogEntry, place - 1).end : 0;
    bool lazy = strstr(r->create, "lazy_refcounts=on");
    MemoryDisk *d = disk_after_failure(r, place, kind);
    guint first, end = possible_steps(r, log_bytes, &first);
    g_autofree char *where = g_strdup_printf(
        "MINIBLK_SEED=%u, %s, place %u of %u, kind %d, between '%s' and '%s'", r->seed,
        r->create, place, r->log.entries->len, kind,
        g_array_index(r->steps, Step, first).what,
        g_array_index(r->steps, Step, end - 1).what);
    View view;

    if (!lazy && one_in(r, 16)) {
        check_by_peer(d, where);
    }
    /* An image that was marked dirty is repaired when it is opened for writing. */
    BlockBackend *blk = open_disk(d, lazy);
    assert_sound(blk, true, where);
    read_view(blk, &view);
    g_autofree char *wrong = judge(r, &view, first, end);
    if (*wrong) {
        g_error("%s: %s", where, wrong);
    }
    blk_unref(blk);
    check_snapshots(r, d, where);
    if (one_in(r, 4)) {
        check_repair(r, d, &view, where);
    }
    memory_disk_free(d);
}

/* ---- rounds ------------------------------------------------------------------------- */

static void free_step(gpointer step)
{
    g_free(((Step *)step)->what);
}

static guint run_round(guint32 seed)
{
    Round r = {
        .rand = g_rand_new_with_seed(seed), .seed = seed,
        .disk = scratch_path("crash.qcow2"), .log_path = scratch_path("crash.log"),
        .steps = g_array_new(false, false, sizeof(Step)),
        .snapshots = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
    };
    guint tried = 0;

    g_array_set_clear_func(r.steps, free_step);
    record(&r);
    guint step = g_test_slow() ? 1 : r.log.entries->len / PLACES_PER_ROUND + 1;
    for (guint place = g_rand_int_range(r.rand, 0, step); place <= r.log.entries->len;
         place += step) {
        for (int kind = 0; kind < 3; kind++, tried++) {
            fail_power(&r, place, kind);
        }
    }
    log_free(&r.log);
    g_byte_array_unref(r.before);
    g_array_unref(r.steps);
    g_hash_table_unref(r.snapshots);
    g_rand_free(r.rand);
    g_free(r.create);
    g_free(r.disk);
    g_free(r.log_path);
    return tried;
}

static void test_power_failures(void)
{
    const char *only = g_getenv("MINIBLK_SEED"), *longer = g_getenv("MINIBLK_CRASH_SECONDS");
    gint64 end = g_get_monotonic_time() +
                 G_TIME_SPAN_SECOND * (longer ? atoi(longer) : SECONDS);
    guint32 seed = only ? (guint32)strtoul(only, NULL, 10) : (guint32)g_test_rand_int();
    guint rounds = 0, tried = 0;

    do {
        tried += run_round(seed + rounds++);
    } while (!only && g_get_monotonic_time() < end);
    g_test_message("%u rounds from MINIBLK_SEED=%u on, %u power failures", rounds, seed,
                   tried);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/crash-log/power-failures", test_power_failures);
    return image_test_run();
}
