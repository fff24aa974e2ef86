/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Read-copy-update: readers that take no lock and never wait, and a writer who unlinks
 * something and waits until no reader can still be looking at it before he frees it.
 *
 *      reader                                  writer
 *      rcu_read_lock()                         unlink: qatomic_rcu_set(&head, next)
 *      p = qatomic_rcu_read(&head)             synchronize_rcu()
 *      ... use *p ...                          free
 *      rcu_read_unlock()
 */
#ifndef MINIBLK_RCU_H
#define MINIBLK_RCU_H

#include <stdbool.h>
#include "atomic.h"

/*
 * A thread registers before it first reads, once, and takes it back before it ends, outside
 * of any read section. The thread that runs constructors is registered.
 */
void rcu_register_thread(void);
void rcu_unregister_thread(void);

/* A read section of this thread; nests. It must not yield in a coroutine. */
void rcu_read_lock(void);
void rcu_read_unlock(void);

/* Wait until every read section that has begun before this call has ended. Not inside one. */
void synchronize_rcu(void);

static inline void rcu_guard_cleanup_(bool *held)
{
    if (*held) {
        rcu_read_unlock();
    }
}
#define RCU_GUARD_PASTE_(a, b) a##b
#define RCU_GUARD_NAME_(n) RCU_GUARD_PASTE_(rcu_guard_, n)
/* A read section until the end of the enclosing block. */
#define RCU_READ_LOCK_GUARD()                                                   \
        __attribute__((cleanup(rcu_guard_cleanup_), unused))                    \
        bool RCU_GUARD_NAME_(__COUNTER__) = (rcu_read_lock(), true)
/* A read section around the statement or block that follows. */
#define WITH_RCU_READ_LOCK_GUARD()                                              \
        for (__attribute__((cleanup(rcu_guard_cleanup_))) bool with_rcu_ =      \
                 (rcu_read_lock(), true);                                       \
             with_rcu_; rcu_read_unlock(), with_rcu_ = false)

#endif
