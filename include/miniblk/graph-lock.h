/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lock on the shape of the graph: which edges there are and where they point.
 *
 * Only the main thread changes the graph, and so it reads it without a lock. Others read what
 * lies below a node while they hold a token of that node (bdrv_inc_in_flight(); every request
 * does): edges change while the nodes above them are drained. Who looks at more than that, at
 * parents, or at nodes that it holds no token of, takes the read lock.
 *
 * Readers are coroutines. They may yield inside, and must not wait there for anything that
 * needs a change of the graph: no pause point of a job, no drained section. A coroutine may
 * take it again while it has it.
 */
#ifndef MINIBLK_GRAPH_LOCK_H
#define MINIBLK_GRAPH_LOCK_H

#include "block-common.h"

/*
 * Read. Costs a reader a few instructions, none of them locked, unless somebody writes: then
 * it yields until that is over. Coroutines of any thread; the unlock may be in another thread.
 */
void coroutine_fn bdrv_graph_co_rdlock(void);
void coroutine_fn bdrv_graph_co_rdunlock(void);

/* Read, in the main thread and outside of coroutines: checks that, nothing else is needed. */
void bdrv_graph_rdlock_main_loop(void);
void bdrv_graph_rdunlock_main_loop(void);

/*
 * Write. Main thread, not in a coroutine; polls until all readers are gone, so that the graph
 * may have changed when it returns; look up what is to be changed afterwards. Nothing may
 * poll until the unlock. Nests.
 */
void no_coroutine_fn bdrv_graph_wrlock(void);
void no_coroutine_fn bdrv_graph_wrunlock(void);

/*
 * Abort unless the caller may read (a coroutine that has the lock, or the main thread) / write;
 * or if it is a coroutine that has the lock and should not, because it is about to wait.
 */
void assert_bdrv_graph_readable(void);
void assert_bdrv_graph_writable(void);
void assert_bdrv_graph_unlocked(void);

typedef struct GraphLockable { char unused; } GraphLockable;
static inline void bdrv_graph_co_guard_cleanup_(GraphLockable *guard)
{
    bdrv_graph_co_rdunlock();
}
static inline void bdrv_graph_main_guard_cleanup_(GraphLockable *guard)
{
    bdrv_graph_rdunlock_main_loop();
}
/* Hold the read lock until the end of the enclosing block. */
#define GRAPH_RDLOCK_GUARD()                                                    \
        __attribute__((cleanup(bdrv_graph_co_guard_cleanup_), unused))          \
        GraphLockable QEMU_GUARD_NAME_(__COUNTER__) = (bdrv_graph_co_rdlock(),  \
                                                       (GraphLockable) { 0 })
#define GRAPH_RDLOCK_GUARD_MAINLOOP()                                           \
        __attribute__((cleanup(bdrv_graph_main_guard_cleanup_), unused))        \
        GraphLockable QEMU_GUARD_NAME_(__COUNTER__) = (bdrv_graph_rdlock_main_loop(), \
                                                       (GraphLockable) { 0 })
#define WITH_GRAPH_RDLOCK_GUARD()                                               \
        for (bool graph_once_ = true; graph_once_; )                            \
            for (GRAPH_RDLOCK_GUARD(); graph_once_; graph_once_ = false)

#endif
