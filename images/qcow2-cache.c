/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cache of slices of L2 tables and refcount blocks. Bounded; the victim is found by a clock.
 * Only holders of the image's lock put slices in or out; look-ups need no lock.
 */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "images/qcow2.h"

#define MERGE_MAX 64            /* neighbouring slices written by one request */
#define SLAB_BYTES 65536u       /* small slices are cut from larger aligned pieces */

void qcow2_cache_init(Qcow2Cache *c, uint32_t slice_bits, size_t bytes_max)
{
    /* A few are pinned at the same time by one operation. */
    size_t n = MAX(bytes_max >> slice_bits, 8);

    *c = (Qcow2Cache){ .slice_bits = slice_bits, .slices_max = n };
    while ((1ULL << c->bucket_bits) < n) {
        c->bucket_bits++;
    }
    c->slices = g_new0(Qcow2Slice *, n);
    c->slabs = g_ptr_array_new_with_free_func(qemu_vfree);
    c->buckets = g_new0(Qcow2Slice *, 1ULL << c->bucket_bits);
    QTAILQ_INIT(&c->dirty);
}

void qcow2_cache_free(Qcow2Cache *c)
{
    for (size_t i = 0; i < c->nb_slices; i++) {
        g_free(c->slices[i]);
    }
    g_clear_pointer(&c->slabs, g_ptr_array_unref);
    g_clear_pointer(&c->slices, g_free);
    g_clear_pointer(&c->buckets, g_free);
    c->nb_slices = 0;
}

void qcow2_cache_reset(Qcow2Cache *c)
{
    uint32_t slice_bits = c->slice_bits;
    size_t bytes_max = c->slices_max << slice_bits;

    qcow2_cache_free(c);
    qcow2_cache_init(c, slice_bits, bytes_max);
}

static inline Qcow2Slice **bucket(Qcow2Cache *c, uint64_t offset)
{
    uint64_t h = (offset >> c->slice_bits) * 0x9e3779b97f4a7c15ULL;
    return &c->buckets[c->bucket_bits ? h >> (64 - c->bucket_bits) : 0];
}

Qcow2Slice *qcow2_cache_peek(Qcow2Cache *c, uint64_t offset)
{
    for (Qcow2Slice *t = *bucket(c, offset); t; t = t->hash_next) {
        if (t->offset == offset) {
            t->recent = true;
            return t;
        }
    }
    return NULL;
}

static void unhash(Qcow2Cache *c, Qcow2Slice *t)
{
    Qcow2Slice **p = bucket(c, t->offset);
    while (*p != t) {
        p = &(*p)->hash_next;
    }
    *p = t->hash_next;
    t->offset = 0;
}

static void clear_dirty(Qcow2Cache *c, Qcow2Slice *t)
{
    if (t->dirty) {
        t->dirty = false;
        QTAILQ_REMOVE(&c->dirty, t, dirty_next);
    }
}

void qcow2_cache_mark_dirty(Qcow2Cache *c, Qcow2Slice *t)
{
    if (!t->dirty) {
        t->dirty = true;
        QTAILQ_INSERT_TAIL(&c->dirty, t, dirty_next);
    }
}

/* Memory for one slice; NULL when there is none. */
static uint8_t *take_memory(Qcow2State *s, Qcow2Cache *c)
{
    size_t bytes = 1u << c->slice_bits;

    if (c->slab_left < bytes) {
        size_t slab_bytes = MAX(bytes, SLAB_BYTES);
        uint8_t *slab = qemu_try_blockalign(s->bs->file->bs, slab_bytes);
        if (!slab) {
            return NULL;
        }
        g_ptr_array_add(c->slabs, slab);
        c->slab = slab;
        c->slab_left = slab_bytes;
    }
    uint8_t *data = c->slab;
    c->slab += bytes;
    c->slab_left -= bytes;
    return data;
}

static Qcow2Slice *new_slice(Qcow2State *s, Qcow2Cache *c)
{
    uint8_t *data = take_memory(s, c);
    if (!data) {
        return NULL;
    }
    Qcow2Slice *t = g_new0(Qcow2Slice, 1);
    t->data = data;
    c->slices[c->nb_slices++] = t;
    return t;
}

/* T is in no bucket and nobody uses it. */
static void retire(Qcow2Cache *c, Qcow2Slice *t)
{
    t->hash_next = c->unused;
    c->unused = t;
}

/* Turn the clock until it points at a slice that was not used since the last turn. */
static Qcow2Slice *choose_victim(Qcow2Cache *c)
{
    for (size_t i = 0; i < 2 * c->nb_slices; i++) {
        Qcow2Slice *t = c->slices[c->hand];
        c->hand = (c->hand + 1) % c->nb_slices;
        if (t->pins || !t->offset) {
            continue;
        }
        if (!t->recent) {
            return t;
        }
        t->recent = false;
    }
    return NULL;
}

/* An unused slice, not in the hash, pinned. */
static int coroutine_fn take_slot(Qcow2State *s, Qcow2Cache *c, Qcow2Slice **slot)
{
    Qcow2Slice *t = c->unused;

    if (t) {
        c->unused = t->hash_next;
    } else if (c->nb_slices < c->slices_max) {
        t = new_slice(s, c);
    }
    if (!t) {
        t = c->nb_slices ? choose_victim(c) : NULL;
        if (!t) {
            return -ENOMEM;
        }
    }
    t->pins++;
    if (t->dirty) {
        /* Order matters between tables, so all are written; that also amortizes it. */
        int ret = qcow2_writeback(s);
        if (ret >= 0 && t->dirty) {
            ret = qcow2_cache_write(s, c, NULL);    /* lazy refcounts */
        }
        if (ret < 0) {
            t->pins--;
            return ret;
        }
    }
    if (t->offset) {
        unhash(c, t);
    }
    *slot = t;
    return 0;
}

static void insert(Qcow2Cache *c, Qcow2Slice *t, uint64_t offset, uint32_t owner)
{
    Qcow2Slice **p = bucket(c, offset);

    t->offset = offset;
    t->owner = owner;
    t->recent = true;
    t->hash_next = *p;
    *p = t;
}

int coroutine_fn qcow2_cache_get(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                 uint32_t owner, Qcow2Slice **slice)
{
    Qcow2Slice *t = qcow2_cache_peek(c, offset);

    qemu_co_mutex_assert_locked(&s->lock);
    if (t) {
        t->pins++;
        *slice = t;
        return 0;
    }
    int ret = take_slot(s, c, &t);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, c == &s->l2_cache ? BLKDBG_L2_LOAD : BLKDBG_REFBLOCK_LOAD);
    ret = qcow2_file_read(s, offset, 1u << c->slice_bits, t->data);
    if (ret < 0) {
        t->pins--;
        retire(c, t);
        return ret;
    }
    insert(c, t, offset, owner);
    *slice = t;
    return 0;
}

int coroutine_fn qcow2_cache_get_zeroed(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                        uint32_t owner, Qcow2Slice **slice)
{
    Qcow2Slice *t;

    qemu_co_mutex_assert_locked(&s->lock);
    qcow2_cache_drop(c, offset, 1u << c->slice_bits);
    int ret = take_slot(s, c, &t);
    if (ret < 0) {
        return ret;
    }
    memset(t->data, 0, 1u << c->slice_bits);
    insert(c, t, offset, owner);
    qcow2_cache_mark_dirty(c, t);
    *slice = t;
    return 0;
}

void qcow2_cache_drop(Qcow2Cache *c, uint64_t offset, uint64_t bytes)
{
    for (uint64_t o = offset; o < offset + bytes; o += 1u << c->slice_bits) {
        Qcow2Slice *t = qcow2_cache_peek(c, o);
        if (t) {
            g_assert(!t->pins);
            clear_dirty(c, t);
            unhash(c, t);
            retire(c, t);
        }
    }
}

/* ---- cleaning ---------------------------------------------------------------------- */

/* Give the memory of T back to the system, as far as it consists of whole pages. */
static void release_memory(const Qcow2Cache *c, Qcow2Slice *t)
{
    uintptr_t page = sysconf(_SC_PAGESIZE);
    uintptr_t start = ROUND_UP((uintptr_t)t->data, page);
    uintptr_t end = ROUND_DOWN((uintptr_t)t->data + (1u << c->slice_bits), page);

    if (start < end) {
        /* Only advice: without it the memory stays with us. */
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

void qcow2_cache_clean(Qcow2Cache *c)
{
    /* One turn of the clock. */
    for (size_t i = 0; i < c->nb_slices; i++) {
        Qcow2Slice *t = c->slices[i];
        if (!t->offset || t->pins || t->dirty) {
            continue;
        }
        if (!t->recent) {
            unhash(c, t);
            retire(c, t);
            release_memory(c, t);
        }
        t->recent = false;
    }
}

static int64_t next_clean_ns(const Qcow2State *s)
{
    return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
           s->clean_interval_s * NANOSECONDS_PER_SECOND;
}

static void clean(void *opaque)
{
    Qcow2State *s = opaque;

    qcow2_cache_clean(&s->l2_cache);
    qcow2_cache_clean(&s->refblock_cache);
    timer_mod(s->cleaner, next_clean_ns(s));
}

void qcow2_cleaner_start(Qcow2State *s, AioContext *ctx)
{
    if (s->clean_interval_s) {
        s->cleaner = aio_timer_new(ctx, QEMU_CLOCK_VIRTUAL, SCALE_NS, clean, s);
        timer_mod(s->cleaner, next_clean_ns(s));
    }
}

void qcow2_cleaner_stop(Qcow2State *s)
{
    g_clear_pointer(&s->cleaner, timer_free);
}

/* ---- writing ----------------------------------------------------------------------- */

static int compare_offsets(const void *a, const void *b)
{
    const Qcow2Slice *x = *(Qcow2Slice *const *)a, *y = *(Qcow2Slice *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Write N slices that are neighbours in the file. */
static int coroutine_fn write_neighbours(Qcow2State *s, Qcow2Cache *c, Qcow2Slice **t,
                                         size_t n)
{
    struct iovec iov[MERGE_MAX];
    QEMUIOVector qiov;

    for (size_t i = 0; i < n; i++) {
        iov[i] = (struct iovec){ t[i]->data, 1u << c->slice_bits };
    }
    qemu_iovec_init_external(&qiov, iov, n);
    BLKDBG_EVENT(s->bs->file, c == &s->l2_cache ? BLKDBG_L2_UPDATE
                                                : BLKDBG_REFBLOCK_UPDATE_PART);
    int ret = bdrv_co_pwritev(s->bs->file, t[0]->offset, qiov.size, &qiov, 0);
    for (size_t i = 0; i < n && ret >= 0; i++) {
        clear_dirty(c, t[i]);
    }
    return ret;
}

int coroutine_fn qcow2_cache_write(Qcow2State *s, Qcow2Cache *c, const Qcow2Root *fresh_of)
{
    g_autoptr(GPtrArray) todo = g_ptr_array_new();
    Qcow2Slice *t;
    int ret = 0;

    QTAILQ_FOREACH(t, &c->dirty, dirty_next) {
        if (!fresh_of || qcow2_root_changed(fresh_of, t->owner)) {
            g_ptr_array_add(todo, t);
        }
    }
    g_ptr_array_sort(todo, compare_offsets);
    for (guint i = 0; i < todo->len && ret >= 0; ) {
        Qcow2Slice **first = (Qcow2Slice **)&todo->pdata[i];
        size_t n = 1;
        while (i + n < todo->len && n < MERGE_MAX &&
               first[n]->offset == first[0]->offset + (n << c->slice_bits)) {
            n++;
        }
        ret = write_neighbours(s, c, first, n);
        i += n;
    }
    return ret;
}
