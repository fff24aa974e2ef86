/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The consistency check: what its files share. */
#ifndef IMAGES_QCOW2_CHECK_H
#define IMAGES_QCOW2_CHECK_H

#include "images/qcow2.h"

#define QCOW2_COUNT_GROUP 64u

/* References found, by cluster; sparse, since an image may claim any offset. */
typedef struct Qcow2Counts {
    GHashTable *groups;         /* group number + 1 -> uint32_t[QCOW2_COUNT_GROUP] */
    uint64_t last_key;
    uint32_t *last;
} Qcow2Counts;

/* One L2 table, however many L1 entries point to it. */
typedef struct Qcow2TableRef {
    uint64_t offset;
    uint64_t count;             /* of L1 entries */
    uint64_t active;            /* so many of them in the active L1 table */
    uint64_t moved_to;          /* its new offset, 0: it stays */
    bool walked;
} Qcow2TableRef;

/* An L2 entry that has no data, but an unaligned place for it. */
typedef struct Qcow2BadPlace {
    uint64_t table, host;       /* offsets */
    uint32_t index;
} Qcow2BadPlace;

#define QCOW2_BAD_PLACE "%s offset=%" PRIx64 ": Preallocated cluster is not properly " \
                        "aligned; L2 entry corrupted.\n"

typedef struct Qcow2Check {
    Qcow2State *s;
    BdrvCheckResult *res;
    BdrvCheckMode fix;
    bool fix_flags;             /* "copied" flags are mended */
    bool owns_l1;               /* in the active L1 table as well */
    bool moved;                 /* tables have other places, as yet in memory only */
    uint64_t file_clusters;     /* the last one may be cut */
    Qcow2Counts counts;
    Qcow2Counts beyond;         /* of clusters behind the end of the file */
    bool table_counted;         /* the refcount table is among them, */
    GArray *blocks;             /* and so are these clusters with refcount blocks */
    bool rebuild;               /* refcounts cannot be mended where they are */
    bool lost;                  /* what a lost table referred to passes for leaked */
    bool rewrite_snapshots;     /* their table has been mended in memory */
    GArray *bad_places;         /* Qcow2BadPlace */
    uint64_t bitmap_entries;    /* looked at so far */
    GPtrArray *bad_bitmaps;     /* names of those to be removed */
    bool drop_bitmaps;          /* their directory cannot be read: all of them */
    GHashTable *tables;         /* offset -> Qcow2TableRef */
    GArray *table_order;        /* offsets, in the order in which they were found */
    uint64_t next_host;         /* where a file without fragments would go on */
} Qcow2Check;

void qcow2_counts_init(Qcow2Counts *c);
void qcow2_counts_free(Qcow2Counts *c);
/* Add N references of CLUSTER; false when there are too many clusters to count. */
bool qcow2_counts_add(Qcow2Counts *c, uint64_t cluster, uint64_t n);
/* Take N references away that were added before. */
void qcow2_counts_sub(Qcow2Counts *c, uint64_t cluster, uint64_t n);
uint32_t qcow2_counts_get(Qcow2Counts *c, uint64_t cluster);
/* Whether there are none in N clusters from CLUSTER on. */
bool qcow2_counts_none(Qcow2Counts *c, uint64_t cluster, uint64_t n);
/* Numbers of the groups with references, ascending. */
GArray *qcow2_counts_groups(Qcow2Counts *c);

/* Read the snapshot table if that was left to the check; mend it in memory. 0 or -errno. */
int coroutine_fn qcow2_check_snapshots(Qcow2Check *c);
/* Count all references, but for those of refcounts. 0; -errno when that is impossible. */
int coroutine_fn qcow2_check_count(Qcow2Check *c);
/* Make the refcounts anew, elsewhere, from what was counted. qcow2-rebuild.c */
int coroutine_fn qcow2_check_rebuild(Qcow2Check *c);
/* Whether the clusters of L2 table T, or the active L1 table, are used by nothing else. */
bool qcow2_check_owns_table(Qcow2Check *c, const Qcow2TableRef *t);
bool qcow2_check_owns_l1(Qcow2Check *c);
/* With repair: the unaligned places that were found are dropped, where that can be done. */
int coroutine_fn qcow2_check_drop_places(Qcow2Check *c);
/* With repair: tables of the active disk move out of clusters that something else uses. */
int coroutine_fn qcow2_check_move_tables(Qcow2Check *c);
/* Then, when all was written, the header is pointed to the L1 table if that has moved. */
int coroutine_fn qcow2_check_switch_l1(Qcow2State *s);

/* Whether the range is in the file, whose last cluster may be cut. */
bool qcow2_in_file(const Qcow2Check *c, uint64_t offset, uint64_t bytes);
/* COUNT references to BYTES at OFFSET. 0 or -ENOMEM. */
int qcow2_count_range(Qcow2Check *c, uint64_t offset, uint64_t bytes, uint64_t count);
/* What the bitmaps refer to, with a look at whether they can be loaded. 0 or -errno. */
int coroutine_fn qcow2_check_count_bitmaps(Qcow2Check *c);
/* With repair: remove the bitmaps that cannot. The refcounts are in order. 0 or -errno. */
int coroutine_fn qcow2_check_mend_bitmaps(Qcow2Check *c);

/* Report something that is wrong. */
void qcow2_check_error(Qcow2Check *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
