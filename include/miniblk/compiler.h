/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compiler markers and small arithmetic helpers.
 *
 * The coroutine and graph-lock markers document a function's class; they expand to nothing.
 * What can be checked is asserted at run time (see GLOBAL_STATE_CODE in block-common.h).
 */
#ifndef MINIBLK_COMPILER_H
#define MINIBLK_COMPILER_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include "clang-tsa.h"

/* Must be called from inside a coroutine. */
#define coroutine_fn
/* Must be called from outside a coroutine. */
#define no_coroutine_fn
/* May be called from either side, and adapts. */
#define coroutine_mixed_fn

#define co_wrapper
#define co_wrapper_mixed
#define co_wrapper_bdrv_rdlock
#define co_wrapper_mixed_bdrv_rdlock
#define no_co_wrapper
#define no_co_wrapper_bdrv_rdlock

#define GRAPH_RDLOCK
#define GRAPH_RDLOCK_PTR
#define GRAPH_WRLOCK
#define GRAPH_WRLOCK_PTR
#define GRAPH_UNLOCKED
#define GRAPH_UNLOCKED_PTR

#ifndef likely
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#define QEMU_PACKED __attribute__((packed))
#define QEMU_WARN_UNUSED_RESULT __attribute__((warn_unused_result))
#define QEMU_NORETURN __attribute__((noreturn))
#define QEMU_NOINLINE __attribute__((noinline))
#define QEMU_ALWAYS_INLINE __attribute__((always_inline)) inline
#define QEMU_SENTINEL __attribute__((sentinel))
#define QEMU_ALIGNED(bytes) __attribute__((aligned(bytes)))
#define QEMU_NONSTRING __attribute__((nonstring))
#define QEMU_FALLTHROUGH __attribute__((fallthrough))
#define QEMU_USED __attribute__((used))
#define GCC_FMT_ATTR(fmt, args) G_GNUC_PRINTF(fmt, args)

/* Does not compile when X, a constant, is true. */
#define QEMU_BUILD_BUG_MSG(x, msg) _Static_assert(!(x), msg)
#define QEMU_BUILD_BUG_ON(x)       QEMU_BUILD_BUG_MSG(x, "not expecting: " #x)
/* The same as an expression that is 0. */
#define QEMU_BUILD_BUG_ON_ZERO(x)  (sizeof(struct { int bug_ : (x) ? -1 : 1; }) -  \
                                    sizeof(struct { int bug_ : 1; }))

#define sizeof_field(type, field) sizeof(((type *)0)->field)
#define typeof_field(type, field) __typeof__(((type *)0)->field)

#define xglue(a, b) a##b
#define glue(a, b) xglue(a, b)
#define tostring(s) #s
#define stringify(s) tostring(s)

#ifndef container_of
/* The structure whose MEMBER (which may be a nested path) PTR points to. */
#define container_of(ptr, type, member) __extension__({                         \
        const __typeof__(((type *)NULL)->member) *container_of_ptr_ = (ptr);    \
        (type *)((char *)container_of_ptr_ - offsetof(type, member)); })
#endif

/* 1 when X is a macro defined as empty, 0 when it is not defined. */
#define IS_ENABLED(x)                   IS_ENABLED_PASTE_(x)
#define IS_ENABLED_PASTE_(x)            IS_ENABLED_PICK_(is_enabled_probe_##x)
#define is_enabled_probe_               ignored_, 1
#define IS_ENABLED_PICK_(probe)         IS_ENABLED_SECOND_(probe, 0, 0)
#define IS_ENABLED_SECOND_(first, second, ...) second

#undef MIN
#define MIN(a, b) __extension__({                                               \
        __auto_type min_a_ = (a); __auto_type min_b_ = (b);                     \
        min_a_ < min_b_ ? min_a_ : min_b_; })
#undef MAX
#define MAX(a, b) __extension__({                                               \
        __auto_type max_a_ = (a); __auto_type max_b_ = (b);                     \
        max_a_ > max_b_ ? max_a_ : max_b_; })

/* For constants, and constant themselves. */
#define MIN_CONST(a, b) ((a) < (b) ? (a) : (b))
#define MAX_CONST(a, b) ((a) > (b) ? (a) : (b))
/* The smaller one of those that are not 0. */
#define MIN_NON_ZERO(a, b) __extension__({                                      \
        __auto_type min_nz_a_ = (a); __auto_type min_nz_b_ = (b);               \
        min_nz_a_ == 0 || (min_nz_b_ != 0 && min_nz_b_ < min_nz_a_)             \
        ? min_nz_b_ : min_nz_a_; })

#define DIV_ROUND_UP(n, d)       (((n) + (d) - 1) / (d))
/* Align to any multiple M; the type is that of N. */
#define QEMU_ALIGN_DOWN(n, m)    ((n) / (m) * (m))
#define QEMU_ALIGN_UP(n, m)      QEMU_ALIGN_DOWN((n) + (m) - 1, (m))
#define QEMU_IS_ALIGNED(n, m)    (((n) % (m)) == 0)
#define QEMU_ALIGN_PTR_DOWN(p, m)                                               \
        ((__typeof__(p))QEMU_ALIGN_DOWN((uintptr_t)(p), (m)))
#define QEMU_ALIGN_PTR_UP(p, m)                                                 \
        ((__typeof__(p))QEMU_ALIGN_UP((uintptr_t)(p), (m)))
#define QEMU_PTR_IS_ALIGNED(p, m) QEMU_IS_ALIGNED((uintptr_t)(p), (m))
/* Align to a power of two. */
#define ROUND_UP(n, d)           (((n) + (d) - 1) & -(0 ? (n) : (d)))
#define ROUND_DOWN(n, d)         ((n) & -(0 ? (n) : (d)))

#undef ARRAY_SIZE
/* Element count; a pointer in place of an array does not compile. */
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]) +                             \
        sizeof(char[1 - 2 * !!__builtin_types_compatible_p(__typeof__(x),       \
                                                    __typeof__(&(x)[0]))]) - 1)

/* EXPR, a system call's result, once it was not interrupted. */
#define RETRY_ON_EINTR(expr) __extension__({                                    \
        __typeof__(expr) retry_ret_;                                            \
        do {                                                                    \
            retry_ret_ = (expr);                                                \
        } while (retry_ret_ == -1 && errno == EINTR);                           \
        retry_ret_; })

#ifndef O_BINARY
#define O_BINARY 0
#endif

#endif
