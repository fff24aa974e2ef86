/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several users of the block layer, in any number of threads, under one set of limits.
 * Thread classes as in block.h.
 *
 * A group exists while it has members, or as an object that the user has made
 * (throttle_group_new()). Its members take turns: of those with requests waiting, each gets
 * one through before any gets a second one.
 */
#ifndef MINIBLK_THROTTLE_GROUPS_H
#define MINIBLK_THROTTLE_GROUPS_H

#include "coroutine.h"
#include "throttle.h"

typedef struct ThrottleGroup ThrottleGroup;
typedef struct ThrottleWaiter ThrottleWaiter;

/*
 * One user of a group, embedded in whatever makes the requests. All zero bytes before it
 * is registered. Written by block/throttle-groups.c.
 */
typedef struct ThrottleGroupMember {
    ThrottleState *throttle_state;      /* the group's; NULL: in no group. Main thread writes
                                           it, while no request is in flight */
    AioContext *aio_context;            /* home of the timers and of who waits; the same */
    unsigned io_limits_disabled;        /* drained sections; under the group's lock */
    ThrottleTimers throttle_timers;     /* armed and disarmed under the group's lock */
    /* requests that wait, oldest first; under the group's lock */
    QSIMPLEQ_HEAD(, ThrottleWaiter) waiting[THROTTLE_MAX];
    QTAILQ_ENTRY(ThrottleGroupMember) list;     /* of the group; under its lock */
} ThrottleGroupMember;

/* ---- members ---------------------------------------------------------------------- */

/*
 * Join the group GROUPNAME, which is made (without limits) when there is none; TGM's timers
 * live in CTX. TGM is in no group and has no request in flight. GS.
 */
void throttle_group_register_tgm(ThrottleGroupMember *tgm, const char *groupname,
                                 AioContext *ctx);
/*
 * Leave the group; nothing when TGM is in none. No request of TGM is in flight (drain
 * first). A group that is no object goes with its last member. GS.
 */
void throttle_group_unregister_tgm(ThrottleGroupMember *tgm);
/* The name of TGM's group, valid while TGM is in it. Any thread. */
const char *throttle_group_get_name(ThrottleGroupMember *tgm);
/* Change the group's limits; who waits is looked at anew. CFG is valid. Any thread. */
void throttle_group_config(ThrottleGroupMember *tgm, ThrottleConfig *cfg);
void throttle_group_get_config(ThrottleGroupMember *tgm, ThrottleConfig *cfg);

/*
 * Wait until a request of BYTES may be made, and charge it to the group. I/O; the caller
 * holds a token of what TGM is embedded in, from before the call until after the request.
 */
void coroutine_fn throttle_group_co_io_limits_intercept(ThrottleGroupMember *tgm,
                                                        int64_t bytes,
                                                        ThrottleDirection direction);
/*
 * A drained section of TGM's owner begins / ends: until then every request passes at once,
 * those that wait first (they are still charged). Nests; TGM need not be in a group. GS;
 * does not poll and does not enter a coroutine.
 */
void throttle_group_disable_limits(ThrottleGroupMember *tgm);
void throttle_group_enable_limits(ThrottleGroupMember *tgm);
/*
 * TGM's owner moves to another context: detach, attach. No request is in flight. Nothing when
 * TGM is in no group. GS; neither polls.
 */
void throttle_group_attach_aio_context(ThrottleGroupMember *tgm, AioContext *new_context);
void throttle_group_detach_aio_context(ThrottleGroupMember *tgm);

/* ---- groups as objects (GS) ------------------------------------------------------- */

/* A group that stays until deleted. NULL with ERRP set: the name is taken. */
ThrottleGroup *throttle_group_new(const char *name, ThrottleConfig *cfg, Error **errp);
/* False with ERRP set while it has members. */
bool throttle_group_delete(ThrottleGroup *tg, Error **errp);
/* Whether a member can join GROUPNAME without making it. */
bool throttle_group_exists(const char *groupname);
/* The group object of that name; NULL: there is none. */
ThrottleGroup *throttle_group_by_name(const char *name);
/* Iterate over the group objects (NULL: first). */
ThrottleGroup *throttle_group_next(ThrottleGroup *tg);
const char *throttle_group_name(const ThrottleGroup *tg);
void throttle_group_set_limits(ThrottleGroup *tg, ThrottleConfig *cfg);
void throttle_group_get_limits(ThrottleGroup *tg, ThrottleConfig *cfg);

#endif
