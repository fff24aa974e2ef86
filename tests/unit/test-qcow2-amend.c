/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: changing the options of an image. */
#include "qcow2-test.h"
#include "miniblk/dirty-bitmap.h"

enum { GUEST_BYTES = 4 << 20 };

/* What an image holds before it is amended. */
typedef enum Content {
    NOTHING, DATA, ZEROES, SNAPSHOT, SNAPSHOT_SHARED, SNAPSHOT_ZEROES, BITMAP
} Content;

typedef struct Case {
    const char *create;
    Content content;
    const char *amend;
    const char *error;          /* NULL: it succeeds */
} Case;

static const Case cases[] = {
    { "compat=0.10", DATA, "compat=1.1", NULL },
    { "compat=0.10", SNAPSHOT, "compat=v3", NULL },
    { "compat=0.10", DATA, "compat=1.1,refcount_bits=8,lazy_refcounts=on", NULL },
    { "compat=1.1", DATA, "compat=0.10", NULL },
    { "compat=1.1", ZEROES, "compat=0.10", NULL },
    { "compat=1.1,backing_file=base.raw,backing_fmt=raw", ZEROES, "compat=0.10", NULL },
    { "compat=1.1", SNAPSHOT, "compat=0.10", NULL },
    { "compat=1.1", SNAPSHOT_ZEROES, "compat=0.10", NULL },
    { "compat=1.1,cluster_size=4k", SNAPSHOT_ZEROES, "compat=0.10", NULL },
    { "compat=1.1,backing_file=base.raw,backing_fmt=raw", SNAPSHOT_ZEROES, "compat=0.10",
      NULL },
    { "compat=1.1,cluster_size=512,backing_file=base.raw,backing_fmt=raw", SNAPSHOT_ZEROES,
      "compat=0.10", NULL },
    { "compat=1.1,lazy_refcounts=on", DATA, "compat=0.10", NULL },
    { "compat=1.1,lazy_refcounts=on", DATA, "lazy_refcounts=off", NULL },
    { "compat=1.1", DATA, "lazy_refcounts=on", NULL },
    { "compat=1.1,refcount_bits=8", DATA, "compat=0.10",
      "compat=0.10 requires refcount_bits=16" },
    { "compat=1.1,refcount_bits=8", DATA, "compat=0.10,refcount_bits=16", NULL },
    { "compat=1.1", DATA, "compat=0.10,refcount_bits=8",
      "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
      "compat=1.1 or greater)" },
    { "compat=0.10", DATA, "refcount_bits=8",
      "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
      "compat=1.1 or greater)" },
    { "compat=0.10", DATA, "lazy_refcounts=on", "Lazy refcounts only supported with "
      "compatibility level 1.1 and above (use compat=1.1 or greater)" },
    { "compat=1.1,extended_l2=on", DATA, "compat=0.10",
      "Cannot downgrade an image with incompatible features 0x10 set" },
    { "compat=1.1", BITMAP, "compat=0.10", "Cannot downgrade an image with bitmaps" },
    { "compat=1.1", DATA, "compat=foo", "Unknown compatibility level foo" },
    { "compat=1.1", DATA, "refcount_bits=1", NULL },
    { "compat=1.1", DATA, "refcount_bits=2", NULL },
    { "compat=1.1", DATA, "refcount_bits=64", NULL },
    { "compat=1.1,cluster_size=512", DATA, "refcount_bits=64", NULL },
    { "compat=1.1,cluster_size=512,refcount_bits=64", SNAPSHOT, "refcount_bits=2", NULL },
    { "compat=1.1,cluster_size=2M", DATA, "refcount_bits=32", NULL },
    { "compat=1.1,lazy_refcounts=on", DATA, "refcount_bits=32", NULL },
    { "compat=1.1", BITMAP, "refcount_bits=1", NULL },
    { "compat=1.1", DATA, "refcount_bits=3",
      "Refcount width must be a power of two and may not exceed 64 bits" },
    { "compat=1.1", DATA, "refcount_bits=x", "Parameter 'refcount_bits' expects a number" },
    { "compat=1.1,cluster_size=64k", SNAPSHOT_SHARED, "refcount_bits=1",
      "Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x50000 has a "
      "refcount of 2" },
    { "compat=1.1", DATA, "size=8M", NULL },
    { "compat=1.1", BITMAP, "size=8M", NULL },
    { "compat=1.1", DATA, "size=1000", "The new size must be a multiple of 512" },
    { "compat=0.10", SNAPSHOT, "size=8M", "Can't resize a v2 image which has snapshots" },
    { "compat=1.1", DATA, "data_file=x",
      "data-file can only be set for images that use an external data file" },
    { "compat=1.1", DATA, "data_file_raw=on",
      "data-file-raw cannot be set on existing images" },
    { "compat=1.1", DATA, "backing_file=x", "Cannot amend the backing file" },
    { "compat=1.1", DATA, "encrypt.state=active",
      "Can't amend encryption options - encryption not present" },
    { "compat=1.1", DATA, "cluster_size=4k", "Invalid parameter 'cluster_size'" },
    { "compat=1.1", NOTHING, "compat=0.10", NULL },
};

static void fill(BlockBackend *blk, Content content)
{
    QEMUSnapshotInfo sn = { .name = "s", .icount = UINT64_MAX };

    if (content == NOTHING) {
        return;
    }
    if (content != SNAPSHOT) {
        write_pattern(blk, 0, 300000, 1);
    }
    if (content == ZEROES || content == SNAPSHOT_ZEROES) {
        g_assert_cmpint(blk_pwrite_zeroes(blk, 65536, 65536, 0), ==, 0);
        g_assert_cmpint(blk_pwrite_zeroes(blk, 1 << 20, 131072, BDRV_REQ_MAY_UNMAP), ==, 0);
    }
    if (content == SNAPSHOT_ZEROES) {
        /* tables that one snapshot has, that two have, and that the disk has, too */
        for (int i = 0; i < 2; i++) {
            g_strlcpy(sn.name, i ? "s" : "r", sizeof(sn.name));
            g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &sn), ==, 0);
        }
        write_pattern(blk, 0, 300000, 1);
    } else if (content == SNAPSHOT || content == SNAPSHOT_SHARED) {
        g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &sn), ==, 0);
        write_pattern(blk, 65536, 4096, 1);
    } else if (content == BITMAP) {
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(blk_bs(blk), 65536, "b", &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
}

static uint8_t *content_of(BlockBackend *blk)
{
    uint8_t *bytes = g_malloc0(GUEST_BYTES);

    g_assert_cmpint(blk_pread(blk, 0, GUEST_BYTES, bytes, 0), ==, 0);
    return bytes;
}

static void note_progress(BlockDriverState *bs, int64_t done, int64_t total, void *opaque)
{
    double *highest = opaque;

    g_assert_cmpint(done, <=, total);
    *highest = MAX(*highest, (double)done / total);
}

/* "k.a=v,..." with the dots left in the keys, as -o has them. */
static QDict *flat_options(const char *text)
{
    QDict *opts = qdict_new();
    g_auto(GStrv) pairs = g_strsplit(text, ",", -1);

    for (int i = 0; pairs[i]; i++) {
        g_auto(GStrv) pair = g_strsplit(pairs[i], "=", 2);
        qdict_put_str(opts, pair[0], pair[1]);
    }
    return opts;
}

static void run_case(const Case *c)
{
    g_autofree char *base = scratch_file("base.raw", GUEST_BYTES);
    g_autofree char *path = scratch_path("amend.qcow2");
    g_autofree char *create = g_strdup_printf("size=4M,%s", c->create);
    QDict *opts = flat_options(c->amend);
    Error *err = NULL;
    double progress = 0;

    g_test_message("%s, %d: %s", c->create, c->content, c->amend);
    BlockBackend *blk = open_rw(options_of("driver=raw,file.driver=file,file.filename=%s",
                                           base));
    write_pattern(blk, 0, GUEST_BYTES, 9);
    blk_unref(blk);
    qcow2_create(path, create);
    blk = qcow2_open_file(path, "");
    fill(blk, c->content);
    g_autofree uint8_t *before = content_of(blk);
    int ret = bdrv_amend_options(blk_bs(blk), opts, note_progress, &progress, false, &err);
    if (c->error) {
        g_assert_cmpint(ret, <, 0);
        g_assert_cmpstr(error_get_pretty(err), ==, c->error);
        error_free(err);
    } else {
        if (err) {
            g_error("%s", error_get_pretty(err));
        }
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpfloat(progress, ==, 1);
    }
    json_decref(opts);
    qcow2_assert_consistent(blk, false);
    g_autofree uint8_t *after = content_of(blk);
    g_assert_cmpmem(after, GUEST_BYTES, before, GUEST_BYTES);
    write_pattern(blk, 200000, 200000, 7);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 200000, 200000, 7);
    qcow2_assert_consistent(blk, false);
    if (c->content == SNAPSHOT_ZEROES) {
        for (int i = 0; i < 2; i++) {
            g_assert_cmpint(bdrv_snapshot_goto(blk_bs(blk), i ? "r" : "s", &error_abort), ==,
                            0);
            assert_content(blk, 0, 65536, 1);
            assert_content(blk, 65536, 65536, 0);
            assert_content(blk, 131072, 300000 - 131072, 1);
            assert_content(blk, 1 << 20, 131072, 0);
            qcow2_assert_consistent(blk, false);
        }
        g_assert_cmpint(bdrv_snapshot_delete(blk_bs(blk), NULL, "r", &error_abort), ==, 0);
    }
    if (c->content >= SNAPSHOT && c->content <= SNAPSHOT_ZEROES) {
        g_assert_cmpint(bdrv_snapshot_delete(blk_bs(blk), NULL, "s", &error_abort), ==, 0);
        qcow2_assert_consistent(blk, false);
    }
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_cases(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        run_case(&cases[i]);
    }
}

/* The image says what was asked for. */
static void test_info(void)
{
    static const struct { const char *amend, *key; const char *value; } steps[] = {
        { "refcount_bits=64", "refcount-bits", "64" },
        { "lazy_refcounts=on", "lazy-refcounts", "true" },
        { "refcount_bits=16,compat=0.10,lazy_refcounts=off", "compat", "\"0.10\"" },
        { "compat=1.1,refcount_bits=1", "refcount-bits", "1" },
    };
    g_autofree char *path = scratch_path("info.qcow2");

    qcow2_create(path, "size=4M");
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        QDict *opts = options_of("%s", steps[i].amend);
        BlockBackend *blk = qcow2_open_file(path, "");
        g_assert_cmpint(bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, &error_abort),
                        ==, 0);
        json_decref(opts);
        blk_unref(blk);
        blk = qcow2_open_file(path, "");
        json_t *info = blk_bs(blk)->drv->bdrv_get_specific_info(blk_bs(blk));
        char *text = json_dumps(json_object_get(json_object_get(info, "data"), steps[i].key),
                                JSON_ENCODE_ANY);
        g_assert_cmpstr(text, ==, steps[i].value);
        free(text);
        json_decref(info);
        blk_unref(blk);
    }
}

static void assert_name_refused(const char *path, const char *name, const char *error)
{
    BlockBackend *blk = qcow2_open_file(path, "");
    QDict *opts = options_of("data_file=%s", name);
    Error *err = NULL;

    g_assert_cmpint(bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, error);
    error_free(err);
    json_decref(opts);
    blk_unref(blk);
}

/* Guest data would be written over the tables, if such an image could be opened. */
static void test_no_data_file(void)
{
    g_autofree char *path = scratch_path("itself.qcow2"), *data = scratch_path("itself.raw");
    g_autofree char *link = scratch_path("itself.link"), *name = g_strnfill(1024, 'n');
    g_autofree char *create = g_strdup_printf("size=1M,data_file=%s", data);

    qcow2_create(path, create);
    g_assert_cmpint(symlink(path, link), ==, 0);
    assert_name_refused(path, path, "An image cannot be its own data file");
    assert_name_refused(path, link, "An image cannot be its own data file");
    assert_name_refused(path, name, "Data file name too long");
}

/* Another name for the data file, and one that need not be raw any more. */
static void test_data_file(void)
{
    g_autofree char *path = scratch_path("data.qcow2");
    g_autofree char *first = scratch_path("first.raw"), *second = scratch_path("second.raw");
    g_autofree char *create = g_strdup_printf("size=4M,data_file=%s,data_file_raw=on", first);
    g_autofree char *amend = g_strdup_printf("data_file=%s,data_file_raw=off", second);

    qcow2_create(path, create);
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 100000, 1);
    QDict *opts = options_of("%s", amend);
    g_assert_cmpint(bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, &error_abort), ==,
                    0);
    json_decref(opts);
    blk_unref(blk);
    g_assert_cmpint(rename(first, second), ==, 0);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 0, 100000, 1);
    json_t *info = blk_bs(blk)->drv->bdrv_get_specific_info(blk_bs(blk));
    json_t *data = json_object_get(info, "data");
    g_assert_cmpstr(json_string_value(json_object_get(data, "data-file")), ==, second);
    g_assert_true(json_is_false(json_object_get(data, "data-file-raw")));
    json_decref(info);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/amend/cases", test_cases);
    g_test_add_func("/qcow2/amend/info", test_info);
    g_test_add_func("/qcow2/amend/data-file", test_data_file);
    g_test_add_func("/qcow2/amend/no-data-file", test_no_data_file);
    return image_test_run();
}
