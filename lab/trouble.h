/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What goes wrong with the disk: asked by those who serve requests, chosen by the strategy. */
#ifndef LAB_TROUBLE_H
#define LAB_TROUBLE_H

#include <stddef.h>

typedef enum LabTrouble {
    LAB_TROUBLE_NONE = 0,
    LAB_TROUBLE_ERROR = 1 << 0,         /* EIO, nothing was done; always while power is off */
    LAB_TROUBLE_TORN = 1 << 1,          /* EIO, the first half was done */
    LAB_TROUBLE_SHORT = 1 << 2,         /* the first half was done, and that is the answer */
    LAB_TROUBLE_FULL = 1 << 3,          /* ENOSPC */
    LAB_TROUBLE_AGAIN = 1 << 4,         /* EAGAIN: not now */
    LAB_TROUBLE_LOST = 1 << 5,          /* EIO of a flush; what it was to write never lands */
} LabTrouble;

/* One of MAY (a set), or none, for a request that is about to be done. Not a point. */
LabTrouble lab_trouble(unsigned may);

/* Bytes: what O_DIRECT is aligned to, and what a power cut leaves whole. Powers of two. */
size_t lab_sector_logical(void);
size_t lab_sector_physical(void);

#endif
