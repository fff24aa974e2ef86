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

static BlockBackend *open_disk(MemoryDisk *disk, int flags)
{
    memory_disk_to_open = disk;
    return open_with_perms(options_of("driver=qcow2,discard=unmap,file.driver=memory-disk%s",
                                      flags & BDRV_O_RDWR ? "" : ",read-only=on"), flags,
                           flags & BDRV_O_RDWR ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ,
                           BLK_PERM_ALL, &error_abort);
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

static void run_workload(Crash *c)
{
    BlockBackend *blk = open_disk(c->disk, BDRV_O_RDWR);

    for (int i = 0; i < 10; i++) {
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
    g_test_add_func("/qcow2/crash/disk-errors", test_disk_errors);
    g_test_add_func("/qcow2/crash/full-disk", test_full_disk);
    return image_test_run();
}
