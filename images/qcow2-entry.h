/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries of L2 tables, with and without subclusters, in one form.
 *
 *   desc         alloc  zero    each subcluster
 *   0            -      -       unallocated
 *   0            -      set     zero
 *   host offset  -      -       unallocated, with a place in a host cluster
 *   host offset  -      set     zero, with a place
 *   host offset  set    -       data
 *   compressed   0      0       the whole cluster is in the compressed data
 */
#ifndef IMAGES_QCOW2_ENTRY_H
#define IMAGES_QCOW2_ENTRY_H

#include "images/qcow2.h"

/* The bits of all subclusters of a cluster. */
static inline uint32_t qcow2_all_subclusters(const Qcow2State *s)
{
    return s->subclusters == 1 ? 1 : UINT32_MAX;
}

/* The bits of the subclusters that [FROM, TO) touches, offsets within a cluster; FROM < TO. */
static inline uint32_t qcow2_subcluster_mask(const Qcow2State *s, uint64_t from, uint64_t to)
{
    uint32_t first = from >> s->subcluster_bits, last = (to - 1) >> s->subcluster_bits;
    return (UINT32_MAX << first) & (UINT32_MAX >> (31 - last));
}

/* Whether a descriptor names a host cluster that is not compressed data. */
static inline bool qcow2_has_host(const Qcow2State *s, uint64_t desc)
{
    /* Offset 0 is the header, but in a data file it is as good as any other. */
    return !(desc & QCOW2_COMPRESSED) &&
           ((desc & QCOW2_OFFSET_MASK) || (s->data_file && (desc & QCOW2_COPIED)));
}

static inline Qcow2Entry qcow2_entry_from(const Qcow2State *s, const uint64_t *place)
{
    uint64_t desc = GUINT64_FROM_BE(place[0]);

    if (s->l2_entry_bits == 4) {
        uint64_t bits = GUINT64_FROM_BE(place[1]);
        return (Qcow2Entry){ desc, bits, bits >> 32 };
    }
    if (!(desc & QCOW2_COMPRESSED) && (desc & QCOW2_ZERO)) {
        /* One without offset has no host cluster, even with a data file. */
        return (Qcow2Entry){ desc & QCOW2_OFFSET_MASK ? desc & ~QCOW2_ZERO : 0, 0, 1 };
    }
    return (Qcow2Entry){ desc, qcow2_has_host(s, desc), 0 };
}

static inline uint64_t *qcow2_entry_place(const Qcow2State *s, const Qcow2Slice *slice,
                                          uint32_t i)
{
    return (uint64_t *)slice->data + ((size_t)i << (s->l2_entry_bits - 3));
}

static inline Qcow2Entry qcow2_entry_load(const Qcow2State *s, const Qcow2Slice *slice,
                                          uint32_t i)
{
    return qcow2_entry_from(s, qcow2_entry_place(s, slice, i));
}

/* Change entry I in memory; the caller marks the slice dirty. */
static inline void qcow2_entry_store(const Qcow2State *s, Qcow2Slice *slice, uint32_t i,
                                     Qcow2Entry e)
{
    uint64_t *place = qcow2_entry_place(s, slice, i);

    if (s->l2_entry_bits == 4) {
        place[0] = GUINT64_TO_BE(e.desc);
        place[1] = GUINT64_TO_BE((uint64_t)e.zero << 32 | e.alloc);
    } else {
        place[0] = GUINT64_TO_BE(e.desc | (e.zero ? QCOW2_ZERO : 0));
    }
}

static inline bool qcow2_entry_equal(Qcow2Entry a, Qcow2Entry b)
{
    return a.desc == b.desc && a.alloc == b.alloc && a.zero == b.zero;
}

/* What subcluster I of E is. */
static inline Qcow2Type qcow2_entry_type(const Qcow2State *s, Qcow2Entry e, uint32_t i)
{
    bool host = qcow2_has_host(s, e.desc);

    if (e.desc & QCOW2_COMPRESSED) {
        return QCOW2_COMPRESSED_DATA;
    }
    if ((e.alloc & e.zero) || (e.alloc && !host)) {
        return QCOW2_INVALID;
    }
    if (e.zero >> i & 1) {
        return host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    if (e.alloc >> i & 1) {
        return QCOW2_NORMAL;
    }
    return host ? QCOW2_UNALLOCATED_ALLOC : QCOW2_UNALLOCATED;
}

#endif
