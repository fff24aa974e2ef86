/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The consistency check: what its two files share. */
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
    bool active;                /* the active L1 table is among them */
    bool walked;
} Qcow2TableRef;

typedef struct Qcow2Check {
    Qcow2State *s;
    BdrvCheckResult *res;
    BdrvCheckMode fix;
    bool fix_flags;             /* "copied" flags are mended */
    uint64_t file_clusters;     /* the last one may be cut */
    Qcow2Counts counts;
    GHashTable *tables;         /* offset -> Qcow2TableRef */
    GArray *table_order;        /* offsets, in the order in which they were found */
    uint64_t next_host;         /* where a file without fragments would go on */
} Qcow2Check;

void qcow2_counts_init(Qcow2Counts *c);
void qcow2_counts_free(Qcow2Counts *c);
/* Add N references of CLUSTER; false when there are too many clusters to count. */
bool qcow2_counts_add(Qcow2Counts *c, uint64_t cluster, uint64_t n);
uint32_t qcow2_counts_get(Qcow2Counts *c, uint64_t cluster);
/* Whether there are none in N clusters from CLUSTER on. */
bool qcow2_counts_none(Qcow2Counts *c, uint64_t cluster, uint64_t n);
/* Numbers of the groups with references, ascending. */
GArray *qcow2_counts_groups(Qcow2Counts *c);

/* Count all references of the image. 0; -errno when that is impossible. */
int coroutine_fn qcow2_check_count(Qcow2Check *c);
/* Compare with the refcounts, and repair. */
int coroutine_fn qcow2_check_compare(Qcow2Check *c);

/* Report something that is wrong. */
void qcow2_check_error(Qcow2Check *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
