/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of a reopen share. */
#ifndef REOPEN_INTERNAL_H
#define REOPEN_INTERNAL_H

#include "block/block-internal.h"

/* A change of bs->file or bs->backing. */
typedef struct ReopenChild {
    bool wanted;
    BlockDriverState *bs;       /* to be; NULL: none; with a reference */
    BlockDriverState *old_bs;   /* with a reference */
    BdrvChild *edge;            /* for BS, unless there is an edge that can be re-pointed */
} ReopenChild;

typedef struct ReopenEntry {
    BDRVReopenState state;
    QDict *given;               /* what is asked for */
    bool keep_old;              /* on top of what is in force */
    struct ReopenEntry *parent;       /* whose flags this one follows; NULL: nobody's */
    BdrvChildRole role;         /* towards PARENT */
    BdrvCommonOptions common;   /* to be */
    QDict *new_options;         /* of the driver, to be */
    ReopenChild file, backing;
    bool driver_prepared;
} ReopenEntry;

struct BlockReopenQueue {
    GPtrArray *entries;         /* of ReopenEntry; parents first */
};

/*
 * Compute what ENTRY shall be, check it, and ask the driver. Entries of parents come first.
 * Nothing has changed yet. Polls. 0 or -errno.
 */
int bdrv__reopen_prepare(ReopenEntry *e, BlockReopenQueue *queue, Error **errp);

#endif
