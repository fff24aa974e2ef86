/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rules of a "blkdebug" node, for the files that make and use them. */
#ifndef BLKDEBUG_H
#define BLKDEBUG_H

#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"

typedef enum BlkdebugIOType {
    BLKDEBUG_READ,
    BLKDEBUG_WRITE,
    BLKDEBUG_WRITE_ZEROES,
    BLKDEBUG_DISCARD,
    BLKDEBUG_FLUSH,
    BLKDEBUG_BLOCK_STATUS,
} BlkdebugIOType;

typedef struct BlkdebugRule BlkdebugRule;
typedef struct BlkdebugWaiter BlkdebugWaiter;

/*
 * Rules and state. Each rule is for one event. When that is reported, and the state is right,
 *
 *      inject-error    becomes active: from now on requests that fit it fail, until another
 *                      event makes others active, or, with "once", one has failed
 *      set-state       changes the state, for the events after this one
 *      a breakpoint    holds up whoever reported the event, and is used up
 */
typedef struct Blkdebug {
    QemuMutex lock;             /* a leaf; protects what follows */
    int state;                  /* from 1 on */
    QTAILQ_HEAD(, BlkdebugRule) rules;          /* in the order given */
    QTAILQ_HEAD(, BlkdebugWaiter) waiters;      /* oldest first */
} Blkdebug;

void blkdebug__init(Blkdebug *d);
/* Nobody waits. */
void blkdebug__destroy(Blkdebug *d);
/*
 * Take the arrays "inject-error" and "set-state" out of OPTIONS and add their rules. False
 * with ERRP set; some may have been added.
 */
bool blkdebug__add_rules(Blkdebug *d, QDict *options, Error **errp);
/* An event has happened. In a coroutine it may be held up. */
void coroutine_mixed_fn blkdebug__event(Blkdebug *d, BlkdebugEvent event);
/* 0, or -errno that the request shall fail with. I/O. */
int coroutine_fn blkdebug__check(Blkdebug *d, int64_t offset, int64_t bytes,
                                 BlkdebugIOType type);
/* As the calls of block-debug.h. */
int blkdebug__breakpoint(Blkdebug *d, const char *event, const char *tag);
int blkdebug__remove_breakpoint(Blkdebug *d, const char *tag);
int blkdebug__resume(Blkdebug *d, const char *tag);
bool blkdebug__is_suspended(Blkdebug *d, const char *tag);

/*
 * The rules of a file's text TEXT, as options for blkdebug__add_rules(): a new object; NULL
 * with ERRP set. NAME is the file's, for messages. blkdebug-config.c
 *
 *      # comment
 *      [inject-error]
 *      event = "read_aio"
 *      errno = "28"
 */
QDict *blkdebug__parse_config(const char *text, const char *name, Error **errp);
/* The same for the file at PATH. */
QDict *blkdebug__read_config(const char *path, Error **errp);

#endif
