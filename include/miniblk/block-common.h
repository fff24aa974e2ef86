/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Types, flags and constants shared by users of the block layer and by driver authors. */
#ifndef MINIBLK_BLOCK_COMMON_H
#define MINIBLK_BLOCK_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include "aio.h"
#include "aio-wait.h"
#include "coroutine.h"
#include "error.h"
#include "iov.h"
#include "qdict.h"

typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BdrvChildClass BdrvChildClass;
typedef struct BlockBackend BlockBackend;
typedef struct BlockReopenQueue BlockReopenQueue;
typedef struct Transaction Transaction;

#define BDRV_SECTOR_BITS 9
#define BDRV_SECTOR_SIZE (1ULL << BDRV_SECTOR_BITS)
/* Longest request, in bytes: what fits an int and is sector aligned. */
#define BDRV_REQUEST_MAX_SECTORS (INT_MAX >> BDRV_SECTOR_BITS)
#define BDRV_REQUEST_MAX_BYTES   ((int64_t)BDRV_REQUEST_MAX_SECTORS << BDRV_SECTOR_BITS)
/* Largest node, in bytes; leaves room for rounding up without overflow. */
#define BDRV_MAX_ALIGNMENT (1L << 30)
#define BDRV_MAX_LENGTH    QEMU_ALIGN_DOWN(INT64_MAX, BDRV_MAX_ALIGNMENT)

/* Open flags. */
#define BDRV_O_NO_SHARE    0x0001   /* nobody else may use the node */
#define BDRV_O_RDWR        0x0002   /* writable */
#define BDRV_O_RESIZE      0x0004   /* blk_new_open: also take the resize permission */
#define BDRV_O_SNAPSHOT    0x0008
#define BDRV_O_TEMPORARY   0x0010
#define BDRV_O_NOCACHE     0x0020   /* bypass the host page cache (cache.direct) */
#define BDRV_O_NATIVE_AIO  0x0080   /* Linux AIO */
#define BDRV_O_NO_BACKING  0x0100   /* do not open the backing file */
#define BDRV_O_NO_FLUSH    0x0200   /* ignore flushes (cache.no-flush) */
#define BDRV_O_COPY_ON_READ 0x0400
#define BDRV_O_INACTIVE    0x0800
#define BDRV_O_CHECK       0x1000   /* open only to check: tolerate what check can repair */
#define BDRV_O_ALLOW_RDWR  0x2000
#define BDRV_O_UNMAP       0x4000   /* pass discards down */
#define BDRV_O_PROTOCOL    0x8000   /* no format probing: driver by filename prefix */
#define BDRV_O_NO_IO       0x10000  /* only metadata is wanted */
#define BDRV_O_AUTO_RDONLY 0x20000  /* fall back to read-only */
#define BDRV_O_IO_URING    0x40000
#define BDRV_O_CACHE_MASK  (BDRV_O_NOCACHE | BDRV_O_NO_FLUSH)

typedef enum BdrvRequestFlags {
    BDRV_REQ_COPY_ON_READ       = 0x1,
    BDRV_REQ_ZERO_WRITE         = 0x2,
    BDRV_REQ_MAY_UNMAP          = 0x4,   /* write zeroes may deallocate */
    BDRV_REQ_FUA                = 0x10,  /* on stable storage before completion */
    BDRV_REQ_WRITE_COMPRESSED   = 0x20,
    BDRV_REQ_WRITE_UNCHANGED    = 0x40,
    BDRV_REQ_SERIALISING        = 0x80,  /* wait for and hold off changes that overlap */
    BDRV_REQ_NO_FALLBACK        = 0x100, /* write zeroes: -ENOTSUP rather than slow */
    BDRV_REQ_PREFETCH           = 0x200,
    BDRV_REQ_NO_WAIT            = 0x400, /* serialising: -EBUSY rather than wait */
    BDRV_REQ_MASK               = 0x7ff,
} BdrvRequestFlags;

/* Block status bits; a raw (not valid) offset is INT64_MAX-free: see bdrv_co_block_status. */
#define BDRV_BLOCK_DATA         0x01    /* reads come from this layer's data */
#define BDRV_BLOCK_ZERO         0x02    /* reads as zeroes */
#define BDRV_BLOCK_OFFSET_VALID 0x04    /* *map is the offset in *file */
#define BDRV_BLOCK_RAW          0x08    /* answer with *file's status instead */
#define BDRV_BLOCK_ALLOCATED    0x10    /* defined by this layer, not by its backing */
#define BDRV_BLOCK_EOF          0x20    /* reaches the end of the node */
#define BDRV_BLOCK_RECURSE      0x40
#define BDRV_BLOCK_COMPRESSED   0x80

/* What a parent needs (perm) and what it lets others have (shared). */
enum {
    BLK_PERM_CONSISTENT_READ = 0x01,    /* what is read makes sense to the user */
    BLK_PERM_WRITE           = 0x02,
    BLK_PERM_WRITE_UNCHANGED = 0x04,    /* writes that do not change visible content */
    BLK_PERM_RESIZE          = 0x08,
    BLK_PERM_ALL             = 0x0f,
};

/* What an edge is for; see bdrv_default_perms(). */
enum BdrvChildRoleBits {
    BDRV_CHILD_DATA     = 0x01,     /* guest data */
    BDRV_CHILD_METADATA = 0x02,     /* the parent's metadata */
    BDRV_CHILD_FILTERED = 0x04,     /* the parent shows exactly this child's data */
    BDRV_CHILD_COW      = 0x08,     /* unallocated parts come from here */
    BDRV_CHILD_PRIMARY  = 0x10,     /* the child (bs->file or bs->backing) */
    BDRV_CHILD_IMAGE    = BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY,
};
typedef unsigned int BdrvChildRole;

typedef enum PreallocMode {
    PREALLOC_MODE_OFF = 0,
    PREALLOC_MODE_METADATA,
    PREALLOC_MODE_FALLOC,
    PREALLOC_MODE_FULL,
    PREALLOC_MODE__MAX,
} PreallocMode;

typedef enum BdrvCheckMode { BDRV_FIX_LEAKS = 1, BDRV_FIX_ERRORS = 2 } BdrvCheckMode;

typedef struct BlockFragInfo {
    uint64_t allocated_clusters, total_clusters, fragmented_clusters, compressed_clusters;
} BlockFragInfo;
typedef struct BdrvCheckResult {
    int corruptions, leaks, check_errors;
    int corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;
    BlockFragInfo bfi;
} BdrvCheckResult;

/* What bdrv_get_info() tells. */
typedef struct BlockDriverInfo {
    int cluster_size;           /* bytes; 0 when the driver has no clusters */
    int subcluster_size;
    int64_t vm_state_offset;
    bool is_dirty;
    bool needs_compressed_writes;
} BlockDriverInfo;

/* Limits of a node's requests, in bytes. 0 means no limit unless stated otherwise. */
typedef struct BlockLimits {
    uint32_t request_alignment; /* power of two, >= 1; offset and length of every request */
    int64_t max_transfer;
    int64_t opt_transfer;
    int64_t max_pdiscard;
    uint32_t pdiscard_alignment;
    int64_t max_pwrite_zeroes;
    uint32_t pwrite_zeroes_alignment;
    size_t min_mem_alignment;   /* buffers that are not so aligned are bounced */
    size_t opt_mem_alignment;
    int max_iov;                /* elements per request */
} BlockLimits;

/* Main thread with the big lock held; asserted in every build. */
#define GLOBAL_STATE_CODE() g_assert(qemu_in_main_thread())
/* Any thread (coroutine or not); the node's context does the work. */
#define IO_CODE() ((void)0)
#define IO_OR_GS_CODE() ((void)0)
bool qemu_in_main_thread(void);

#endif
