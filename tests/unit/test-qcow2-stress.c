/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 with all that can happen to an image at once, and a copy of what it must hold.
 *
 *   clients    each its own sectors: read, write, zero, compress, flush; one request after
 *              the other, wherever the node lives
 *   main       moves the node between threads, snapshots, bitmaps, resizes, reopens, amends,
 *              checks, and sometimes stops the clients to compare everything
 *
 *   sectors:   | 0 1 2 3 4 5 6 7 0 1 2 3 ... | 0 0 0 0 ... | 1 1 1 1 ... | ...  | nobody's |
 *                striped: neighbours meet in   a part of its own for each
 *                one cluster
 */
#include "qcow2-test.h"
#include "miniblk/atomic.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/iothread.h"
#include "miniblk/snapshot.h"
#include "memory-disk.h"

/* In the lab, which runs many schedules of it, little happens in each. */
#ifdef MINIBLK_LAB
enum { CLIENTS = 3, TURNS = 8, REQUESTS_PER_TURN = 6, IMAGES = 2 };
#else
enum { CLIENTS = 8, TURNS = 80, REQUESTS_PER_TURN = 40, IMAGES = 9 };
#endif

enum {
    SECTOR = 512, STRIPES = 64, PART = 128,
    ODD = 5,                    /* so many less has the last one, so that a cluster is cut */
    STRIPED = CLIENTS * STRIPES, USED = STRIPED + CLIENTS * PART - ODD,
    SNAPSHOTS = 3,
};

typedef struct Stress Stress;

typedef struct Client {
    Stress *st;
    int index;
    GRand *rand;
    OpType type;                /* of the request in flight */
    int first, n;               /* its sectors */
    uint8_t value;
    uint8_t *buf;
    QEMUIOVector qiov;
} Client;

struct Stress {
    GRand *rand;
    BlockBackend *blk;
    const char *create;
    AioContext *homes[3];
    uint8_t content[USED];      /* of each sector; its owner's, or main's while drained */
    uint8_t taken[SNAPSHOTS][USED];     /* what the snapshots show */
    bool exists[SNAPSHOTS];
    int64_t cluster_bytes;
    bool stop;                  /* atomic; like the next one */
    int running;
    unsigned done;              /* requests */
    Client clients[CLIENTS];
};

/* ---- clients ----------------------------------------------------------------------- */

static void next_request(Client *c);

static void request_done(void *opaque, int ret)
{
    Client *c = opaque;
    uint8_t *now = c->st->content + c->first;

    g_assert_cmpint(ret, ==, 0);
    qatomic_fetch_inc(&c->st->done);
    for (int i = 0; i < c->n && c->type == OP_READ; i++) {
        uint8_t v = c->buf[i * SECTOR];
        if (v != now[i]) {
            g_error("%s: sector %d holds 0x%02x, not 0x%02x", c->st->create, c->first + i, v,
                    now[i]);
        }
        assert_bytes(c->buf + i * SECTOR, SECTOR, v);
    }
    if (c->type != OP_READ && c->type != OP_FLUSH) {
        memset(now, c->value, c->n);
    }
    if (qatomic_read(&c->st->stop)) {
        qatomic_fetch_dec(&c->st->running);
    } else {
        next_request(c);
    }
    aio_wait_kick();
}

/* Sectors of C's own. Compressed writes take whole clusters. */
static void choose_sectors(Client *c)
{
    int per_cluster = c->st->cluster_bytes / SECTOR, start = STRIPED + c->index * PART;
    int part = c->index == CLIENTS - 1 ? PART - ODD : PART, clusters = part / per_cluster;

    c->n = 1;
    if (c->type == OP_COMPRESSED && clusters) {
        c->n = per_cluster * g_rand_int_range(c->rand, 1, MIN(clusters, 4) + 1);
        c->first = start + g_rand_int_range(c->rand, 0, part / c->n) * c->n;
        return;
    }
    c->type = c->type == OP_COMPRESSED ? OP_WRITE : c->type;
    if (g_rand_boolean(c->rand)) {
        c->first = g_rand_int_range(c->rand, 0, STRIPES) * CLIENTS + c->index;
    } else {
        c->n = g_rand_int_range(c->rand, 1, 32);
        c->first = start + g_rand_int_range(c->rand, 0, part - c->n + 1);
    }
}

static void next_request(Client *c)
{
    static const OpType types[] = { OP_WRITE, OP_WRITE, OP_WRITE, OP_READ, OP_READ, OP_ZERO,
                                    OP_UNMAP, OP_UNMAP, OP_COMPRESSED, OP_FLUSH };
    BlockBackend *blk = c->st->blk;

    c->type = types[g_rand_int_range(c->rand, 0, ARRAY_SIZE(types))];
    choose_sectors(c);
    int64_t at = (int64_t)c->first * SECTOR, bytes = (int64_t)c->n * SECTOR;
    bool data = c->type == OP_WRITE || c->type == OP_COMPRESSED;
    c->value = data ? g_rand_int_range(c->rand, 1, 256) : 0;
    memset(c->buf, c->value, bytes);
    qemu_iovec_init_buf(&c->qiov, c->buf, bytes);
    switch (c->type) {
    case OP_READ:
        blk_aio_preadv(blk, at, &c->qiov, 0, request_done, c);
        break;
    case OP_FLUSH:
        blk_aio_flush(blk, request_done, c);
        break;
    case OP_ZERO:
    case OP_UNMAP:
        blk_aio_pwrite_zeroes(blk, at, bytes, c->type == OP_ZERO ? 0 : BDRV_REQ_MAY_UNMAP,
                              request_done, c);
        break;
    default:
        blk_aio_pwritev(blk, at, &c->qiov,
                        c->type == OP_COMPRESSED ? BDRV_REQ_WRITE_COMPRESSED : 0,
                        request_done, c);
    }
}

static void start_clients(Stress *st)
{
    qatomic_set(&st->stop, false);
    qatomic_set(&st->running, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        next_request(&st->clients[i]);
    }
}

static void stop_clients(Stress *st)
{
    qatomic_set(&st->stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_load_acquire(&st->running) > 0);
}

/* ---- what main does ---------------------------------------------------------------- */

static void compare_all(Stress *st)
{
    int64_t bytes = blk_getlength(st->blk);
    g_autofree uint8_t *now = g_malloc(bytes);

    g_assert_cmpint(bytes, >=, USED * SECTOR);
    g_assert_cmpint(blk_pread(st->blk, 0, bytes, now, 0), ==, 0);
    for (int i = 0; i < USED; i++) {
        if (now[i * SECTOR] != st->content[i]) {
            g_error("%s: sector %d holds 0x%02x, not 0x%02x", st->create, i, now[i * SECTOR],
                    st->content[i]);
        }
        assert_bytes(now + i * SECTOR, SECTOR, st->content[i]);
    }
    assert_bytes(now + USED * SECTOR, bytes - USED * SECTOR, 0);
}

static void turn_compare(Stress *st)
{
    stop_clients(st);
    compare_all(st);
    qcow2_assert_consistent(st->blk, false);
    start_clients(st);
}

static void turn_check(Stress *st)
{
    qcow2_assert_consistent(st->blk, false);
}

static void turn_move(Stress *st)
{
    AioContext *to = st->homes[g_rand_int_range(st->rand, 0, ARRAY_SIZE(st->homes))];

    g_assert_cmpint(blk_set_aio_context(st->blk, to, &error_abort), ==, 0);
}

static void turn_drain(Stress *st)
{
    blk_drain(st->blk);
}

static void turn_flush(Stress *st)
{
    g_assert_cmpint(blk_flush(st->blk), ==, 0);
}

/* Make a snapshot; or go to it, or delete it. What it shows is settled while drained. */
static void turn_snapshot(Stress *st)
{
    BlockDriverState *bs = blk_bs(st->blk);
    int i = g_rand_int_range(st->rand, 0, SNAPSHOTS), ret;
    QEMUSnapshotInfo sn = { .icount = UINT64_MAX };
    Error *err = NULL;

    g_snprintf(sn.name, sizeof(sn.name), "s%d", i);
    bdrv_drained_begin(bs);
    if (!st->exists[i]) {
        ret = bdrv_snapshot_create(bs, &sn);
        g_assert_true(ret == 0 || ret == -EINVAL);      /* counts of few bits */
        st->exists[i] = ret == 0;
        memcpy(st->taken[i], st->content, sizeof(st->content));
    } else if (g_rand_boolean(st->rand)) {
        ret = bdrv_snapshot_goto(bs, sn.name, &err);
        g_assert_true(ret == 0 || ret == -EINVAL || ret == -EBUSY);     /* (bitmaps) */
        if (ret == 0) {
            memcpy(st->content, st->taken[i], sizeof(st->content));
        }
    } else {
        ret = bdrv_snapshot_delete(bs, NULL, sn.name, &error_abort);
        g_assert_cmpint(ret, ==, 0);
        st->exists[i] = false;
    }
    bdrv_drained_end(bs);
    error_free(err);
}

static void turn_bitmap(Stress *st)
{
    BlockDriverState *bs = blk_bs(st->blk);
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(bs, "b");

    if (b) {
        g_assert_cmpint(bdrv_remove_persistent_dirty_bitmap(bs, "b", &error_abort), ==, 0);
        bdrv_release_dirty_bitmap(b);
    } else if (bdrv_can_store_new_dirty_bitmap(bs, "b", 4096, NULL)) {
        b = bdrv_create_dirty_bitmap(bs, 4096, "b", &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
}

static void turn_resize(Stress *st)
{
    static const PreallocMode modes[] = { PREALLOC_MODE_OFF, PREALLOC_MODE_METADATA };
    int64_t bytes = (USED + g_rand_int_range(st->rand, 0, 500)) * SECTOR;
    bool grow = bytes > blk_getlength(st->blk);
    Error *err = NULL;

    /* (version 2 refuses while there are snapshots) */
    int ret = blk_truncate(st->blk, bytes, false, modes[grow && g_rand_boolean(st->rand)], 0,
                           &err);
    g_assert_true(ret == 0 || ret == -ENOTSUP);
    error_free(err);
}

static void turn_amend(Stress *st)
{
    static const char *const changes[] = { "lazy_refcounts=on", "lazy_refcounts=off",
                                           "refcount_bits=64", "refcount_bits=16" };
    g_autoptr(json_t) opts = options_of("%s", changes[g_rand_int_range(st->rand, 0, 4)]);
    Error *err = NULL;

    bdrv_amend_options(blk_bs(st->blk), opts, NULL, NULL, false, &err);
    error_free(err);            /* (version 2 has none of that) */
}

static void turn_reopen(Stress *st)
{
    static const char *const sizes[] = { "4k", "64k", "1M" };
    QDict *opts = options_of("l2-cache-size=%s,refcount-cache-size=4k",
                             sizes[g_rand_int_range(st->rand, 0, 3)]);

    /* (a disk in memory cannot) */
    if (blk_bs(st->blk)->file->bs->drv == &memory_disk_driver) {
        json_decref(opts);
        return;
    }
    g_assert_cmpint(bdrv_reopen(blk_bs(st->blk), opts, true, &error_abort), ==, 0);
}

/* ---- runs -------------------------------------------------------------------------- */

static void take_turns(Stress *st, int turns)
{
    static void (*const kinds[])(Stress *) = {
        turn_move, turn_move, turn_drain, turn_flush, turn_snapshot, turn_snapshot,
        turn_bitmap, turn_resize, turn_resize, turn_amend, turn_reopen, turn_check,
        turn_compare,
    };

    start_clients(st);
    for (int i = 0; i < turns; i++) {
        kinds[g_rand_int_range(st->rand, 0, ARRAY_SIZE(kinds))](st);
        /* Now and then let the clients get far. */
        unsigned from = qatomic_read(&st->done);
        unsigned n = g_rand_int_range(st->rand, 0, REQUESTS_PER_TURN);
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&st->done) - from < n);
    }
    stop_clients(st);
    g_test_message("%s: %u requests", st->create, st->done);
    g_assert_cmpint(blk_set_aio_context(st->blk, qemu_get_aio_context(), &error_abort), ==, 0);
    compare_all(st);
    qcow2_assert_consistent(st->blk, false);
}

static BlockBackend *open_image(const char *path, MemoryDisk *disk)
{
    memory_disk_to_open = disk;
    return disk ? open_rw(options_of("driver=qcow2,discard=unmap,file.driver=memory-disk,"
                                     "l2-cache-size=4k,refcount-cache-size=4k,"
                                     "l2-cache-entry-size=512"))
                : qcow2_open_file(path, ",file.cache.no-flush=on");
}

/* LATE: on a disk that completes requests in any order; else on a file. */
static void run_image(const char *create, bool late, IOThread **threads)
{
    g_autofree char *path = scratch_path("stress.qcow2");
    g_autofree char *options = g_strdup_printf("size=%d,%s", USED * SECTOR, create);
    g_autofree char *bytes = NULL;
    g_autofree Stress *st = g_new0(Stress, 1);
    MemoryDisk *disk = NULL;
    BlockDriverInfo bdi;
    gsize length;

    st->create = create;
    st->rand = g_rand_new_with_seed(g_test_rand_int());
    st->homes[0] = qemu_get_aio_context();
    st->homes[1] = iothread_get_aio_context(threads[0]);
    st->homes[2] = iothread_get_aio_context(threads[1]);
    qcow2_create(path, options);
    if (late) {
        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        disk = memory_disk_new(bytes, length);
        disk->late = g_rand_new_with_seed(g_rand_int(st->rand));
    }
    st->blk = open_image(path, disk);
    blk_set_allow_aio_context_change(st->blk, true);
    g_assert_cmpint(bdrv_get_info(blk_bs(st->blk), &bdi), ==, 0);
    st->cluster_bytes = bdi.cluster_size;
    for (int i = 0; i < CLIENTS; i++) {
        st->clients[i] = (Client){ .st = st, .index = i,
                                   .rand = g_rand_new_with_seed(g_rand_int(st->rand)),
                                   .buf = g_malloc(PART * SECTOR) };
    }
    take_turns(st, g_test_slow() ? 20 * TURNS : TURNS);
    blk_unref(st->blk);
    st->blk = open_image(path, disk);
    compare_all(st);
    qcow2_assert_consistent(st->blk, false);
    blk_unref(st->blk);
    for (int i = 0; i < CLIENTS; i++) {
        g_rand_free(st->clients[i].rand);
        g_free(st->clients[i].buf);
    }
    if (disk) {
        memory_disk_free(disk);
    } else {
        qcow2_assert_peer_finds_no_fault(path);
    }
    g_rand_free(st->rand);
}

static void test_stress(gconstpointer late)
{
    static const char *const images[] = {
        "cluster_size=512", "cluster_size=4k", "cluster_size=4k,compat=0.10",
        "cluster_size=64k",
        "cluster_size=1k,refcount_bits=1", "cluster_size=4k,refcount_bits=2",
        "cluster_size=4k,lazy_refcounts=on", "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,preallocation=metadata",
    };
    IOThread *threads[2] = { iothread_create("stress-a", &error_abort),
                             iothread_create("stress-b", &error_abort) };

    G_STATIC_ASSERT(IMAGES <= ARRAY_SIZE(images));
    for (unsigned i = 0; i < IMAGES; i++) {
        run_image(images[i], late != NULL, threads);
    }
    iothread_destroy(threads[0]);
    iothread_destroy(threads[1]);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
#ifndef MINIBLK_LAB             /* the peer, who looks at the file, is out of its reach */
    g_test_add_data_func("/qcow2/stress/file", NULL, test_stress);
#endif
    g_test_add_data_func("/qcow2/stress/late", "late", test_stress);
    return image_test_run();
}
