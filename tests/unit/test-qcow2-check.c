/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what a check finds in damaged images and what repair makes of them, next to what
 * qemu-img says of the same images.
 */
#include "qcow2-test.h"
#include "miniblk/dirty-bitmap.h"
#include <jansson.h>

enum { GUEST_BYTES = 4 << 20 };
enum { H_L1_OFFSET = 40, H_REFTABLE = 48, H_SNAPSHOTS = 64 };

/* ---- bytes of an image file -------------------------------------------------------- */

static uint64_t peek64(const char *path, int64_t offset)
{
    uint64_t value;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, &value, sizeof(value), offset), ==, (ssize_t)sizeof(value));
    close(fd);
    return GUINT64_FROM_BE(value);
}

static void poke(const char *path, int64_t offset, const void *buf, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, buf, bytes, offset), ==, (ssize_t)bytes);
    close(fd);
}

static void poke64(const char *path, int64_t offset, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    poke(path, offset, &value, sizeof(value));
}

static uint64_t table_at(const char *path, int64_t field)
{
    return peek64(path, field) & 0x00fffffffffffe00;
}

/* ---- images and damage ---------------------------------------------------------------- */

typedef enum Where { L1, L2, REFBLOCK, SNAPSHOT, SNAPSHOT_L1, SNAPSHOT_L2 } Where;

/* The entry at WHERE, number INDEX, becomes (old & KEEP) ^ FLIP. */
typedef struct Damage {
    const char *name;
    Where where;
    int index;
    uint64_t keep, flip;
    enum { MOVES = 1,           /* our repair moves what the peer mends where it is */
           KEEPS } ours;        /* it keeps what a lost table may have referred to */
} Damage;

#define ALL UINT64_MAX

static const Damage damages[] = {
    { "none", L2, 0, ALL, 0 },
    { "refcount too low", REFBLOCK, 4, 0xffffffffffff, 0 },
    { "refcount too high", REFBLOCK, 4, ALL, 0x0004000000000000 },
    { "cluster leaked", L2, 3, 0, 0 },
    { "copied flag missing", L2, 5, ALL, 1ULL << 63 },
    { "copied flag missing in L1", L1, 0, ALL, 1ULL << 63 },
    { "cluster unaligned", L2, 5, ALL, 0x200 },
    { "cluster beyond the end", L2, 5, 1ULL << 63, 1ULL << 40 },
    { "cluster with two users", L2, 5, 0, 1ULL << 63 | 0x6000 },
    { "cluster is the header's neighbour", L2, 5, 0, 1ULL << 63 | 0x1000, MOVES },
    { "reserved bits in L2", L2, 5, ALL, 1ULL << 58 },
    { "reserved bits in L1", L1, 0, ALL, 1ULL << 58 },
    { "reserved bits in L2, no cluster", L2, 500, 0, 1ULL << 58 | 0x16 },
    { "table beyond the end", L1, 0, 1ULL << 63, 1ULL << 40 },
    { "zero flag", L2, 5, ALL, 1 },
    { "place of a zero cluster unaligned", L2, 5, ALL, 0x201 },
    { "a snapshot's table is gone", SNAPSHOT_L1, 0, 0, 0 },
    { "a snapshot's cluster is gone", SNAPSHOT_L2, 5, 0, 0 },
    { "a snapshot's cluster is beyond the end", SNAPSHOT_L2, 5, 0, 1ULL << 40 },
    { "a snapshot's table is unaligned", SNAPSHOT, 0, ALL, 0x200, KEEPS },
    { "a snapshot's table is too large", SNAPSHOT, 1, ALL, 1ULL << 62, KEEPS },
    { "a snapshot's table is beyond the end", SNAPSHOT, 0, ALL, 1ULL << 40, KEEPS },
};

static const char *const images[] = {
    "size=4M,cluster_size=4k", "size=4M,cluster_size=4k,compat=0.10",
    "size=4M,cluster_size=4k,lazy_refcounts=on", "size=4M,cluster_size=4k,refcount_bits=16",
};

/* The image with OPTS is made once, as creation waits for the disk, and copied to PATH. */
static void make_image(const char *path, const char *opts)
{
    static GHashTable *images;          /* OPTS to GBytes */
    QEMUSnapshotInfo sn = { .name = "s", .icount = UINT64_MAX };
    g_autofree uint8_t *zeroes = g_malloc0(65536);
    char *contents;
    gsize length;

    images = images ?: g_hash_table_new(g_str_hash, g_str_equal);
    GBytes *image = g_hash_table_lookup(images, opts);
    if (image) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        gconstpointer data = g_bytes_get_data(image, &length);
        g_assert_cmpint(write(fd, data, length), ==, length);
        close(fd);
        return;
    }
    qcow2_create(path, opts);
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 100000, 1);
    g_assert_cmpint(blk_pwrite(blk, 1 << 20, 65536, zeroes, BDRV_REQ_WRITE_COMPRESSED), ==, 0);
    g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &sn), ==, 0);
    write_pattern(blk, 0, 50000, 2);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_hash_table_insert(images, (gpointer)opts, g_bytes_new_take(contents, length));
}

static void damage(const char *path, const Damage *d)
{
    uint64_t snapshots = peek64(path, H_SNAPSHOTS), place = 0;

    switch (d->where) {
    case L1:
        place = peek64(path, H_L1_OFFSET);
        break;
    case L2:
        place = table_at(path, peek64(path, H_L1_OFFSET));
        break;
    case REFBLOCK:
        place = peek64(path, peek64(path, H_REFTABLE));
        break;
    case SNAPSHOT:
        place = snapshots;
        break;
    case SNAPSHOT_L1:
        place = peek64(path, snapshots);
        break;
    case SNAPSHOT_L2:
        place = table_at(path, peek64(path, snapshots));
        break;
    }
    place += d->index * 8;
    poke64(path, place, (peek64(path, place) & d->keep) ^ d->flip);
}

/* ---- two opinions ---------------------------------------------------------------- */

typedef struct Opinion { int64_t corruptions, leaks, corruptions_fixed, leaks_fixed, end; }
    Opinion;

/* False: the peer gave up. */
static bool ask_peer(const char *path, const char *mode, Opinion *o)
{
    g_autofree char *command = g_strdup_printf("qemu-img check --output=json %s %s", mode, path);
    g_autofree char *out = NULL, *err = NULL;

    g_assert_true(g_spawn_command_line_sync(command, &out, &err, NULL, NULL));
    g_autoptr(json_t) j = json_loads(out, 0, NULL);
    if (!j || json_integer_value(json_object_get(j, "check-errors")) ||
        strstr(err, "Rebuilding refcount structure")) {
        return false;
    }
    *o = (Opinion){
        json_integer_value(json_object_get(j, "corruptions")),
        json_integer_value(json_object_get(j, "leaks")),
        json_integer_value(json_object_get(j, "corruptions-fixed")),
        json_integer_value(json_object_get(j, "leaks-fixed")),
        json_integer_value(json_object_get(j, "image-end-offset")),
    };
    return true;
}

/* As the tool does it: after a repair, what is left is what another check finds. */
static Opinion ask_us(const char *path, BdrvCheckMode fix)
{
    BdrvCheckResult res, after;
    BlockBackend *blk = open_with_perms(
        options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path,
                   fix ? "" : ",read-only=on"),
        BDRV_O_CHECK | (fix ? BDRV_O_RDWR : 0),
        fix ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);

    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, fix), ==, 0);
    after = res;
    if (res.corruptions_fixed || res.leaks_fixed) {
        g_assert_cmpint(bdrv_check(blk_bs(blk), &after, 0), ==, 0);
    }
    blk_unref(blk);
    return (Opinion){ after.corruptions, after.leaks, res.corruptions_fixed, res.leaks_fixed,
                      after.image_end_offset };
}

static void compare_one(const char *image, const Damage *d)
{
    static const struct { const char *peer; BdrvCheckMode ours; } modes[] = {
        { "", 0 }, { "-r leaks", BDRV_FIX_LEAKS }, { "-r all",
                                                     BDRV_FIX_LEAKS | BDRV_FIX_ERRORS },
    };
    g_autofree char *path = scratch_path("damaged.qcow2");

    for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
        Opinion theirs = { 0 }, ours;
        make_image(path, image);
        damage(path, d);
        g_test_message("%s: %s, %s", image, d->name, modes[m].peer);
        bool known = ask_peer(path, modes[m].peer, &theirs);
        make_image(path, image);
        damage(path, d);
        ours = ask_us(path, modes[m].ours);
        if (d->ours == KEEPS && modes[m].ours) {
            g_assert_cmpint(ours.leaks, >, 0);
            g_assert_cmpint(ours.leaks_fixed, ==, 0);
        } else if (known) {
            g_assert_cmpint(ours.corruptions, ==, theirs.corruptions);
            g_assert_cmpint(ours.leaks, ==, theirs.leaks);
            g_assert_cmpint(ours.leaks_fixed, ==, theirs.leaks_fixed);
            if (d->ours != MOVES || !(modes[m].ours & BDRV_FIX_ERRORS)) {
                g_assert_cmpint(ours.corruptions_fixed, ==, theirs.corruptions_fixed);
                g_assert_cmpint(ours.end, ==, theirs.end);
            }
        }
        if (modes[m].ours && !ours.corruptions && !ours.leaks) {
            qcow2_assert_peer_finds_no_fault(path);
        }
    }
}

static void test_with_peer(void)
{
    g_autofree char *peer = g_find_program_in_path("qemu-img");

    if (!peer) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(damages); k++) {
            compare_one(images[i], &damages[k]);
        }
    }
}

/* ---- damaged snapshot tables ----------------------------------------------------------- */

typedef struct TableDamage {
    const char *name;
    bool entry;                 /* the place is in the table's first entry, else in the header */
    int place, bytes;
    uint64_t value;
    bool opens;                 /* as it is */
    int ret;                    /* of a check without repair */
    int snapshots;              /* after the repair; -1: it cannot be repaired */
} TableDamage;

static const TableDamage table_damages[] = {
    { "intact", true, 8, 4, 1, true, 0, 2 },
    { "too many", false, 60, 4, 70000, false, -EFBIG, 2 },
    { "offset unaligned", false, 64, 8, 0x1200, false, -EINVAL, -1 },
    { "offset negative", false, 64, 8, 1ULL << 63, false, -EINVAL, -1 },
    { "beyond the end", false, 64, 8, 1ULL << 40, false, 0, 0 },
    { "too much extra data", true, 36, 4, 2000, false, -EFBIG, 1 },
    { "extra data without end", true, 36, 4, UINT32_MAX, false, -EFBIG, 1 },
    { "name without end", true, 14, 2, 65535, false, 0, 1 },
};

static void damage_table(const char *path, const TableDamage *d)
{
    uint64_t value = GUINT64_TO_BE(d->value << (64 - 8 * d->bytes));

    poke(path, d->place + (d->entry ? peek64(path, H_SNAPSHOTS) : 0), &value, d->bytes);
}

static BlockBackend *try_open(const char *path, int flags)
{
    Error *err = NULL;
    BlockBackend *blk = open_with_perms(
        options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
        BDRV_O_RDWR | flags, BLK_PERM_ALL, BLK_PERM_ALL, &err);

    error_free(err);
    return blk;
}

static int check_it(const char *path, BdrvCheckMode fix, BdrvCheckResult *res)
{
    BlockBackend *blk = try_open(path, BDRV_O_CHECK);
    g_assert_nonnull(blk);
    int ret = bdrv_check(blk_bs(blk), res, fix);
    blk_unref(blk);
    return ret;
}

/* What is active is as it was, and the image can be used. */
static void assert_usable(const char *path, int snapshots)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    BlockBackend *blk = try_open(path, 0);

    g_assert_nonnull(blk);
    assert_content(blk, 0, 50000, 2);
    assert_content(blk, 50000, 50000, 1);
    g_assert_cmpint(bdrv_snapshot_list(blk_bs(blk), &list), ==, snapshots);
    write_pattern(blk, 0, 100000, 3);
    blk_unref(blk);
}

static void check_table_damage(const TableDamage *d)
{
    g_autofree char *path = scratch_path("table.qcow2");
    const int all = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
    QEMUSnapshotInfo second = { .name = "second", .icount = UINT64_MAX };
    BdrvCheckResult res;

    g_test_message("%s", d->name);
    make_image(path, images[0]);
    BlockBackend *blk = try_open(path, 0);
    g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &second), ==, 0);
    blk_unref(blk);
    damage_table(path, d);

    blk = try_open(path, 0);
    g_assert_cmpint(!!blk, ==, d->opens);
    blk_unref(blk);
    g_assert_cmpint(check_it(path, 0, &res), ==, d->ret);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS, &res), ==, d->ret);
    g_assert_cmpint(res.leaks_fixed, ==, 0);
    if (d->snapshots < 0) {
        g_assert_cmpint(check_it(path, all, &res), ==, d->ret);
        return;
    }
    g_assert_cmpint(check_it(path, all, &res), ==, 0);
    /* What a lost entry may have referred to is kept until somebody does not want it. */
    g_assert_cmpint(res.leaks_fixed, ==, 0);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS, &res), ==, 0);
    g_assert_cmpint(res.corruptions, ==, 0);
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.leaks + res.corruptions, ==, 0);
    assert_usable(path, d->snapshots);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_snapshot_table(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table_damages); i++) {
        check_table_damage(&table_damages[i]);
    }
}

/* ---- damaged bitmaps ------------------------------------------------------------------- */

typedef struct BitmapDamage {
    const char *name;
    int place, bytes;           /* in the directory's first entry */
    uint64_t value;
    int left;                   /* of two bitmaps after a repair */
} BitmapDamage;

static const BitmapDamage bitmap_damages[] = {
    { "intact", 16, 1, 1, 2 },
    { "table unaligned", 0, 8, 0x1200, 0 },
    { "table beyond the end", 0, 8, 1ULL << 40, 1 },
    { "table is something else", 0, 8, 0, 0 },
    { "table too long", 8, 4, 2, 1 },
    { "table much too long", 8, 4, UINT32_MAX, 0 },
    { "unknown flags", 12, 4, 0x80000000, 0 },
    { "unknown type", 16, 1, 9, 0 },
    { "granularity", 17, 1, 99, 0 },
    { "no name", 18, 2, 0, 0 },
    { "name without end", 18, 2, 65535, 0 },
    { "extra data without end", 20, 4, UINT32_MAX, 0 },
};

static int64_t bitmap_directory(const char *path)
{
    int64_t at = peek64(path, 96) & UINT32_MAX;         /* the header's length */

    for (uint64_t e = peek64(path, at); e >> 32 != 0x23852875; e = peek64(path, at)) {
        at += 8 + ROUND_UP(e & UINT32_MAX, 8);
    }
    return peek64(path, at + 24);
}

static void check_bitmap_damage(const BitmapDamage *d)
{
    g_autofree char *path = scratch_path("bitmaps.qcow2");
    const int all = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
    uint64_t value = GUINT64_TO_BE(d->value << (64 - 8 * d->bytes));
    BdrvCheckResult res;
    int left = 0;

    g_test_message("%s", d->name);
    make_image(path, images[0]);
    BlockBackend *blk = try_open(path, 0);
    for (int i = 0; i < 2; i++) {
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(blk_bs(blk), 65536, i ? "b1" : "b0",
                                                      &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
    write_pattern(blk, 0, 50000, 2);
    blk_unref(blk);
    poke(path, bitmap_directory(path) + d->place, &value, d->bytes);

    blk = try_open(path, 0);
    g_assert_cmpint(!!blk, ==, d->left == 2);
    blk_unref(blk);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS, &res), ==, 0);
    g_assert_cmpint(res.leaks_fixed, ==, 0);
    g_assert_cmpint(!!res.corruptions, ==, d->left != 2);
    g_assert_cmpint(check_it(path, all, &res), ==, 0);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS, &res), ==, 0);
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.leaks + res.corruptions, ==, 0);

    blk = try_open(path, 0);
    g_assert_nonnull(blk);
    BdrvDirtyBitmap *b = bdrv_dirty_bitmap_first(blk_bs(blk));
    for (; b; b = bdrv_dirty_bitmap_next(b)) {
        left++;
    }
    blk_unref(blk);
    g_assert_cmpint(left, ==, d->left);
    assert_usable(path, 1);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_bitmaps(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bitmap_damages); i++) {
        check_bitmap_damage(&bitmap_damages[i]);
    }
}

/* ---- lost tables ----------------------------------------------------------------------- */

/* A snapshot whose L1 table is not in the file: what it refers to must not pass for leaked. */
static void test_lost_snapshot(void)
{
    g_autofree char *path = scratch_path("lost.qcow2");
    BdrvCheckResult res;

    make_image(path, images[0]);
    poke64(path, peek64(path, H_SNAPSHOTS), 1ULL << 40);
    /* Not either when all refcounts are made anew. */
    poke64(path, peek64(path, H_REFTABLE) + 8, 0x12345);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &res), ==, 0);
    int leaks = res.leaks;
    g_assert_cmpint(leaks, >, 0);
    g_assert_cmpint(res.leaks_fixed, ==, 0);
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.leaks, >=, leaks);
}

/* The same for the active L1 table. */
static void test_lost_disk(void)
{
    g_autofree char *path = scratch_path("lost.qcow2");
    BdrvCheckResult res;

    make_image(path, images[0]);
    uint64_t l1 = peek64(path, H_L1_OFFSET);
    poke64(path, H_L1_OFFSET, 1ULL << 40);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &res), ==, 0);
    g_assert_cmpint(res.leaks, >, 0);
    g_assert_cmpint(res.leaks_fixed, ==, 0);
    /* Somebody finds the table. */
    poke64(path, H_L1_OFFSET, l1);
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.leaks + res.corruptions, ==, 0);
    assert_usable(path, 1);
}

/* An image whose header says that it has no refcounts at all. */
static void test_no_refcounts(void)
{
    g_autofree char *path = scratch_path("none.qcow2");
    BdrvCheckResult res;

    make_image(path, images[0]);
    poke64(path, 56, 1);        /* (the other half is the number of snapshots) */
    g_assert_null(try_open(path, 0));
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    g_assert_cmpint(check_it(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &res), ==, 0);
    g_assert_cmpint(check_it(path, 0, &res), ==, 0);
    g_assert_cmpint(res.leaks + res.corruptions, ==, 0);
    assert_usable(path, 1);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- what cannot be read ------------------------------------------------------------- */

/* An L2 table that cannot be read: what it refers to must not pass for leaked, either. */
static void test_unreadable_table(void)
{
    g_autofree char *path = scratch_path("unreadable.qcow2");
    const BdrvCheckMode modes[] = { 0, BDRV_FIX_LEAKS, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS };
    BdrvCheckResult res;

    make_image(path, images[0]);
    uint64_t sector = table_at(path, peek64(path, H_L1_OFFSET)) / 512;
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        BlockBackend *blk = open_with_perms(
            options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                       "file.image.filename=%s,file.inject-error.0.event=none,"
                       "file.inject-error.0.iotype=read,file.inject-error.0.sector=%" PRIu64
                       ",file.inject-error.0.errno=5", path, sector),
            BDRV_O_CHECK | BDRV_O_RDWR, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, modes[i]), ==, -EIO);
        g_assert_cmpint(res.leaks + res.leaks_fixed, ==, 0);
        blk_unref(blk);
    }
    Opinion o = ask_us(path, 0);
    g_assert_cmpint(o.corruptions + o.leaks, ==, 0);
}

/* The refcount table lies where the L1 table is, which must not be written over. */
static void test_refcounts_over_l1(void)
{
    g_autofree char *path = scratch_path("over.qcow2");

    make_image(path, images[0]);
    poke64(path, H_REFTABLE, peek64(path, H_L1_OFFSET));
    g_assert_cmpint(ask_us(path, BDRV_FIX_LEAKS).corruptions, >, 0);
    g_assert_cmpint(ask_us(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS).corruptions, ==, 0);
    BlockBackend *blk = qcow2_open_file(path, "");
    assert_content(blk, 0, 50000, 2);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* More references than a refcount can count: the cluster must not be given away. */
static void test_narrow_refcounts(void)
{
    g_autofree char *path = scratch_path("narrow.qcow2");

    qcow2_create(path, "size=4M,refcount_bits=1");
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 65536, 1);
    blk_unref(blk);
    uint64_t l2 = table_at(path, peek64(path, H_L1_OFFSET));
    uint64_t block = peek64(path, peek64(path, H_REFTABLE)), cluster = table_at(path, l2) >> 16;
    poke64(path, l2 + 8, peek64(path, l2));
    poke64(path, block, peek64(path, block) & ~(1ULL << (56 + cluster)));
    g_assert_cmpint(ask_us(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS).corruptions, ==, 1);
    blk = qcow2_open_file(path, "");
    write_pattern(blk, 1 << 20, 65536, 2);
    assert_content(blk, 0, 65536, 1);
    blk_unref(blk);
}

/* The second of two tables cannot be moved: the first stays where it was, too. */
static void test_half_moved(void)
{
    g_autofree char *path = scratch_path("moved.qcow2");
    BdrvCheckResult res;

    qcow2_create(path, "size=1G");
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 65536, 1);
    write_pattern(blk, 512 << 20, 65536, 2);
    blk_unref(blk);
    uint64_t l1 = peek64(path, H_L1_OFFSET);
    uint64_t tables[] = { table_at(path, l1), table_at(path, l1 + 8) };
    uint64_t end = ROUND_UP(MAX(table_at(path, tables[0]), table_at(path, tables[1])) + 65536,
                            65536);
    poke64(path, tables[0] + 8, tables[1] | 1ULL << 63);
    poke64(path, tables[1] + 8, tables[0] | 1ULL << 63);
    blk = open_with_perms(
        options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                   "file.image.filename=%s,file.inject-error.0.event=none,"
                   "file.inject-error.0.iotype=write,file.inject-error.0.sector=%" PRIu64
                   ",file.inject-error.0.errno=28", path, end / 512 + 128),
        BDRV_O_CHECK | BDRV_O_RDWR, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS), ==,
                    -ENOSPC);
    blk_unref(blk);
    g_assert_cmpuint(table_at(path, l1), ==, tables[0]);
    g_assert_cmpuint(table_at(path, l1 + 8), ==, tables[1]);
    g_assert_cmpint(ask_us(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS).corruptions, ==, 0);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 0, 65536, 1);
    assert_content(blk, 512 << 20, 65536, 2);
    blk_unref(blk);
}

/* Reserved bits are an error where there is no table, too, and stay. */
static void test_reserved_bits(void)
{
    g_autofree char *path = scratch_path("reserved.qcow2");

    make_image(path, images[0]);
    poke64(path, peek64(path, H_L1_OFFSET) + 8, 0x8000000000000016);
    Opinion o = ask_us(path, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    g_assert_cmpint(o.corruptions, ==, 1);
    g_assert_cmpint(o.corruptions_fixed, ==, 1);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/check/with-peer", test_with_peer);
    g_test_add_func("/qcow2/check/snapshot-table", test_snapshot_table);
    g_test_add_func("/qcow2/check/bitmaps", test_bitmaps);
    g_test_add_func("/qcow2/check/lost-snapshot", test_lost_snapshot);
    g_test_add_func("/qcow2/check/lost-disk", test_lost_disk);
    g_test_add_func("/qcow2/check/no-refcounts", test_no_refcounts);
    g_test_add_func("/qcow2/check/unreadable-table", test_unreadable_table);
    g_test_add_func("/qcow2/check/refcounts-over-l1", test_refcounts_over_l1);
    g_test_add_func("/qcow2/check/narrow-refcounts", test_narrow_refcounts);
    g_test_add_func("/qcow2/check/half-moved", test_half_moved);
    g_test_add_func("/qcow2/check/reserved-bits", test_reserved_bits);
    return image_test_run();
}
