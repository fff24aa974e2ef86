/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Debug events on their way to the node that listens, and breakpoints on theirs. */
#include "block/block-internal.h"

#define EVENT_NAME(constant, name) [BLKDBG_##constant] = name,
const char *const blkdebug_event_names[BLKDBG__MAX + 1] = { BLKDBG_EVENTS(EVENT_NAME) };

typedef struct ReportEvent {
    BlockDriverState *bs;
    BlkdebugEvent event;
} ReportEvent;

static void coroutine_fn report_entry(void *opaque)
{
    ReportEvent *r = opaque;
    r->bs->drv->bdrv_co_debug_event(r->bs, r->event);
}

void coroutine_mixed_fn bdrv__report_event(BlockDriverState *bs, BlkdebugEvent event)
{
    ReportEvent r = { bs, event };
    bdrv__run_co_on(bs, report_entry, &r);
}

/* ---- breakpoints ------------------------------------------------------------------ */

static BlockDriverState *data_below(BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        if (c->role & BDRV_CHILD_PRIMARY) {
            return c->bs;
        }
    }
    return NULL;
}

/* The node that knows breakpoints. It has all four callbacks. */
static BlockDriverState *find_debugger(BlockDriverState *bs)
{
    while (bs && !(bs->drv && bs->drv->bdrv_debug_breakpoint)) {
        bs = data_below(bs);
    }
    return bs;
}

int bdrv_debug_breakpoint(BlockDriverState *bs, const char *event, const char *tag)
{
    GLOBAL_STATE_CODE();
    bs = find_debugger(bs);
    return bs ? bs->drv->bdrv_debug_breakpoint(bs, event, tag) : -ENOTSUP;
}

int bdrv_debug_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    GLOBAL_STATE_CODE();
    bs = find_debugger(bs);
    return bs ? bs->drv->bdrv_debug_remove_breakpoint(bs, tag) : -ENOTSUP;
}

int bdrv_debug_resume(BlockDriverState *bs, const char *tag)
{
    GLOBAL_STATE_CODE();
    bs = find_debugger(bs);
    return bs ? bs->drv->bdrv_debug_resume(bs, tag) : -ENOTSUP;
}

bool bdrv_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    bs = find_debugger(bs);
    return bs && bs->drv->bdrv_debug_is_suspended(bs, tag);
}
