/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: guest data in a file of its own. */
#include "qcow2-test.h"
#include "memory-disk.h"

enum { CLUSTER = 64 * 1024, SECTOR = 512 };

static char *new_image(const char *more, char **data)
{
    char *path = scratch_path("image.qcow2");
    *data = scratch_path("image.data");
    g_autofree char *opts = g_strdup_printf("size=1M,data_file=%s%s", *data, more);
    qcow2_create(path, opts);
    return path;
}

static void assert_file_bytes(const char *path, int64_t offset, size_t len, uint8_t expected)
{
    g_autofree char *content = NULL;
    gsize all;

    g_assert_true(g_file_get_contents(path, &content, &all, NULL));
    g_assert_cmpint(offset + len, <=, all);
    assert_bytes((uint8_t *)content + offset, len, expected);
}

/* Data lies where the guest sees it; the file is as long as the disk, always. */
static void test_place_and_length(void)
{
    static const char *const more[] = { "", ",data_file_raw=on", ",extended_l2=on",
                                        ",preallocation=full", ",cluster_size=512" };

    for (unsigned i = 0; i < ARRAY_SIZE(more); i++) {
        g_autofree char *data = NULL, *path = new_image(more[i], &data);
        BlockBackend *blk = qcow2_open_file(path, "");
        g_assert_cmpint(file_bytes(data), ==, 1 << 20);
        write_pattern(blk, 300000, 5000, 0x31);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        assert_file_bytes(data, 300000, 5000, 0x31);
        g_assert_cmpint(blk_truncate(blk, 3 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort),
                        ==, 0);
        g_assert_cmpint(file_bytes(data), ==, 3 << 20);
        assert_content(blk, 1 << 20, 2 << 20, 0);
        write_pattern(blk, (3 << 20) - 512, 512, 0x32);
        g_assert_cmpint(blk_truncate(blk, 302592, false, PREALLOC_MODE_OFF, 0, &error_abort),
                        ==, 0);
        g_assert_cmpint(file_bytes(data), ==, 302592);
        assert_content(blk, 300000, 2592, 0x31);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* What somebody has put behind the end of the data file does not become the guest's. */
static void test_foreign_tail(void)
{
    static const char *const more[] = { "", ",data_file_raw=on" };

    for (unsigned i = 0; i < ARRAY_SIZE(more); i++) {
        g_autofree char *data = NULL, *path = new_image(more[i], &data);
        g_autofree char *junk = g_malloc(2 << 20);
        memset(junk, 0x77, 2 << 20);
        g_assert_true(g_file_set_contents(data, junk, 2 << 20, NULL));
        BlockBackend *blk = qcow2_open_file(path, "");
        g_assert_cmpint(blk_truncate(blk, 2 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort),
                        ==, 0);
        assert_content(blk, 1 << 20, 1 << 20, 0);
        blk_unref(blk);
    }
}

/* A raw data file can be read without the image: zeroes are in it, too. */
static void test_raw_in_step(void)
{
    g_autofree char *data = NULL, *path = new_image(",data_file_raw=on", &data);
    BlockBackend *blk = qcow2_open_file(path, "");

    write_pattern(blk, 0, 1 << 20, 0x44);
    g_assert_cmpint(blk_pwrite_zeroes(blk, CLUSTER, CLUSTER, 0), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 2 * CLUSTER, CLUSTER, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 3 * CLUSTER + 512, 512, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 4 * CLUSTER, CLUSTER), ==, 0);
    assert_content(blk, 4 * CLUSTER, CLUSTER, 0);
    blk_unref(blk);
    assert_file_bytes(data, 0, CLUSTER, 0x44);
    assert_file_bytes(data, CLUSTER, 2 * CLUSTER, 0);
    assert_file_bytes(data, 3 * CLUSTER, 512, 0x44);
    assert_file_bytes(data, 3 * CLUSTER + 512, 512, 0);
    assert_file_bytes(data, 3 * CLUSTER + 1024, CLUSTER - 1024, 0x44);
    assert_file_bytes(data, 4 * CLUSTER, CLUSTER, 0);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_open(void)
{
    g_autofree char *data = NULL, *path = new_image("", &data);
    g_autofree char *moved = scratch_path("moved.data");
    g_autofree char *missing = g_strdup_printf("Could not open '%s': No such file or "
                                               "directory", data);
    BlockBackend *blk = qcow2_open_file(path, "");

    write_pattern(blk, 0, CLUSTER, 1);
    g_autofree uint8_t *zeroes = g_malloc0(CLUSTER);
    g_assert_cmpint(blk_pwrite_compressed(blk, 0, CLUSTER, zeroes), ==, -ENOTSUP);
    blk_unref(blk);
    g_assert_cmpint(rename(data, moved), ==, 0);
    assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                      BDRV_O_RDWR, missing, NULL);
    /* it is where the option says, whatever the image has recorded */
    g_autofree char *more = g_strdup_printf(",data-file.driver=file,data-file.filename=%s",
                                            moved);
    blk = qcow2_open_file(path, more);
    assert_content(blk, 0, CLUSTER, 1);
    blk_unref(blk);
    /* who wants to know about the image only does not open it */
    BlockBackend *info = open_with_perms(options_of("driver=qcow2,read-only=on,"
                                                    "file.driver=file,file.filename=%s", path),
                                         BDRV_O_NO_IO, 0, BLK_PERM_ALL, &error_abort);
    blk_unref(info);
}

/* The mapping must be the identity; anything else is corruption. */
static void test_hostile_mapping(void)
{
    static const struct { uint64_t entry; int corruptions; } cases[] = {
        { 1ULL << 63 | 2 * CLUSTER, 0 },        /* someone else's place; no crime of counts */
        { 1ULL << 62 | CLUSTER, 1 },            /* compressed */
        { 1ULL << 63 | CLUSTER | 512, 1 },      /* between clusters */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *data = NULL, *path = new_image("", &data), *image = NULL;
        g_autofree uint8_t *buf = g_malloc0(CLUSTER);
        BdrvCheckResult res;
        uint64_t be;
        gsize len;
        BlockBackend *blk = qcow2_open_file(path, "");
        write_pattern(blk, CLUSTER, CLUSTER, 1);
        blk_unref(blk);
        g_assert_true(g_file_get_contents(path, &image, &len, NULL));
        memcpy(&be, image + 40, 8);
        memcpy(&be, image + GUINT64_FROM_BE(be), 8);
        uint64_t l2 = GUINT64_FROM_BE(be) & 0x00fffffffffffe00;
        be = GUINT64_TO_BE(cases[i].entry);
        memcpy(image + l2 + 8, &be, 8);
        g_assert_true(g_file_set_contents(path, image, len, NULL));
        blk = qcow2_open_file(path, "");
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions, ==, cases[i].corruptions);
        g_assert_cmpint(blk_pread(blk, CLUSTER, 512, buf, 0), ==, -EIO);
        g_assert_cmpint(blk_pwrite(blk, CLUSTER, CLUSTER, buf, 0), ==, -EIO);
        blk_unref(blk);
        assert_file_bytes(data, 2 * CLUSTER, CLUSTER, 0);
    }
}

/* ---- power failures ---------------------------------------------------------------- */

/*
 * Two disks, one log. Each of them keeps what was written before its own last flush, and any
 * part of the rest:
 *
 *   image:       w   w F   w  w
 *   data file: w   F    w w           power fails here
 */
enum { GUEST_BYTES = 256 * 1024, ROUNDS = 24 };

typedef struct Round { guint log_end; uint8_t content[GUEST_BYTES / SECTOR]; } Round;

static void open_both(MemoryDisk *image, MemoryDisk *data)
{
    memory_disk_to_open = image;
    memory_disk_to_open_next = data;
}

static BlockBackend *open_pair(MemoryDisk *image, MemoryDisk *data, int flags)
{
    open_both(image, data);
    return open_with_perms(options_of("driver=qcow2,discard=unmap,file.driver=memory-disk,"
                                      "data-file.driver=memory-disk%s",
                                      flags & BDRV_O_RDWR ? "" : ",read-only=on"), flags,
                           flags & BDRV_O_RDWR ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ,
                           BLK_PERM_ALL, &error_abort);
}

static MemoryDisk *after_crash(const MemoryDisk *disk, const GByteArray *before, GArray *log,
                               guint at, GRand *r)
{
    MemoryDisk *d = memory_disk_new(before->data, before->len);
    guint durable = 0;

    for (guint i = 0; i < at; i++) {
        const MemoryOp *op = &g_array_index(log, MemoryOp, i);
        durable = op->disk == disk && op->type == MEMORY_FLUSH ? i : durable;
    }
    for (guint i = 0; i < at; i++) {
        const MemoryOp *op = &g_array_index(log, MemoryOp, i);
        if (op->disk != disk || (i >= durable && g_rand_boolean(r))) {
            continue;
        }
        if (op->type == MEMORY_TRUNCATE) {
            memory_disk_resize(d->data, op->offset);
        } else if (op->type == MEMORY_WRITE) {
            memory_disk_resize(d->data, MAX(d->data->len, op->offset + op->bytes));
            memcpy(d->data->data + op->offset, op->data, op->bytes);
        }
    }
    return d;
}

static void guest_round(BlockBackend *blk, GRand *r, uint8_t *content, int round)
{
    int first = g_rand_int_range(r, 0, GUEST_BYTES / SECTOR);
    int n = g_rand_int_range(r, 1, GUEST_BYTES / SECTOR - first + 1);
    bool zero = g_rand_int_range(r, 0, 3) == 0;

    if (zero) {
        g_assert_cmpint(blk_pwrite_zeroes(blk, first * SECTOR, n * SECTOR,
                                          g_rand_boolean(r) ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
    } else {
        write_pattern(blk, first * SECTOR, n * SECTOR, round + 1);
    }
    memset(content + first, zero ? 0 : round + 1, n);
}

static void run_power_failures(const char *more, GRand *r)
{
    g_autofree char *data_path = NULL, *path = NULL, *bytes = NULL, *data_bytes = NULL;
    g_autofree Round *rounds = g_new0(Round, ROUNDS + 1);
    gsize len, data_len;

    path = new_image(more, &data_path);
    g_assert_true(g_file_get_contents(path, &bytes, &len, NULL));
    g_assert_true(g_file_get_contents(data_path, &data_bytes, &data_len, NULL));
    MemoryDisk *image = memory_disk_new(bytes, len);
    MemoryDisk *data = memory_disk_new(data_bytes, data_len);
    g_autoptr(GByteArray) before = g_byte_array_new(), data_before = g_byte_array_new();
    g_byte_array_append(before, (uint8_t *)bytes, len);
    g_byte_array_append(data_before, (uint8_t *)data_bytes, data_len);
    image->log = data->log = g_array_new(false, false, sizeof(MemoryOp));

    /* one request after the other, and a flush behind each third */
    BlockBackend *blk = open_pair(image, data, BDRV_O_RDWR);
    for (int i = 0; i < ROUNDS; i++) {
        memcpy(rounds[i + 1].content, rounds[i].content, sizeof(rounds[i].content));
        guest_round(blk, r, rounds[i + 1].content, i);
        if (i % 3 == 2) {
            g_assert_cmpint(blk_flush(blk), ==, 0);
        }
        rounds[i + 1].log_end = image->log->len;
    }
    blk_unref(blk);
    GArray *log = image->log;
    data->log = NULL;
    for (guint at = 0; at <= log->len; at++) {
        MemoryDisk *i2 = after_crash(image, before, log, at, r);
        MemoryDisk *d2 = after_crash(data, data_before, log, at, r);
        g_autofree uint8_t *now = g_malloc(GUEST_BYTES);
        int durable = 0;
        for (int i = 3; i <= ROUNDS; i += 3) {
            durable = rounds[i].log_end <= at ? i : durable;
        }
        blk = open_pair(i2, d2, 0);
        qcow2_assert_consistent(blk, true);
        g_assert_cmpint(blk_pread(blk, 0, GUEST_BYTES, now, 0), ==, 0);
        for (int s = 0; s < GUEST_BYTES / SECTOR; s++) {
            bool allowed = false;
            for (int i = durable; i <= ROUNDS && !allowed; i++) {
                allowed = now[s * SECTOR] == rounds[i].content[s];
            }
            if (!allowed) {
                g_error("%s: power fails at %u of %u: sector %d holds 0x%02x, not 0x%02x",
                        more, at, log->len, s, now[s * SECTOR], rounds[durable].content[s]);
            }
        }
        blk_unref(blk);
        memory_disk_free(i2);
        memory_disk_free(d2);
    }
    memory_disk_free(image);
    memory_disk_free(data);
}

static void test_power_failures(void)
{
    static const char *const more[] = { "", ",data_file_raw=on", ",cluster_size=4k",
                                        ",extended_l2=on,cluster_size=16k" };

    for (unsigned i = 0; i < ARRAY_SIZE(more); i++) {
        GRand *r = g_rand_new_with_seed(g_test_rand_int());
        run_power_failures(more[i], r);
        g_rand_free(r);
    }
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/qcow2/data-file/place-and-length", test_place_and_length);
    g_test_add_func("/qcow2/data-file/foreign-tail", test_foreign_tail);
    g_test_add_func("/qcow2/data-file/raw-in-step", test_raw_in_step);
    g_test_add_func("/qcow2/data-file/open", test_open);
    g_test_add_func("/qcow2/data-file/hostile-mapping", test_hostile_mapping);
    g_test_add_func("/qcow2/data-file/power-failures", test_power_failures);
    return image_test_run();
}
