/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The processors that threads are bound to. It makes no difference to a schedule; but who asks
 * is told what was said, and a thread inherits it as on Linux.
 */
#include "miniblk/osdep.h"
#include <sched.h>
#include "lab/engine.h"
#include "lab/port-lab.h"
#include "lab/real.h"

static cpu_set_t bound[LAB_THREADS_MAX];        /* by slot; empty: to none */
static bool any_bound;

int port_process_affinity(cpu_set_t *cpus)
{
    return REAL(sched_getaffinity)(0, sizeof(*cpus), cpus) < 0 ? -errno : 0;
}

static int set_of(int slot, const cpu_set_t *cpus)
{
    cpu_set_t usable;
    int ret = port_process_affinity(&usable);

    if (ret < 0) {
        return ret;
    }
    CPU_AND(&usable, &usable, cpus);
    if (slot < 0 || !CPU_COUNT(&usable)) {
        return slot < 0 ? -ESRCH : -EINVAL;
    }
    bound[slot] = usable;
    any_bound = true;
    return 0;
}

/* -1: there is no thread NUMBER. */
static int live_slot(long number)
{
    return number >= 0 && number < LAB_THREADS_MAX && (lab__engine.live & lab__bit(number))
           ? number : -1;
}

static int slot_of_id(pid_t id)
{
    return id ? live_slot((long)id - LAB_PID) : lab__engine.self;
}

int port_thread_set_affinity(pthread_t thread, const cpu_set_t *cpus)
{
    return set_of(live_slot((long)thread - 1), cpus);
}

void lab__affinity_inherit(int slot)
{
    if (any_bound) {
        bound[slot] = bound[lab__engine.self];
    }
}

/* ---- libc's ---------------------------------------------------------------------------- */

int sched_getaffinity(pid_t id, size_t size, cpu_set_t *cpus)
{
    if (!lab_inside()) {
        return REAL(sched_getaffinity)(id, size, cpus);
    }
    int slot = slot_of_id(id);
    if (slot < 0 || size < sizeof(*cpus)) {
        errno = slot < 0 ? ESRCH : EINVAL;
        return -1;
    }
    memset(cpus, 0, size);
    if (CPU_COUNT(&bound[slot])) {
        *cpus = bound[slot];
        return 0;
    }
    return REAL(sched_getaffinity)(0, size, cpus);
}

int sched_setaffinity(pid_t id, size_t size, const cpu_set_t *cpus)
{
    if (!lab_inside()) {
        return REAL(sched_setaffinity)(id, size, cpus);
    }
    int ret = size < sizeof(*cpus) ? -EINVAL : set_of(slot_of_id(id), cpus);
    errno = ret < 0 ? -ret : errno;
    return ret < 0 ? -1 : 0;
}
