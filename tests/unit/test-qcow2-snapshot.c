/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: internal snapshots and the VM state. */
#include "qcow2-test.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/iothread.h"

enum { GUEST_BYTES = 256 * 1024, SNAPSHOTS_MAX = 5 };

/* ---- one call each ------------------------------------------------------------------- */

static int take(BlockBackend *blk, const char *name, QEMUSnapshotInfo *info)
{
    QEMUSnapshotInfo mine = { .date_sec = 1234567890, .date_nsec = 5, .icount = UINT64_MAX };

    g_strlcpy(mine.name, name, sizeof(mine.name));
    int ret = bdrv_snapshot_create(blk_bs(blk), &mine);
    if (info) {
        *info = mine;
    }
    return ret;
}

static void assert_taken(BlockBackend *blk, const char *name)
{
    g_assert_cmpint(take(blk, name, NULL), ==, 0);
}

static void assert_goes_to(BlockBackend *blk, const char *name)
{
    g_assert_cmpint(bdrv_snapshot_goto(blk_bs(blk), name, &error_abort), ==, 0);
}

static void assert_deleted(BlockBackend *blk, const char *name)
{
    g_assert_cmpint(bdrv_snapshot_delete(blk_bs(blk), NULL, name, &error_abort), ==, 0);
}

static void assert_fails(int ret, int expected, Error *err, const char *text)
{
    g_assert_cmpint(ret, ==, expected);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static char *new_image(const char *opts)
{
    char *path = scratch_path("snapshot.qcow2");
    qcow2_create(path, opts);
    return path;
}

/* ---- against a model ----------------------------------------------------------------- */

typedef struct Saved { char name[16]; uint8_t *data; } Saved;

typedef struct Model {
    BlockBackend *blk;
    const char *path;
    GRand *rand;
    uint8_t *data;
    GArray *saved;              /* Saved */
    int names;
} Model;

static void change_something(Model *m)
{
    int at = g_rand_int_range(m->rand, 0, GUEST_BYTES / 512) * 512;
    int n = MIN(g_rand_int_range(m->rand, 1, 100) * 512, GUEST_BYTES - at);
    uint8_t value = g_rand_int_range(m->rand, 0, 4) ? g_rand_int_range(m->rand, 1, 256) : 0;

    if (value) {
        write_pattern(m->blk, at, n, value);
    } else {
        g_assert_cmpint(blk_pwrite_zeroes(m->blk, at, n, BDRV_REQ_MAY_UNMAP), ==, 0);
    }
    memset(m->data + at, value, n);
}

static void assert_same(Model *m)
{
    g_autofree uint8_t *now = g_malloc(GUEST_BYTES);

    g_assert_cmpint(blk_pread(m->blk, 0, GUEST_BYTES, now, 0), ==, 0);
    g_assert_cmpmem(now, GUEST_BYTES, m->data, GUEST_BYTES);
}

static Saved *any_saved(Model *m)
{
    return &g_array_index(m->saved, Saved, g_rand_int_range(m->rand, 0, m->saved->len));
}

static void change_snapshots(Model *m)
{
    int what = g_rand_int_range(m->rand, 0, 10) % 4;        /* seldom: 3 */

    if (what == 3) {
        g_assert_cmpint(blk_make_empty(m->blk, &error_abort), ==, 0);
        memset(m->data, 0, GUEST_BYTES);
    } else if (what == 0 && m->saved->len < SNAPSHOTS_MAX) {
        Saved s = { .data = g_memdup2(m->data, GUEST_BYTES) };
        snprintf(s.name, sizeof(s.name), "s%d", m->names++);
        assert_taken(m->blk, s.name);
        g_array_append_val(m->saved, s);
    } else if (what == 1 && m->saved->len) {
        Saved *s = any_saved(m);
        assert_goes_to(m->blk, s->name);
        memcpy(m->data, s->data, GUEST_BYTES);
    } else if (m->saved->len) {
        Saved *s = any_saved(m);
        assert_deleted(m->blk, s->name);
        g_free(s->data);
        g_array_remove_index(m->saved, s - (Saved *)m->saved->data);
    }
}

/* Every snapshot shows what the disk was, to us and to the peer. */
static void assert_snapshots(Model *m)
{
    g_autofree char *raw = scratch_path("snapshot.raw");
    g_autofree char *peer = g_find_program_in_path("qemu-img");

    blk_unref(m->blk);
    qcow2_assert_peer_finds_no_fault(m->path);
    for (guint i = 0; i < m->saved->len; i++) {
        Saved *s = &g_array_index(m->saved, Saved, i);
        g_autofree uint8_t *now = g_malloc(GUEST_BYTES);
        m->blk = qcow2_open_ro(m->path);
        g_assert_cmpint(bdrv_snapshot_load_tmp(blk_bs(m->blk), NULL, s->name, &error_abort),
                        ==, 0);
        g_assert_cmpint(blk_pread(m->blk, 0, GUEST_BYTES, now, 0), ==, 0);
        g_assert_cmpmem(now, GUEST_BYTES, s->data, GUEST_BYTES);
        blk_unref(m->blk);
        if (peer) {
            g_autofree char *bytes = NULL;
            gsize n;
            qcow2_assert_peer("convert -l snapshot.name=%s -O raw %s %s", s->name, m->path,
                              raw);
            g_assert_true(g_file_get_contents(raw, &bytes, &n, NULL));
            g_assert_cmpmem(bytes, n, s->data, GUEST_BYTES);
        }
    }
    m->blk = qcow2_open_file(m->path, "");
}

static void run_model(const char *opts, int rounds)
{
    g_autofree char *path = new_image(opts);
    Model m = { .path = path, .rand = g_rand_new_with_seed(g_test_rand_int()),
                .data = g_malloc0(GUEST_BYTES), .blk = qcow2_open_file(path, ""),
                .saved = g_array_new(false, false, sizeof(Saved)) };

    g_test_message("%s", opts);
    for (int i = 0; i < rounds; i++) {
        for (int k = g_rand_int_range(m.rand, 0, 8); k > 0; k--) {
            change_something(&m);
        }
        change_snapshots(&m);
        assert_same(&m);
        qcow2_assert_consistent(m.blk, false);
    }
    assert_snapshots(&m);
    assert_same(&m);
    while (m.saved->len) {
        Saved *s = any_saved(&m);
        assert_deleted(m.blk, s->name);
        g_free(s->data);
        g_array_remove_index(m.saved, s - (Saved *)m.saved->data);
    }
    assert_same(&m);
    qcow2_assert_consistent(m.blk, false);
    blk_unref(m.blk);
    qcow2_assert_peer_finds_no_fault(path);
    g_array_unref(m.saved);
    g_free(m.data);
    g_rand_free(m.rand);
}

static void test_model(void)
{
    static const char *const opts[] = {
        "size=256k,cluster_size=512", "size=256k,cluster_size=512,refcount_bits=4",
        "size=256k,cluster_size=512,refcount_bits=64", "size=256k,cluster_size=4k,compat=0.10",
        "size=256k,cluster_size=4k,lazy_refcounts=on", "size=256k,cluster_size=64k",
        "size=256k,cluster_size=16k,extended_l2=on", "size=256k,cluster_size=2M",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(opts); i++) {
        run_model(opts[i], image_test_rounds(40, 400));
    }
}

/* ---- single behaviours ----------------------------------------------------------------- */

static void test_list(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    g_autofree QEMUSnapshotInfo *list = NULL;
    QEMUSnapshotInfo info;

    g_assert_cmpint(bdrv_can_snapshot(blk_bs(blk)), ==, 1);
    g_assert_cmpint(bdrv_snapshot_list(blk_bs(blk), &list), ==, 0);
    g_assert_null(list);
    assert_taken(blk, "one");
    assert_taken(blk, "two");
    assert_taken(blk, "two");
    assert_deleted(blk, "one");
    g_assert_cmpint(take(blk, "three", &info), ==, 0);
    g_assert_cmpstr(info.id_str, ==, "4");
    g_assert_cmpint(bdrv_snapshot_list(blk_bs(blk), &list), ==, 3);
    g_assert_cmpstr(list[0].id_str, ==, "2");
    g_assert_cmpstr(list[0].name, ==, "two");
    g_assert_cmpstr(list[1].id_str, ==, "3");
    g_assert_cmpuint(list[2].date_sec, ==, 1234567890);
    g_assert_cmpuint(list[2].date_nsec, ==, 5);
    g_assert_cmpuint(list[2].icount, ==, UINT64_MAX);
    g_assert_cmpint(bdrv_snapshot_find(blk_bs(blk), &info, "two"), ==, 0);
    g_assert_cmpstr(info.id_str, ==, "2");
    g_assert_cmpint(bdrv_snapshot_find(blk_bs(blk), &info, "2"), ==, -ENOENT);
    g_assert_true(bdrv_snapshot_find_by_id_and_name(blk_bs(blk), "3", "two", &info, NULL));
    g_assert_false(bdrv_snapshot_find_by_id_and_name(blk_bs(blk), "3", "three", &info, NULL));
    /* the same after closing */
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    g_assert_cmpint(bdrv_can_snapshot(blk_bs(blk)), ==, 0);
    g_free(list);
    g_assert_cmpint(bdrv_snapshot_list(blk_bs(blk), &list), ==, 3);
    g_assert_cmpstr(list[2].name, ==, "three");
    blk_unref(blk);
}

static void test_refused(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);
    Error *err = NULL;

    int ret = bdrv_snapshot_goto(bs, "none", &err);
    assert_fails(ret, -ENOENT, err, "Failed to load snapshot: No such file or directory");
    err = NULL;
    ret = bdrv_snapshot_delete(bs, NULL, "none", &err);
    assert_fails(ret, -ENOENT, err, "Can't find the snapshot");
    err = NULL;
    ret = bdrv_snapshot_delete(bs, NULL, NULL, &err);
    assert_fails(ret, -EINVAL, err, "snapshot_id and name are both NULL");
    err = NULL;
    assert_taken(blk, "s");
    ret = bdrv_snapshot_load_tmp(bs, NULL, "s", &err);
    assert_fails(ret, -EINVAL, err, "Device is not readonly");
    err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(bs, 65536, "b", &error_abort);
    ret = bdrv_snapshot_goto(bs, "s", &err);
    assert_fails(ret, -EBUSY, err, "Device has active dirty bitmaps");
    bdrv_release_dirty_bitmap(bitmap);
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    err = NULL;
    g_assert_cmpint(take(blk, "t", NULL), ==, -EACCES);
    ret = bdrv_snapshot_delete(blk_bs(blk), NULL, "s", &err);
    assert_fails(ret, -EACCES, err, "Device is readonly");
    err = NULL;
    ret = bdrv_snapshot_load_tmp(blk_bs(blk), NULL, "none", &err);
    assert_fails(ret, -ENOENT, err, "Can't find snapshot");
    blk_unref(blk);
    /* raw passes them on to its child, which has none */
    blk = open_rw(options_of("driver=raw,file.driver=file,file.filename=%s", path));
    g_assert_cmpint(bdrv_can_snapshot(blk_bs(blk)), ==, 0);
    g_assert_cmpint(take(blk, "t", NULL), ==, -ENOTSUP);
    err = NULL;
    ret = bdrv_snapshot_goto(blk_bs(blk), "s", &err);
    assert_fails(ret, -ENOTSUP, err, "Block driver does not support snapshots");
    blk_unref(blk);
}

/* One bit has no room for a second reference; nothing may be left of the attempt. */
static void test_narrow_refcounts(void)
{
    static const char *const opts[] = { "size=1M,cluster_size=4k,refcount_bits=1",
                                        "size=1M,cluster_size=4k,refcount_bits=2" };

    for (unsigned i = 0; i < ARRAY_SIZE(opts); i++) {
        g_autofree char *path = new_image(opts[i]);
        BlockBackend *blk = qcow2_open_file(path, "");
        write_pattern(blk, 0, 100000, 1);
        for (unsigned k = 0; k < i * 2; k++) {
            assert_taken(blk, "s");
        }
        g_assert_cmpint(take(blk, "t", NULL), ==, -EINVAL);
        qcow2_assert_consistent(blk, false);
        write_pattern(blk, 50000, 100000, 2);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
        blk = qcow2_open_file(path, "");
        assert_content(blk, 0, 50000, 1);
        assert_content(blk, 50000, 100000, 2);
        blk_unref(blk);
    }
}

/*
 * A disk that was made empty has no tables either: the file is as long as a new one, and there
 * is room for a snapshot even in refcounts of one bit.
 */
static void test_emptied(void)
{
    static const struct { const char *opts; bool snapshots; } cases[] = {
        { "size=8M,cluster_size=4k,refcount_bits=1", true },
        { "size=8M,cluster_size=16k,refcount_bits=1,extended_l2=on", true },
        { "size=8M,cluster_size=4k,compat=0.10", true },
        { "size=8M,cluster_size=4k,lazy_refcounts=on", true },
        { "size=8M,cluster_size=4k,data_file=%s/emptied.data", false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_auto(GStrv) parts = g_strsplit(cases[i].opts, "%s", 2);
        g_autofree char *opts = g_strjoinv(scratch_dir, parts);
        g_test_message("%s", opts);
        g_autofree char *path = new_image(opts);
        BlockBackend *blk = qcow2_open_file(path, "");
        int64_t bytes = file_bytes(path);
        write_pattern(blk, 100000, 1000000, 1);
        write_pattern(blk, (8 << 20) - 5000, 5000, 2);
        g_assert_cmpint(blk_make_empty(blk, &error_abort), ==, 0);
        qcow2_assert_consistent(blk, false);
        g_assert_cmpint(file_bytes(path), <=, bytes + 4096);
        if (cases[i].snapshots) {
            assert_taken(blk, "s");
        }
        write_pattern(blk, 200000, 1000, 3);
        assert_content(blk, 0, 200000, 0);
        assert_content(blk, 200000, 1000, 3);
        assert_content(blk, (8 << 20) - 5000, 5000, 0);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* A node above passes snapshots on, and follows the length. */
static void test_through_filters(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = open_rw(options_of("driver=raw,file.driver=qcow2,file.file.driver=file,"
                                           "file.file.filename=%s", path));

    write_pattern(blk, 0, 65536, 1);
    assert_taken(blk, "small");
    g_assert_cmpint(blk_truncate(blk, 2 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    write_pattern(blk, 0, 65536, 2);
    assert_taken(blk, "large");
    assert_goes_to(blk, "small");
    g_assert_cmpint(blk_getlength(blk), ==, 1 << 20);
    assert_content(blk, 0, 65536, 1);
    assert_goes_to(blk, "large");
    g_assert_cmpint(blk_getlength(blk), ==, 2 << 20);
    assert_content(blk, 0, 65536, 2);
    assert_content(blk, 1 << 20, 1 << 20, 0);
    assert_deleted(blk, "large");
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_backing_file(void)
{
    g_autofree char *base = scratch_file("base.raw", 1 << 20);
    BlockBackend *blk = open_rw(options_of("driver=raw,file.driver=file,file.filename=%s",
                                           base));

    write_pattern(blk, 0, 1 << 20, 3);
    blk_unref(blk);
    g_autofree char *path = new_image("size=1M,backing_file=base.raw,backing_fmt=raw");
    blk = qcow2_open_file(path, "");
    assert_taken(blk, "s");
    write_pattern(blk, 1000, 1000, 4);
    assert_taken(blk, "t");
    assert_goes_to(blk, "s");
    assert_content(blk, 0, 65536, 3);
    assert_goes_to(blk, "t");
    assert_content(blk, 0, 1000, 3);
    assert_content(blk, 1000, 1000, 4);
    assert_content(blk, 2000, 65536, 3);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- VM state -------------------------------------------------------------------- */

static void save_state(BlockBackend *blk, int64_t pos, size_t bytes, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, value, bytes);
    g_assert_cmpint(bdrv_save_vmstate(blk_bs(blk), buf, pos, bytes), ==, (int)bytes);
}

static void assert_state(BlockBackend *blk, int64_t pos, size_t bytes, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(bdrv_load_vmstate(blk_bs(blk), buf, pos, bytes), ==, (int)bytes);
    assert_bytes(buf, bytes, value);
}

static void run_vmstate(const char *opts)
{
    g_autofree char *path = new_image(opts);
    BlockBackend *blk = qcow2_open_file(path, "");
    QEMUSnapshotInfo sn = { .name = "vm", .vm_state_size = 300000, .vm_clock_nsec = 42,
                            .icount = 7 };

    g_test_message("%s", opts);
    write_pattern(blk, 0, 100000, 1);
    assert_state(blk, 0, 1000, 0);
    for (int64_t pos = 0; pos < 300000; pos += 30000) {
        save_state(blk, pos, 30000, 5 + pos / 30000);
    }
    assert_content(blk, 0, 100000, 1);
    assert_state(blk, 30000, 30000, 6);
    g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &sn), ==, 0);
    /* The active table has it no more, and there may be another one. */
    assert_state(blk, 0, 300000, 0);
    save_state(blk, 1000, 1000, 0x77);
    qcow2_assert_consistent(blk, false);
    assert_goes_to(blk, "vm");
    for (int64_t pos = 0; pos < 300000; pos += 30000) {
        assert_state(blk, pos, 30000, 5 + pos / 30000);
    }
    /* Written over, the snapshot still has the old one. */
    save_state(blk, 29000, 2000, 0x88);
    assert_state(blk, 28000, 1000, 5);
    assert_state(blk, 29000, 2000, 0x88);
    assert_state(blk, 31000, 1000, 6);
    assert_goes_to(blk, "vm");
    assert_state(blk, 29000, 1000, 5);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    g_assert_cmpint(bdrv_snapshot_find(blk_bs(blk), &sn, "vm"), ==, 0);
    g_assert_cmpuint(sn.vm_state_size, ==, 300000);
    g_assert_cmpuint(sn.vm_clock_nsec, ==, 42);
    g_assert_cmpuint(sn.icount, ==, 7);
    /* The disk grows to where it lies: it must not be seen there. */
    if (!strstr(opts, "0.10")) {
        g_assert_cmpint(blk_truncate(blk, 64 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort),
                        ==, 0);
        assert_content(blk, 1 << 20, 63 << 20, 0);
    }
    assert_deleted(blk, "vm");
    qcow2_assert_consistent(blk, false);
    /* It shrinks: where the state lay nobody would look for it, so it is given up. */
    save_state(blk, 0, 100000, 7);
    g_assert_cmpint(blk_truncate(blk, 512 << 10, false, PREALLOC_MODE_OFF, 0, &error_abort),
                    ==, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_vmstate(void)
{
    run_vmstate("size=1M,cluster_size=512");
    run_vmstate("size=1M,cluster_size=4k,compat=0.10");
    run_vmstate("size=1M,cluster_size=4k,lazy_refcounts=on");
    run_vmstate("size=1M");
}

/* ---- while an IOThread writes ---------------------------------------------------- */

/*
 *   IOThread:  write write write ...      (a new one whenever one has ended)
 *   main:      create  list  info  goto  delete  ...       each drains the node
 */
typedef struct Writer {
    BlockBackend *blk;
    int64_t next;
    uint8_t buf[4096];
    bool stop;
    unsigned running, written;
} Writer;

static void write_done(void *opaque, int ret)
{
    Writer *w = opaque;

    g_assert_cmpint(ret, ==, 0);
    qatomic_inc(&w->written);
    if (qatomic_read(&w->stop)) {
        qatomic_dec(&w->running);
        return;
    }
    w->next = (w->next + 40960 + 4096) % GUEST_BYTES & ~4095;
    blk_aio_pwrite_zeroes(w->blk, w->next, 4096, 0, write_done, w);
}

static void start_writer(void *opaque)
{
    write_done(opaque, 0);
}

static void test_in_iothread(void)
{
    g_autofree char *path = new_image("size=256k,cluster_size=4k");
    IOThread *io = iothread_create("io", &error_abort);
    AioContext *ctx = iothread_get_aio_context(io);
    BlockBackend *blk = qcow2_open_file(path, "");
    Writer w = { .blk = blk, .running = 2 };

    g_assert_cmpint(blk_set_aio_context(blk, ctx, &error_abort), ==, 0);
    aio_bh_schedule_oneshot(ctx, start_writer, &w);
    aio_bh_schedule_oneshot(ctx, start_writer, &w);
    for (int i = 0; i < 20; i++) {
        g_autofree QEMUSnapshotInfo *list = NULL;
        unsigned before = qatomic_read(&w.written);
        while (qatomic_read(&w.written) < before + 5) {
            aio_poll(qemu_get_aio_context(), false);
        }
        assert_taken(blk, "s");
        g_assert_cmpint(bdrv_snapshot_list(blk_bs(blk), &list), ==, 1);
        json_decref(blk_bs(blk)->drv->bdrv_get_specific_info(blk_bs(blk)));
        g_assert_true(bdrv_can_store_new_dirty_bitmap(blk_bs(blk), "b", 4096, &error_abort));
        assert_goes_to(blk, "s");
        assert_deleted(blk, "s");
    }
    qatomic_set(&w.stop, true);
    while (qatomic_read(&w.running)) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpint(blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort), ==, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    iothread_destroy(io);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- images of others ------------------------------------------------------------ */

enum { H_L1_OFFSET = 40, H_INCOMPAT = 72, H_NB_SNAPSHOTS = 60, H_SNAPSHOTS = 64 };

static void poke(const char *path, int64_t offset, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, bytes, n, offset), ==, (ssize_t)n);
    close(fd);
}

static void peek(const char *path, int64_t offset, void *bytes, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, bytes, n, offset), ==, (ssize_t)n);
    close(fd);
}

static uint64_t peek64(const char *path, int64_t offset)
{
    uint64_t v;
    peek(path, offset, &v, sizeof(v));
    return GUINT64_FROM_BE(v);
}

static void poke64(const char *path, int64_t offset, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    poke(path, offset, &v, sizeof(v));
}

/* Extra data that we do not know stays when the table is written anew. */
static void test_unknown_extra_data(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    uint8_t entry[64 + 16];
    uint32_t extra = GUINT32_TO_BE(24 + 16);

    assert_taken(blk, "s");
    blk_unref(blk);
    /* | 40 bytes | 24 of extra data | "1s" | becomes | 40 | 24 + 16 | "1s" | */
    uint64_t table = peek64(path, H_SNAPSHOTS);
    peek(path, table, entry, sizeof(entry));
    poke(path, table + 80, entry + 64, 8);
    poke(path, table + 64, "sixteen unknown.", 16);
    poke(path, table + 36, &extra, sizeof(extra));
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    assert_taken(blk, "t");
    blk_unref(blk);
    g_assert_cmpuint(peek64(path, H_SNAPSHOTS), !=, table);
    table = peek64(path, H_SNAPSHOTS);
    peek(path, table, entry, sizeof(entry));
    g_assert_cmpmem(entry + 64, 16, "sixteen unknown.", 16);
    qcow2_assert_peer_finds_no_fault(path);
}

/* A small file must not make us work for ever, nor fail an assertion. */
static void test_hostile(void)
{
    static const struct { const char *name; bool l2; uint64_t entry; } cases[] = {
        { "L2 table named twice", false, 0 },
        { "L2 table unaligned", false, 0x200 },
        { "L2 table beyond the end", false, 1ULL << 40 },
        { "cluster unaligned", true, 0x200 },
        { "cluster beyond the end", true, 1ULL << 40 },
        { "compressed beyond the end", true, 1ULL << 62 | 1ULL << 40 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        for (int op = 0; op < 3; op++) {
            g_autofree char *path = new_image("size=4M,cluster_size=4k");
            BlockBackend *blk = qcow2_open_file(path, "");
            write_pattern(blk, 0, 512, 1);
            assert_taken(blk, "s");
            blk_unref(blk);
            uint64_t l1 = op ? peek64(path, peek64(path, H_SNAPSHOTS))
                             : peek64(path, H_L1_OFFSET);
            uint64_t l2 = peek64(path, l1) & 0x00fffffffffffe00;
            poke64(path, (cases[i].l2 ? l2 : l1) + 8, cases[i].entry ? cases[i].entry : l2);
            blk = qcow2_open_file(path, "");
            int ret = op == 0 ? take(blk, "t", NULL)
                    : op == 1 ? bdrv_snapshot_goto(blk_bs(blk), "s", NULL)
                              : bdrv_snapshot_delete(blk_bs(blk), NULL, "s", NULL);
            g_test_message("%s, operation %d", cases[i].name, op);
            g_assert_cmpint(ret, ==, -EIO);
            blk_unref(blk);
            /* It is marked as corrupt. */
            g_assert_cmpuint(peek64(path, H_INCOMPAT) & 2, ==, 2);
        }
    }
}

/* Images go back and forth between the peer and us. */
static void test_with_peer(void)
{
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    g_autofree char *path = new_image("size=1M,cluster_size=4k");

    if (!peer) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 65536, 1);
    blk_unref(blk);
    qcow2_assert_peer("snapshot -c theirs %s", path);
    blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 32768, 2);
    assert_taken(blk, "ours");
    write_pattern(blk, 0, 65536, 3);
    blk_unref(blk);
    qcow2_assert_peer("snapshot -a ours %s", path);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 0, 32768, 2);
    assert_content(blk, 32768, 32768, 1);
    assert_goes_to(blk, "theirs");
    assert_content(blk, 0, 65536, 1);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer("snapshot -d ours %s", path);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    assert_deleted(blk, "theirs");
    qcow2_assert_consistent(blk, false);
    assert_content(blk, 0, 65536, 1);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/snapshot/model", test_model);
    g_test_add_func("/qcow2/snapshot/list", test_list);
    g_test_add_func("/qcow2/snapshot/refused", test_refused);
    g_test_add_func("/qcow2/snapshot/narrow-refcounts", test_narrow_refcounts);
    g_test_add_func("/qcow2/snapshot/emptied", test_emptied);
    g_test_add_func("/qcow2/snapshot/through-filters", test_through_filters);
    g_test_add_func("/qcow2/snapshot/backing-file", test_backing_file);
    g_test_add_func("/qcow2/snapshot/vmstate", test_vmstate);
    g_test_add_func("/qcow2/snapshot/in-iothread", test_in_iothread);
    g_test_add_func("/qcow2/snapshot/unknown-extra-data", test_unknown_extra_data);
    g_test_add_func("/qcow2/snapshot/hostile", test_hostile);
    g_test_add_func("/qcow2/snapshot/with-peer", test_with_peer);
    return image_test_run();
}
