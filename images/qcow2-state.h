/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images, internals. The format is described in QEMU's "Qcow2 Image File Format".
 *
 * Threads: everything runs in the node's AioContext, so that nothing changes between two
 * yields. Mapping, refcounts and the caches are changed only while LOCK is held; they may
 * be read without it (no yield between the look-up and its use). Guest data is read and
 * written without LOCK.
 *
 * Order on disk (qcow2-writeback.c): what is pointed to is durable before the pointer, and
 * a cluster is reused only after the pointer to it is durably gone. A crash leaks at worst.
 */
#ifndef IMAGES_QCOW2_STATE_H
#define IMAGES_QCOW2_STATE_H

#include "miniblk/block-driver.h"
#include "images/qcow2-format.h"

/* A set of host clusters; 64 neighbours share one slot. qcow2-set.c */
typedef struct Qcow2Set {
    struct Qcow2SetSlot { uint64_t key, mask; } *slots; /* key: group + 1, 0 is free */
    size_t nb_slots, used;
} Qcow2Set;

/*
 * A table that is wholly in memory (L1, refcount table), entries in host order. Changed
 * entries are remembered until they are written. qcow2-root.c
 */
typedef struct Qcow2Root {
    uint64_t *entries;
    uint32_t size;              /* in entries */
    uint64_t offset;            /* in the file */
    uint64_t *changed;          /* bitmap of entries */
    GArray *changed_list;       /* their indices (uint32_t), in no order */
} Qcow2Root;

/* A cached slice of an L2 table or refcount block. qcow2-cache.c */
typedef struct Qcow2Slice Qcow2Slice;
struct Qcow2Slice {
    uint64_t offset;            /* in the file; 0: unused */
    uint8_t *data;              /* as on disk */
    uint32_t owner;             /* index of its table in the root table */
    uint16_t pins;
    bool dirty;
    bool recent;                /* second chance of the clock */
    Qcow2Slice *hash_next;
    QTAILQ_ENTRY(Qcow2Slice) dirty_next;
};

typedef struct Qcow2Cache {
    uint32_t slice_bits;
    size_t slices_max, nb_slices;
    size_t hand;                /* of the clock */
    Qcow2Slice **slices;        /* all there are, nb_slices */
    GPtrArray *slabs;           /* their memory */
    uint8_t *slab;              /* the rest of the last slab */
    size_t slab_left;
    Qcow2Slice *unused;         /* in no bucket; chained by hash_next */
    Qcow2Slice **buckets;
    unsigned bucket_bits;
    QTAILQ_HEAD(, Qcow2Slice) dirty;
} Qcow2Cache;

/*
 * An L2 entry in host order. BITS has one bit per subcluster; without extended entries a
 * cluster counts as a single one. qcow2-entry.h
 */
typedef struct Qcow2Entry {
    uint64_t desc;              /* as in the file, but for the flag "zero" */
    uint32_t alloc, zero;       /* subclusters that have data, that read as zeroes */
} Qcow2Entry;

typedef enum Qcow2Type {        /* of subclusters */
    QCOW2_UNALLOCATED,          /* shows the backing file */
    QCOW2_UNALLOCATED_ALLOC,    /* the same with a host cluster */
    QCOW2_ZERO_PLAIN,
    QCOW2_ZERO_ALLOC,           /* zero with a host cluster kept */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED_DATA,
    QCOW2_INVALID,
} Qcow2Type;

/* A stretch of the guest disk that is mapped in one way. */
typedef struct Qcow2Run {
    Qcow2Type type;
    bool copied;                /* we are the only user of the host clusters */
    uint64_t host;              /* of its first byte; the L2 entry when compressed */
    uint64_t bytes;
} Qcow2Run;

/*
 * Clusters of the guest that are being given host clusters. Nobody else may change their
 * mapping meanwhile. qcow2-alloc.c
 */
typedef struct Qcow2Alloc {
    uint64_t guest, host;       /* cluster aligned */
    uint64_t clusters;
    uint64_t start, end;        /* of the guest: what will be there; whole subclusters */
    uint64_t compressed;        /* the L2 entry to be, of a compressed cluster; else 0 */
    bool in_place;              /* the host clusters were there before (zero, preallocated) */
    bool reads_zero;            /* the host clusters read as zeroes as they are */
    bool joinable;              /* others may write to parts of the host clusters */
    bool done;
    int ret;                    /* once done */
    unsigned joiners;           /* who is doing so */
    unsigned refs;              /* the owner and who waits */
    CoQueue waiters;
    QTAILQ_ENTRY(Qcow2Alloc) next;
} Qcow2Alloc;

/* Why host clusters become free; some users want their file to be told, by cause. */
typedef enum Qcow2Discard {
    QCOW2_DISCARD_NEVER,
    QCOW2_DISCARD_REQUEST,      /* the guest's discards and unmapping writes of zeroes */
    QCOW2_DISCARD_SNAPSHOT,     /* deleting snapshots */
    QCOW2_DISCARD_OTHER,
    QCOW2_DISCARD_MAX
} Qcow2Discard;

/* Clusters that will lose one reference each; see qcow2-writeback.c. */
typedef struct Qcow2Free {
    uint64_t cluster, n;
    bool discard;               /* tell the file when they become free */
} Qcow2Free;

typedef struct Qcow2Snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    char *id, *name;
    uint32_t date_s, date_ns;
    uint64_t vm_clock_ns, vm_state_bytes, disk_bytes, icount;
    uint32_t extra_bytes;       /* as found: known fields and unknown ones */
    uint8_t *unknown_extra;     /* the latter */
} Qcow2Snapshot;

typedef struct Qcow2State {
    BlockDriverState *bs;
    Qcow2Header header;         /* qcow2-header.c, as last written */
    GByteArray *extensions;     /* those we do not change, as in the file */

    /* geometry, fixed after open */
    uint32_t cluster_bits, l2_bits, refcount_order, refblock_bits;
    uint32_t l2_entry_bits;     /* of its size in bytes: 3, extended 4 */
    uint32_t subcluster_bits;
    uint32_t subclusters;       /* per cluster: 1, extended 32 */
    uint64_t cluster_bytes, cluster_mask;       /* mask: offset within a cluster */
    uint64_t subcluster_bytes, subcluster_mask;
    uint64_t refcount_max;

    /* where guest data is, if not in bs->file: at the same offset; qcow2-data-file.c */
    BdrvChild *data_file;
    char *data_file_name;       /* as recorded in the image; NULL: none */
    uint64_t data_file_bytes;   /* it is at least that long */

    uint8_t *luks_header;       /* its fixed part; NULL: none; qcow2-crypto.c */

    CoMutex lock;
    Qcow2Root l1, reftable;
    Qcow2Cache l2_cache, refblock_cache;
    Qcow2Snapshot *snapshots;
    uint64_t snapshots_bytes;
    uint32_t snapshots_unread;  /* so many are left to the check to read; else none */

    /* what guest data and fresh tables must not touch; qcow2-overlap.c */
    Qcow2Set fixed_meta;        /* header, L1 tables, refcount structures, snapshot table */
    Qcow2Set l2_meta;           /* active L2 tables */
    bool meta_overlaps;         /* the image's structures overlap each other */

    /* allocation; qcow2-refcount.c */
    uint64_t free_hint;         /* no cluster below is free */
    uint64_t packed_end;        /* end of the compressed data last stored; qcow2-compress.c */
    uint64_t virgin_offset;     /* nothing was ever stored at or beyond */
    bool virgin_is_zero;        /* and a growing file reads as zeroes there */
    uint64_t file_bytes;        /* the file is at least that long; qcow2-io.c */

    /* compressed writes under way, and what they may use; qcow2-compress.c */
    unsigned compressing;
    struct Qcow2Workspace *workspaces;          /* those nobody uses now */
    unsigned workspaces_left;                   /* so many more may be made */
    CoQueue workspace_queue;                    /* of those who want one */

    /* qcow2-alloc.c */
    QTAILQ_HEAD(, Qcow2Alloc) allocs;

    struct Qcow2Shadow *shadow; /* refcounts are those of the image to be; qcow2-shadow.c */

    /* deferred frees; qcow2-writeback.c */
    GArray *freed;              /* Qcow2Free: the pointer is not durably gone */
    GArray *resting;            /* Qcow2Free: gone, but old requests may be using them */
    unsigned epoch;             /* parity of newly started requests */
    unsigned running[2];        /* requests by parity */

    QEMUTimer *cleaner;         /* drops what the caches have not used for so long: */
    uint32_t clean_interval_s;  /* 0: never */

    enum { QCOW2_HOLES_UNKNOWN, QCOW2_HOLES_FEW, QCOW2_HOLES_MANY } holes; /* qcow2-sparse.c */

    bool writable;
    bool lazy_refcounts;        /* refcounts may be stale on disk while DIRTY is set */
    bool unrepaired;            /* opened for a check although DIRTY was set */
    bool corrupt;               /* no more writes: found corrupt, or the header is not known */
    bool corruption_signaled;   /* it was found corrupt */
    bool shows_snapshot;        /* for good, and never writable */
    bool pass_discard[QCOW2_DISCARD_MAX];       /* to the file, by cause */
    bool discard_no_unref;      /* a discarded cluster keeps its place in the file */
} Qcow2State;

/* ---- arithmetic -------------------------------------------------------------------- */

static inline uint64_t qcow2_clusters(const Qcow2State *s, uint64_t bytes)
{
    return (bytes >> s->cluster_bits) + !!(bytes & s->cluster_mask);
}

/* Bytes of guest disk behind one L1 entry: 2^this. */
static inline uint32_t qcow2_l1_shift(const Qcow2State *s)
{
    return s->cluster_bits + s->l2_bits;
}

/* 64-bit words per L2 entry; the first one is the descriptor. */
static inline uint32_t qcow2_l2_words(const Qcow2State *s)
{
    return 1u << (s->l2_entry_bits - 3);
}

static inline uint64_t qcow2_guest_bytes(const Qcow2State *s)
{
    return (uint64_t)s->bs->total_sectors << BDRV_SECTOR_BITS;
}

#endif
