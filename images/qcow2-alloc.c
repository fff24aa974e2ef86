/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Allocations in flight: clusters of the guest that have been given a place and are being
 * written there. Their mapping changes at the end, when the data is there.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-entry.h"

/* ---- the list ---------------------------------------------------------------------- */

Qcow2Alloc *qcow2_alloc_first(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Alloc *a, *first = NULL;

    QTAILQ_FOREACH(a, &s->allocs, next) {
        if (a->guest < offset + bytes && offset < qcow2_alloc_guest_end(s, a) &&
            (!first || a->guest < first->guest)) {
            first = a;
        }
    }
    return first;
}

void qcow2_alloc_unref(Qcow2Alloc *a)
{
    if (--a->refs == 0) {
        g_free(a);
    }
}

uint64_t coroutine_fn qcow2_wait_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    /* What matters are whole clusters. */
    uint64_t start = offset & ~s->cluster_mask;
    Qcow2Alloc *a;

    while ((a = qcow2_alloc_first(s, start, bytes + (offset - start)))) {
        if (a->guest > offset) {
            return a->guest - offset;
        }
        a->refs++;
        qemu_co_queue_wait(&a->waiters, &s->lock);
        qcow2_alloc_unref(a);
    }
    return bytes;
}

Qcow2Alloc *qcow2_alloc_begin(Qcow2State *s, const Qcow2Alloc *from)
{
    Qcow2Alloc *a = g_memdup2(from, sizeof(*from));

    qemu_co_mutex_assert_locked(&s->lock);
    a->refs = 1;
    qemu_co_queue_init(&a->waiters);
    QTAILQ_INSERT_TAIL(&s->allocs, a, next);
    return a;
}

/* ---- the end ------------------------------------------------------------------------ */

/* Cluster K of A, which had entry OLD, has its data now. */
static Qcow2Entry new_entry(const Qcow2State *s, const Qcow2Alloc *a, uint64_t k,
                            Qcow2Entry old)
{
    uint64_t guest = a->guest + (k << s->cluster_bits);

    if (a->compressed) {
        return (Qcow2Entry){ a->compressed };
    }
    uint64_t from = MAX(a->start, guest) - guest;
    uint64_t to = MIN(a->end, guest + s->cluster_bytes) - guest;
    uint32_t mask = qcow2_subcluster_mask(s, from, to);
    return (Qcow2Entry){
        .desc = (a->host + (k << s->cluster_bits)) | QCOW2_COPIED,
        .alloc = (a->in_place ? old.alloc : 0) | mask,
        .zero = old.zero & ~mask,
    };
}

/* Point the L2 entries at the clusters that were written. Lock held. */
static int coroutine_fn link_clusters(Qcow2State *s, const Qcow2Alloc *a)
{
    Qcow2Slice *slice;
    uint32_t i;

    if (a->compressed) {
        BLKDBG_EVENT(s->bs->file, BLKDBG_L2_UPDATE_COMPRESSED);
    }
    /* An allocation never spans slices. */
    int ret = qcow2_l2_for_write(s, a->guest, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t k = 0; k < a->clusters; k++) {
        Qcow2Entry old = qcow2_entry_load(s, slice, i + k);
        qcow2_entry_store(s, slice, i + k, new_entry(s, a, k, old));
        if (!a->in_place) {
            qcow2_free_entry(s, old.desc, QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    qcow2_cache_put(slice);
    return 0;
}

/* Give up clusters that nothing points to yet. Lock held. */
static void coroutine_fn give_back(Qcow2State *s, const Qcow2Alloc *a)
{
    uint64_t first = a->host >> s->cluster_bits, n = a->clusters, offset, bytes;

    if (s->data_file) {
        return;
    }
    if (a->compressed) {
        qcow2_compressed_range(s, a->compressed, &offset, &bytes);
        first = offset >> s->cluster_bits;
        n = qcow2_clusters(s, offset + bytes) - first;
    }
    qcow2_refcount_change(s, first, n, -1);
}

int coroutine_fn qcow2_alloc_end(Qcow2State *s, Qcow2Alloc *a, int ret)
{
    if (ret >= 0) {
        ret = link_clusters(s, a);
    }
    a->done = true;
    a->ret = ret;
    if (ret < 0 && !a->in_place) {
        while (a->joiners) {
            /* They are writing to the clusters; nobody new joins once it is done. */
            qemu_co_queue_wait(&a->waiters, &s->lock);
        }
        give_back(s, a);
    }
    QTAILQ_REMOVE(&s->allocs, a, next);
    qemu_co_queue_restart_all(&a->waiters);
    qcow2_alloc_unref(a);
    return ret < 0 ? ret : qcow2_limit_frees(s);
}
