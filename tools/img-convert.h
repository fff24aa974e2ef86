/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The copying part of miniblk-img convert. */
#ifndef TOOLS_IMG_CONVERT_H
#define TOOLS_IMG_CONVERT_H

#include "tools/img.h"

#define CONVERT_BUFFER_BYTES (2 * 1024 * 1024)
#define CONVERT_COROUTINES_DEFAULT 8
#define CONVERT_COROUTINES_MAX 16

typedef struct ConvertSource {
    const char *name;
    BlockBackend *blk;
    int64_t start;              /* bytes; where it begins in the joined image */
    int64_t origin, bytes;      /* the part of the image that is copied */
} ConvertSource;

/* What to copy and how. Filled by the caller; nothing is written here while it runs. */
typedef struct ConvertPlan {
    ConvertSource *sources;     /* joined in this order */
    int source_count;
    int64_t total_bytes;        /* of all sources */

    BlockBackend *target;
    const char *target_name;
    bool target_is_zero;        /* what is not written reads as zeroes, or as the backing */
    bool target_has_backing;    /* leave to it what the sources leave to theirs */
    int64_t target_backing_bytes; /* its length; 0 without */
    int64_t target_cluster_bytes; /* 1 when there is no such thing */

    int64_t sparse_bytes;       /* zeroes from this length on are skipped; 0: none are */
    int64_t rate_bytes;         /* a second; 0: unlimited */
    int coroutine_count;
    bool copy_offload;          /* have the host copy what it can, without a look at it */
    bool compressed;            /* whole clusters, each by itself */
    bool in_order;              /* start writes in ascending order */
    bool write_through;         /* each write is on stable storage when it completes */
    bool salvage;               /* unreadable sectors become zeroes */
    bool show_progress;         /* all the time, not only when asked by a signal */
    bool quiet;
} ConvertPlan;

/* Copy everything, reporting progress. 0, or -errno after a message. Polls. */
int convert_copy(const ConvertPlan *plan);

/* ---- bitmaps (img-convert-bitmaps.c) ---------------------------------------------- */

/*
 * Whether the persistent bitmaps of BS can be copied, or with SKIP_BROKEN those that are
 * consistent; a message says why not.
 */
bool convert_can_copy_bitmaps(BlockDriverState *bs, bool skip_broken);
/*
 * Copy all that are consistent, and store them: TARGET cannot be written to any more. False
 * after a message.
 */
bool convert_copy_bitmaps(BlockDriverState *bs, BlockBackend *target);

/* ---- zeroes (img-convert-sparse.c) ------------------------------------------------ */

/*
 * How many of the BYTES at BUF, which go to OFFSET, are to be treated alike: *ZERO says
 * whether as zeroes. Zeroes count when there are at least SPARSE of them (or they fill the
 * rest of the buffer) and only as far as they cover whole multiples of ALIGN.
 */
int64_t convert_run_length(const uint8_t *buf, int64_t bytes, int64_t offset, int64_t sparse,
                           int64_t align, bool *zero);

#endif
