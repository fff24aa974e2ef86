/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Atomic accesses. This header is the port seam for atomics: library code and foreign tests
 * use these names only, and a build with MINIBLK_LAB sees every one of them as a scheduling
 * point. The native build expands them to compiler builtins.
 *
 * Orders: qatomic_read/qatomic_set are relaxed, *_acquire/_release as named, every
 * read-modify-write is sequentially consistent (and so a full barrier on x86).
 */
#ifndef MINIBLK_ATOMIC_H
#define MINIBLK_ATOMIC_H

#ifdef MINIBLK_LAB
#include "atomic-lab.h"
#else

#define qatomic_read(ptr)               __atomic_load_n(ptr, __ATOMIC_RELAXED)
#define qatomic_set(ptr, i)             __atomic_store_n(ptr, i, __ATOMIC_RELAXED)
#define qatomic_load_acquire(ptr)       __atomic_load_n(ptr, __ATOMIC_ACQUIRE)
#define qatomic_store_release(ptr, i)   __atomic_store_n(ptr, i, __ATOMIC_RELEASE)
/* Sequentially consistent load: ordered after the caller's earlier read-modify-writes. */
#define qatomic_read_sc(ptr)            __atomic_load_n(ptr, __ATOMIC_SEQ_CST)
/*
 * Store followed by a full barrier. Elsewhere than on x86 an exchange is not one: what is read
 * after it may be read before it is seen.
 */
#if defined(__x86_64__) || defined(__i386__)
#define smp_mb__after_rmw()             barrier()
#else
#define smp_mb__after_rmw()             smp_mb()
#endif
#define smp_mb__before_rmw()            smp_mb__after_rmw()
#define qatomic_set_mb(ptr, i)          __extension__({                         \
        (void)__atomic_exchange_n(ptr, i, __ATOMIC_SEQ_CST);                    \
        smp_mb__after_rmw(); })

#define qatomic_xchg(ptr, i)            __atomic_exchange_n(ptr, i, __ATOMIC_SEQ_CST)
/* Compare and swap; evaluates to the value found (equal to OLD when it swapped). */
#define qatomic_cmpxchg(ptr, old, new) __extension__({                          \
        __typeof__(*(ptr) + 0) cmpxchg_old_ = (old);                            \
        __atomic_compare_exchange_n(ptr, (__typeof__(*(ptr)) *)&cmpxchg_old_,   \
                                    new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        cmpxchg_old_; })

#define qatomic_fetch_inc(ptr)          __atomic_fetch_add(ptr, 1, __ATOMIC_SEQ_CST)
#define qatomic_fetch_dec(ptr)          __atomic_fetch_sub(ptr, 1, __ATOMIC_SEQ_CST)
#define qatomic_fetch_add(ptr, n)       __atomic_fetch_add(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_fetch_sub(ptr, n)       __atomic_fetch_sub(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_fetch_and(ptr, n)       __atomic_fetch_and(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_fetch_or(ptr, n)        __atomic_fetch_or(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_fetch_xor(ptr, n)       __atomic_fetch_xor(ptr, n, __ATOMIC_SEQ_CST)
/* The same, but evaluating to the new value. */
#define qatomic_inc_fetch(ptr)          __atomic_add_fetch(ptr, 1, __ATOMIC_SEQ_CST)
#define qatomic_dec_fetch(ptr)          __atomic_sub_fetch(ptr, 1, __ATOMIC_SEQ_CST)
#define qatomic_add_fetch(ptr, n)       __atomic_add_fetch(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_sub_fetch(ptr, n)       __atomic_sub_fetch(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_and_fetch(ptr, n)       __atomic_and_fetch(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_or_fetch(ptr, n)        __atomic_or_fetch(ptr, n, __ATOMIC_SEQ_CST)
#define qatomic_xor_fetch(ptr, n)       __atomic_xor_fetch(ptr, n, __ATOMIC_SEQ_CST)

#endif

/* The same, without a value. */
#define qatomic_inc(ptr)                ((void)qatomic_fetch_inc(ptr))
#define qatomic_dec(ptr)                ((void)qatomic_fetch_dec(ptr))
#define qatomic_add(ptr, n)             ((void)qatomic_fetch_add(ptr, n))
#define qatomic_sub(ptr, n)             ((void)qatomic_fetch_sub(ptr, n))
#define qatomic_and(ptr, n)             ((void)qatomic_fetch_and(ptr, n))
#define qatomic_or(ptr, n)              ((void)qatomic_fetch_or(ptr, n))
#define qatomic_xor(ptr, n)             ((void)qatomic_fetch_xor(ptr, n))

/* A pointer to what others only read: publish it, and follow it (see rcu.h). */
#define qatomic_rcu_set(ptr, i)         qatomic_store_release(ptr, i)
#define qatomic_rcu_read(ptr)           qatomic_load_acquire(ptr)

#ifndef MINIBLK_LAB
#define smp_mb()                        __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif
#define smp_mb_acquire()                __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define smp_mb_release()                __atomic_thread_fence(__ATOMIC_RELEASE)
/* Reads before reads; writes before writes. */
#define smp_rmb()                       smp_mb_acquire()
#define smp_wmb()                       smp_mb_release()
#define barrier()                       __asm__ volatile("" ::: "memory")

#endif
