/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a condition while polling, aio/wait.c: one waiter, who waits several times, and
 * several kickers, each of whom makes one of the conditions false.
 *
 *      waiter                                  kicker
 *      register (an RMW)                       make the condition false (an RMW)
 *      look at the condition                   read the count of waiters
 *      poll                                    if not 0: schedule the waiter's kick_bh
 *
 * With -DTSO each thread's plain stores go through a store buffer, as they do on x86: they
 * reach memory some time later, in order. A read-modify-write waits for the buffer to empty.
 * That is what makes it an error to register, or to make the condition false, by a plain
 * store: the same planted bugs are harmless without -DTSO, when memory is sequentially
 * consistent.
 *
 * Checked: when nobody can take another step, the waiter has come to its end (the watchdog's
 * assertion); it always does (the LTL property).
 *
 * Planted bugs: -DBUG_...
 *      PLAIN_REGISTER  the waiter registers by a plain store     (only with -DTSO)
 *      PLAIN_CHANGE    the condition is changed by a plain store (only with -DTSO)
 *      LOOK_FIRST      the waiter looks at the condition, and registers then
 *      KICK_FIRST      the kicker kicks, and changes the condition then
 *      BARE_NOTIFY     the kick is a notification, which the poll forgets as it begins
 */

#ifndef KICKERS
#define KICKERS     2
#endif
/* Polls that return though nobody kicked. Bounded: they would hide every lost kick. */
#ifndef WHIMS
#define WHIMS       2
#endif

bool busy[KICKERS];         /* the conditions */
byte waiters;               /* how many are registered */
bool kicked;                /* kick_bh is scheduled, or, BUG_BARE_NOTIFY, the loop notified */
byte whims = WHIMS;
bool finished;

/* ---- stores -------------------------------------------------------------------------- */

#define WAITERS     KICKERS             /* variables by number: the conditions, the count */

inline store_now(variable, value)
{
    if
    :: variable == WAITERS -> waiters = value
    :: variable != WAITERS -> busy[variable] = value
    fi
}

#ifdef TSO
chan buffer[KICKERS + 1] = [4] of { byte, byte };       /* of each thread */

/* The processor empties the buffers whenever it likes. */
active proctype processor()
{
    byte variable, value, thread;

end_idle:
    do
    :: atomic { buffer[0] ? variable, value -> store_now(variable, value) }
    :: atomic { buffer[1] ? variable, value -> store_now(variable, value) }
#if KICKERS > 1
    :: atomic { buffer[2] ? variable, value -> store_now(variable, value) }
#endif
#if KICKERS > 2
    :: atomic { buffer[3] ? variable, value -> store_now(variable, value) }
#endif
    od
}
#define store(thread, variable, value)  buffer[thread] ! variable, value
#define rmw(thread, variable, value)                                            \
        atomic { empty(buffer[thread]) -> store_now(variable, value) }
#else
#define store(thread, variable, value)  atomic { store_now(variable, value) }
#define rmw(thread, variable, value)    atomic { store_now(variable, value) }
#endif

#ifdef BUG_PLAIN_REGISTER
#define register(value)     store(KICKERS, WAITERS, value)
#else
#define register(value)     rmw(KICKERS, WAITERS, value)
#endif
#ifdef BUG_PLAIN_CHANGE
#define change(kicker)      store(kicker, kicker, false)
#else
#define change(kicker)      rmw(kicker, kicker, false)
#endif

/* ---- threads ------------------------------------------------------------------------- */

inline kick()
{
    if
    :: waiters > 0 -> kicked = true
    :: waiters == 0
    fi
}

proctype kicker(byte me)
{
#ifdef BUG_KICK_FIRST
    kick();
    change(me)
#else
    change(me);
    kick()
#endif
}

inline poll()
{
#ifdef BUG_BARE_NOTIFY
    kicked = false;         /* accept: the loop forgets notifications, and looks for work */
#endif
    if
    :: kicked -> kicked = false
    :: whims > 0 -> whims--
    fi
}

active proctype waiter()
{
    byte i;
    bool look;

    atomic {
        do
        :: i < KICKERS -> busy[i] = true; run kicker(i); i++
        :: else -> break
        od;
        i = 0
    }
    do
    :: i < KICKERS ->               /* AIO_WAIT_WHILE(busy[i]) */
#ifdef BUG_LOOK_FIRST
        look = busy[i];
        register(1);
#else
        register(1);
        look = busy[i];
#endif
        do
        :: look -> poll(); look = busy[i]
        :: !look -> break
        od;
        register(0);
        i++
    :: else -> break
    od;
    finished = true
}

/* ---- what must hold ------------------------------------------------------------------ */

active proctype watchdog()
{
    timeout -> assert(finished)
}

ltl ends { <> finished }
