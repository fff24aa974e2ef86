/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: creating, opening, hostile images, and single behaviours. */
#include "qcow2-test.h"

enum { CLUSTER = 4096, GUEST_BYTES = 1 << 20 };

/* Offsets of header fields. */
enum {
    H_VERSION = 4, H_BACKING_OFFSET = 8, H_BACKING_SIZE = 16, H_CLUSTER_BITS = 20, H_SIZE = 24,
    H_CRYPT = 32, H_L1_SIZE = 36, H_L1_OFFSET = 40, H_REFTABLE = 48, H_REFTABLE_CLUSTERS = 56,
    H_NB_SNAPSHOTS = 60, H_SNAPSHOTS = 64, H_INCOMPAT = 72, H_COMPAT = 80, H_AUTOCLEAR = 88,
    H_REFCOUNT_ORDER = 96, H_LENGTH = 100, H_COMPRESSION = 104, H_EXTENSIONS = 112,
};

/* ---- bytes of an image file -------------------------------------------------------- */

static void poke(const char *path, int64_t offset, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, bytes, n, offset), ==, (ssize_t)n);
    close(fd);
}

static void poke64(const char *path, int64_t offset, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    poke(path, offset, &value, sizeof(value));
}

static uint64_t peek64(const char *path, int64_t offset)
{
    uint64_t value;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, &value, sizeof(value), offset), ==, (ssize_t)sizeof(value));
    close(fd);
    return GUINT64_FROM_BE(value);
}

static uint64_t table_of(const char *path, int64_t field)
{
    return peek64(path, field) & 0x00fffffffffffe00;
}

static char *new_image(const char *opts)
{
    char *path = scratch_path("image.qcow2");
    qcow2_create(path, opts);
    return path;
}

/* The same with 64 KiB of pattern 1 at its start. */
static char *image_with_data(const char *opts)
{
    char *path = new_image(opts);
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 65536, 1);
    blk_unref(blk);
    return path;
}

/* ---- creating ---------------------------------------------------------------------- */

static void test_create_refused(void)
{
    static const struct { const char *opts, *text; } cases[] = {
        { "size=1M,cluster_size=100", "Cluster size must be a power of two between 512 and "
                                      "2048k" },
        { "size=1M,cluster_size=4M", "Cluster size must be a power of two between 512 and "
                                     "2048k" },
        { "size=1M,refcount_bits=3", "Refcount width must be a power of two and may not "
                                     "exceed 64 bits" },
        { "size=1M,refcount_bits=128", "Refcount width must be a power of two and may not "
                                       "exceed 64 bits" },
        { "size=1M,refcount_bits=xx", "Parameter 'refcount_bits' expects a number" },
        { "size=1M,compat=foo", "Parameter 'version' does not accept value 'foo'" },
        { "size=1M,compat=0.10,refcount_bits=32", "Different refcount widths than 16 bits "
          "require compatibility level 1.1 or above (use version=v3 or greater)" },
        { "size=1M,compat=v2,lazy_refcounts=on", "Lazy refcounts only supported with "
          "compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,compression_type=foo", "Parameter 'compression-type' does not accept value "
                                          "'foo'" },
        { "size=1M,preallocation=foo", "Parameter 'preallocation' does not accept value "
                                       "'foo'" },
        { "size=1M,extended_l2=on,cluster_size=8k", "Extended L2 entries are only supported "
          "with cluster sizes of at least 16384 bytes" },
        { "size=1M,extended_l2=on,compat=0.10", "Extended L2 entries are only supported with "
          "compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,data_file=x,compat=0.10", "External data files are only supported with "
          "compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,data_file_raw=on", "data-file-raw requires data-file" },
        { "size=1M,data_file=x,data_file_raw=on,backing_file=b", "Backing file and "
          "data-file-raw cannot be used at the same time" },
        { "size=1M,encrypt.format=luks", "Encrypted qcow2 images are not supported" },
        { "size=1M,nosuch=1", "Invalid parameter 'nosuch'" },
        { "size=100P", "The image size is too large for file format 'qcow2' (try using a "
                       "larger cluster size)" },
        { "size=1M,backing_file=b,preallocation=metadata", "Backing file and preallocation "
          "can only be used at the same time if extended_l2 is on" },
    };
    g_autofree char *path = scratch_path("refused.qcow2");

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Error *err = NULL;
        QDict *opts = qdict_new();
        g_auto(GStrv) pairs = g_strsplit(cases[i].opts, ",", -1);
        for (int k = 0; pairs[k]; k++) {
            g_auto(GStrv) pair = g_strsplit(pairs[k], "=", 2);
            qdict_put_str(opts, pair[0], pair[1]);
        }
        int ret = bdrv_create(bdrv_find_format("qcow2"), path, opts, &err);
        json_decref(opts);
        g_assert_cmpint(ret, <, 0);
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].text);
        error_free(err);
        g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
}

static void test_create_geometries(void)
{
    static const char *const opts[] = {
        "size=0", "size=1", "size=64M", "size=64M,cluster_size=512", "size=2T",
        "size=64M,cluster_size=2M", "size=100G,cluster_size=512,refcount_bits=64",
        "size=1G,refcount_bits=1", "size=1G,compat=0.10", "size=1G,compression_type=zstd",
        "size=30M,preallocation=metadata", "size=3M,preallocation=falloc,cluster_size=512",
        "size=3M,preallocation=full,cluster_size=2M",
        "size=3M,preallocation=metadata,compat=v2", "size=64M,extended_l2=on",
        "size=3M,preallocation=full,extended_l2=on,cluster_size=16k",
        "size=100G,extended_l2=on,cluster_size=2M,preallocation=metadata",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(opts); i++) {
        g_test_message("%s", opts[i]);
        g_autofree char *path = new_image(opts[i]);
        qcow2_assert_peer_finds_no_fault(path);
        BlockBackend *blk = qcow2_open_file(path, "");
        qcow2_assert_consistent(blk, false);
        if (blk_getlength(blk) >= 4096) {
            assert_content(blk, 0, 4096, 0);
            write_pattern(blk, blk_getlength(blk) - 512, 512, 5);
            assert_content(blk, blk_getlength(blk) - 512, 512, 5);
        }
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

static void test_specific_info(void)
{
    static const struct { const char *opts, *json; } cases[] = {
        { "size=1M", "{\"type\":\"qcow2\",\"data\":{\"compat\":\"1.1\",\"compression-type\":"
          "\"zlib\",\"lazy-refcounts\":false,\"refcount-bits\":16,\"corrupt\":false,"
          "\"extended-l2\":false}}" },
        { "size=1M,compat=0.10", "{\"type\":\"qcow2\",\"data\":{\"compat\":\"0.10\","
          "\"compression-type\":\"zlib\",\"refcount-bits\":16}}" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = new_image(cases[i].opts);
        BlockBackend *blk = qcow2_open_file(path, "");
        json_t *info = blk_bs(blk)->drv->bdrv_get_specific_info(blk_bs(blk));
        char *text = json_dumps(info, JSON_COMPACT);
        g_assert_cmpstr(text, ==, cases[i].json);
        free(text);
        json_decref(info);
        blk_unref(blk);
    }
}

/* ---- hostile headers --------------------------------------------------------------- */

typedef struct Poke { int offset, bytes; uint64_t value; } Poke;

static void apply_pokes(const char *path, const Poke *p)
{
    for (; p->bytes; p++) {
        uint64_t be = GUINT64_TO_BE(p->value);
        poke(path, p->offset, (uint8_t *)&be + 8 - p->bytes, p->bytes);
    }
}

static void test_hostile_headers(void)
{
    static const struct { Poke pokes[4]; const char *text; } cases[] = {
        { { { 0, 4, 0 } }, "Image is not in qcow2 format" },
        { { { H_VERSION, 4, 1 } }, "Unsupported qcow2 version 1" },
        { { { H_VERSION, 4, 4 } }, "Unsupported qcow2 version 4" },
        { { { H_CLUSTER_BITS, 4, 8 } }, "Unsupported cluster size: 2^8" },
        { { { H_CLUSTER_BITS, 4, 0xffffffff } }, "Unsupported cluster size: 2^4294967295" },
        { { { H_LENGTH, 4, 100 } }, "qcow2 header too short" },
        { { { H_LENGTH, 4, 65544 } }, "qcow2 header exceeds cluster size" },
        { { { H_BACKING_OFFSET, 8, 65537 } }, "Invalid backing file offset" },
        { { { H_BACKING_OFFSET, 8, 600 }, { H_BACKING_SIZE, 4, 1024 } },
          "Backing file name too long" },
        { { { H_BACKING_OFFSET, 8, 65000 }, { H_BACKING_SIZE, 4, 1000 } },
          "Backing file name too long" },
        { { { H_INCOMPAT, 8, 1 << 5 } },
          "Unsupported qcow2 feature(s): Unknown incompatible feature: 20" },
        { { { H_INCOMPAT, 8, 1ULL << 63 | 1 << 5 } },
          "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000020" },
        { { { H_INCOMPAT, 8, 1 << 6 }, { H_EXTENSIONS + 8, 8, 0x0006666f6f000000 } },
          "Unsupported qcow2 feature(s): foo" },
        { { { H_INCOMPAT, 8, 4 } }, "'data-file' is required for this image" },
        { { { H_INCOMPAT, 8, 16 }, { H_CLUSTER_BITS, 4, 13 } }, "Extended L2 entries are only "
          "supported with cluster sizes of at least 16384 bytes" },
        { { { H_INCOMPAT, 8, 8 } },
          "qcow2: Compression type incompatible feature bit must not be set" },
        { { { H_COMPRESSION, 1, 1 } },
          "qcow2: Compression type incompatible feature bit must be set" },
        { { { H_INCOMPAT, 8, 8 }, { H_COMPRESSION, 1, 2 } },
          "qcow2: unknown compression type: 2" },
        { { { H_REFCOUNT_ORDER, 4, 7 } },
          "Reference count entry width too large; may not exceed 64 bits" },
        { { { H_CRYPT, 4, 1 } }, "Encrypted qcow2 images are not supported" },
        { { { H_CRYPT, 4, 3 } }, "Unsupported encryption method 3" },
        { { { H_L1_SIZE, 4, 0 } }, "L1 table is too small" },
        { { { H_L1_SIZE, 4, 4 << 20 | 1 } }, "Active L1 table too large" },
        { { { H_L1_OFFSET, 8, 0x30200 } }, "Active L1 table offset invalid" },
        { { { H_L1_OFFSET, 8, 0xffffffffffff0000 } }, "Active L1 table offset invalid" },
        { { { H_REFTABLE, 8, 0x10200 } }, "Reference count table offset invalid" },
        { { { H_REFTABLE, 8, 0x7fffffffffff0000 } }, "Reference count table offset invalid" },
        { { { H_REFTABLE_CLUSTERS, 4, 0 } },
          "Image does not contain a reference count table" },
        { { { H_REFTABLE_CLUSTERS, 4, 129 } }, "Reference count table too large" },
        { { { H_NB_SNAPSHOTS, 4, 65537 } }, "Snapshot table too large" },
        { { { H_NB_SNAPSHOTS, 4, 1 }, { H_SNAPSHOTS, 8, 0x200 } },
          "Snapshot table offset invalid" },
        { { { H_NB_SNAPSHOTS, 4, 1 }, { H_SNAPSHOTS, 8, 0x4000000 } },
          "Failed to read snapshot table: Input/output error" },
        { { { H_SIZE, 8, 1ULL << 63 } }, "Image is too big" },
        { { { H_EXTENSIONS + 4, 4, 70000 } }, "Header extension too large" },
        { { { H_EXTENSIONS + 4, 4, 0xffffffff } }, "Header extension too large" },
        { { { H_EXTENSIONS, 4, 0xe2792aca }, { H_EXTENSIONS + 4, 4, 200 } },
          "ERROR: ext_backing_format: len=200 too large (>=16)" },
        { { { H_EXTENSIONS, 4, 0x23852875 }, { H_EXTENSIONS + 4, 4, 8 },
            { H_AUTOCLEAR, 8, 1 } }, "bitmaps_ext: Invalid extension length" },
        { { { H_INCOMPAT, 8, 2 } },
          "qcow2: Image is corrupt; cannot be opened read/write" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = new_image("size=64M");
        g_test_message("%s", cases[i].text);
        apply_pokes(path, cases[i].pokes);
        assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                          BDRV_O_RDWR, cases[i].text, NULL);
    }
}

/*
 * A file that ends anywhere in its metadata must be refused with a reason: to show it as an
 * empty disk would hide that its data is gone.
 */
static void test_truncated_files(void)
{
    g_autofree char *path = image_with_data("size=64M,cluster_size=4k");
    g_autofree char *cut = scratch_path("cut.qcow2");
    uint64_t l1_offset = table_of(path, H_L1_OFFSET);
    g_autofree char *bytes = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &bytes, &len, NULL));
    g_assert_cmpuint(l1_offset, <, len);
    for (gsize n = 0; n <= l1_offset; n += n < 600 ? 1 : 397) {
        Error *err = NULL;
        g_assert_true(g_file_set_contents(cut, bytes, n, NULL));
        BlockBackend *blk = open_with_perms(
            options_of("driver=qcow2,read-only=on,file.driver=file,file.filename=%s", cut), 0,
            BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
        g_assert_null(blk);
        if (n >= 600) {
            g_assert_nonnull(strstr(error_get_pretty(err), "Image is truncated: its "));
        }
        error_free_or_abort(&err);
    }
}

static void test_runtime_options(void)
{
    static const struct { const char *opts, *text; } cases[] = {
        { "l2-cache-entry-size=3k", "L2 cache entry size must be a power of two between 512 "
                                    "and the cluster size (65536)" },
        { "l2-cache-entry-size=128k", "L2 cache entry size must be a power of two between 512 "
                                      "and the cluster size (65536)" },
        { "cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size" },
        { "cache-size=1M,refcount-cache-size=2M",
          "refcount-cache-size may not exceed cache-size" },
        { "cache-size=1M,l2-cache-size=512k,refcount-cache-size=512k", "cache-size, "
          "l2-cache-size and refcount-cache-size may not be set at the same time" },
        { "overlap-check=foo", "Unsupported value 'foo' for qcow2 option 'overlap-check'. "
          "Allowed are any of the following: none, constant, cached, all" },
        { "overlap-check.template=foo", "Unsupported value 'foo' for qcow2 option "
          "'overlap-check'. Allowed are any of the following: none, constant, cached, all" },
        { "cache-clean-interval=99999999999", "Cache clean interval too big" },
        { "refcount-cache-size=9E", "Refcount cache size too big" },
        { "data-file=x", "'data-file' can only be set for images with an external data file" },
        { "colour=red", "Block format 'qcow2' does not support the option 'colour'" },
    };
    static const char *const good[] = {
        "l2-cache-size=1", "l2-cache-size=1P", "refcount-cache-size=1", "cache-size=0",
        "overlap-check=all", "overlap-check.template=constant,overlap-check.active-l2=on",
        "lazy-refcounts=on", "pass-discard-request=off", "discard-no-unref=on",
        "pass-discard-snapshot=off", "pass-discard-other=on", "cache-clean-interval=0",
    };
    g_autofree char *path = new_image("size=64M");

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s,%s", path,
                                     cases[i].opts), BDRV_O_RDWR, cases[i].text, NULL);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        g_autofree char *more = g_strdup_printf(",%s", good[i]);
        BlockBackend *blk = qcow2_open_file(path, more);
        write_pattern(blk, i * 65536, 65536, i + 1);
        assert_content(blk, i * 65536, 65536, i + 1);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* ---- corrupt tables ---------------------------------------------------------------- */

/* What is done to an image; L2 is its first L2 table, RB its first refcount block. */
typedef struct Damage {
    const char *name, *opts;
    bool read_fails, write_fails, marked;
    void (*apply)(const char *path, uint64_t l1, uint64_t l2, uint64_t rt, uint64_t rb);
} Damage;

#define DAMAGE(fn, body)                                                        \
    static void fn(const char *path, uint64_t l1, uint64_t l2, uint64_t rt,     \
                   uint64_t rb)                                                 \
    {                                                                           \
        body;                                                                   \
    }
#define COPIED 0x8000000000000000ULL

DAMAGE(l1_unaligned, poke64(path, l1, COPIED | l2 | 0x200))
DAMAGE(l1_beyond_end, poke64(path, l1, COPIED | 0x40000000))
DAMAGE(l1_to_refblock, poke64(path, l1, COPIED | rb))
DAMAGE(l2_unaligned, poke64(path, l2, peek64(path, l2) | 0x200))
DAMAGE(l2_beyond_end, poke64(path, l2, COPIED | 0x40000000))
DAMAGE(l2_to_l1, poke64(path, l2, COPIED | l1))
DAMAGE(l2_to_l2, poke64(path, l2, COPIED | l2))
DAMAGE(l2_to_refblock, poke64(path, l2, COPIED | rb))
DAMAGE(l2_to_reftable, poke64(path, l2, COPIED | rt))
DAMAGE(l2_zero_in_v2, poke64(path, l2, 1))
DAMAGE(l2_compressed_garbage,
       poke64(path, l2, 1ULL << 62 | (peek64(path, l2) & 0xfffff000)))
DAMAGE(l2_compressed_beyond, poke64(path, l2, 1ULL << 62 | 0x10000000))
DAMAGE(block_unaligned, poke64(path, l2, 0); poke64(path, rt, rb | 0x200))
DAMAGE(block_beyond, poke64(path, l2, 0); poke64(path, rt, 0x40000000))
DAMAGE(block_is_l1, poke64(path, l2, 0); poke64(path, rt, l1))
DAMAGE(refcounts_all_zero, poke64(path, l2, 0); poke64(path, rb, 0))

static const Damage damages[] = {
    { "L1 entry unaligned", NULL, true, true, true, l1_unaligned },
    { "L1 entry beyond end", NULL, true, true, true, l1_beyond_end },
    { "L1 entry to refcount block", NULL, false, true, true, l1_to_refblock },
    { "L2 entry unaligned", NULL, true, true, true, l2_unaligned },
    { "L2 entry beyond end", NULL, false, true, true, l2_beyond_end },
    { "L2 entry to L1 table", NULL, false, true, true, l2_to_l1 },
    { "L2 entry to L2 table", NULL, false, true, true, l2_to_l2 },
    { "L2 entry to refcount block", NULL, false, true, true, l2_to_refblock },
    { "L2 entry to refcount table", NULL, false, true, true, l2_to_reftable },
    { "zero flag in version 2", "size=1M,cluster_size=4k,compat=0.10", true, true, false,
      l2_zero_in_v2 },
    { "compressed garbage", NULL, true, false, false, l2_compressed_garbage },
    { "compressed beyond end", NULL, true, false, false, l2_compressed_beyond },
    { "refcount block unaligned", NULL, false, true, true, block_unaligned },
    { "refcount block beyond end", NULL, false, true, true, block_beyond },
    { "refcount block is L1 table", NULL, false, true, true, block_is_l1 },
    { "refcounts all zero", NULL, false, true, true, refcounts_all_zero },
};

static void damage_one(const Damage *d)
{
    g_autofree char *path = image_with_data(d->opts ? d->opts : "size=1M,cluster_size=4k");
    uint64_t l1 = table_of(path, H_L1_OFFSET), rt = table_of(path, H_REFTABLE);
    uint8_t buf[CLUSTER] = { 0 };
    g_autofree char *before = NULL, *after = NULL;
    gsize before_bytes, after_bytes;

    g_test_message("%s", d->name);
    d->apply(path, l1, table_of(path, l1), rt, table_of(path, rt));
    g_assert_true(g_file_get_contents(path, &before, &before_bytes, NULL));
    BlockBackend *blk = qcow2_open_file(path, "");
    int ret = blk_pread(blk, 0, sizeof(buf), buf, 0);
    g_assert_cmpint(ret, ==, d->read_fails ? -EIO : 0);
    /* Half a cluster, so that the old half is needed, then a whole one. */
    ret = blk_pwrite(blk, 0, sizeof(buf), buf, 0);
    g_assert_cmpint(ret, ==, d->write_fails ? -EIO : 0);
    BdrvCheckResult res;
    bdrv_check(blk_bs(blk), &res, 0);
    blk_unref(blk);
    if (d->write_fails) {
        /* Nothing but the corrupt bit may have changed. */
        g_assert_true(g_file_get_contents(path, &after, &after_bytes, NULL));
        before[H_INCOMPAT + 7] |= d->marked ? 2 : 0;
        g_assert_cmpmem(before, before_bytes, after, after_bytes);
    }
}

static void test_damaged_tables(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        damage_one(&damages[i]);
    }
}

/* Repair must end, and end well whatever the damage to refcounts. */
static void test_repair(void)
{
    static const struct { const char *name; uint64_t value; bool table; } cases[] = {
        { "all refcounts zero", 0, false },
        { "refcounts too high", 0x0002000200020002, false },
        { "no refcount block", 0, true },
        { "refcount block unaligned", 0x2200, true },
        { "refcount block outside", 0x40000000, true },
        { "refcount block in the refcount table", 0x1000, true },
        { "refcount block in the L1 table", 0x3000, true },
        { "reserved bits", 1, true },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = image_with_data("size=1M,cluster_size=4k");
        uint64_t rt = table_of(path, H_REFTABLE);
        BdrvCheckResult res;
        g_test_message("%s", cases[i].name);
        poke64(path, cases[i].table ? rt : table_of(path, rt), cases[i].value);
        BlockBackend *blk = open_with_perms(
            options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
            BDRV_O_RDWR | BDRV_O_CHECK, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, BDRV_FIX_ERRORS | BDRV_FIX_LEAKS), ==,
                        0);
        g_assert_cmpint(res.corruptions_fixed + res.leaks_fixed, >, 0);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
        blk = qcow2_open_file(path, "");
        assert_content(blk, 0, 65536, 1);
        write_pattern(blk, 0, GUEST_BYTES, 9);
        assert_content(blk, 0, GUEST_BYTES, 9);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
    }
}

/* ---- features ---------------------------------------------------------------------- */

static void test_dirty_bit(void)
{
    g_autofree char *path = image_with_data("size=1M,cluster_size=4k,lazy_refcounts=on");
    uint64_t rb = table_of(path, table_of(path, H_REFTABLE));

    /* A clean close has cleared it. */
    g_assert_cmpint(peek64(path, H_INCOMPAT), ==, 0);
    poke64(path, H_INCOMPAT, 1);
    poke64(path, rb + 8, 0);
    BlockBackend *blk = qcow2_open_file(path, "");
    qcow2_assert_consistent(blk, false);
    assert_content(blk, 0, 65536, 1);
    g_assert_cmpint(peek64(path, H_INCOMPAT), ==, 0);
    write_pattern(blk, 65536, 4096, 2);
    g_assert_cmpint(peek64(path, H_INCOMPAT), ==, 1);
    blk_unref(blk);
    g_assert_cmpint(peek64(path, H_INCOMPAT), ==, 0);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_autoclear(void)
{
    g_autofree char *path = new_image("size=1M");

    poke64(path, H_AUTOCLEAR, 1ULL << 40);
    BlockBackend *blk = open_with_perms(
        options_of("driver=qcow2,read-only=on,file.driver=file,file.filename=%s", path), 0,
        BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    blk_unref(blk);
    g_assert_cmpuint(peek64(path, H_AUTOCLEAR), ==, 1ULL << 40);
    blk_unref(qcow2_open_file(path, ""));
    g_assert_cmpuint(peek64(path, H_AUTOCLEAR), ==, 0);
}

static void assert_status(BlockBackend *blk, int64_t offset, int64_t bytes, int wanted)
{
    int64_t n = 0;
    int ret = bdrv_block_status(blk_bs(blk), offset, bytes, &n, NULL, NULL);

    g_assert_cmphex(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED), ==,
                    wanted);
    g_assert_cmpint(n, ==, bytes);
}

/* Zeroes in part of a cluster: where nothing else is, the cluster becomes one of zeroes. */
static void test_zeroes_in_part(void)
{
    g_autofree char *path = image_with_data("size=4195328,cluster_size=4k");
    BlockBackend *blk = qcow2_open_file(path, "");
    const int zero = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;

    g_assert_cmpint(blk_pwrite_zeroes(blk, 1048576 + 512, 512, 0), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1572864 - 512, 8192, 0), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 4195328 - 512, 512, BDRV_REQ_MAY_UNMAP), ==, 0);
    assert_status(blk, 1048576 - 4096, 4096, BDRV_BLOCK_ZERO);
    assert_status(blk, 1048576, 4096, zero);
    assert_status(blk, 1048576 + 4096, 4096, BDRV_BLOCK_ZERO);
    assert_status(blk, 1572864 - 4096, 12288, zero);
    assert_status(blk, 4194304, 1024, zero);
    /* Data around it stays, and a cluster that has become one of zeroes takes data again. */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 512, 512, 0), ==, 0);
    assert_content(blk, 0, 512, 1);
    assert_content(blk, 512, 512, 0);
    assert_content(blk, 1024, 8192, 1);
    write_pattern(blk, 1048576 + 1024, 512, 7);
    assert_content(blk, 1048576, 1024, 0);
    assert_content(blk, 1048576 + 1024, 512, 7);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/*
 * Zeroes in part of each cluster, over a backing file that ends in the fifth:
 *
 *     backing file   |  data  |        |    data|        |  .
 *     zeroes         |  zz    |  zz    |  zz    |  zz    | zz     |
 *     the image      |  data  |  zero  |  data  |  zero  |  zero  |
 */
static void test_zeroes_in_part_over_backing(void)
{
    g_autofree char *base = scratch_file("base.raw", 4096 * 4 + 512);
    g_autofree char *path = scratch_path("image.qcow2");
    const int data = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
    const int zero = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
    BlockBackend *blk = open_rw(options_of("driver=raw,file.driver=file,file.filename=%s",
                                           base));

    write_pattern(blk, 0, 4096, 3);
    write_pattern(blk, 3 * 4096 - 512, 512, 3);
    blk_unref(blk);
    qcow2_create(path, "size=1M,cluster_size=4k,backing_file=base.raw,backing_fmt=raw");
    blk = qcow2_open_file(path, "");
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(blk_pwrite_zeroes(blk, i * 4096 + 1024, 1024, 0), ==, 0);
    }
    g_assert_cmpint(blk_pwrite_zeroes(blk, 4 * 4096 + 256, 1024, 0), ==, 0);
    assert_status(blk, 0, 4096, data);
    assert_status(blk, 4096, 4096, zero);
    assert_status(blk, 2 * 4096, 4096, data);
    assert_status(blk, 3 * 4096, 8192, zero);
    assert_content(blk, 0, 1024, 3);
    assert_content(blk, 1024, 1024, 0);
    assert_content(blk, 2048, 2048, 3);
    assert_content(blk, 4096, 2 * 4096 - 512, 0);
    assert_content(blk, 3 * 4096 - 512, 512, 3);
    assert_content(blk, 3 * 4096, 8192, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/* When the disk grows, the rest of its last cluster is only made zero where data is. */
static void test_growing_defines_nothing(void)
{
    g_autofree char *path = scratch_path("image.qcow2");

    qcow2_create(path, "size=82432,cluster_size=64k,extended_l2=on");
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 65536, 8192, 1);
    g_assert_cmpint(blk_truncate(blk, 262144, false, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    assert_status(blk, 65536 + 8192, 57344, BDRV_BLOCK_ZERO);
    assert_status(blk, 131072, 131072, BDRV_BLOCK_ZERO);
    assert_content(blk, 65536 + 8192, 188416, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

static void test_snapshots_are_kept(void)
{
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    g_autofree char *path = image_with_data("size=1M,cluster_size=4k");

    if (!peer) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    qcow2_assert_peer("snapshot -c s1 %s", path);
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 6000, 2);
    g_assert_cmpint(blk_pdiscard(blk, 16384, 8192), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 32768, 8192, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 49152, 4096, 0), ==, 0);
    qcow2_assert_consistent(blk, false);
    assert_content(blk, 0, 6000, 2);
    assert_content(blk, 6000, 10384, 1);
    assert_content(blk, 16384, 8192, 0);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    qcow2_assert_peer("snapshot -a s1 %s", path);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 0, 65536, 1);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/* Compressed clusters share host clusters; each overwritten one gives up its part. */
static void test_compressed_clusters(void)
{
    static const char *const types[] = { "zlib", "zstd" };
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    g_autofree char *raw = scratch_path("image.raw"), *path = scratch_path("image.qcow2");
    g_autofree uint8_t *data = g_malloc(GUEST_BYTES), *now = g_malloc(GUEST_BYTES);

    if (!peer) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    for (int i = 0; i < GUEST_BYTES; i++) {
        data[i] = i % 251 + i / 5000;
    }
    g_assert_true(g_file_set_contents(raw, (char *)data, GUEST_BYTES, NULL));
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        qcow2_assert_peer("convert -c -f raw -O qcow2 -o cluster_size=16k,compression_type=%s "
                          "%s %s", types[i], raw, path);
        BlockBackend *blk = qcow2_open_file(path, "");
        qcow2_assert_consistent(blk, false);
        g_assert_cmpint(blk_pread(blk, 0, GUEST_BYTES, now, 0), ==, 0);
        g_assert_cmpmem(now, GUEST_BYTES, data, GUEST_BYTES);
        g_assert_cmpint(blk_pread(blk, 20000, 512, now, 0), ==, 0);
        g_assert_cmpmem(now, 512, data + 20000, 512);
        write_pattern(blk, 10000, 20000, 7);
        assert_content(blk, 10000, 20000, 7);
        g_assert_cmpint(blk_pread(blk, 0, 10000, now, 0), ==, 0);
        g_assert_cmpmem(now, 10000, data, 10000);
        g_assert_cmpint(blk_pdiscard(blk, 65536, 65536), ==, 0);
        assert_content(blk, 65536, 65536, 0);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        write_pattern(blk, 65536, 65536, 8);
        g_assert_cmpint(blk_pread(blk, 131072, 65536, now, 0), ==, 0);
        g_assert_cmpmem(now, 65536, data + 131072, 65536);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* The image names its backing file, which ends in the middle of it. */
static void test_backing_file(void)
{
    g_autofree char *base = scratch_file("base.raw", 100 * 512);
    g_autofree char *path = scratch_path("image.qcow2");
    BlockBackend *blk = open_rw(options_of("driver=raw,file.driver=file,file.filename=%s",
                                           base));

    write_pattern(blk, 0, 100 * 512, 3);
    blk_unref(blk);
    qcow2_create(path, "size=1M,cluster_size=64k,backing_file=base.raw,backing_fmt=raw");
    blk = qcow2_open_file(path, "");
    g_assert_cmpstr(blk_bs(blk)->backing_file, ==, "base.raw");
    assert_content(blk, 0, 100 * 512, 3);
    assert_content(blk, 100 * 512, 65536, 0);
    write_pattern(blk, 99 * 512, 1024, 4);
    assert_content(blk, 0, 99 * 512, 3);
    assert_content(blk, 99 * 512, 1024, 4);
    assert_content(blk, 101 * 512, 65536, 0);
    g_assert_cmpint(blk_pdiscard(blk, 0, 65536), ==, 0);
    assert_content(blk, 0, 65536, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_block_status(void)
{
    g_autofree char *path = image_with_data("size=1M,cluster_size=4k");
    static const struct { int64_t offset, bytes; int status; } expect[] = {
        { 0, 65536, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_OFFSET_VALID },
        { 65536, 65536, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED },
        { 131072, GUEST_BYTES - 131072, BDRV_BLOCK_ZERO },
    };
    BlockBackend *blk = qcow2_open_file(path, "");
    int64_t pnum, map;
    BlockDriverState *file;

    g_assert_cmpint(blk_pwrite_zeroes(blk, 65536, 65536, BDRV_REQ_MAY_UNMAP), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(expect); i++) {
        int ret = bdrv_block_status(blk_bs(blk), expect[i].offset,
                                    GUEST_BYTES - expect[i].offset, &pnum, &map, &file);
        g_assert_cmpint(ret & ~BDRV_BLOCK_EOF, ==, expect[i].status);
        g_assert_cmpint(pnum, ==, expect[i].bytes);
    }
    blk_unref(blk);
}

/* Discarded clusters are used again, so the file does not grow for ever. */
static void test_space_is_reused(void)
{
    g_autofree char *path = new_image("size=1M,cluster_size=4k");
    BlockBackend *blk = qcow2_open_file(path, "");
    GStatBuf first, last;

    for (int i = 0; i < 20; i++) {
        write_pattern(blk, 0, GUEST_BYTES, i + 1);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        g_assert_cmpint(g_stat(path, i ? &last : &first), ==, 0);
        g_assert_cmpint(blk_pdiscard(blk, 0, GUEST_BYTES), ==, 0);
        g_assert_cmpint(blk_flush(blk), ==, 0);
    }
    g_assert_cmpint(last.st_size, ==, first.st_size);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/*
 * A disk that becomes full must not be noticed when tables are flushed: by then, writes that
 * need them were acknowledged, and data has taken the last room.
 */
static void test_tables_have_room(void)
{
    static const char *const events[] = { "l2_alloc_write", "refblock_alloc_write" };
    g_autofree char *path = NULL;

    for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
        g_free(path);
        path = new_image("size=1M,cluster_size=512,refcount_bits=64");
        BlockBackend *blk = open_rw(options_of(
            "driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
            "file.image.filename=%s,file.inject-error.0.event=%s,"
            "file.inject-error.0.errno=28,file.inject-error.0.once=on", path, events[i]));
        g_autofree uint8_t *buf = g_malloc0(65536);
        g_assert_cmpint(blk_pwrite(blk, 0, 65536, buf, 0), ==, -ENOSPC);
        write_pattern(blk, 0, 65536, 1);
        /* Nothing has been written back yet. */
        g_assert_cmpint(disk_bytes(path), >=, file_bytes(path));
        g_assert_cmpint(blk_flush(blk), ==, 0);
        assert_content(blk, 0, 65536, 1);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

static void test_change_backing_file(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);
    g_autofree char *long_name = g_strnfill(1024, 'x');

    g_assert_cmpint(bs->drv->bdrv_change_backing_file(bs, "other.raw", "raw"), ==, 0);
    g_assert_cmpint(bs->drv->bdrv_change_backing_file(bs, long_name, "raw"), ==, -EINVAL);
    blk_unref(blk);
    blk = qcow2_open_file(path, ",backing=");
    bs = blk_bs(blk);
    g_assert_cmpstr(bs->backing_file, ==, "other.raw");
    g_assert_cmpstr(bs->backing_format, ==, "raw");
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/create/refused", test_create_refused);
    g_test_add_func("/qcow2/create/geometries", test_create_geometries);
    g_test_add_func("/qcow2/info", test_specific_info);
    g_test_add_func("/qcow2/open/hostile-headers", test_hostile_headers);
    g_test_add_func("/qcow2/open/truncated-files", test_truncated_files);
    g_test_add_func("/qcow2/open/options", test_runtime_options);
    g_test_add_func("/qcow2/damaged-tables", test_damaged_tables);
    g_test_add_func("/qcow2/repair", test_repair);
    g_test_add_func("/qcow2/dirty-bit", test_dirty_bit);
    g_test_add_func("/qcow2/autoclear", test_autoclear);
    g_test_add_func("/qcow2/zeroes/in-part", test_zeroes_in_part);
    g_test_add_func("/qcow2/zeroes/in-part-over-backing", test_zeroes_in_part_over_backing);
    g_test_add_func("/qcow2/growing-defines-nothing", test_growing_defines_nothing);
    g_test_add_func("/qcow2/snapshots-are-kept", test_snapshots_are_kept);
    g_test_add_func("/qcow2/compressed-clusters", test_compressed_clusters);
    g_test_add_func("/qcow2/backing-file", test_backing_file);
    g_test_add_func("/qcow2/block-status", test_block_status);
    g_test_add_func("/qcow2/space-is-reused", test_space_is_reused);
    g_test_add_func("/qcow2/tables-have-room", test_tables_have_room);
    g_test_add_func("/qcow2/change-backing-file", test_change_backing_file);
    return image_test_run();
}
