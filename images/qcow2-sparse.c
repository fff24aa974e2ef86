/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the image's file has many holes in what the image calls allocated, as with metadata
 * that was preallocated. Only then is it worth asking the file about each allocated range.
 * An image with a data file is judged by its own file all the same; so does the peer.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* So many clusters in use are too many: a ninth, or two, more than are on the disk. */
static uint64_t too_many(uint64_t clusters_on_disk)
{
    uint64_t a_ninth_more = clusters_on_disk + clusters_on_disk / 9;

    return MAX(a_ninth_more, clusters_on_disk + 2);
}

/* Whether LIMIT of the first N clusters, or more, are in use. S->lock is held. */
static int coroutine_fn uses_so_many(Qcow2State *s, uint64_t limit, uint64_t n)
{
    uint64_t used = 0;
    int ret = 1;

    for (uint64_t cluster = 0; used < limit && ret > 0; cluster++) {
        ret = qcow2_refcount_next_used(s, &cluster, n);
        used += ret > 0;
    }
    return ret < 0 ? ret : used >= limit;
}

bool coroutine_fn qcow2_has_holes(Qcow2State *s)
{
    if (s->holes == QCOW2_HOLES_UNKNOWN) {
        BlockDriverState *file = s->bs->file->bs;
        int64_t length = bdrv_getlength(file);
        int64_t on_disk = bdrv_get_allocated_file_size(file);
        int found = -ENOTSUP;
        if (length >= 0 && on_disk >= 0) {
            uint64_t limit = too_many(on_disk >> s->cluster_bits);
            qemu_co_mutex_lock(&s->lock);
            found = uses_so_many(s, limit, qcow2_clusters(s, length));
            qemu_co_mutex_unlock(&s->lock);
        }
        /* What cannot be told need not be asked again. */
        s->holes = found > 0 ? QCOW2_HOLES_MANY : QCOW2_HOLES_FEW;
    }
    return s->holes == QCOW2_HOLES_MANY;
}
