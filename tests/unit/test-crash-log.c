/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 and power failures, on the evidence of what reached the protocol layer: a random
 * workload (crash-work.h) runs above the filter "blklogwrites". Then power fails at every
 * place of the log:
 *
 *     log:   w w w F w w w w F w w            kind 0: what stands before "here", all of it
 *                        ^ here               kind 1: of what no flush covers, any part
 *                                             kind 2: and of these, any sectors
 *
 * What is then on the disk must be an image that our checker, and now and then the peer's,
 * find without corruption, as it lies there (leaks are fine; if it has the dirty bit, after it
 * was opened for writing). A repair leaves no leaks, and loses nothing. Its size and each of
 * its sectors must be as after the last flush the guest saw the end of, or as after something
 * done since; each snapshot must show what it was taken of; a bitmap that claims to be good
 * must know all that has changed. MINIBLK_SEED=N repeats a round, MINIBLK_CRASH_SECONDS=N
 * goes on for so long.
 */
#include "qcow2-test.h"
#include "log-writes.h"
#include "memory-disk.h"
#include "crash-work.h"

enum { PLACES_PER_ROUND = 80, ROUNDS = 24 };

static void record(Round *r)
{
    char *bytes;
    gsize length;

    make_image(r);
    g_assert_true(g_file_get_contents(r->disk, &bytes, &length, NULL));
    r->before = g_byte_array_new_take((guint8 *)bytes, length);
    unlink(r->log_path);
    g_free(scratch_file("crash.log", 0));
    run_workload(r);
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
            /* What a smaller disk will not have is given up before, and after a larger one
             * got it: it shows nothing then, or the backing file. */
            ok = sector < v->sectors ? v->value[sector] == view->value[sector]
               : view->value[sector] == 0 || (view->value[sector] == BACKING_VALUE &&
                                              strstr(r->create, "backing_file"));
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

/*
 * Each bitmap of the image that is not known to be outdated knows all that is not as it was
 * when it was made.
 */
static void check_bitmaps(Round *r, BlockBackend *blk, const View *now, const char *where)
{
    BdrvDirtyBitmap *b = bdrv_dirty_bitmap_first(blk_bs(blk));

    for (; b; b = bdrv_dirty_bitmap_next(b)) {
        const View *made = g_hash_table_lookup(r->bitmaps, bdrv_dirty_bitmap_name(b));
        g_assert_nonnull(made);
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            continue;
        }
        g_assert_cmpint(made->sectors, ==, now->sectors);
        for (int i = 0; i < now->sectors; i++) {
            if (now->value[i] != made->value[i] && !bdrv_dirty_bitmap_get(b, i * SECTOR)) {
                g_error("%s: bitmap %s does not know that sector %d has changed", where,
                        bdrv_dirty_bitmap_name(b), i);
            }
        }
    }
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

/* Whether the image says that it must be repaired before anything else. */
static bool has_dirty_bit(const MemoryDisk *disk)
{
    enum { VERSION_BYTE = 7, INCOMPAT_BYTE = 79 };
    const uint8_t *header = disk->data->data;

    return header[VERSION_BYTE] == 3 && (header[INCOMPAT_BYTE] & 1);
}

static void fail_power(Round *r, guint place, int kind)
{
    uint64_t log_bytes = place ? g_array_index(r->log.entries, LogEntry, place - 1).end : 0;
    MemoryDisk *d = disk_after_failure(r, place, kind);
    bool dirty = has_dirty_bit(d);
    guint first, end = possible_steps(r, log_bytes, &first);
    g_autofree char *where = g_strdup_printf(
        "MINIBLK_SEED=%u, %s%s, place %u of %u, kind %d, between '%s' and '%s'", r->seed,
        r->create, r->open, place, r->log.entries->len, kind,
        g_array_index(r->steps, Step, first).what,
        g_array_index(r->steps, Step, end - 1).what);
    View view;

    g_assert_true(!dirty || r->lazy);
    if (!dirty && one_in(r, 16)) {
        check_by_peer(d, where);
    }
    BlockBackend *blk = open_disk(d, dirty);
    assert_sound(blk, true, where);
    read_view(blk, &view);
    g_autofree char *wrong = judge(r, &view, first, end);
    if (*wrong) {
        g_error("%s: %s", where, wrong);
    }
    check_bitmaps(r, blk, &view, where);
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
        .bitmaps = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
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
    g_hash_table_unref(r.bitmaps);
    g_rand_free(r.rand);
    g_free(r.create);
    g_free(r.open);
    g_free(r.disk);
    g_free(r.log_path);
    return tried;
}

static void test_power_failures(void)
{
    const char *only = g_getenv("MINIBLK_SEED"), *seconds = g_getenv("MINIBLK_CRASH_SECONDS");
    gint64 end = g_get_monotonic_time() + G_TIME_SPAN_SECOND * (seconds ? atoi(seconds) : 0);
    guint32 seed = only ? (guint32)strtoul(only, NULL, 10) : (guint32)g_test_rand_int();
    guint rounds = 0, tried = 0;

    do {
        tried += run_round(seed + rounds++);
    } while (!only && (seconds ? g_get_monotonic_time() < end : rounds < ROUNDS));
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
