/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Atomic accesses in the drain lab, by the names of atomic.h, which includes this file when
 * MINIBLK_LAB is defined. Each is a scheduling point followed by the plain operation: memory
 * always shows what the running thread sees (lab/tso.c), so its value is the right one.
 *
 * What is modelled is x86: relaxed and release stores wait in the thread's store buffer;
 * read-modify-writes and full barriers empty it; loads and the weaker barriers do not.
 */
#ifndef MINIBLK_ATOMIC_LAB_H
#define MINIBLK_ATOMIC_LAB_H

#include <stddef.h>

/* Points before an operation on *PTR, which WHERE calls it; they return PTR. */
void *lab_load(const volatile void *ptr, const char *where);
void *lab_rmw(const volatile void *ptr, const char *where);
/* The same before a store of SIZE bytes; and after that store, if it is one with release. */
void *lab_store(const volatile void *ptr, size_t size, const char *where);
void lab_stored_release(const volatile void *ptr);
void lab_fence(const char *where);

/* Arguments are evaluated once, and before the point; names differ when calls are nested. */
#define LAB_PASTE_2_(a, b) a##b
#define LAB_PASTE_(a, b) LAB_PASTE_2_(a, b)
#define LAB_AT_(hook, ptr, where)                                               \
        ((__typeof__(&*(ptr)))hook((ptr), where))
#define LAB_STORE_(ptr, i, where, v) __extension__({                            \
        __typeof__(*(ptr)) v = (i);                                             \
        __typeof__(&*(ptr)) lab_ptr_ = lab_store((ptr), sizeof(v), where);      \
        __atomic_store_n(lab_ptr_, v, __ATOMIC_RELAXED);                        \
        lab_ptr_; })
#define LAB_RMW_(op, ptr, i, where, v) __extension__({                          \
        __typeof__((i) + 0) v = (i);                                                 \
        op(LAB_AT_(lab_rmw, ptr, where), v, __ATOMIC_SEQ_CST); })
#define LAB_XCHG_(ptr, i, where, v) __extension__({                             \
        __typeof__(*(ptr)) v = (i);                                             \
        __atomic_exchange_n(LAB_AT_(lab_rmw, ptr, where), v, __ATOMIC_SEQ_CST); })
#define LAB_CMPXCHG_(ptr, old, new, where, o, v) __extension__({                \
        __typeof__(*(ptr) + 0) o = (old);                                       \
        __typeof__(*(ptr)) v = (new);                                           \
        __atomic_compare_exchange_n(LAB_AT_(lab_rmw, ptr, where),               \
                                    (__typeof__(*(ptr)) *)&o, v, 0,             \
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);        \
        o; })
#define LAB_NAME_ LAB_PASTE_(lab_value_, __COUNTER__)

#define qatomic_read(ptr)                                                       \
        __atomic_load_n(LAB_AT_(lab_load, ptr, #ptr), __ATOMIC_RELAXED)
#define qatomic_load_acquire(ptr)                                               \
        __atomic_load_n(LAB_AT_(lab_load, ptr, #ptr), __ATOMIC_ACQUIRE)
/* Ordered after earlier read-modify-writes, which leave no store behind; so a plain load. */
#define qatomic_read_sc(ptr)                                                    \
        __atomic_load_n(LAB_AT_(lab_load, ptr, #ptr), __ATOMIC_SEQ_CST)
#define qatomic_set(ptr, i)             ((void)LAB_STORE_(ptr, i, #ptr, LAB_NAME_))
#define qatomic_store_release(ptr, i)                                           \
        lab_stored_release(LAB_STORE_(ptr, i, #ptr, LAB_NAME_))
#define smp_mb__after_rmw()             barrier()
#define smp_mb__before_rmw()            barrier()
#define qatomic_set_mb(ptr, i)          ((void)LAB_XCHG_(ptr, i, #ptr, LAB_NAME_))

#define qatomic_xchg(ptr, i)            LAB_XCHG_(ptr, i, #ptr, LAB_NAME_)
/* Compare and swap; evaluates to the value found (equal to OLD when it swapped). */
#define qatomic_cmpxchg(ptr, old, new)                                          \
        LAB_CMPXCHG_(ptr, old, new, #ptr, LAB_NAME_, LAB_NAME_)

#define qatomic_fetch_inc(ptr)  LAB_RMW_(__atomic_fetch_add, ptr, 1, #ptr, LAB_NAME_)
#define qatomic_fetch_dec(ptr)  LAB_RMW_(__atomic_fetch_sub, ptr, 1, #ptr, LAB_NAME_)
#define qatomic_fetch_add(ptr, n) LAB_RMW_(__atomic_fetch_add, ptr, n, #ptr, LAB_NAME_)
#define qatomic_fetch_sub(ptr, n) LAB_RMW_(__atomic_fetch_sub, ptr, n, #ptr, LAB_NAME_)
#define qatomic_fetch_and(ptr, n) LAB_RMW_(__atomic_fetch_and, ptr, n, #ptr, LAB_NAME_)
#define qatomic_fetch_or(ptr, n)  LAB_RMW_(__atomic_fetch_or, ptr, n, #ptr, LAB_NAME_)
#define qatomic_fetch_xor(ptr, n) LAB_RMW_(__atomic_fetch_xor, ptr, n, #ptr, LAB_NAME_)
/* The same, but evaluating to the new value. */
#define qatomic_inc_fetch(ptr)  LAB_RMW_(__atomic_add_fetch, ptr, 1, #ptr, LAB_NAME_)
#define qatomic_dec_fetch(ptr)  LAB_RMW_(__atomic_sub_fetch, ptr, 1, #ptr, LAB_NAME_)
#define qatomic_add_fetch(ptr, n) LAB_RMW_(__atomic_add_fetch, ptr, n, #ptr, LAB_NAME_)
#define qatomic_sub_fetch(ptr, n) LAB_RMW_(__atomic_sub_fetch, ptr, n, #ptr, LAB_NAME_)
#define qatomic_and_fetch(ptr, n) LAB_RMW_(__atomic_and_fetch, ptr, n, #ptr, LAB_NAME_)
#define qatomic_or_fetch(ptr, n)  LAB_RMW_(__atomic_or_fetch, ptr, n, #ptr, LAB_NAME_)
#define qatomic_xor_fetch(ptr, n) LAB_RMW_(__atomic_xor_fetch, ptr, n, #ptr, LAB_NAME_)

#define smp_mb()                        lab_fence("smp_mb()")

#endif
