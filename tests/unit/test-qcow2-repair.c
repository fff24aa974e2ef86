/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a repair never costs data. Small images of random geometry get random damage, mostly
 * pointers that lead to where something else is. What could be read of the disk and of its
 * snapshot before the repair must read the same after it, and, where the repair ends without
 * errors, after writes as well.
 */
#include "qcow2-test.h"
#include "miniblk/bswap.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/snapshot.h"

enum { UNIT = 4096, GUEST_BYTES = 1 << 20, UNITS = GUEST_BYTES / UNIT };
enum {                          /* places in the header */
    H_L1_SIZE = 36, H_L1 = 40, H_REFTABLE = 48, H_REFTABLE_CLUSTERS = 56, H_SNAPSHOTS = 64
};
enum { IMAGES = 60 };

#define COPIED (1ULL << 63)
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)

/* ---- the image ------------------------------------------------------------------------ */

typedef struct Geometry {
    uint32_t cluster_bytes, refcount_bits;
    bool extended;
} Geometry;

static Geometry random_geometry(GRand *rand)
{
    static const uint32_t clusters[] = { 512, 1024, 4096, 16384, 65536 };
    static const uint32_t widths[] = { 2, 8, 16, 64 };
    Geometry g = { clusters[g_rand_int_range(rand, 0, ARRAY_SIZE(clusters))],
                   widths[g_rand_int_range(rand, 0, ARRAY_SIZE(widths))] };

    g.extended = g.cluster_bytes >= 16384 && g_rand_boolean(rand);
    return g;
}

static void write_random(BlockBackend *blk, GRand *rand, const Geometry *g, int n)
{
    g_autofree uint8_t *buf = g_malloc(GUEST_BYTES);

    for (int i = 0; i < n; i++) {
        int64_t offset = (int64_t)g_rand_int_range(rand, 0, UNITS) * UNIT;
        int64_t bytes = MIN(g_rand_int_range(rand, 1, 24) * UNIT, GUEST_BYTES - offset);
        memset(buf, g_rand_int_range(rand, 1, 256), bytes);
        switch (g_rand_int_range(rand, 0, 6)) {
        case 0:
            g_assert_cmpint(blk_pwrite_zeroes(blk, offset, bytes, 0), ==, 0);
            break;
        case 1:
            offset = ROUND_UP(offset, g->cluster_bytes);
            bytes = MIN(g->cluster_bytes, GUEST_BYTES - offset);
            if (bytes) {
                g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf,
                                           BDRV_REQ_WRITE_COMPRESSED), ==, 0);
            }
            break;
        default:
            g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
        }
    }
}

static void make_image(const char *path, GRand *rand, const Geometry *g)
{
    QEMUSnapshotInfo sn = { .name = "s", .icount = UINT64_MAX };
    g_autofree char *opts = g_strdup_printf(
        "size=%d,cluster_size=%u,refcount_bits=%u,extended_l2=%s", GUEST_BYTES,
        g->cluster_bytes, g->refcount_bits, g->extended ? "on" : "off");

    qcow2_create(path, opts);
    BlockBackend *blk = qcow2_open_file(path, "");
    write_random(blk, rand, g, 12);
    if (g_rand_boolean(rand)) {
        int ret = bdrv_snapshot_create(blk_bs(blk), &sn);
        /* (compressed clusters share host clusters, of which few references can be counted) */
        g_assert_true(ret == 0 || g->refcount_bits == 2);
    }
    if (g_rand_boolean(rand)) {
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(blk_bs(blk), 65536, "b", &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
    write_random(blk, rand, g, 6);
    blk_unref(blk);
}

/* ---- damage --------------------------------------------------------------------------- */

typedef struct Bytes {
    uint8_t *data;
    size_t size;
} Bytes;

static uint64_t get64(const Bytes *b, uint64_t at)
{
    return at + 8 <= b->size ? ldq_be_p(b->data + at) : 0;
}

static void put64(Bytes *b, uint64_t at, uint64_t value)
{
    if (at + 8 <= b->size) {
        stq_be_p(b->data + at, value);
    }
}

/* The place of an entry that is not 0 in a table of N entries at TABLE; 0 if none is found. */
static uint64_t used_entry(const Bytes *b, GRand *rand, uint64_t table, uint32_t n)
{
    uint32_t start = g_rand_int_range(rand, 0, n);

    for (uint32_t i = 0; table && i < n; i++) {
        uint64_t at = table + (uint64_t)((start + i) % n) * 8;
        if (get64(b, at) & OFFSET_MASK) {
            return at;
        }
    }
    return 0;
}

typedef enum Kind {             /* of what something is at, or points to */
    REFTABLE, REFBLOCK, L1, L2, DATA, SNAPSHOTS, SNAPSHOT_L1, SNAPSHOT_L2, END, KINDS
} Kind;

/* Where something of kind KIND is; 0: there is none. POINTER: the place that says so. */
static uint64_t find(const Bytes *b, GRand *rand, const Geometry *g, Kind kind,
                     uint64_t *pointer)
{
    uint32_t per_cluster = g->cluster_bytes / 8, l1_size = ldl_be_p(b->data + H_L1_SIZE);
    uint64_t at = 0, snapshots = get64(b, H_SNAPSHOTS);

    switch (kind) {
    case REFTABLE:
        at = H_REFTABLE;
        break;
    case REFBLOCK:
        at = used_entry(b, rand, get64(b, H_REFTABLE), per_cluster);
        break;
    case L1:
        at = H_L1;
        break;
    case L2:
        at = used_entry(b, rand, get64(b, H_L1), l1_size);
        break;
    case DATA:
        at = used_entry(b, rand, get64(b, H_L1), l1_size);
        at = at ? used_entry(b, rand, get64(b, at) & OFFSET_MASK, per_cluster) : 0;
        break;
    case SNAPSHOTS:
        at = snapshots ? H_SNAPSHOTS : 0;
        break;
    case SNAPSHOT_L1:
        at = snapshots;
        break;
    case SNAPSHOT_L2:
        at = snapshots ? used_entry(b, rand, get64(b, snapshots), l1_size) : 0;
        break;
    default:
        *pointer = 0;
        return ROUND_UP(b->size, g->cluster_bytes) +
               (uint64_t)g_rand_int_range(rand, 0, 3) * g->cluster_bytes;
    }
    *pointer = at;
    return at ? get64(b, at) & OFFSET_MASK : 0;
}

static const char *const kind_names[KINDS] = {
    "refcount table", "refcount block", "L1 table", "L2 table", "data", "snapshot table",
    "snapshot's L1 table", "snapshot's L2 table", "end"
};

/* One pointer is led astray, or a refcount is changed. */
static void damage_one(Bytes *b, GRand *rand, const Geometry *g)
{
    Kind from = g_rand_int_range(rand, 0, END), to = g_rand_int_range(rand, 0, KINDS);
    uint64_t at, unused;

    if (g_rand_int_range(rand, 0, 8) == 0) {
        uint64_t block = find(b, rand, g, REFBLOCK, &at);
        uint64_t place = block + g_rand_int_range(rand, 0, 8) * 8;
        g_test_message("refcounts at %#" PRIx64 " change", place);
        put64(b, place, get64(b, place) ^ (uint64_t)g_rand_int(rand) << 16);
        return;
    }
    uint64_t target = find(b, rand, g, to, &unused), old = find(b, rand, g, from, &at);
    if (!at || !target) {
        return;
    }
    bool keep_flags = from == L2 || from == DATA || from == SNAPSHOT_L2;
    uint64_t flags = keep_flags && !(get64(b, at) & 1ULL << 62) && g_rand_boolean(rand)
                   ? COPIED : 0;
    g_test_message("%s at %#" PRIx64 " -> %s at %#" PRIx64, kind_names[from], old,
                   kind_names[to], target);
    put64(b, at, target | flags);
    if (from == REFTABLE && g_rand_boolean(rand)) {
        stl_be_p(b->data + H_REFTABLE_CLUSTERS, g_rand_int_range(rand, 1, 4));
    }
}

static void store(const char *path, const Bytes *b)
{
    g_assert_true(g_file_set_contents(path, (char *)b->data, b->size, NULL));
}

static Bytes load(const char *path)
{
    char *data;
    Bytes b;

    g_assert_true(g_file_get_contents(path, &data, &b.size, NULL));
    b.data = (uint8_t *)data;
    return b;
}

/* ---- what can be read ----------------------------------------------------------------- */

/* Of the disk and of the snapshot: the data, and whether it could be read. */
typedef struct View {
    uint8_t data[2][GUEST_BYTES];
    bool readable[2][UNITS];
} View;

static void read_disk(BlockBackend *blk, View *v, int which)
{
    for (int i = 0; i < UNITS; i++) {
        v->readable[which][i] = blk_pread(blk, (int64_t)i * UNIT, UNIT,
                                          v->data[which] + i * UNIT, 0) >= 0;
    }
}

static View *view_image(const char *path)
{
    View *v = g_new0(View, 1);

    for (int which = 0; which < 2; which++) {
        Error *err = NULL;
        BlockBackend *blk = open_with_perms(
            options_of("driver=qcow2,read-only=on,file.driver=file,file.filename=%s", path), 0,
            BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
        if (blk && (!which || bdrv_snapshot_load_tmp(blk_bs(blk), NULL, "s", &err) == 0)) {
            read_disk(blk, v, which);
        }
        error_free(err);
        blk_unref(blk);
    }
    return v;
}

static void assert_kept(const View *before, const View *after)
{
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < UNITS; i++) {
            if (!before->readable[which][i]) {
                continue;
            }
            if (!after->readable[which][i] ||
                memcmp(before->data[which] + i * UNIT, after->data[which] + i * UNIT, UNIT)) {
                g_test_message("%s, unit %d of %d", which ? "snapshot" : "disk", i, UNIT);
                g_assert_not_reached();
            }
        }
    }
}

/* ---- repair --------------------------------------------------------------------------- */

/* The number of errors that are left; -1: the image cannot be opened, or be checked. */
static int check(const char *path, BdrvCheckMode fix)
{
    BdrvCheckResult res;
    Error *err = NULL;
    BlockBackend *blk = open_with_perms(
        options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
        BDRV_O_CHECK | BDRV_O_RDWR, BLK_PERM_ALL, BLK_PERM_ALL, &err);
    int ret = blk ? bdrv_check(blk_bs(blk), &res, fix) : -1;

    error_free(err);
    blk_unref(blk);
    return ret < 0 ? -1 : res.corruptions + res.check_errors;
}

/* Write here and there; everything else must stay. */
static void write_to(const char *path, GRand *rand, View *v)
{
    uint8_t buf[UNIT];
    BlockBackend *blk = qcow2_open_file(path, "");

    for (int i = 0; i < 20; i++) {
        int unit = g_rand_int_range(rand, 0, UNITS);
        memset(buf, g_rand_int_range(rand, 1, 256), UNIT);
        if (blk_pwrite(blk, (int64_t)unit * UNIT, UNIT, buf, 0) >= 0) {
            memcpy(v->data[0] + unit * UNIT, buf, UNIT);
        }
    }
    blk_unref(blk);
}

static void test_one(uint32_t seed, int *clean)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree char *path = scratch_path("repair.qcow2");
    Geometry g = random_geometry(rand);
    int n = g_rand_int_range(rand, 1, 4);

    g_test_message("seed %u: clusters of %u bytes, refcounts of %u bits%s", seed,
                   g.cluster_bytes, g.refcount_bits, g.extended ? ", subclusters" : "");
    make_image(path, rand, &g);
    Bytes b = load(path);
    for (int i = 0; i < n; i++) {
        damage_one(&b, rand, &g);
    }
    store(path, &b);
    g_autofree View *before = view_image(path);
    check(path, BDRV_FIX_LEAKS);
    g_autofree View *half = view_image(path);
    assert_kept(before, half);
    store(path, &b);
    int left = check(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    g_autofree View *after = view_image(path);
    assert_kept(before, after);
    if (left == 0) {
        g_assert_cmpint(check(path, 0), ==, 0);
        qcow2_assert_peer_finds_no_fault(path);
        write_to(path, rand, before);
        g_autofree View *written = view_image(path);
        assert_kept(before, written);
        /* (two entries of the L1 table may share what they refer to, flags included) */
        g_assert_cmpint(check(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS), ==, 0);
        g_autofree View *again = view_image(path);
        assert_kept(written, again);
        ++*clean;
    }
    g_free(b.data);
}

static void test_repair(void)
{
    const char *first = g_getenv("MINIBLK_REPAIR_SEED");
    const char *count = g_getenv("MINIBLK_REPAIR_IMAGES");
    uint32_t seed = first ? strtoul(first, NULL, 0) : 1;
    int n = count ? atoi(count) : IMAGES, clean = 0;

    for (int i = 0; i < n; i++) {
        test_one(seed + i, &clean);
    }
    g_test_message("%d of %d images came out without errors", clean, n);
    if (n >= IMAGES) {
        g_assert_cmpint(clean, >, n / 4);
    }
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/repair/keeps-data", test_repair);
    return image_test_run();
}
