/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What test-crash-log does to images: writes, discards, zeroes, compressed writes, resizes,
 * snapshots, bitmaps, amending, giving up the backing file; what the guest sees after each.
 */
#ifndef CRASH_WORK_H
#define CRASH_WORK_H

#include "qcow2-test.h"
#include "log-writes.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/snapshot.h"

enum {
    SECTOR = 512, SECTORS_MIN = 64, SECTORS_MAX = 1536, STEPS = 24, BATCH = 5,
    BACKING_VALUE = 0x55,               /* of each byte of backing files */
};

/* What the guest sees: one value for each sector. */
typedef struct View {
    int sectors;
    uint8_t value[SECTORS_MAX];
} View;

typedef struct Step {
    char *what;
    uint64_t log_begin, log_end;        /* bytes of the log when it began and had ended */
    bool flush;                         /* all before it is durable when it has ended */
    int64_t disk_bytes;                 /* of the image: the log does not tell of cuts */
    View after;
} Step;

typedef struct Round {
    GRand *rand;
    guint32 seed;
    BlockBackend *blk;                  /* while the workload runs */
    char *create, *open;                /* options; those of opening begin with a comma */
    bool lazy;                          /* at some time refcounts were lazy */
    char *disk, *log_path;
    GByteArray *before;                 /* the image's file when logging began */
    GArray *steps;                      /* Step; the first is the state at that time */
    GHashTable *snapshots;              /* name -> View */
    GHashTable *bitmaps;                /* name -> View when it was made */
    int names;                          /* used so far */
    Log log;
} Round;

static bool one_in(Round *r, int n)
{
    return g_rand_int_range(r->rand, 0, n) == 0;
}

/* ---- steps ------------------------------------------------------------------------- */

static void read_view(BlockBackend *blk, View *view)
{
    int64_t bytes = blk_getlength(blk);

    g_assert_cmpint(bytes, >=, 0);
    g_assert_cmpint(bytes, <=, SECTORS_MAX * SECTOR);
    view->sectors = bytes / SECTOR;
    g_autofree uint8_t *data = g_malloc(bytes);
    g_assert_cmpint(blk_pread(blk, 0, bytes, data, 0), ==, 0);
    for (int i = 0; i < view->sectors; i++) {
        view->value[i] = data[i * SECTOR];
        assert_bytes(data + i * SECTOR, SECTOR, view->value[i]);
    }
}

typedef enum StepKind { STEP_CHANGE, STEP_FLUSH } StepKind;

/* WHAT is consumed. What the guest sees now. */
static const View *end_step(Round *r, BlockBackend *blk, char *what, StepKind kind)
{
    Step step = { .what = what, .flush = kind == STEP_FLUSH };

    if (r->steps->len) {
        step.log_begin = g_array_index(r->steps, Step, r->steps->len - 1).log_end;
    }
    step.log_end = file_bytes(r->log_path);
    step.disk_bytes = file_bytes(r->disk);
    read_view(blk, &step.after);
    g_array_append_val(r->steps, step);
    return &g_array_index(r->steps, Step, r->steps->len - 1).after;
}

/* Requests of several kinds on ranges that do not overlap. */
typedef struct Batch {
    Op ops[BATCH];
    int n, pending;
    GString *what;
} Batch;

static void start_batch(Round *r, BlockBackend *blk, Batch *b)
{
    static const OpType types[] = { OP_WRITE, OP_WRITE, OP_WRITE, OP_ZERO, OP_UNMAP,
                                    OP_DISCARD };
    int sectors = blk_getlength(blk) / SECTOR, pos = 0;

    *b = (Batch){ .what = g_string_new(NULL) };
    while (b->n < BATCH) {
        int first = pos + g_rand_int_range(r->rand, 0, sectors / 2);
        int len = g_rand_int_range(r->rand, 1, sectors / 4);
        if (first >= sectors) {
            break;
        }
        len = MIN(len, sectors - first);
        b->ops[b->n] = (Op){ .blk = blk, .offset = first * SECTOR, .bytes = len * SECTOR,
                             .type = types[g_rand_int_range(r->rand, 0, ARRAY_SIZE(types))],
                             .buf = g_malloc(len * SECTOR) };
        memset(b->ops[b->n].buf, g_rand_int_range(r->rand, 1, 256), len * SECTOR);
        g_string_append_printf(b->what, "%s%d %d+%d", b->n ? ", " : "", b->ops[b->n].type,
                               first, len);
        pos = first + len;
        b->n++;
    }
    start_ops(b->ops, b->n, &b->pending);
}

/* What it was is newly allocated. */
static char *finish_batch(Batch *b)
{
    wait_for_ops(&b->pending);
    for (int i = 0; i < b->n; i++) {
        g_assert_cmpint(b->ops[i].ret, ==, 0);
        g_free(b->ops[i].buf);
    }
    return g_string_free(b->what, FALSE);
}

static void step_requests(Round *r, BlockBackend *blk)
{
    Batch b;

    start_batch(r, blk, &b);
    end_step(r, blk, finish_batch(&b), STEP_CHANGE);
}

static void step_compressed(Round *r, BlockBackend *blk)
{
    BlockDriverInfo bdi;
    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &bdi), ==, 0);
    int64_t clusters = blk_getlength(blk) / bdi.cluster_size;
    g_autofree uint8_t *buf = g_malloc(bdi.cluster_size);

    for (int i = g_rand_int_range(r->rand, 1, 5); i > 0 && clusters > 0; i--) {
        memset(buf, g_rand_int_range(r->rand, 1, 256), bdi.cluster_size);
        int64_t at = g_rand_int_range(r->rand, 0, clusters) * (int64_t)bdi.cluster_size;
        int ret = blk_pwrite_compressed(blk, at, bdi.cluster_size, buf);
        g_assert_cmpint(ret, ==, 0);
    }
    end_step(r, blk, g_strdup("compressed writes"), STEP_CHANGE);
}

static void step_resize(Round *r, BlockBackend *blk)
{
    int sectors = g_rand_int_range(r->rand, SECTORS_MIN, SECTORS_MAX + 1);
    Error *err = NULL;

    if (!QLIST_EMPTY(&blk_bs(blk)->dirty_bitmaps)) {
        return;                 /* what is cut off and comes back is not called dirty */
    }
    /* (without preallocation, as the log does not tell when the file became longer) */
    int ret = blk_truncate(blk, sectors * SECTOR, true, PREALLOC_MODE_OFF, 0, &err);
    /* Not every image lets itself be resized while it has snapshots. */
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -ENOTSUP);
        error_free(err);
    }
    end_step(r, blk, g_strdup_printf("resize to %d: %d", sectors, ret), STEP_CHANGE);
}

/* With requests in flight, which are over before the snapshot is taken. */
static void create_snapshot(Round *r, BlockBackend *blk)
{
    QEMUSnapshotInfo sn = { .icount = UINT64_MAX };
    Batch b;

    g_snprintf(sn.name, sizeof(sn.name), "s%d", r->names++);
    start_batch(r, blk, &b);
    int ret = bdrv_snapshot_create(blk_bs(blk), &sn);
    g_autofree char *writes = finish_batch(&b);
    g_assert_true(ret == 0 || ret == -EINVAL);      /* counts of few bits */
    const View *view = end_step(r, blk, g_strdup_printf("%s, create %s: %d", writes, sn.name,
                                                        ret),
                                ret == 0 ? STEP_FLUSH : STEP_CHANGE);
    g_hash_table_insert(r->snapshots, g_strdup(sn.name), g_memdup2(view, sizeof(*view)));
}

/* (durable when the call returns) */
static void step_snapshot(Round *r, BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree QEMUSnapshotInfo *list = NULL;
    int n = bdrv_snapshot_list(bs, &list);
    int which = n > 0 ? g_rand_int_range(r->rand, 0, n) : 0;

    g_assert_cmpint(n, >=, 0);
    if (n > 0 && one_in(r, 3)) {
        Batch b;
        start_batch(r, blk, &b);
        int ret = bdrv_snapshot_delete(bs, list[which].id_str, NULL, &error_abort);
        g_autofree char *writes = finish_batch(&b);
        g_assert_cmpint(ret, ==, 0);
        end_step(r, blk, g_strdup_printf("%s, delete %s", writes, list[which].name),
                 STEP_FLUSH);
    } else if (n > 0 && one_in(r, 2)) {
        Error *err = NULL;
        int ret = bdrv_snapshot_goto(bs, list[which].id_str, &err);
        /* counts of few bits; bitmaps, which could not tell what has changed */
        g_assert_true(ret == 0 || ret == -EINVAL || ret == -EBUSY);
        error_free(err);
        end_step(r, blk, g_strdup_printf("go to %s: %d", list[which].name, ret),
                 ret == 0 ? STEP_FLUSH : STEP_CHANGE);
    } else {
        create_snapshot(r, blk);
    }
}

static void make_bitmap(Round *r, BlockBackend *blk)
{
    g_autofree char *name = g_strdup_printf("b%d", r->names++);
    const View *view = end_step(r, blk, g_strdup_printf("bitmap %s", name), STEP_CHANGE);
    BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(blk_bs(blk), 512 << g_rand_int_range(
                                                  r->rand, 0, 5), name, &error_abort);

    bdrv_dirty_bitmap_set_persistence(b, true);
    g_hash_table_insert(r->bitmaps, g_strdup(name), g_memdup2(view, sizeof(*view)));
}

/* HOW begins with a comma. */
static BlockBackend *open_logged(Round *r, const char *how)
{
    return open_rw(options_of(
        "driver=qcow2,discard=unmap,file.driver=blklogwrites,file.discard=unmap,"
        "file.file.driver=file,file.file.discard=unmap,file.file.filename=%s,"
        "file.log.driver=file,file.log.filename=%s%s%s", r->disk, r->log_path, how, r->open));
}

static void step_bitmap(Round *r, BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    BdrvDirtyBitmap *b = bdrv_dirty_bitmap_first(bs);

    if (!b || one_in(r, 4)) {
        if (bdrv_can_store_new_dirty_bitmap(bs, "b", 512, NULL)) {
            make_bitmap(r, blk);
        }
    } else if (one_in(r, 3)) {
        int ret = bdrv_remove_persistent_dirty_bitmap(bs, bdrv_dirty_bitmap_name(b),
                                                      &error_abort);
        g_assert_cmpint(ret, ==, 0);
        bdrv_release_dirty_bitmap(b);
        end_step(r, blk, g_strdup("remove a bitmap"), STEP_CHANGE);
    } else {
        blk_unref(blk);         /* they are stored when the image is closed */
        r->blk = open_logged(r, ",file.log-append=on");
        end_step(r, r->blk, g_strdup("store bitmaps"), STEP_FLUSH);
    }
}

static void step_amend(Round *r, BlockBackend *blk)
{
    static const char *const changes[] = {
        "refcount_bits=1", "refcount_bits=8", "refcount_bits=16", "refcount_bits=64",
        "compat=0.10", "compat=0.10,refcount_bits=16,lazy_refcounts=off", "compat=1.1",
        "lazy_refcounts=on", "lazy_refcounts=off",
    };
    const char *change = changes[g_rand_int_range(r->rand, 0, ARRAY_SIZE(changes))];
    g_autoptr(json_t) opts = options_of("%s", change);
    Error *err = NULL;

    if (strstr(change, "0.10") && strstr(r->open, "discard-no-unref")) {
        return;                 /* version 2 could not be opened with this any more */
    }
    int ret = bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, &err);
    error_free(err);
    r->lazy |= strstr(change, "lazy_refcounts=on") != NULL;
    end_step(r, blk, g_strdup_printf("amend %s: %d", change, ret), STEP_CHANGE);
}

/* Give up the backing file, after all that it shows was copied. */
static void step_rebase(Round *r, BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree QEMUSnapshotInfo *list = NULL;
    View view;

    if (!bs->backing || bdrv_snapshot_list(bs, &list) > 0) {
        return;                 /* what snapshots show of it would be lost */
    }
    read_view(blk, &view);
    for (int i = 0; i < view.sectors; i++) {
        write_pattern(blk, i * SECTOR, SECTOR, view.value[i]);
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(bdrv_change_backing_file(bs, NULL, NULL), ==, 0);
    bdrv_set_backing_hd(bs, NULL, &error_abort);
    end_step(r, blk, g_strdup("give up the backing file"), STEP_CHANGE);
}

static void step_flush(Round *r, BlockBackend *blk)
{
    g_assert_cmpint(blk_flush(blk), ==, 0);
    end_step(r, blk, g_strdup("flush"), STEP_FLUSH);
}

static void random_step(Round *r)
{
    /* how often each, of the sum */
    static const struct { int weight; void (*fn)(Round *, BlockBackend *); } kinds[] = {
        { 9, step_requests }, { 2, step_compressed }, { 2, step_resize },
        { 4, step_snapshot }, { 3, step_bitmap }, { 2, step_amend }, { 1, step_rebase },
        { 4, step_flush },
    };
    int at = g_rand_int_range(r->rand, 0, 27);
    unsigned i = 0;

    for (; at >= kinds[i].weight; i++) {
        at -= kinds[i].weight;
    }
    kinds[i].fn(r, r->blk);
}

/* ---- images ------------------------------------------------------------------------ */

/* Half as long as the disk, for images that have a backing file. */
static char *make_backing(int sectors)
{
    char *path = scratch_file("backing.raw", sectors / 2 * SECTOR);
    BlockBackend *blk = open_file(path, "");

    write_pattern(blk, 0, sectors / 2 * SECTOR, BACKING_VALUE);
    blk_unref(blk);
    return path;
}

static void make_image(Round *r)
{
    static const int cluster_bytes[] = { 512, 512, 1024, 4096, 4096, 16384 };
    static const int refcount_bits[] = { 1, 2, 8, 16, 16, 64 };
    static const char *const open[] = {
        "", "", ",pass-discard-other=on",
        ",l2-cache-size=4k,l2-cache-entry-size=512,refcount-cache-size=4k",
        ",discard-no-unref=on",         /* the last one: not for version 2 */
    };
    bool v2 = one_in(r, 4), lazy = !v2 && one_in(r, 3);
    int sectors = g_rand_int_range(r->rand, SECTORS_MIN, SECTORS_MAX);
    GString *s = g_string_new(NULL);

    g_string_append_printf(s, "size=%d,cluster_size=%d,compat=%s", sectors * SECTOR,
                           cluster_bytes[g_rand_int_range(r->rand, 0, 6)], v2 ? "v2" : "v3");
    if (!v2) {
        g_string_append_printf(s, ",refcount_bits=%d%s%s",
                               refcount_bits[g_rand_int_range(r->rand, 0, 6)],
                               lazy ? ",lazy_refcounts=on" : "",
                               one_in(r, 4) && strstr(s->str, "16384")
                               ? ",extended_l2=on" : "");
    }
    if (one_in(r, 3)) {
        g_autofree char *backing = make_backing(sectors);
        g_string_append_printf(s, ",backing_file=%s,backing_fmt=raw", backing);
    }
    r->create = g_string_free(s, FALSE);
    r->open = g_strdup(open[g_rand_int_range(r->rand, 0, ARRAY_SIZE(open) - v2)]);
    r->lazy = lazy;
    qcow2_create(r->disk, r->create);

    BlockBackend *blk = qcow2_open_file(r->disk, "");
    write_pattern(blk, 0, sectors / 3 * SECTOR, 0xaa);
    blk_unref(blk);
}

static void run_workload(Round *r)
{
    r->blk = open_logged(r, ",file.log-sector-size=512");
    end_step(r, r->blk, g_strdup("open"), STEP_FLUSH);
    for (int i = 0; i < STEPS; i++) {
        random_step(r);
    }
    blk_unref(r->blk);
}

#endif
