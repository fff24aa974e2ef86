/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 and power failures. A workload runs on a disk that writes everything down. Then
 * power fails at every moment, and of the writes that no flush made durable any part may
 * have reached the disk:
 *
 *   log:   w w F w w w F w w w        power fails here: all before the last F is there,
 *                      ^----- any subset of these sectors
 *
 * Whatever is left must be an image without corruption (leaks are allowed) in which each
 * sector holds what it held at the guest's last flush, or something written since.
 */
#include "qcow2-test.h"
#include "memory-disk.h"
#include "miniblk/dirty-bitmap.h"

enum { SECTOR = 512, GUEST_SECTORS_MAX = 1024, BATCH = 6 };

/* What the guest did with a range, in order. */
typedef struct GuestOp {
    bool flush;                 /* the guest saw a flush end */
    guint log_at_begin;         /* length of the disk's log when the request began */
    guint log_at_end;
    int first, end;             /* sectors */
    uint8_t value;
    bool optional;              /* a discard: may have no effect */
} GuestOp;

typedef struct Crash {
    GRand *rand;
    const char *create;
    int sectors;
    int64_t cluster_bytes;
    MemoryDisk *disk;
    GByteArray *before;         /* the disk when logging began */
    uint8_t start[GUEST_SECTORS_MAX];
    GArray *ops;                /* GuestOp */
    bool late;
} Crash;

/* ---- the workload ------------------------------------------------------------------ */

static BlockBackend *open_disk_with(MemoryDisk *disk, int flags, const char *more)
{
    memory_disk_to_open = disk;
    return open_with_perms(options_of("driver=qcow2,discard=unmap,file.driver=memory-disk%s%s",
                                      flags & BDRV_O_RDWR ? "" : ",read-only=on", more), flags,
                           flags & BDRV_O_RDWR ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ,
                           BLK_PERM_ALL, &error_abort);
}

static BlockBackend *open_disk(MemoryDisk *disk, int flags)
{
    return open_disk_with(disk, flags, "");
}

static BlockBackend *open_disk_without_backing(MemoryDisk *disk, int flags)
{
    return open_disk_with(disk, flags, ",backing=");
}

static void record(Crash *c, const Op *op, guint log_at_begin, uint8_t value)
{
    GuestOp g = { .flush = op->type == OP_FLUSH, .log_at_begin = log_at_begin,
                  .log_at_end = c->disk->log->len, .first = op->offset / SECTOR,
                  .end = (op->offset + op->bytes) / SECTOR, .value = value,
                  .optional = op->type == OP_DISCARD };

    g_assert_cmpint(op->ret, ==, 0);
    g_array_append_val(c->ops, g);
}

/* Requests on ranges that do not overlap, all at once. */
static void run_batch(Crash *c, BlockBackend *blk)
{
    static const OpType types[] = { OP_WRITE, OP_WRITE, OP_COMPRESSED, OP_ZERO, OP_UNMAP,
                                    OP_DISCARD };
    Op ops[BATCH];
    uint8_t values[BATCH];
    guint begin = c->disk->log->len;
    int pos = 0, n = 0;

    while (n < BATCH) {
        int first = pos + g_rand_int_range(c->rand, 0, c->sectors / 2);
        int len = g_rand_int_range(c->rand, 1, c->sectors / 4);
        if (first >= c->sectors) {
            break;
        }
        len = MIN(len, c->sectors - first);
        ops[n] = (Op){ .blk = blk, .offset = first * SECTOR, .bytes = len * SECTOR,
                       .type = types[g_rand_int_range(c->rand, 0, ARRAY_SIZE(types))] };
        if (ops[n].type == OP_COMPRESSED) {
            compress_op(&ops[n], c->cluster_bytes, c->sectors * SECTOR);
        }
        bool write = ops[n].type == OP_WRITE || ops[n].type == OP_COMPRESSED;
        values[n] = write ? g_rand_int_range(c->rand, 1, 256) : 0;
        ops[n].buf = g_malloc(ops[n].bytes);
        memset(ops[n].buf, values[n], ops[n].bytes);
        n++;
        pos = first + len;
    }
    run_ops(ops, n);
    for (int i = 0; i < n; i++) {
        record(c, &ops[i], begin, values[i]);
        g_free(ops[i].buf);
    }
}

static void guest_flush(Crash *c, BlockBackend *blk)
{
    Op op = { .type = OP_FLUSH };
    guint begin = c->disk->log->len;

    op.ret = blk_flush(blk);
    record(c, &op, begin, 0);
}

static void make_disk(Crash *c)
{
    g_autofree char *path = scratch_path("crash.qcow2");
    g_autofree char *bytes = NULL;
    gsize length;

    qcow2_create(path, c->create);
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    c->disk = memory_disk_new(bytes, length);
    /* Something durable to lose. */
    BlockBackend *blk = open_disk(c->disk, BDRV_O_RDWR);
    BlockDriverInfo bdi;
    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &bdi), ==, 0);
    c->cluster_bytes = bdi.cluster_size;
    write_pattern(blk, 0, c->sectors / 2 * SECTOR, 0xaa);
    memset(c->start, 0xaa, c->sectors / 2);
    blk_unref(blk);
    c->before = g_byte_array_new();
    g_byte_array_append(c->before, c->disk->data->data, c->disk->data->len);
    c->disk->log = g_array_new(false, false, sizeof(MemoryOp));
    if (c->late) {
        c->disk->late = g_rand_new_with_seed(g_rand_int(c->rand));
    }
}

/* What the guest has stored is not touched: the disk becomes longer, later as before. */
static void resize(Crash *c, BlockBackend *blk, int times)
{
    PreallocMode mode = times > 1 ? PREALLOC_MODE_METADATA : PREALLOC_MODE_OFF;

    blk_truncate(blk, (int64_t)c->sectors * SECTOR * times, false, mode, 0, &error_abort);
}

static void run_workload(Crash *c)
{
    /* Small caches: metadata is written before anybody flushes. */
    BlockBackend *blk = open_disk_with(c->disk, BDRV_O_RDWR, g_rand_boolean(c->rand) ? "" :
                                       ",l2-cache-size=4k,l2-cache-entry-size=512,"
                                       "refcount-cache-size=4k");

    for (int i = 0; i < 10; i++) {
        if (i == 3 || i == 6) {
            resize(c, blk, i == 3 ? 4 : 1);
        }
        run_batch(c, blk);
        if (g_rand_int_range(c->rand, 0, 3) == 0) {
            guest_flush(c, blk);
        }
    }
    blk_unref(blk);             /* closing writes back, too */
}

/* ---- power failures ---------------------------------------------------------------- */

static void replay(GByteArray *data, const MemoryOp *op, GRand *torn)
{
    if (op->type == MEMORY_TRUNCATE) {
        memory_disk_resize(data, op->offset);
    } else if (op->type == MEMORY_WRITE) {
        if (op->offset + op->bytes > data->len) {
            memory_disk_resize(data, op->offset + op->bytes);
        }
        for (uint64_t i = 0; i < op->bytes; i += SECTOR) {
            /* Sectors reach the disk whole, requests do not. */
            if (!torn || g_rand_boolean(torn)) {
                memcpy(data->data + op->offset + i, op->data + i,
                       MIN(SECTOR, op->bytes - i));
            }
        }
    }
}

static MemoryDisk *disk_after_crash(Crash *c, guint at, int kind)
{
    MemoryDisk *d = memory_disk_new(c->before->data, c->before->len);
    guint durable = 0;

    for (guint i = 0; i < at; i++) {
        if (g_array_index(c->disk->log, MemoryOp, i).type == MEMORY_FLUSH) {
            durable = i;
        }
    }
    for (guint i = 0; i < at; i++) {
        MemoryOp *op = &g_array_index(c->disk->log, MemoryOp, i);
        bool lost = i >= durable && kind > 0 && g_rand_boolean(c->rand);
        if (!lost) {
            replay(d->data, op, i >= durable && kind > 1 ? c->rand : NULL);
        }
    }
    return d;
}

/* Whether VALUE is one that SECTOR may hold when power fails at AT. */
static bool value_allowed(Crash *c, guint at, int sector, uint8_t value)
{
    bool allowed = value == c->start[sector];

    for (guint i = 0; i < c->ops->len; i++) {
        GuestOp *g = &g_array_index(c->ops, GuestOp, i);
        if (g->log_at_begin > at || g->flush || sector < g->first || sector >= g->end) {
            continue;
        }
        bool durable = false;
        for (guint k = i + 1; k < c->ops->len && !durable; k++) {
            GuestOp *f = &g_array_index(c->ops, GuestOp, k);
            durable = f->flush && f->log_at_end <= at;
        }
        if (durable && !g->optional) {
            allowed = false;    /* what was there before is gone for good */
        }
        allowed |= value == g->value;
    }
    return allowed;
}

static void check_crash(Crash *c, guint at, int kind)
{
    MemoryDisk *d = disk_after_crash(c, at, kind);
    g_autofree uint8_t *data = g_malloc(c->sectors * SECTOR);

    /* An image that was marked dirty is repaired when it is opened for writing. */
    BlockBackend *blk = open_disk(d, strstr(c->create, "lazy_refcounts=on") ? BDRV_O_RDWR : 0);
    qcow2_assert_consistent(blk, true);
    g_assert_cmpint(blk_pread(blk, 0, c->sectors * SECTOR, data, 0), ==, 0);
    for (int i = 0; i < c->sectors; i++) {
        const uint8_t *s = data + i * SECTOR;
        if (!value_allowed(c, at, i, s[0])) {
            g_error("%s: power fails at %u of %u: sector %d holds 0x%02x", c->create, at,
                    c->disk->log->len, i, s[0]);
        }
        assert_bytes(s, SECTOR, s[0]);
    }
    blk_unref(blk);
    memory_disk_free(d);
}

static void run_crashes(const char *create, int sectors, bool late)
{
    Crash c = { .rand = g_rand_new_with_seed(g_test_rand_int()), .create = create,
                .sectors = sectors, .late = late,
                .ops = g_array_new(false, false, sizeof(GuestOp)) };
    int step;

    g_assert_cmpint(sectors, <=, GUEST_SECTORS_MAX);
    make_disk(&c);
    run_workload(&c);
    step = g_test_slow() ? 1 : c.disk->log->len / 60 + 1;
    g_test_message("%s: %u disk requests", create, c.disk->log->len);
    for (guint at = 0; at <= c.disk->log->len; at += step) {
        for (int kind = 0; kind < 3; kind++) {
            check_crash(&c, at, kind);
        }
    }
    g_array_unref(c.ops);
    g_byte_array_unref(c.before);
    memory_disk_free(c.disk);
    g_rand_free(c.rand);
}

static const struct { const char *create; int sectors; } images[] = {
    { "size=256k,cluster_size=512", 512 },
    { "size=256k,cluster_size=512,refcount_bits=64", 512 },
    { "size=256k,cluster_size=1k,refcount_bits=1", 512 },
    { "size=256k,cluster_size=4k", 512 },
    { "size=256k,cluster_size=4k,compat=0.10", 512 },
    { "size=512k,cluster_size=64k", 1024 },
    { "size=256k,cluster_size=512,lazy_refcounts=on", 512 },
    { "size=256k,cluster_size=4k,lazy_refcounts=on", 512 },
    { "size=256k,cluster_size=16k,extended_l2=on", 512 },
    { "size=512k,cluster_size=64k,extended_l2=on,refcount_bits=8", 1024 },
};

static void test_in_order(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        run_crashes(images[i].create, images[i].sectors, false);
    }
}

static void test_late(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        run_crashes(images[i].create, images[i].sectors, true);
    }
}

/* ---- management -------------------------------------------------------------------- */

/*
 * Steps that change the image's form, each with a power failure at any moment of it:
 *
 *   content:  before, or after          (of a write: sector by sector)
 *   image:    without corruption, as it lies there; with lazy refcounts, once it was opened
 *             for writing
 */
typedef enum StepKind { WRITE, TAKE, GOTO, DELETE, BACKING, ADD_BITMAP, DROP_BITMAP, AMEND,
                        SAVE_STATE, REOPEN } StepKind;

typedef struct Step {
    StepKind kind;
    const char *arg;
    int first, end;             /* WRITE: sectors */
    uint8_t value;
    bool not_in_v2;
} Step;

static const Step steps[] = {
    { WRITE, NULL, 0, 200, 0x11 }, { SAVE_STATE, NULL }, { TAKE, "one" },
    { WRITE, NULL, 100, 300, 0x22 }, { BACKING, "somewhere/else.raw" },
    { ADD_BITMAP, "first", .not_in_v2 = true }, { REOPEN, NULL },
    { WRITE, NULL, 50, 60, 0x33 }, { BACKING, "x" }, { TAKE, "two" },
    { ADD_BITMAP, "second", .not_in_v2 = true }, { REOPEN, NULL },
    { DROP_BITMAP, "first", .not_in_v2 = true }, { REOPEN, NULL },
    { DROP_BITMAP, "second", .not_in_v2 = true }, { GOTO, "one" },
    { WRITE, NULL, 10, 120, 0x44 }, { DELETE, "two" },
    { AMEND, "refcount_bits=64,compat=1.1" }, { WRITE, NULL, 0, 400, 0x55 }, { BACKING, NULL }, { GOTO, "one" }, { DELETE, "one" },
    { WRITE, NULL, 64, 192, 0 }, { TAKE, "three" }, { WRITE, NULL, 0, 128, 0x77 },
    { AMEND, "refcount_bits=16,compat=0.10" }, { WRITE, NULL, 0, 100, 0x66 },
};

typedef struct StepRun {        /* what a step did, by positions in the disk's log */
    guint begin, end;
    uint8_t *before, *after;    /* guest's content */
} StepRun;

static uint8_t *content_of(BlockBackend *blk, int sectors)
{
    uint8_t *data = g_malloc(sectors * SECTOR);

    g_assert_cmpint(blk_pread(blk, 0, sectors * SECTOR, data, 0), ==, 0);
    return data;
}

static void amend(BlockBackend *blk, const char *text)
{
    g_autoptr(json_t) opts = options_of("%s", text);

    g_assert_cmpint(bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, &error_abort), ==,
                    0);
}

static void change_bitmap(BlockBackend *blk, const Step *step)
{
    BlockDriverState *bs = blk_bs(blk);
    BdrvDirtyBitmap *b;

    if (step->kind == ADD_BITMAP) {
        b = bdrv_create_dirty_bitmap(bs, 512, step->arg, &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
        bdrv_set_dirty_bitmap(b, 0, 4096);
        return;
    }
    b = bdrv_find_dirty_bitmap(bs, step->arg);
    g_assert_nonnull(b);
    g_assert_cmpint(bdrv_remove_persistent_dirty_bitmap(bs, step->arg, &error_abort), ==, 0);
    bdrv_release_dirty_bitmap(b);
}

/* The backend may be another one afterwards. */
static void take_step(Crash *c, BlockBackend **blk, const Step *step)
{
    BlockDriverState *bs = blk_bs(*blk);
    QEMUSnapshotInfo sn = { .vm_state_size = 3000, .icount = UINT64_MAX };
    uint8_t state[3000] = { 0x99 };

    switch (step->kind) {
    case WRITE:
        if (step->value) {
            write_pattern(*blk, step->first * SECTOR, (step->end - step->first) * SECTOR,
                          step->value);
        } else {
            g_assert_cmpint(blk_pwrite_zeroes(*blk, step->first * SECTOR,
                                              (step->end - step->first) * SECTOR, 0), ==, 0);
        }
        g_assert_cmpint(blk_flush(*blk), ==, 0);
        break;
    case TAKE:
        g_strlcpy(sn.name, step->arg, sizeof(sn.name));
        g_assert_cmpint(bdrv_snapshot_create(bs, &sn), ==, 0);
        break;
    case GOTO:
        g_assert_cmpint(bdrv_snapshot_goto(bs, step->arg, &error_abort), ==, 0);
        break;
    case DELETE:
        g_assert_cmpint(bdrv_snapshot_delete(bs, NULL, step->arg, &error_abort), ==, 0);
        break;
    case BACKING:
        g_assert_cmpint(bdrv_change_backing_file(bs, step->arg, step->arg ? "raw" : NULL), ==,
                        0);
        break;
    case ADD_BITMAP:
    case DROP_BITMAP:
        change_bitmap(*blk, step);
        break;
    case AMEND:
        amend(*blk, step->arg);
        break;
    case SAVE_STATE:
        g_assert_cmpint(bdrv_save_vmstate(bs, state, 0, sizeof(state)), ==, sizeof(state));
        break;
    case REOPEN:
        blk_unref(*blk);
        *blk = open_disk_without_backing(c->disk, BDRV_O_RDWR);
        break;
    }
}

static void check_step(Crash *c, const Step *step, const StepRun *run, guint at, int kind)
{
    MemoryDisk *d = disk_after_crash(c, at, kind);
    bool lazy = strstr(c->create, "lazy");
    BlockBackend *blk = open_disk_without_backing(d, lazy ? BDRV_O_RDWR : 0);
    g_autofree uint8_t *now = content_of(blk, c->sectors);
    const char *name = blk_bs(blk)->backing_file;
    size_t bytes = c->sectors * SECTOR;

    qcow2_assert_consistent(blk, true);
    bool is_before = memcmp(now, run->before, bytes) == 0;
    bool is_after = memcmp(now, run->after, bytes) == 0;
    for (int i = 0; i < c->sectors && step->kind == WRITE; i++) {
        uint8_t v = now[i * SECTOR];
        assert_bytes(now + i * SECTOR, SECTOR, v);
        g_assert_true(v == run->before[i * SECTOR] || v == run->after[i * SECTOR]);
    }
    if (step->kind != WRITE && !is_before && !is_after) {
        g_error("%s: power fails at %u of step %d: neither old nor new content", c->create, at,
                (int)(step - steps));
    }
    g_assert_true(!*name || strcmp(name, "x") == 0 || strcmp(name, "somewhere/else.raw") == 0);
    blk_unref(blk);
    memory_disk_free(d);
}

static void run_management(const char *create, int sectors)
{
    Crash c = { .rand = g_rand_new_with_seed(g_test_rand_int()), .create = create,
                .sectors = sectors };
    StepRun runs[ARRAY_SIZE(steps)] = { { 0 } };
    bool v2 = strstr(create, "0.10");

    make_disk(&c);
    BlockBackend *blk = open_disk_without_backing(c.disk, BDRV_O_RDWR);
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        runs[i].begin = c.disk->log->len;
        runs[i].before = content_of(blk, sectors);
        if (!(v2 && steps[i].not_in_v2)) {
            take_step(&c, &blk, &steps[i]);
        }
        runs[i].after = content_of(blk, sectors);
        runs[i].end = c.disk->log->len;
    }
    blk_unref(blk);
    g_test_message("%s: %u disk requests", create, c.disk->log->len);
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        guint step = g_test_slow() ? 1 : (runs[i].end - runs[i].begin) / 12 + 1;
        for (guint at = runs[i].begin; at < runs[i].end; at += step) {
            for (int kind = 0; kind < 3; kind++) {
                check_step(&c, &steps[i], &runs[i], at, kind);
            }
        }
        g_free(runs[i].before);
        g_free(runs[i].after);
    }
    g_byte_array_unref(c.before);
    memory_disk_free(c.disk);
    g_rand_free(c.rand);
}

static void test_management(void)
{
    run_management("size=256k,cluster_size=512", 512);
    run_management("size=256k,cluster_size=4k", 512);
    run_management("size=256k,cluster_size=4k,lazy_refcounts=on", 512);
    run_management("size=256k,cluster_size=4k,compat=0.10", 512);
    run_management("size=512k,cluster_size=64k", 1024);
}

/* ---- shrinking ------------------------------------------------------------------------ */

/* Power fails at AT: if the disk has become shorter, what it lost does not come back. */
static void check_shrunk(Crash *c, guint at, int kind)
{
    int64_t full = (int64_t)c->sectors * SECTOR, shrunk = full / 4;
    MemoryDisk *d = disk_after_crash(c, at, kind);
    BlockBackend *blk = open_disk(d, BDRV_O_RDWR);

    qcow2_assert_consistent(blk, true);
    assert_content(blk, 0, shrunk, 0xaa);
    if (blk_getlength(blk) == shrunk) {
        g_assert_cmpint(blk_truncate(blk, full, false, PREALLOC_MODE_OFF, 0, &error_abort),
                        ==, 0);
        assert_content(blk, shrunk, full - shrunk, 0);
    } else {
        g_assert_cmpint(blk_getlength(blk), ==, full);
    }
    blk_unref(blk);
    memory_disk_free(d);
}

static void test_shrinking(void)
{
    static const char *const creates[] = {
        "size=64k,cluster_size=512", "size=64k,cluster_size=4k,compat=0.10",
        "size=64k,cluster_size=16k,extended_l2=on",
        "size=64k,cluster_size=4k,lazy_refcounts=on",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(creates); i++) {
        Crash c = { .rand = g_rand_new_with_seed(g_test_rand_int()), .create = creates[i],
                    .sectors = 128 };
        make_disk(&c);
        BlockBackend *blk = open_disk(c.disk, BDRV_O_RDWR);
        g_assert_cmpint(blk_truncate(blk, c.sectors * SECTOR / 4, false, PREALLOC_MODE_OFF, 0,
                                     &error_abort), ==, 0);
        blk_unref(blk);
        for (guint at = 0; at <= c.disk->log->len; at++) {
            for (int kind = 0; kind < 3; kind++) {
                check_shrunk(&c, at, kind);
            }
        }
        g_byte_array_unref(c.before);
        memory_disk_free(c.disk);
        g_rand_free(c.rand);
    }
}

/* A request that fails must leave the image as consistent as a power failure does. */
static void test_disk_errors(void)
{
    for (int n = 1; n < 200; n += g_test_slow() ? 1 : 7) {
        const char *create = images[n % ARRAY_SIZE(images)].create;
        int sectors = images[n % ARRAY_SIZE(images)].sectors;
        Crash c = { .rand = g_rand_new_with_seed(n), .create = create, .sectors = sectors };
        make_disk(&c);
        BlockBackend *blk = open_disk(c.disk, BDRV_O_RDWR);
        c.disk->fail_in = n;
        for (int i = 0; i < 20; i++) {
            g_autofree uint8_t *buf = g_malloc0(64 * SECTOR);
            int64_t at = g_rand_int_range(c.rand, 0, sectors - 64) * SECTOR;
            blk_pwrite(blk, at, g_rand_int_range(c.rand, 1, 64) * SECTOR, buf, 0);
            if (i % 4 == 0) {
                blk_pdiscard(blk, at, 32 * SECTOR);
                blk_flush(blk);
            }
            if (i % 5 == 0) {
                QEMUSnapshotInfo sn = { .name = "s" };
                bdrv_snapshot_create(blk_bs(blk), &sn);
            } else if (i % 5 == 3) {
                bdrv_snapshot_goto(blk_bs(blk), "s", NULL);
                bdrv_snapshot_delete(blk_bs(blk), NULL, "s", NULL);
            }
        }
        c.disk->fail_in = 0;
        blk_unref(blk);
        blk = open_disk(c.disk, BDRV_O_RDWR);
        qcow2_assert_consistent(blk, true);
        blk_unref(blk);
        g_byte_array_unref(c.before);
        memory_disk_free(c.disk);
        g_rand_free(c.rand);
    }
}

/* A full disk: writes fail, but what was there stays and the image can be used again. */
static void test_full_disk(void)
{
    Crash c = { .rand = g_rand_new_with_seed(1), .create = "size=1M,cluster_size=4k",
                .sectors = 64 };
    int failed = 0;

    make_disk(&c);
    BlockBackend *blk = open_disk(c.disk, BDRV_O_RDWR);
    c.disk->length_max = c.disk->data->len + 64 * 1024;
    for (int i = 0; i < 64; i++) {
        g_autofree uint8_t *buf = g_malloc0(8192);
        memset(buf, i + 1, 8192);
        int ret = blk_pwrite(blk, 128 * 1024 + i * 8192, 8192, buf, 0);
        g_assert_true(ret == 0 || ret == -ENOSPC);
        failed += ret < 0;
    }
    g_assert_cmpint(failed, >, 0);
    c.disk->length_max = 0;
    assert_content(blk, 0, 32 * SECTOR, 0xaa);
    write_pattern(blk, 512 * 1024, 8192, 0x77);
    assert_content(blk, 512 * 1024, 8192, 0x77);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    g_byte_array_unref(c.before);
    memory_disk_free(c.disk);
    g_rand_free(c.rand);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/qcow2/crash/in-order", test_in_order);
    g_test_add_func("/qcow2/crash/late", test_late);
    g_test_add_func("/qcow2/crash/management", test_management);
    g_test_add_func("/qcow2/crash/shrinking", test_shrinking);
    g_test_add_func("/qcow2/crash/disk-errors", test_disk_errors);
    g_test_add_func("/qcow2/crash/full-disk", test_full_disk);
    return image_test_run();
}
