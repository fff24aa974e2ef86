/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who wants to know when the world is stopped and set going again. Main thread, big lock. */
#ifndef MINIBLK_RUNSTATE_H
#define MINIBLK_RUNSTATE_H

#include <stdbool.h>

typedef enum RunState {
    RUN_STATE_PAUSED = 4,
    RUN_STATE_RUNNING = 9,
} RunState;

/*
 * Called with RUNNING false (state PAUSED) before any IOThread is stopped, and with RUNNING
 * true (state RUNNING) after all have been set going again. Either time all loops run, so it
 * may poll, submit requests, create and destroy IOThreads, and add and remove listeners.
 */
typedef void VMChangeStateHandler(void *opaque, bool running, RunState state);
typedef struct VMChangeStateEntry VMChangeStateEntry;

/*
 * When the world is set going, listeners are called from low to high PRIORITY and among
 * equals in the order of adding; when it is stopped, in the opposite order. One that is added
 * by a listener is first called the next time; one that is removed is not called any more.
 */
VMChangeStateEntry *qemu_add_vm_change_state_handler_prio(VMChangeStateHandler *cb,
                                                          void *opaque, int priority);
/* The same with priority 0. */
VMChangeStateEntry *qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque);
void qemu_del_vm_change_state_handler(VMChangeStateEntry *e);

/* False from before the listeners are told of a stop until before they are told of the end. */
bool runstate_is_running(void);
/* Tell the listeners; for iothread_pause_all() and iothread_resume_all(). */
void vm_state_notify(bool running, RunState state);

#endif
