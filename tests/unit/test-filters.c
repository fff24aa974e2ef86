/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What holds for every filter, and what "throttle", "blkverify" and "compress" do besides. */
#include "image-test.h"
#include "miniblk/lab-test.h"
#include "throttle-test.h"

enum { DISK_BYTES = 1 << 20 };

/* ---- a disk that can store compressed --------------------------------------------- */

typedef struct Squeezer {
    uint8_t data[DISK_BYTES];
    int compressed, plain;      /* writes */
} Squeezer;

enum { SQUEEZER_CLUSTER = 65536 };

static int squeezer_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    bs->total_sectors = DISK_BYTES / 512;
    return 0;
}

static int coroutine_fn squeezer_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    Squeezer *s = bs->opaque;
    qemu_iovec_from_buf(qiov, 0, s->data + offset, bytes);
    return 0;
}

static int coroutine_fn squeezer_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    Squeezer *s = bs->opaque;
    s->plain++;
    qemu_iovec_to_buf(qiov, 0, s->data + offset, bytes);
    return 0;
}

static int coroutine_fn squeezer_write_compressed(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov)
{
    Squeezer *s = bs->opaque;
    g_assert_cmpint(offset % SQUEEZER_CLUSTER, ==, 0);
    g_assert_cmpint(bytes % SQUEEZER_CLUSTER, ==, 0);
    s->compressed++;
    qemu_iovec_to_buf(qiov, 0, s->data + offset, bytes);
    return 0;
}

static int coroutine_fn squeezer_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    bdi->cluster_size = SQUEEZER_CLUSTER;
    return 0;
}

static BlockDriver bdrv_squeezer = {
    .format_name = "squeezer",
    .protocol_name = "squeezer",
    .instance_size = sizeof(Squeezer),
    .bdrv_file_open = squeezer_open,
    .bdrv_co_preadv = squeezer_read,
    .bdrv_co_pwritev = squeezer_write,
    .bdrv_co_pwritev_compressed = squeezer_write_compressed,
    .bdrv_co_get_info = squeezer_get_info,
};

/* ---- every filter ----------------------------------------------------------------- */

/* %s: a file for the data; a second one, for what else the filter needs, is %s2. */
typedef struct FilterKind {
    const char *name, *options;
    bool opaque_status;         /* does not say where the data are */
} FilterKind;

static const FilterKind kinds[] = {
    { "throttle", "driver=throttle,throttle-group=free,file.driver=file,file.filename=%s" },
    { "blkdebug", "driver=blkdebug,image.driver=file,image.filename=%s" },
    { "blkverify", "driver=blkverify,raw.driver=file,raw.filename=%s,"
      "test.driver=file,test.filename=%s2", true },
    { "copy-on-read", "driver=copy-on-read,file.driver=file,file.filename=%s" },
    { "compress", "driver=compress,file.driver=squeezer", true },
    { "blklogwrites", "driver=blklogwrites,file.driver=file,file.filename=%s,"
      "log.driver=file,log.filename=%s2" },
};

static char *data_path, *other_path;

static QDict *kind_options(const FilterKind *kind, const char *more)
{
    g_auto(GStrv) parts = g_strsplit(kind->options, "%s", -1);
    GString *text = g_string_new(parts[0]);

    for (char **p = parts + 1; *p; p++) {
        bool second = (*p)[0] == '2';
        g_string_append_printf(text, "%s%s", second ? other_path : data_path, *p + second);
    }
    g_string_append(text, more);
    g_autofree char *owned = g_string_free(text, false);
    return options_of("%s", owned);
}

static BlockBackend *open_kind(const FilterKind *kind, const char *more)
{
    data_path = scratch_file("data", DISK_BYTES);
    other_path = scratch_file("other", strcmp(kind->name, "blkverify") ? 0 : DISK_BYTES);
    BlockBackend *blk = open_rw(kind_options(kind, more));
    blk_set_allow_aio_context_change(blk, true);
    return blk;
}

static void close_kind(BlockBackend *blk)
{
    blk_unref(blk);
    g_clear_pointer(&data_path, g_free);
    g_clear_pointer(&other_path, g_free);
}

static void test_filter_shows_its_childs_data(gconstpointer opaque)
{
    BlockBackend *blk = open_kind(opaque, "");
    BlockDriverState *bs = blk_bs(blk);

    g_assert_true(bs->drv->is_filter);
    g_assert_true(bdrv_filter_bs(bs) == bs->file->bs);
    write_pattern(blk, 0, 200000, 0x31);
    write_pattern(blk, 700, 100, 0x32);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 65536, 65536, 0), ==, 0);
    assert_content(blk, 0, 700, 0x31);
    assert_content(blk, 700, 100, 0x32);
    assert_content(blk, 800, 65536 - 800, 0x31);
    assert_content(blk, 65536, 65536, 0);
    assert_content(blk, 131072, 200000 - 131072, 0x31);
    g_assert_cmpint(blk_pdiscard(blk, 0, 65536), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    BlockBackend *below = blk_new_with_bs(bs->file->bs, BLK_PERM_CONSISTENT_READ,
                                          BLK_PERM_ALL, &error_abort);
    assert_content(below, 131072, 200000 - 131072, 0x31);
    blk_unref(below);
    close_kind(blk);
}

static void test_filter_has_its_childs_length_and_status(gconstpointer opaque)
{
    const FilterKind *kind = opaque;
    BlockBackend *blk = open_kind(kind, "");
    BlockDriverState *bs = blk_bs(blk), *file;
    int64_t n, map;

    g_assert_cmpint(blk_getlength(blk), ==, DISK_BYTES);
    if (!kind->opaque_status) {
        write_pattern(blk, 512 * 1024, 65536, 1);
        int ret = bdrv_block_status(bs, 0, DISK_BYTES, &n, &map, &file);
        g_assert_cmpint(n, ==, 512 * 1024);
        g_assert_true((ret & BDRV_BLOCK_ZERO) && (ret & BDRV_BLOCK_OFFSET_VALID));
        g_assert_true(file == bs->file->bs);
        ret = bdrv_block_status(bs, 512 * 1024, DISK_BYTES / 2, &n, &map, &file);
        g_assert_cmpint(n, ==, 65536);
        g_assert_true((ret & BDRV_BLOCK_DATA) && map == 512 * 1024);
        g_assert_cmpint(blk_truncate(blk, 2 * DISK_BYTES, true, PREALLOC_MODE_OFF, 0,
                                     &error_abort), ==, 0);
        g_assert_cmpint(blk_getlength(blk), ==, 2 * DISK_BYTES);
        g_assert_cmpint(bdrv_getlength(bs->file->bs), ==, 2 * DISK_BYTES);
    }
    close_kind(blk);
}

/* A reader, too, may be under a filter: what it takes is what its parents take. */
static void test_filter_takes_what_its_parents_take(gconstpointer opaque)
{
    const FilterKind *kind = opaque;
    bool copies = !strcmp(kind->name, "copy-on-read");

    close_kind(open_kind(kind, ""));
    data_path = scratch_path("data");
    other_path = scratch_path("other");
    BlockBackend *blk = open_with_perms(kind_options(kind, ""), BDRV_O_RDWR,
                                        BLK_PERM_CONSISTENT_READ,
                                        BLK_PERM_ALL & ~BLK_PERM_WRITE, &error_abort);
    BdrvChild *c = blk_bs(blk)->file;
    g_assert_cmphex(c->perm, ==, BLK_PERM_CONSISTENT_READ |
                                 (copies ? BLK_PERM_WRITE_UNCHANGED : 0));
    g_assert_cmphex(c->shared_perm, ==, BLK_PERM_ALL & ~(uint64_t)BLK_PERM_WRITE);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmphex(c->perm & BLK_PERM_WRITE, ==, BLK_PERM_WRITE);
    close_kind(blk);
}

typedef struct Loader {
    BlockBackend *blk;
    QEMUIOVector qiov;
    uint8_t buf[REQUEST_BYTES];
    int64_t offset;
    bool write;
    int in_flight;              /* atomic */
    int count;
    bool *stop;                 /* atomic */
} Loader;

static void loader_cb(void *opaque, int ret);

static void loader_submit(Loader *l)
{
    if (l->write) {
        blk_aio_pwritev(l->blk, l->offset, &l->qiov, 0, loader_cb, l);
    } else {
        blk_aio_preadv(l->blk, l->offset, &l->qiov, 0, loader_cb, l);
    }
}

static void loader_cb(void *opaque, int ret)
{
    Loader *l = opaque;

    g_assert_cmpint(ret, ==, 0);
    l->count++;
    if (qatomic_read(l->stop)) {
        qatomic_dec(&l->in_flight);
    } else {
        loader_submit(l);
    }
}

/* The loaders never rest: some rounds of the loop, and not until it is idle. */
static void give_time(AioContext *ctx)
{
    for (int i = 0; i < LAB_ROUNDS(20, 4); i++) {
        if (ctx == qemu_get_aio_context()) {
            aio_poll(ctx, false);
        } else {
            aio_wait_bh_oneshot(ctx, nothing, NULL);
        }
    }
}

static void test_filter_is_drained_and_moved_under_load(gconstpointer opaque)
{
    enum { LOADERS = 8 };
    IOThread *io = iothread_create("move", &error_abort);
    AioContext *there = iothread_get_aio_context(io), *here = qemu_get_aio_context();
    BlockBackend *blk = open_kind(opaque, "");
    BlockDriverState *bs = blk_bs(blk);
    g_autofree Loader *l = g_new0(Loader, LOADERS);
    bool stop = false;

    for (int i = 0; i < LOADERS; i++) {
        l[i].blk = blk;
        l[i].offset = i * 65536;
        l[i].write = i % 2;
        l[i].in_flight = 1;
        l[i].stop = &stop;
        memset(l[i].buf, i, REQUEST_BYTES);
        qemu_iovec_init_buf(&l[i].qiov, l[i].buf, REQUEST_BYTES);
        loader_submit(&l[i]);
    }
    for (int round = 0; round < LAB_ROUNDS(40, 6); round++) {
        AioContext *to = round % 2 ? here : there;
        g_assert_cmpint(blk_set_aio_context(blk, to, &error_abort), ==, 0);
        g_assert_true(bdrv_get_aio_context(bs) == to);
        g_assert_true(bdrv_get_aio_context(bs->file->bs) == to);
        give_time(to);
        bdrv_drained_begin(round % 3 ? bs : bs->file->bs);
        g_assert_cmpuint(qatomic_read(&bs->in_flight), ==, 0);
        bdrv_drained_end(round % 3 ? bs : bs->file->bs);
        bdrv_drain_all();
        give_time(to);
    }
    qatomic_set(&stop, true);
    for (int i = 0; i < LOADERS; i++) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_load_acquire(&l[i].in_flight));
        g_assert_cmpint(l[i].count, >, 0);
    }
    close_kind(blk);
    iothread_destroy(io);
}

/* A filter that is opened over a node in an IOThread lands there. */
static void test_filter_lands_where_its_child_is(gconstpointer opaque)
{
    const FilterKind *kind = opaque;
    IOThread *io = iothread_create("land", &error_abort);
    AioContext *there = iothread_get_aio_context(io);

    close_kind(open_kind(kind, ""));
    data_path = scratch_path("data");
    other_path = scratch_path("other");
    QDict *options = kind_options(kind, "");
    const char *key = json_object_get(options, "file") ? "file"
                    : json_object_get(options, "image") ? "image" : "raw";
    BlockDriverState *child = bdrv_open(NULL, NULL, json_incref(json_object_get(options, key)),
                                        BDRV_O_RDWR, &error_abort);
    qdict_put_str(options, key, bdrv_get_node_name(child));
    bdrv_set_aio_context(child, there);
    aio_context_acquire(there);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    aio_context_release(there);
    g_assert_true(bdrv_get_aio_context(bs) == there);
    BlockBackend *blk = blk_new(there, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                BLK_PERM_ALL);
    aio_context_acquire(there);
    g_assert_cmpint(blk_insert_bs(blk, bs, &error_abort), ==, 0);
    write_pattern(blk, 1000, 5000, 9);
    assert_content(blk, 1000, 5000, 9);
    aio_context_release(there);
    bdrv_unref(bs);
    bdrv_unref(child);
    close_kind(blk);
    iothread_destroy(io);
}

static void test_unknown_option_is_refused(gconstpointer opaque)
{
    const FilterKind *kind = opaque;
    Error *err = NULL;

    close_kind(open_kind(kind, ""));
    data_path = scratch_path("data");
    other_path = scratch_path("other");
    g_assert_null(open_with_perms(kind_options(kind, ",foo=1"), BDRV_O_RDWR, 0, BLK_PERM_ALL,
                                  &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "support the option 'foo'"));
    error_free(err);
    g_clear_pointer(&data_path, g_free);
    g_clear_pointer(&other_path, g_free);
}

/* ---- throttle --------------------------------------------------------------------- */

static BlockBackend *open_throttle(const char *group, AioContext *ctx)
{
    BlockBackend *blk = open_rw(options_of("driver=throttle,throttle-group=%s,"
                                           "file.driver=null-co", group));
    blk_set_allow_aio_context_change(blk, true);
    blk_set_aio_context(blk, ctx, &error_abort);
    return blk;
}

static void test_throttle_needs_a_group(void)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);

    assert_open_fails(options_of("driver=throttle,file.driver=null-co"), 0,
                      "Please specify a throttle group", NULL);
    assert_open_fails(options_of("driver=throttle,throttle-group=nope,file.driver=null-co"),
                      0, "Throttle group 'nope' does not exist", NULL);
    /* one that exists only because a backend is in it is no object */
    blk_io_limits_enable(blk, "implicit");
    assert_open_fails(options_of("driver=throttle,throttle-group=implicit,"
                                 "file.driver=null-co"), 0,
                      "Throttle group 'implicit' does not exist", NULL);
    blk_unref(blk);
    assert_open_fails(options_of("driver=throttle,throttle-group=free"), 0,
                      "A block device must be specified for \"file\"", NULL);
}

static void jam(ThrottleGroup *tg, BlockBackend *blk, Request **r, int n)
{
    ThrottleConfig cfg = almost_nothing();
    Request *first;

    throttle_group_set_limits(tg, &cfg);
    wait_for(first = start_request(blk, THROTTLE_WRITE));
    free_request(first);
    for (int i = 0; i < n; i++) {
        r[i] = start_request(blk, i % 2 ? THROTTLE_READ : THROTTLE_WRITE);
    }
    let_run(blk_get_aio_context(blk));
    for (int i = 0; i < n; i++) {
        g_assert_false(is_done(r[i]));
    }
}

/* Requests that wait in the filter go when it, its parent or its child is drained. */
static void test_throttle_lets_go_when_drained(gconstpointer in_iothread)
{
    enum { N = 4, WAYS = 4 };
    IOThread *io = in_iothread ? iothread_create("thr", &error_abort) : NULL;
    AioContext *ctx = io ? iothread_get_aio_context(io) : qemu_get_aio_context();
    ThrottleConfig cfg = almost_nothing();
    ThrottleGroup *tg = throttle_group_new("jam", &cfg, &error_abort);
    Request *r[N];

    for (int way = 0; way < WAYS; way++) {
        BlockBackend *blk = open_throttle("jam", ctx);
        BlockDriverState *bs = blk_bs(blk);

        jam(tg, blk, r, N);
        switch (way) {
        case 0:
            bdrv_drain(bs);
            break;
        case 1:
            bdrv_drain(bs->file->bs);
            break;
        case 2:
            bdrv_drain_all();
            break;
        case 3:
            blk_unref(blk);     /* the node goes, with requests waiting */
            break;
        }
        for (int i = 0; i < N; i++) {
            free_request(r[i]);
        }
        if (way != 3) {
            blk_unref(blk);
        }
    }
    g_assert_true(throttle_group_delete(tg, &error_abort));
    if (io) {
        iothread_destroy(io);
    }
}

static void test_throttle_is_reopened_into_another_group(void)
{
    ThrottleConfig cfg = almost_nothing();
    ThrottleGroup *jammed = throttle_group_new("jam", &cfg, &error_abort);
    BlockBackend *blk = open_throttle("jam", qemu_get_aio_context());
    Request *r[2], *fast;
    Error *err = NULL;

    jam(jammed, blk, r, 2);
    QDict *options = qdict_new();
    qdict_put_str(options, "throttle-group", "nope");
    g_assert_cmpint(bdrv_reopen(blk_bs(blk), options, true, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Throttle group 'nope' does not exist");
    error_free(err);
    options = qdict_new();
    qdict_put_str(options, "throttle-group", "free");
    g_assert_cmpint(bdrv_reopen(blk_bs(blk), options, true, &error_abort), ==, 0);
    g_assert_true(throttle_group_delete(jammed, &error_abort));
    for (int i = 0; i < 20; i++) {
        wait_for(fast = start_request(blk, THROTTLE_WRITE));
        free_request(fast);
    }
    free_request(r[0]);
    free_request(r[1]);
    blk_unref(blk);
}

/* ---- blkverify -------------------------------------------------------------------- */

static void test_blkverify_finds_a_difference(void)
{
    static const char program[] = "/filters/blkverify/subprocess/difference";

    g_test_trap_subprocess(program, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*blkverify: read offset=98304 bytes=8192 contents mismatch at "
                              "offset 100000*");
}

static void test_difference_subprocess(void)
{
    BlockBackend *blk = open_kind(&kinds[2], "");
    uint8_t buf[8192];

    write_pattern(blk, 98304, 8192, 7);
    assert_content(blk, 98304, 8192, 7);
    /* change the test copy behind its back */
    int fd = open(other_path, O_WRONLY);
    g_assert_cmpint(pwrite(fd, "X", 1, 100000), ==, 1);
    close(fd);
    g_assert_cmpint(blk_pread(blk, 98304, 8192, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(blk, 0, 8192, buf, 0), ==, 0);
    close_kind(blk);
}

static void test_blkverify_parses_its_filename(void)
{
    Error *err = NULL;
    g_autofree char *a = scratch_file("a", 65536), *b = scratch_file("b", 65536);
    g_autofree char *name = g_strdup_printf("blkverify:%s:%s", a, b);
    BlockBackend *blk = blk_new_open(name, NULL, NULL, BDRV_O_PROTOCOL, &error_abort);

    assert_content(blk, 0, 65536, 0);
    blk_unref(blk);
    g_assert_null(blk_new_open("blkverify:a.raw", NULL, NULL, BDRV_O_PROTOCOL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "blkverify requires raw copy and original image path");
    error_free(err);
    assert_open_fails(options_of("driver=blkverify,test.driver=null-co"), 0,
                      "A block device must be specified for \"raw\"", NULL);
    assert_open_fails(options_of("driver=blkverify,raw.driver=null-co"), 0,
                      "A block device must be specified for \"test\"", NULL);
}

/* ---- compress --------------------------------------------------------------------- */

static void test_compress_makes_writes_compressed_clusters(void)
{
    BlockBackend *blk = open_kind(&kinds[4], "");
    Squeezer *s = blk_bs(blk)->file->bs->opaque;

    g_assert_cmpint(blk_bs(blk)->bl.request_alignment, ==, SQUEEZER_CLUSTER);
    write_pattern(blk, 0, SQUEEZER_CLUSTER, 1);
    write_pattern(blk, SQUEEZER_CLUSTER + 100, 100, 2);     /* a part: the rest is read */
    g_assert_cmpint(s->compressed, ==, 2);
    g_assert_cmpint(s->plain, ==, 0);
    assert_content(blk, SQUEEZER_CLUSTER, 100, 0);
    assert_content(blk, SQUEEZER_CLUSTER + 100, 100, 2);
    close_kind(blk);
}

static void test_compress_needs_a_format_that_can(void)
{
    assert_open_fails(options_of("driver=compress,file.driver=null-co"), 0,
                      "Compression is not supported for underlying format: null-co", NULL);
    /* a filter in between makes no difference */
    assert_open_fails(options_of("driver=compress,file.driver=throttle,"
                                 "file.throttle-group=free,file.file.driver=null-co"), 0,
                      "Compression is not supported for underlying format: throttle", NULL);
    BlockBackend *blk = open_rw(options_of(
        "driver=compress,file.driver=throttle,file.throttle-group=free,"
        "file.file.driver=squeezer"));
    Squeezer *s = blk_bs(blk)->file->bs->file->bs->opaque;
    write_pattern(blk, 0, SQUEEZER_CLUSTER, 1);
    g_assert_cmpint(s->compressed, ==, 1);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    ThrottleConfig cfg;

    image_test_init(&argc, &argv);
    bdrv_register(&bdrv_squeezer);
    throttle_config_init(&cfg);
    ThrottleGroup *free_group = throttle_group_new("free", &cfg, &error_abort);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
#define ADD_KIND(test) do {                                                     \
        g_autofree char *path = g_strdup_printf("/filters/%s/" #test, kinds[i].name); \
        g_test_add_data_func(path, &kinds[i], test_##test);                     \
    } while (0)
        ADD_KIND(filter_shows_its_childs_data);
        ADD_KIND(filter_has_its_childs_length_and_status);
        ADD_KIND(filter_takes_what_its_parents_take);
        ADD_KIND(filter_is_drained_and_moved_under_load);
        ADD_KIND(filter_lands_where_its_child_is);
        ADD_KIND(unknown_option_is_refused);
    }
#define ADD(path, name) g_test_add_func("/filters/" path "/" #name, test_##name)
    ADD("throttle", throttle_needs_a_group);
    g_test_add_data_func("/filters/throttle/throttle_lets_go_when_drained/main", NULL,
                         test_throttle_lets_go_when_drained);
    g_test_add_data_func("/filters/throttle/throttle_lets_go_when_drained/iothread", "",
                         test_throttle_lets_go_when_drained);
    ADD("throttle", throttle_is_reopened_into_another_group);
    ADD("blkverify", blkverify_finds_a_difference);
    g_test_add_func("/filters/blkverify/subprocess/difference", test_difference_subprocess);
    ADD("blkverify", blkverify_parses_its_filename);
    ADD("compress", compress_makes_writes_compressed_clusters);
    ADD("compress", compress_needs_a_format_that_can);
    int ret = image_test_run();
    g_assert_true(throttle_group_delete(free_group, &error_abort));
    return ret;
}
