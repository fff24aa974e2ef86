/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See trouble.h; and lab-test.h for what a test may ask for. */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/inode.h"
#include "lab/trouble.h"
#include "lab/world.h"
#include "miniblk/lab-test.h"

static bool power_off, faults_wanted;

size_t lab_sector_logical(void)
{
    return lab_limits()->logical_sector ?: LAB_SECTOR_MIN;
}

size_t lab_sector_physical(void)
{
    return MAX(lab_limits()->physical_sector, lab_sector_logical());
}

void lab_faults(bool on)
{
    faults_wanted = on;
}

LabTrouble lab_trouble(unsigned may)
{
    if (power_off) {
        return LAB_TROUBLE_ERROR;
    }
    if (!may || !faults_wanted || !lab_limits()->faults) {
        return LAB_TROUBLE_NONE;
    }
    unsigned which = lab_choose(LAB_CHOICE_FAULT, 1 + __builtin_popcount(may));
    if (which == 0) {
        return LAB_TROUBLE_NONE;
    }
    while (--which > 0) {
        may &= may - 1;         /* it is not the lowest */
    }
    return may & -may;
}

/* ---- power ----------------------------------------------------------------------------- */

static void count_pieces(LabInode *inode, void *cut)
{
    if (S_ISREG(inode->mode)) {
        ((LabCut *)cut)->pieces += lab_disk_pieces(&inode->disk, cut);
    }
}

static void cut_disk(LabInode *inode, void *cut)
{
    if (S_ISREG(inode->mode)) {
        lab_disk_cut(&inode->disk, cut);
    }
}

void lab_power_cut(void)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)&power_off, true);
    LabCut cut = { .pattern = lab_choose(LAB_CHOICE_VALUE, LAB_CUT_PATTERNS),
                   .sector_bytes = lab_sector_physical(), .torn = lab_limits()->torn };
    power_off = true;
    lab_inode_foreach(count_pieces, &cut);
    lab_inode_foreach(cut_disk, &cut);
}

void lab_power_on(void)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)&power_off, true);
    power_off = false;
}
