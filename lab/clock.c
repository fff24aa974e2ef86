/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtual time. It stands still but for two things: reading a clock takes 1 us, so that loops
 * which wait for a time end; and it jumps to the next deadline when nothing else can happen
 * (or when the strategy says so, with limits.clock).
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"

enum { READ_NS = 1000 };
const int64_t lab__wall_epoch_ns = 1767225600000000000;    /* the first day of 2026 */

void lab__clock_advance(void)
{
    lab__engine.now_ns += READ_NS;
}

int64_t lab_clock_ns(bool wall)
{
    lab_point(LAB_OP_CLOCK, 0, false);
    lab__clock_advance();
    return lab__engine.now_ns + (wall ? lab__wall_epoch_ns : 0);
}

static bool never(const void *opaque)
{
    return false;
}

void lab_sleep_ns(int64_t ns)
{
    lab_syscall_point(LAB_OP_SYSCALL, 0, false);
    LabBlock block = {
        .op = { .kind = LAB_OP_CLOCK, .where = "sleep" },
        .ready = never,
        .deadline_ns = lab__engine.now_ns + MAX(ns, 0),
    };
    lab_block(&block);
}
