/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intrusive lists under their block-layer names, on top of libc's <sys/queue.h>; what libc
 * lacks (iteration that allows removal, "is it on a list") is added here.
 *
 * QLIST: doubly linked, head insertion. QTAILQ: doubly linked, both ends.
 * QSIMPLEQ: singly linked, tail insertion. QSLIST: singly linked stack.
 */
#ifndef MINIBLK_QUEUE_H
#define MINIBLK_QUEUE_H

#include <sys/queue.h>
#include "atomic.h"

#define QLIST_HEAD(name, type)          LIST_HEAD(name, type)
#define QLIST_HEAD_INITIALIZER(head)    LIST_HEAD_INITIALIZER(head)
#define QLIST_ENTRY(type)               LIST_ENTRY(type)
#define QLIST_INIT(head)                LIST_INIT(head)
#define QLIST_EMPTY(head)               ((head)->lh_first == NULL)
#define QLIST_FIRST(head)               ((head)->lh_first)
#define QLIST_NEXT(elm, field)          ((elm)->field.le_next)
#define QLIST_INSERT_HEAD(head, elm, field)     LIST_INSERT_HEAD(head, elm, field)
#define QLIST_INSERT_AFTER(at, elm, field)      LIST_INSERT_AFTER(at, elm, field)
#define QLIST_INSERT_BEFORE(at, elm, field)     LIST_INSERT_BEFORE(at, elm, field)
#define QLIST_REMOVE(elm, field) do {                                           \
        LIST_REMOVE(elm, field);                                                \
        (elm)->field.le_next = NULL; (elm)->field.le_prev = NULL; } while (0)
/* Nothing when ELM is on no list. */
#define QLIST_SAFE_REMOVE(elm, field) do {                                      \
        if (QLIST_IS_INSERTED(elm, field)) {                                    \
            QLIST_REMOVE(elm, field);                                           \
        } } while (0)
#define QLIST_IS_INSERTED(elm, field)   ((elm)->field.le_prev != NULL)
#define QLIST_FOREACH(var, head, field)                                         \
        for ((var) = QLIST_FIRST(head); (var); (var) = QLIST_NEXT(var, field))
#define QLIST_FOREACH_SAFE(var, head, field, next_var)                          \
        for ((var) = QLIST_FIRST(head);                                         \
             (var) && ((next_var) = QLIST_NEXT(var, field), 1);                 \
             (var) = (next_var))

#define QTAILQ_HEAD(name, type)         TAILQ_HEAD(name, type)
#define QTAILQ_HEAD_INITIALIZER(head)   TAILQ_HEAD_INITIALIZER(head)
#define QTAILQ_ENTRY(type)              TAILQ_ENTRY(type)
#define QTAILQ_INIT(head)               TAILQ_INIT(head)
#define QTAILQ_EMPTY(head)              ((head)->tqh_first == NULL)
#define QTAILQ_FIRST(head)              ((head)->tqh_first)
#define QTAILQ_LAST(head)               ((head)->tqh_first ?                    \
        *(((__typeof__(head))((head)->tqh_last))->tqh_last) : NULL)
#define QTAILQ_NEXT(elm, field)         ((elm)->field.tqe_next)
/*
 * tqe_prev points to the link that leads here, which begins an entry or the head: two
 * pointers, the second of which leads one link further back. NULL for the first element.
 */
#define QTAILQ_PREV(elm, field)                                                 \
        (*(((__typeof__((elm)->field.tqe_next) **)(elm)->field.tqe_prev)[1]))
#define QTAILQ_INSERT_HEAD(head, elm, field)    TAILQ_INSERT_HEAD(head, elm, field)
#define QTAILQ_INSERT_TAIL(head, elm, field)    TAILQ_INSERT_TAIL(head, elm, field)
#define QTAILQ_INSERT_AFTER(head, at, elm, field) TAILQ_INSERT_AFTER(head, at, elm, field)
#define QTAILQ_INSERT_BEFORE(at, elm, field)    TAILQ_INSERT_BEFORE(at, elm, field)
#define QTAILQ_REMOVE(head, elm, field) do {                                    \
        TAILQ_REMOVE(head, elm, field);                                         \
        (elm)->field.tqe_next = NULL; (elm)->field.tqe_prev = NULL; } while (0)
#define QTAILQ_IN_USE(elm, field)       ((elm)->field.tqe_prev != NULL)
#define QTAILQ_FOREACH_REVERSE(var, head, field)                                \
        for ((var) = QTAILQ_LAST(head); (var); (var) = QTAILQ_PREV(var, field))
#define QTAILQ_FOREACH_REVERSE_SAFE(var, head, field, prev_var)                 \
        for ((var) = QTAILQ_LAST(head);                                         \
             (var) && ((prev_var) = QTAILQ_PREV(var, field), 1);                \
             (var) = (prev_var))
#define QTAILQ_FOREACH(var, head, field)                                        \
        for ((var) = QTAILQ_FIRST(head); (var); (var) = QTAILQ_NEXT(var, field))
#define QTAILQ_FOREACH_SAFE(var, head, field, next_var)                         \
        for ((var) = QTAILQ_FIRST(head);                                        \
             (var) && ((next_var) = QTAILQ_NEXT(var, field), 1);                \
             (var) = (next_var))

#define QSIMPLEQ_HEAD(name, type)       STAILQ_HEAD(name, type)
#define QSIMPLEQ_HEAD_INITIALIZER(head) STAILQ_HEAD_INITIALIZER(head)
#define QSIMPLEQ_ENTRY(type)            STAILQ_ENTRY(type)
#define QSIMPLEQ_INIT(head)             STAILQ_INIT(head)
#define QSIMPLEQ_EMPTY(head)            ((head)->stqh_first == NULL)
#define QSIMPLEQ_FIRST(head)            ((head)->stqh_first)
#define QSIMPLEQ_NEXT(elm, field)       ((elm)->field.stqe_next)
#define QSIMPLEQ_INSERT_HEAD(head, elm, field)  STAILQ_INSERT_HEAD(head, elm, field)
#define QSIMPLEQ_INSERT_TAIL(head, elm, field)  STAILQ_INSERT_TAIL(head, elm, field)
#define QSIMPLEQ_INSERT_AFTER(head, at, elm, field) STAILQ_INSERT_AFTER(head, at, elm, field)
#define QSIMPLEQ_REMOVE_HEAD(head, field) do {                                  \
        __typeof__((head)->stqh_first) qsimpleq_elm_ = (head)->stqh_first;      \
        STAILQ_REMOVE_HEAD(head, field);                                        \
        qsimpleq_elm_->field.stqe_next = NULL; } while (0)
#define QSIMPLEQ_REMOVE(head, elm, type, field) STAILQ_REMOVE(head, elm, type, field)
#define QSIMPLEQ_CONCAT(head1, head2)   STAILQ_CONCAT(head1, head2)
#define QSIMPLEQ_FOREACH(var, head, field)                                      \
        for ((var) = QSIMPLEQ_FIRST(head); (var); (var) = QSIMPLEQ_NEXT(var, field))
#define QSIMPLEQ_FOREACH_SAFE(var, head, field, next_var)                       \
        for ((var) = QSIMPLEQ_FIRST(head);                                      \
             (var) && ((next_var) = QSIMPLEQ_NEXT(var, field), 1);              \
             (var) = (next_var))

#define QSLIST_HEAD(name, type)         SLIST_HEAD(name, type)
#define QSLIST_HEAD_INITIALIZER(head)   SLIST_HEAD_INITIALIZER(head)
#define QSLIST_ENTRY(type)              SLIST_ENTRY(type)
#define QSLIST_INIT(head)               SLIST_INIT(head)
#define QSLIST_EMPTY(head)              ((head)->slh_first == NULL)
#define QSLIST_FIRST(head)              ((head)->slh_first)
#define QSLIST_NEXT(elm, field)         ((elm)->field.sle_next)
#define QSLIST_INSERT_HEAD(head, elm, field)    SLIST_INSERT_HEAD(head, elm, field)
#define QSLIST_REMOVE_HEAD(head, field) do {                                    \
        __typeof__((head)->slh_first) qslist_elm_ = (head)->slh_first;          \
        SLIST_REMOVE_HEAD(head, field);                                         \
        qslist_elm_->field.sle_next = NULL; } while (0)
#define QSLIST_INSERT_AFTER(at, elm, field)     SLIST_INSERT_AFTER(at, elm, field)
#define QSLIST_REMOVE_AFTER(at, field)                                          \
        ((at)->field.sle_next = (at)->field.sle_next->field.sle_next)
#define QSLIST_REMOVE(head, elm, type, field)   SLIST_REMOVE(head, elm, type, field)
/* Push from any thread. */
#define QSLIST_INSERT_HEAD_ATOMIC(head, elm, field) do {                        \
        __typeof__((head)->slh_first) qslist_old_, qslist_seen_;                \
        qslist_seen_ = qatomic_read(&(head)->slh_first);                        \
        do {        /* once pushed, ELM may be gone */                          \
            (elm)->field.sle_next = qslist_old_ = qslist_seen_;                 \
            qslist_seen_ = qatomic_cmpxchg(&(head)->slh_first, qslist_old_,     \
                                           (elm));                              \
        } while (qslist_seen_ != qslist_old_);                                  \
    } while (0)
/* Take all of SRC, which others may be pushing to, over to DEST. */
#define QSLIST_MOVE_ATOMIC(dest, src)                                           \
        ((dest)->slh_first = qatomic_xchg(&(src)->slh_first, NULL))
#define QSLIST_FOREACH_SAFE(var, head, field, next_var)                         \
        for ((var) = QSLIST_FIRST(head);                                        \
             (var) && ((next_var) = QSLIST_NEXT(var, field), 1);                \
             (var) = (next_var))
#define QSLIST_FOREACH(var, head, field)                                        \
        for ((var) = QSLIST_FIRST(head); (var); (var) = QSLIST_NEXT(var, field))

#endif
