/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 against a model: random requests, many at a time, on images of random geometry; the
 * guest must see what a flat buffer would hold, and the image must stay consistent with
 * every refcount exact.
 */
#include "qcow2-test.h"
#include "memory-disk.h"

enum { BATCH = 12, SECTOR = 512 };

typedef struct Model {
    GRand *rand;
    uint8_t *data;
    int64_t size, cluster_bytes;
    BlockBackend *blk;
    char *path;
    char *open_options;
    bool data_file;             /* which takes no compressed clusters */
} Model;

static int64_t random_range(Model *m, int64_t lo, int64_t hi)
{
    return lo + (int64_t)(g_rand_double(m->rand) * (hi - lo));
}

/* ---- batches ----------------------------------------------------------------------- */

/* Data of which most can be compressed. */
static void fill(Model *m, uint8_t *buf, size_t len)
{
    memset(buf, g_rand_int_range(m->rand, 1, 256), len);
    if (g_rand_int_range(m->rand, 0, 4) == 0) {
        for (size_t i = 0; i < len; i++) {
            buf[i] = g_rand_int(m->rand);
        }
    }
}

/* Cut the disk at random; every other piece gets a request. */
static int make_batch(Model *m, Op *ops)
{
    int64_t pos = 0;
    int n = 0;

    while (n < BATCH && pos < m->size) {
        /* Mostly short distances, so that requests meet in clusters. */
        int64_t gap_max = g_rand_boolean(m->rand) ? 8 * SECTOR : m->size / 4;
        int64_t len_max = g_rand_boolean(m->rand) ? 16 * SECTOR : m->size / 4;
        int64_t start = pos + random_range(m, 0, gap_max);
        int64_t len = random_range(m, 1, len_max + 2);
        if (g_rand_int_range(m->rand, 0, 4)) {
            start = QEMU_ALIGN_DOWN(start, SECTOR);
            len = QEMU_ALIGN_UP(len, SECTOR);
        }
        if (start < pos || start >= m->size) {
            break;
        }
        len = MIN(len, m->size - start);
        static const OpType types[] = { OP_WRITE, OP_WRITE, OP_COMPRESSED, OP_ZERO, OP_UNMAP,
                                        OP_DISCARD, OP_READ, OP_READ };
        ops[n] = (Op){ .blk = m->blk, .offset = start, .bytes = len,
                       .type = types[g_rand_int_range(m->rand, 0, ARRAY_SIZE(types))],
                       .buf = g_malloc(len) };
        fill(m, ops[n].buf, len);
        if (ops[n].type == OP_COMPRESSED && m->data_file) {
            ops[n].type = OP_WRITE;
        }
        if (ops[n].type == OP_COMPRESSED) {
            compress_op(&ops[n], m->cluster_bytes, m->size);
        }
        n++;
        pos = start + len;
    }
    if (n < BATCH && g_rand_boolean(m->rand)) {
        ops[n++] = (Op){ .blk = m->blk, .type = OP_FLUSH };
    }
    return n;
}

/* Discards are hints: what is discarded reads as before or as zeroes. */
static void adopt_discarded(Model *m, const Op *op)
{
    g_autofree uint8_t *now = g_malloc(op->bytes);

    g_assert_cmpint(blk_pread(m->blk, op->offset, op->bytes, now, 0), ==, 0);
    for (int64_t i = 0; i < op->bytes; i++) {
        if (now[i] != 0 && now[i] != m->data[op->offset + i]) {
            g_error("discarded byte %" PRId64 " is 0x%02x, was 0x%02x", op->offset + i, now[i],
                    m->data[op->offset + i]);
        }
    }
    memcpy(m->data + op->offset, now, op->bytes);
}

static void apply(Model *m, Op *op)
{
    g_assert_cmpint(op->ret, ==, 0);
    switch (op->type) {
    case OP_WRITE:
    case OP_COMPRESSED:
        memcpy(m->data + op->offset, op->buf, op->bytes);
        break;
    case OP_ZERO:
    case OP_UNMAP:
        memset(m->data + op->offset, 0, op->bytes);
        break;
    case OP_DISCARD:
        adopt_discarded(m, op);
        break;
    case OP_READ:
        g_assert_cmpmem(op->buf, op->bytes, m->data + op->offset, op->bytes);
        break;
    case OP_FLUSH:
        break;
    }
    g_free(op->buf);
}

static void run_batch(Model *m)
{
    Op ops[BATCH];
    int n = make_batch(m, ops);

    run_ops(ops, n);
    for (int i = 0; i < n; i++) {
        apply(m, &ops[i]);
    }
}

/* ---- the whole disk ---------------------------------------------------------------- */

static void compare_all(Model *m)
{
    g_autofree uint8_t *now = g_malloc(m->size + 1);

    g_assert_cmpint(blk_getlength(m->blk), ==, m->size);
    g_assert_cmpint(blk_pread(m->blk, 0, m->size, now, 0), ==, 0);
    for (int64_t i = 0; i < m->size; i++) {
        if (now[i] != m->data[i]) {
            g_error("%s: byte %" PRId64 " is 0x%02x, not 0x%02x", m->open_options, i, now[i],
                    m->data[i]);
        }
    }
}

static void reopen(Model *m)
{
    if (m->blk) {
        blk_unref(m->blk);
    }
    m->blk = open_rw(options_of("%s", m->open_options));
}

static void resize(Model *m)
{
    int64_t size = random_range(m, 1, 2 * m->size / SECTOR) * SECTOR;

    size = MAX(MIN(size, 2 << 20), 32 * SECTOR);
    PreallocMode mode = size > m->size ? g_rand_int_range(m->rand, 0, 4) : PREALLOC_MODE_OFF;
    if (strstr(m->open_options, "backing") || strstr(m->open_options, "memory-disk")) {
        mode = PREALLOC_MODE_OFF;
    }
    g_assert_cmpint(blk_truncate(m->blk, size, false, mode, 0, &error_abort), ==, 0);
    m->data = g_realloc(m->data, size);
    if (size > m->size) {
        memset(m->data + m->size, 0, size - m->size);
    }
    m->size = size;
}

/* Sometimes do something other than requests. */
static void now_and_then(Model *m)
{
    switch (g_rand_int_range(m->rand, 0, 12)) {
    case 0:
        reopen(m);
        break;
    case 1:
        resize(m);
        break;
    case 2:
        qcow2_assert_consistent(m->blk, false);
        break;
    case 3:
        compare_all(m);
        break;
    default:
        break;
    }
}

static void run_model(Model *m, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        run_batch(m);
        now_and_then(m);
    }
    compare_all(m);
    qcow2_assert_consistent(m->blk, false);
    reopen(m);
    compare_all(m);
    qcow2_assert_consistent(m->blk, false);
}

/* ---- geometries -------------------------------------------------------------------- */

#ifdef CONFIG_ZSTD
#define HAVE_ZSTD true
#else
#define HAVE_ZSTD false
#endif

static const int64_t cluster_sizes[] = {
    512, 1 << 10, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 2 << 20
};

/* Create options at random; version 2 has no choice in much. */
static char *random_create_options(Model *m)
{
    GRand *r = m->rand;

    m->cluster_bytes = cluster_sizes[g_rand_int_range(r, 0, ARRAY_SIZE(cluster_sizes))];
    if (g_rand_int_range(r, 0, 4) == 0) {
        return g_strdup_printf("size=%" PRId64 ",cluster_size=%" PRId64 ",compat=0.10",
                               m->size, m->cluster_bytes);
    }
    bool subclusters = m->cluster_bytes >= 16384 && g_rand_boolean(r);
    return g_strdup_printf("size=%" PRId64 ",cluster_size=%" PRId64 ",refcount_bits=%d,"
                           "lazy_refcounts=%s,compression_type=%s,extended_l2=%s", m->size,
                           m->cluster_bytes, 1 << g_rand_int_range(r, 0, 7),
                           g_rand_int_range(r, 0, 4) ? "off" : "on",
                           HAVE_ZSTD && g_rand_boolean(r) ? "zstd" : "zlib",
                           subclusters ? "on" : "off");
}

static const char *random_prealloc(GRand *r)
{
    static const char *const modes[] = { "off", "metadata", "falloc", "full" };
    return modes[g_rand_int_range(r, 0, ARRAY_SIZE(modes))];
}

static const char *random_open_options(GRand *r, const char *create)
{
    bool old = strstr(create, "compat=0.10");
    static const char *const options[] = {
        "", "", ",l2-cache-size=1", ",refcount-cache-size=1", ",cache-size=1",
        ",l2-cache-entry-size=512", ",discard-no-unref=on", ",pass-discard-other=on",
    };
    return options[g_rand_int_range(r, 0, ARRAY_SIZE(options) - (old ? 2 : 0))];
}

/* Make a backing file, shorter or longer than the image; options for opening it. */
static char *backing_options(Model *m, GRand *r)
{
    int64_t size = random_range(m, 1, 2 * m->size / SECTOR) * SECTOR;
    g_autofree char *path = scratch_file("backing.raw", size);
    g_autofree uint8_t *data = g_malloc(size);

    for (int64_t i = 0; i < size; i++) {
        data[i] = (i / SECTOR) % 3 ? 0x80 | (i / SECTOR) : 0;
    }
    g_assert_true(g_file_set_contents(path, (char *)data, size, NULL));
    memcpy(m->data, data, MIN(size, m->size));
    return g_strdup_printf(",backing.driver=raw,backing.file.driver=file,"
                           "backing.file.filename=%s", path);
}

/* A disk of random size, empty, with the image "model.qcow2". */
static Model *new_model(void)
{
    Model *m = g_new0(Model, 1);

    m->rand = g_rand_new_with_seed(g_test_rand_int());
    m->size = random_range(m, 64, 2048) * SECTOR;
    m->data = g_malloc0(m->size);
    m->path = scratch_path("model.qcow2");
    return m;
}

static void free_model(Model *m)
{
    g_free(m->data);
    g_free(m->path);
    g_free(m->open_options);
    g_rand_free(m->rand);
    g_free(m);
}

/* Make the image with options CREATE and put it through all; the peer must agree. */
static void run_image(Model *m, const char *create, const char *more)
{
    m->open_options = g_strdup_printf("driver=qcow2,discard=unmap,file.driver=file,"
            "file.filename=%s%s%s", m->path, random_open_options(m->rand, create), more);
    g_test_message("%s; %s", create, m->open_options);
    qcow2_create(m->path, create);
    qcow2_assert_peer_finds_no_fault(m->path);
    reopen(m);
    run_model(m, g_test_slow() ? 60 : 25);
    blk_unref(m->blk);
    qcow2_assert_peer_finds_no_fault(m->path);
    if (!*more) {
        /* The peer does not know of a backing file, which only we are told of. */
        g_autofree char *raw = scratch_path("model.raw");
        g_assert_true(g_file_set_contents(raw, (char *)m->data, m->size, NULL));
        qcow2_assert_peer("compare -q -f qcow2 -F raw %s %s", m->path, raw);
    }
}

static void test_files(void)
{
    int images = image_test_rounds(14, 60);

    for (int i = 0; i < images; i++) {
        Model *m = new_model();
        g_autofree char *create = random_create_options(m);
        g_autofree char *more = i % 2 ? backing_options(m, m->rand) : g_strdup("");
        run_image(m, create, more);
        free_model(m);
    }
}

/* The same with a disk that completes late and in any order, so that requests interleave. */
static void test_late_disk(void)
{
    int images = image_test_rounds(25, 100);

    for (int i = 0; i < images; i++) {
        GRand *r = g_rand_new_with_seed(g_test_rand_int());
        Model m = { .rand = r };
        m.size = random_range(&m, 64, 1024) * SECTOR;
        m.data = g_malloc0(m.size);
        g_autofree char *path = scratch_path("template.qcow2");
        g_autofree char *create = random_create_options(&m);
        g_autofree char *more = i % 2 ? backing_options(&m, r) : g_strdup("");
        g_autofree char *bytes = NULL;
        gsize length;
        qcow2_create(path, create);
        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        MemoryDisk *disk = memory_disk_new(bytes, length);
        disk->late = g_rand_new_with_seed(g_rand_int(r));
        memory_disk_to_open = disk;
        m.open_options = g_strdup_printf("driver=qcow2,discard=unmap,file.driver=memory-disk%s"
                                         "%s", random_open_options(r, create), more);
        g_test_message("%s; %s", create, m.open_options);
        reopen(&m);
        run_model(&m, g_test_slow() ? 60 : 25);
        blk_unref(m.blk);
        memory_disk_free(disk);
        g_free(m.data);
        g_free(m.open_options);
        g_rand_free(r);
    }
}

/* The same with a data file; a raw one must show what the guest sees. */
static void test_data_files(void)
{
    int images = image_test_rounds(14, 60);

    for (int i = 0; i < images; i++) {
        Model *m = new_model();
        bool raw = g_rand_boolean(m->rand);
        g_autofree char *data = scratch_path("model.data"), *bytes = NULL, *plain = NULL;
        gsize length;
        m->data_file = true;
        do {
            g_free(plain);
            plain = random_create_options(m);
        } while (strstr(plain, "compat=0.10"));
        g_autofree char *create = g_strdup_printf("%s,data_file=%s,data_file_raw=%s,"
                "preallocation=%s", plain, data, raw ? "on" : "off",
                random_prealloc(m->rand));
        run_image(m, create, "");
        if (raw) {
            g_assert_true(g_file_get_contents(data, &bytes, &length, NULL));
            g_assert_cmpmem(bytes, length, m->data, m->size);
        }
        free_model(m);
    }
}

/* The same with images that have a place for all clusters from the start. */
static void test_preallocated(void)
{
    int images = image_test_rounds(14, 60);

    for (int i = 0; i < images; i++) {
        Model *m = new_model();
        g_autofree char *plain = random_create_options(m);
        g_autofree char *create = g_strdup_printf("%s,preallocation=%s", plain,
                                                  random_prealloc(m->rand));
        run_image(m, create, "");
        free_model(m);
    }
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/qcow2/model/files", test_files);
    g_test_add_func("/qcow2/model/late-disk", test_late_disk);
    g_test_add_func("/qcow2/model/data-files", test_data_files);
    g_test_add_func("/qcow2/model/preallocated", test_preallocated);
    return image_test_run();
}
