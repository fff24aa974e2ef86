/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a test has to know of how the lab was told to model the disk; docs/lab-world.md. */
#ifndef DISK_OPTIONS_H
#define DISK_OPTIONS_H

#include "miniblk/lab-test.h"

/* A power cut may leave the beginning of a sector. */
static inline bool lab_disk_tears(void)
{
    return lab_in_lab() && g_strcmp0(g_getenv("LAB_TORN"), "on") == 0;
}

/* What a power cut leaves whole otherwise. */
static inline int lab_disk_sector_bytes(void)
{
    const char *text = g_getenv("LAB_SECTOR"), *slash = text ? strchr(text, '/') : NULL;

    return lab_in_lab() && text ? atoi(slash ? slash + 1 : text) : 512;
}

#endif
