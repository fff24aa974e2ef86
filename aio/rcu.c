/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RCU for few writers and registered threads.
 *
 * A reader publishes the number of the epoch in which it began, and 0 when it has left. The
 * writer opens a new epoch and waits until no reader shows an earlier one.
 *
 *      reader                                  writer
 *      epoch = that of the world (RMW)         unlink
 *      read                                    WRITERS++ (RMW), open an epoch
 *      ...                                     look at the readers' epochs
 *      epoch = 0 (RMW)                         an earlier one: sleep, look again
 *      read WRITERS; if any, ring
 *
 * All are sequentially consistent. A reader whom the writer's look misses published its epoch
 * after that, and so reads what the writer has left behind, without what he unlinked. A
 * reader that leaves and misses the writer left before WRITERS++, and so the look sees 0.
 * The bell is rung under the lock that the writer holds from his look until he sleeps.
 */
#include "miniblk/osdep.h"
#include "miniblk/lockable.h"
#include "miniblk/queue.h"
#include "miniblk/rcu.h"
#include "aio/port.h"

typedef struct RcuReader {
    unsigned long epoch;        /* atomic; written by its thread; 0: outside */
    unsigned depth;             /* of nesting; its thread only */
    bool registered;
    QLIST_ENTRY(RcuReader) next;
} RcuReader;

static QemuMutex lock;          /* protects READERS; all zero bytes: a valid mutex */
static QemuCond reader_left;
static QLIST_HEAD(, RcuReader) readers = QLIST_HEAD_INITIALIZER(readers);
static unsigned long world_epoch = 1;   /* atomic; written with LOCK held */
static unsigned writers;        /* atomic; in synchronize_rcu() */

static PORT_THREAD_LOCAL RcuReader reader_storage;

static QEMU_NOINLINE RcuReader *this_reader(const char *call)
{
    if (unlikely(!reader_storage.registered)) {
        fprintf(stderr, "miniblk: %s: thread %d is not registered; see "
                "rcu_register_thread()\n", call, qemu_get_thread_id());
        abort();
    }
    return &reader_storage;
}

QEMU_NOINLINE void rcu_register_thread(void)
{
    g_assert(!reader_storage.registered);
    reader_storage.registered = true;
    QEMU_LOCK_GUARD(&lock);
    QLIST_INSERT_HEAD(&readers, &reader_storage, next);
}

void rcu_unregister_thread(void)
{
    RcuReader *me = this_reader("rcu_unregister_thread");

    g_assert(!me->depth);
    me->registered = false;
    QEMU_LOCK_GUARD(&lock);
    QLIST_REMOVE(me, next);
}

void rcu_read_lock(void)
{
    RcuReader *me = this_reader("rcu_read_lock");

    if (me->depth++ == 0) {
        qatomic_set_mb(&me->epoch, qatomic_read(&world_epoch));
    }
}

void rcu_read_unlock(void)
{
    RcuReader *me = this_reader("rcu_read_unlock");

    g_assert(me->depth);
    if (--me->depth == 0) {
        qatomic_set_mb(&me->epoch, 0);
        if (unlikely(qatomic_read_sc(&writers))) {
            QEMU_LOCK_GUARD(&lock);
            qemu_cond_broadcast(&reader_left);
        }
    }
}

static bool any_reader_before(unsigned long epoch)
{
    RcuReader *r;
    QLIST_FOREACH(r, &readers, next) {
        unsigned long began = qatomic_read_sc(&r->epoch);
        if (began && began < epoch) {
            return true;
        }
    }
    return false;
}

void synchronize_rcu(void)
{
    g_assert(!reader_storage.depth);
    qatomic_inc(&writers);
    WITH_QEMU_LOCK_GUARD(&lock) {
        unsigned long epoch = world_epoch + 1;
        qatomic_set_mb(&world_epoch, epoch);
        while (any_reader_before(epoch)) {
            qemu_cond_wait(&reader_left, &lock);
        }
    }
    qatomic_dec(&writers);
}

static void __attribute__((constructor)) rcu_start(void)
{
    qemu_cond_init(&reader_left);
    rcu_register_thread();
}
