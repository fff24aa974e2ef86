/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listeners to the stopping of the world. */
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "miniblk/runstate.h"

struct VMChangeStateEntry {
    VMChangeStateHandler *cb;   /* NULL: removed while listeners are being told */
    void *opaque;
    int priority;
    bool fresh;                 /* added while listeners are being told */
};

/* By rising priority. While NOTIFYING nothing is taken off, so whoever walks it can go on. */
static GList *listeners;
static bool notifying;
static bool paused;

/* Among equals the newcomer goes last. */
static int is_not_before(const void *newcomer, const void *other)
{
    return ((const VMChangeStateEntry *)newcomer)->priority >=
           ((const VMChangeStateEntry *)other)->priority;
}

VMChangeStateEntry *qemu_add_vm_change_state_handler_prio(VMChangeStateHandler *cb,
                                                          void *opaque, int priority)
{
    VMChangeStateEntry *e = g_new(VMChangeStateEntry, 1);

    ASSERT_MAIN_THREAD();
    *e = (VMChangeStateEntry) { .cb = cb, .opaque = opaque, .priority = priority,
                                .fresh = notifying };
    listeners = g_list_insert_sorted(listeners, e, is_not_before);
    return e;
}

VMChangeStateEntry *qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque)
{
    return qemu_add_vm_change_state_handler_prio(cb, opaque, 0);
}

static void listener_free(VMChangeStateEntry *e)
{
    listeners = g_list_remove(listeners, e);
    g_free(e);
}

void qemu_del_vm_change_state_handler(VMChangeStateEntry *e)
{
    ASSERT_MAIN_THREAD();
    if (notifying) {
        e->cb = NULL;
    } else {
        listener_free(e);
    }
}

bool runstate_is_running(void)
{
    return !paused;
}

void vm_state_notify(bool running, RunState state)
{
    GList *l, *following;

    ASSERT_MAIN_THREAD();
    if (unlikely(notifying)) {
        fprintf(stderr, "miniblk: vm_state_notify: the world is stopped or resumed by a "
                "listener to its stopping\n");
        abort();
    }
    paused = !running;
    notifying = true;
    for (l = running ? listeners : g_list_last(listeners); l;
         l = running ? l->next : l->prev) {
        VMChangeStateEntry *e = l->data;
        if (e->cb && !e->fresh) {
            e->cb(e->opaque, running, state);
        }
    }
    notifying = false;
    for (l = listeners; l; l = following) {
        VMChangeStateEntry *e = l->data;
        following = l->next;
        e->fresh = false;
        if (!e->cb) {
            listener_free(e);
        }
    }
}
