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
#ifndef IMAGES_QCOW2_H
#define IMAGES_QCOW2_H

#include "miniblk/block-driver.h"
#include "miniblk/bswap.h"

#define QCOW2_MAGIC             0x514649fbU
#define QCOW2_V2_HEADER_BYTES   72
#define QCOW2_V3_HEADER_BYTES   104

#define QCOW2_CLUSTER_BITS_MIN  9
#define QCOW2_CLUSTER_BITS_MAX  21
#define QCOW2_L1_BYTES_MAX      (32u * 1024 * 1024)
#define QCOW2_REFTABLE_BYTES_MAX (8u * 1024 * 1024)
#define QCOW2_SNAPSHOTS_MAX     65536u
#define QCOW2_SNAPSHOT_EXTRA_BYTES_MAX 1024u
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX (64u * 1024 * 1024)
#define QCOW2_BACKING_NAME_BYTES_MAX 1023u
#define QCOW2_BITMAPS_MAX       65535u
#define QCOW2_BITMAP_DIR_BYTES_MAX (QCOW2_BITMAPS_MAX * 1024)

/* Feature bits of the header. */
#define QCOW2_INCOMPAT_DIRTY        (1ULL << 0)
#define QCOW2_INCOMPAT_CORRUPT      (1ULL << 1)
#define QCOW2_INCOMPAT_DATA_FILE    (1ULL << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (1ULL << 3)
#define QCOW2_INCOMPAT_EXTL2        (1ULL << 4)
#define QCOW2_INCOMPAT_KNOWN        0x1fULL
#define QCOW2_COMPAT_LAZY_REFCOUNTS (1ULL << 0)
#define QCOW2_AUTOCLEAR_BITMAPS     (1ULL << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW    (1ULL << 1)

/* With extended L2 entries a cluster consists of so many subclusters. */
#define QCOW2_SUBCLUSTERS           32u
#define QCOW2_EXTL2_CLUSTER_BITS_MIN 14

/* Entries of the L1, L2 and refcount tables. */
#define QCOW2_COPIED                (1ULL << 63)
#define QCOW2_COMPRESSED            (1ULL << 62)
#define QCOW2_ZERO                  (1ULL << 0)
#define QCOW2_OFFSET_MASK           UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED           UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED           UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_MASK         UINT64_C(0xfffffffffffffe00)

#define QCOW2_EXT_END               0x00000000U
#define QCOW2_EXT_BACKING_FORMAT    0xe2792acaU
#define QCOW2_EXT_FEATURE_NAMES     0x6803f857U
#define QCOW2_EXT_BITMAPS           0x23852875U
#define QCOW2_EXT_CRYPTO            0x0537be77U
#define QCOW2_EXT_DATA_FILE         0x44415441U

typedef enum Qcow2Compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 } Qcow2Compression;

/* The header as read; see qcow2-header.c. */
typedef struct Qcow2Header {
    uint32_t version, cluster_bits, crypt_method, l1_size, reftable_clusters;
    uint32_t nb_snapshots, refcount_order, header_length, backing_size;
    uint64_t backing_offset, size, l1_offset, reftable_offset, snapshots_offset;
    uint64_t incompat, compat, autoclear;
    uint8_t compression_type;
    /* bitmaps extension */
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bitmap_dir_bytes, bitmap_dir_offset;
} Qcow2Header;

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

    CoMutex lock;
    Qcow2Root l1, reftable;
    Qcow2Cache l2_cache, refblock_cache;
    Qcow2Snapshot *snapshots;
    uint64_t snapshots_bytes;

    /* what guest data and fresh tables must not touch; qcow2-overlap.c */
    Qcow2Set fixed_meta;        /* header, L1 tables, refcount structures, snapshot table */
    Qcow2Set l2_meta;           /* active L2 tables */
    bool meta_overlaps;         /* the image's structures overlap each other */

    /* allocation; qcow2-refcount.c */
    uint64_t free_hint;         /* no cluster below is free */
    uint64_t alloc_floor;       /* repair: no new tables below this cluster */
    uint64_t packed_end;        /* end of the compressed data last stored; qcow2-compress.c */
    uint64_t virgin_offset;     /* nothing was ever stored at or beyond */
    bool virgin_is_zero;        /* and a growing file reads as zeroes there */
    uint64_t file_bytes;        /* the file is at least that long; qcow2-io.c */

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
    bool corrupt;               /* found corrupt: no more writes */
    bool corruption_signaled;
    bool shows_snapshot;        /* for good, and never writable */
    bool pass_discard[QCOW2_DISCARD_MAX];       /* to the file, by cause */
    bool discard_no_unref;      /* a discarded cluster keeps its place in the file */
} Qcow2State;

/* ---- numbers in the file are big-endian --------------------------------------------- */

static inline uint32_t qcow2_load32(const uint8_t *p) { return ldl_be_p(p); }
static inline uint64_t qcow2_load64(const uint8_t *p) { return ldq_be_p(p); }
static inline void qcow2_store32(uint8_t *p, uint32_t v) { stl_be_p(p, v); }
static inline void qcow2_store64(uint8_t *p, uint64_t v) { stq_be_p(p, v); }

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

/* ---- qcow2-header.c ---------------------------------------------------------------- */

/* Read and validate; fills S's header, extensions and geometry, BS's backing strings. */
int qcow2_header_read(BlockDriverState *bs, Error **errp);
/* Write N bytes of the header area at OFFSET in place. */
int coroutine_mixed_fn qcow2_header_patch(Qcow2State *s, uint64_t offset, const void *buf,
                                          size_t n);
int coroutine_mixed_fn qcow2_header_set_incompat(Qcow2State *s, uint64_t bits);
int coroutine_mixed_fn qcow2_header_set_autoclear(Qcow2State *s, uint64_t bits);
/* Strings of the header; NULL or "": none. */
typedef struct Qcow2HeaderNames {
    const char *backing_file, *backing_fmt, *data_file;
    size_t backing_from;        /* the backing file's name is not to be placed before */
} Qcow2HeaderNames;
/*
 * The first bytes of an image with header H, whose place of the backing file's name is filled
 * in, and EXTENSIONS (NULL: the names of features). NULL with *RET = -ENOSPC when it does not
 * fit into a cluster.
 */
uint8_t *qcow2_header_build(Qcow2Header *h, GByteArray *extensions,
                            const Qcow2HeaderNames *names, size_t *bytes, int *ret);
int coroutine_mixed_fn qcow2_header_set_backing(Qcow2State *s, const char *backing_file,
                                                const char *backing_fmt);
/* Entries of the L1 table for a disk of SIZE bytes; cluster size and kind of L2 from H. */
uint64_t qcow2_l1_entries_for(const Qcow2Header *h, uint64_t size);

/* ---- qcow2-snapshot-table.c -------------------------------------------------------- */

int qcow2_snapshots_read(Qcow2State *s, Error **errp);
void qcow2_snapshot_clear(Qcow2Snapshot *sn);
void qcow2_snapshots_free(Qcow2State *s);

/* ---- qcow2-root.c ------------------------------------------------------------------ */

int qcow2_root_read(Qcow2State *s, Qcow2Root *root, uint64_t offset, uint32_t size);
void qcow2_root_init(Qcow2Root *root, uint64_t *entries, uint32_t size, uint64_t offset);
void qcow2_root_free(Qcow2Root *root);
/* Change an entry in memory; qcow2_root_write() brings it to the file. */
void qcow2_root_set(Qcow2Root *root, uint32_t index, uint64_t value);
static inline bool qcow2_root_changed(const Qcow2Root *root, uint32_t index)
{
    return index < root->size && (root->changed[index / 64] >> (index % 64) & 1);
}
int coroutine_fn qcow2_root_write(Qcow2State *s, Qcow2Root *root);

/* ---- qcow2-cache.c ----------------------------------------------------------------- */

void qcow2_cache_init(Qcow2Cache *c, uint32_t slice_bits, size_t bytes_max);
void qcow2_cache_free(Qcow2Cache *c);
/* Forget all that is in it, without writing. */
void qcow2_cache_reset(Qcow2Cache *c);
/* The slice at OFFSET if it is in memory. Good until the next yield. */
Qcow2Slice *qcow2_cache_peek(Qcow2Cache *c, uint64_t offset);
/* The same, read from the file if need be; pinned until qcow2_cache_put(). Lock held. */
int coroutine_fn qcow2_cache_get(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                 uint32_t owner, Qcow2Slice **slice);
/* The same for a slice whose content is known to be zero; it becomes dirty. */
int coroutine_fn qcow2_cache_get_zeroed(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                        uint32_t owner, Qcow2Slice **slice);
static inline void qcow2_cache_put(Qcow2Slice *slice)
{
    slice->pins--;
}
void qcow2_cache_mark_dirty(Qcow2Cache *c, Qcow2Slice *slice);
/* Forget, without writing, what lies in BYTES from OFFSET on. */
void qcow2_cache_drop(Qcow2Cache *c, uint64_t offset, uint64_t bytes);
/*
 * Let go of the memory of slices that were not used since the last call. Any time between two
 * yields of others.
 */
void qcow2_cache_clean(Qcow2Cache *c);
/* Have that done at intervals in CTX, where the node is or will be. Its thread, or drained. */
void qcow2_cleaner_start(Qcow2State *s, AioContext *ctx);
void qcow2_cleaner_stop(Qcow2State *s);
/* Write the dirty slices; with FRESH_OF only those of tables whose entry there changed. */
int coroutine_fn qcow2_cache_write(Qcow2State *s, Qcow2Cache *c, const Qcow2Root *fresh_of);
static inline bool qcow2_cache_is_clean(const Qcow2Cache *c)
{
    return QTAILQ_EMPTY(&c->dirty);
}

/* ---- qcow2-set.c ------------------------------------------------------------------- */

void qcow2_set_add(Qcow2Set *set, uint64_t cluster);
void qcow2_set_remove(Qcow2Set *set, uint64_t cluster);
bool qcow2_set_has(const Qcow2Set *set, uint64_t cluster);
void qcow2_set_clear(Qcow2Set *set);
/* Put the slots in use first, in order. After that SET is only good to be cleared. */
void qcow2_set_sort(Qcow2Set *set);

/* ---- qcow2-overlap.c --------------------------------------------------------------- */

/* Note all metadata of the image just opened. */
void qcow2_overlap_collect(Qcow2State *s);
/* 0, or -EIO after signalling corruption: guest data may not be written there. */
int coroutine_fn qcow2_overlap_check_data(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* The same for one cluster with a table; WHAT names it in the message. */
int coroutine_fn qcow2_overlap_check_l2(Qcow2State *s, uint64_t offset);
int coroutine_fn qcow2_overlap_check_new(Qcow2State *s, uint64_t cluster, uint64_t n);
/* Report corruption once; FATAL: set the corrupt bit and refuse writes. Returns -EIO. */
int coroutine_fn qcow2_signal_corruption(Qcow2State *s, bool fatal, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* ---- qcow2-refcount.c -------------------------------------------------------------- */

uint64_t qcow2_refcount_load(const uint8_t *block, uint32_t order, uint64_t i);
void qcow2_refcount_store(uint8_t *block, uint32_t order, uint64_t i, uint64_t value);
int coroutine_fn qcow2_refcount_get(Qcow2State *s, uint64_t cluster, uint64_t *refcount);
/* How many clusters from CLUSTER on have refcount 0 for sure, without looking far. */
int coroutine_fn qcow2_refcount_zeroes(Qcow2State *s, uint64_t cluster, uint64_t *n);
/* 1: *CLUSTER becomes the first one in use of those from it on before END; 0: none is. */
int coroutine_fn qcow2_refcount_next_used(Qcow2State *s, uint64_t *cluster, uint64_t end);
/* Where the last cluster before END that is in use ends, in clusters; 0: none is. */
int coroutine_fn qcow2_refcount_used_end(Qcow2State *s, uint64_t end, uint64_t *used_end);
/* Set one refcount, making its block if need be. */
int coroutine_fn qcow2_refcount_set(Qcow2State *s, uint64_t cluster, uint64_t refcount);
/* Add or take one reference of each; all or (on failure) none. */
int coroutine_fn qcow2_refcount_change(Qcow2State *s, uint64_t cluster, uint64_t n,
                                       int delta);
/* Take between MIN and MAX contiguous clusters; *FRESH: they read as zeroes already. */
int coroutine_fn qcow2_alloc_clusters(Qcow2State *s, uint64_t min, uint64_t max,
                                      uint64_t *offset, uint64_t *n, bool *fresh);

/* ---- qcow2-sparse.c ---------------------------------------------------------------- */

/*
 * Whether the file is so much smaller on its disk than what the image has allocated that
 * allocated ranges may be holes. Found out once; S->lock is not held.
 */
bool coroutine_fn qcow2_has_holes(Qcow2State *s);

/* ---- qcow2-writeback.c ------------------------------------------------------------- */

/* Write all changed metadata in a safe order. Lock held. */
int coroutine_fn qcow2_writeback(Qcow2State *s);
/* The same until nothing is left to free. No requests may be running. Lock held. */
int coroutine_fn qcow2_writeback_all(Qcow2State *s);
/* Make the data that was written durable: the file's, and the data file's. */
int coroutine_fn qcow2_flush_files(Qcow2State *s);
/* Give up one reference per cluster once that is safe. Lock held. */
void qcow2_free_later(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Discard cause);
/* Called at the end of each operation that may have freed much. Lock held. */
int coroutine_fn qcow2_limit_frees(Qcow2State *s);
/* Driver call. */
int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs);
/* Before the first change of a refcount in lazy mode. */
int coroutine_fn qcow2_mark_dirty(Qcow2State *s);
/* Bracket every guest request. */
static inline unsigned qcow2_request_begin(Qcow2State *s)
{
    s->running[s->epoch]++;
    return s->epoch;
}
static inline void qcow2_request_end(Qcow2State *s, unsigned epoch)
{
    s->running[epoch]--;
}

/* ---- qcow2-cluster.c --------------------------------------------------------------- */

/*
 * How the first bytes from OFFSET on (at most BYTES) are mapped. qcow2_map_cached() is
 * false when that needs I/O or the tables are corrupt.
 */
bool qcow2_map_cached(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run);
int coroutine_fn qcow2_map(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run);
/* The same with the lock held. */
int coroutine_fn qcow2_map_locked(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                  Qcow2Run *run);
/*
 * The slice with the L2 entry of OFFSET, pinned, in a table that we may change; *INDEX is
 * the entry's place in the slice. Lock held.
 */
int coroutine_fn qcow2_l2_for_write(Qcow2State *s, uint64_t offset, Qcow2Slice **slice,
                                    uint32_t *index);
static inline uint32_t qcow2_slice_entries(const Qcow2State *s)
{
    return 1u << (s->l2_cache.slice_bits - s->l2_entry_bits);
}
/* Give up what an L2 entry with descriptor DESC refers to. Lock held. */
void qcow2_free_entry(Qcow2State *s, uint64_t desc, Qcow2Discard cause);
/* Host range of a compressed cluster. */
void qcow2_compressed_range(const Qcow2State *s, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes);

/* ---- qcow2-alloc.c: lock held ------------------------------------------------------- */

static inline uint64_t qcow2_alloc_guest_end(const Qcow2State *s, const Qcow2Alloc *a)
{
    return a->guest + (a->clusters << s->cluster_bits);
}
/* The first allocation in flight in the range, by position; NULL when there is none. */
Qcow2Alloc *qcow2_alloc_first(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Drop the reference of one who has waited for A. */
void qcow2_alloc_unref(Qcow2Alloc *a);
/*
 * Wait until no allocation touches the first byte of the range; the number of bytes from
 * there on that none touches. The lock is dropped while waiting.
 */
uint64_t coroutine_fn qcow2_wait_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Enter a copy of A, to whose clusters data will be written, into the list. */
Qcow2Alloc *qcow2_alloc_begin(Qcow2State *s, const Qcow2Alloc *a);
/* The data of A was written (RET >= 0) or not: map or give up the clusters. */
int coroutine_fn qcow2_alloc_end(Qcow2State *s, Qcow2Alloc *a, int ret);

/* ---- qcow2-io.c, qcow2-write.c, qcow2-zero.c, qcow2-resize.c, qcow2-compress.c ------ */

/* Read from the file; what lies beyond its end is zero. */
int coroutine_mixed_fn qcow2_file_read(Qcow2State *s, uint64_t offset, size_t bytes,
                                       void *buf);
int coroutine_fn qcow2_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file);
int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags,
                                   Error **errp);
/* Write anywhere that an L1 entry covers, be it behind the end of the disk. */
int coroutine_fn qcow2_write(Qcow2State *s, uint64_t offset, uint64_t bytes,
                             QEMUIOVector *qiov, size_t qiov_offset);
/*
 * 0, or -EIO when the range is not on the disk. The block layer has looked, but then the
 * request may have waited for the disk to shrink.
 */
static inline int qcow2_check_end(const Qcow2State *s, int64_t offset, int64_t bytes)
{
    return (uint64_t)offset + bytes > qcow2_guest_bytes(s) ? -EIO : 0;
}
/* Make the zeroes of BYTES from OFFSET on explicit; ends may be unaligned. */
int coroutine_fn qcow2_zero_unaligned(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Make the range show the backing file again, freeing its clusters. Whole clusters. */
int coroutine_fn qcow2_unmap(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Read the compressed cluster of L2 entry ENTRY into BUF (one cluster). */
int coroutine_fn qcow2_read_compressed(Qcow2State *s, uint64_t entry, uint8_t *buf);
int coroutine_fn qcow2_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset);
/* CLUSTER has become free: nothing more is packed into it. */
static inline void qcow2_packed_forget(Qcow2State *s, uint64_t cluster)
{
    if (s->packed_end >> s->cluster_bits == cluster) {
        s->packed_end = 0;
    }
}

/* ---- qcow2-codec.c: any thread ------------------------------------------------------- */

bool qcow2_compression_supported(Qcow2Compression type);
/* The number of bytes, at most OUT_BYTES; -ENOSPC when there would be more; -errno. */
int qcow2_compress(Qcow2Compression type, const uint8_t *in, size_t in_bytes, uint8_t *out,
                   size_t out_bytes);
/* OUT is filled wholly, or -EIO; IN may be longer than the data. */
int qcow2_decompress(Qcow2Compression type, const uint8_t *in, size_t in_bytes, uint8_t *out,
                     size_t out_bytes);

/* ---- qcow2-check.c, qcow2-create.c, qcow2-options.c --------------------------------- */

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result,
                                BdrvCheckMode fix);
/* The same with the lock held. */
int coroutine_fn qcow2_check_locked(Qcow2State *s, BdrvCheckResult *result,
                                    BdrvCheckMode fix);
extern const char *const qcow2_create_option_names[];
int coroutine_fn qcow2_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                      Error **errp);
/* Take our runtime options out of OPTIONS and set up the caches. */
int qcow2_options_apply(Qcow2State *s, QDict *options, int flags, Error **errp);

/* ---- qcow2-data-file.c ------------------------------------------------------------------ */

/* The edge through which guest data is read and written. */
static inline BdrvChild *qcow2_data(const Qcow2State *s)
{
    return s->data_file ?: s->bs->file;
}
/* Whether the data file must show what the guest sees. */
static inline bool qcow2_data_raw(const Qcow2State *s)
{
    return s->data_file && (s->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
}
/* Open the data file that the header demands. Main thread; polls. 0 or -errno. */
int qcow2_data_file_open(Qcow2State *s, QDict *options, int flags, Error **errp);
/*
 * Make the data file as long as the disk, SIZE bytes where it was OLD. 0 or -errno.
 */
int coroutine_fn qcow2_data_file_resize(Qcow2State *s, uint64_t old, uint64_t size,
                                        PreallocMode prealloc, Error **errp);
/* Whether what a longer data file gained reads as zeroes. */
static inline bool qcow2_data_file_grows_zeroed(const Qcow2State *s)
{
    return qcow2_data_raw(s) ||
           (s->data_file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE);
}

/* ---- qcow2.c, main thread: polls -------------------------------------------------------- */

/* What has to be done to the file before it is written to. 0 or -errno. */
int qcow2_prepare_writing(Qcow2State *s, int flags, Error **errp);
/* Write back everything, after which the image needs no repair. 0 or -errno. */
int qcow2_make_clean(Qcow2State *s);

/* ---- qcow2-empty.c ---------------------------------------------------------------------- */

int qcow2_make_empty(BlockDriverState *bs);

/* ---- qcow2-reopen.c: see BlockDriver ---------------------------------------------------- */

extern const char *const qcow2_mutable_opts[];
int qcow2_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp);
void qcow2_reopen_commit(BDRVReopenState *state);
void qcow2_reopen_commit_post(BDRVReopenState *state);
void qcow2_reopen_abort(BDRVReopenState *state);

#endif
