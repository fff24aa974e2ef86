/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wake-up protocol of aio/notify.c: several notifiers and one home thread.
 *
 * The home thread takes each turn as a blocking aio_poll(), a non-blocking one, or an
 * iteration of GLib's main loop. Two kinds of work reach it: messages, where only whoever
 * finds the stack empty notifies, and a timer, where everybody does. And one notifier sets a
 * flag of which the loop knows nothing: its owner tests it between the turns.
 *
 * Checked: when nobody can take another step, no work is left (the watchdog's assertion);
 * work is always served in the end (the LTL property); the home thread does not go round
 * without doing anything (non-progress cycles).
 *
 * Planted bugs, each of which must be found: -DBUG_...
 *      LOOK_FIRST      the home thread looks for work, and forgets notifications afterwards
 *      RING_FIRST      notifiers notify, and change the state afterwards
 *      BLIND_BEGIN     the home thread falls asleep without looking whether it was notified
 *      PLAIN_NOTIFY    a notifier reads the state and writes it in two steps
 *      CLEAR_FIRST     the bell is silenced on the way to sleep
 *      SWALLOW         the home thread sleeps though it has just accepted a notification
 *      KEEP_ASLEEP     accept leaves ASLEEP (of a skipped check) as it is
 */

#ifndef NOTIFIERS
#define NOTIFIERS   2
#endif
#ifndef ROUNDS
#define ROUNDS      2       /* changes made by each notifier */
#endif
/*
 * How often something happens that need not: a plain read that misses a notification, a sleep
 * ended by some other descriptor, a non-blocking poll, a check skipped by GLib. It must be
 * bounded: a sleep that ends by itself again and again would hide every lost wake-up.
 */
#ifndef WHIMS
#define WHIMS       2
#endif

mtype = { AWAKE, NOTIFIED, ASLEEP };

mtype wake_state = AWAKE;
bool bell;                  /* the eventfd's counter is not zero */
byte messages;              /* length of the stack */
bool timer;                 /* armed in the past */
bool flag, flag_seen;
byte whims = WHIMS;

#define work    (messages > 0 || timer || (flag && !flag_seen))

/* ---- notifiers ----------------------------------------------------------------------- */

inline aio_notify()
{
#ifdef BUG_PLAIN_NOTIFY
    old = wake_state;
    wake_state = NOTIFIED;
#else
    d_step { old = wake_state; wake_state = NOTIFIED }
#endif
    if
    :: old == ASLEEP -> bell = true         /* may come late, and is a step of its own */
    :: else
    fi
}

inline post_message()
{
#ifdef BUG_RING_FIRST
    aio_notify();
    messages++
#else
    d_step { first = (messages == 0); messages++ }
    if
    :: first -> aio_notify()
    :: else                                 /* covered by the first one's */
    fi
#endif
}

inline arm_timer()
{
#ifdef BUG_RING_FIRST
    aio_notify();
    timer = true
#else
    timer = true;
    aio_notify()
#endif
}

active [NOTIFIERS] proctype notifier()
{
    mtype old;
    bool first;
    byte round;

    do
    :: round < ROUNDS ->
        if
        :: post_message()
        :: arm_timer()
        fi;
        round++
    :: else -> break
    od;
    if
    :: _pid == 0 ->
        flag = true;
        aio_notify()
    :: else
    fi
}

/* ---- the home thread ----------------------------------------------------------------- */

inline accept_notifications()
{
    /* a plain read, and if that is not AWAKE, an exchange */
    if
    :: wake_state != AWAKE && whims > 0 -> whims--      /* missed it */
#ifdef BUG_KEEP_ASLEEP
    :: wake_state == NOTIFIED -> wake_state = AWAKE; notified = true
    :: wake_state != NOTIFIED
#else
    :: wake_state != AWAKE ->
        d_step { notified = (wake_state == NOTIFIED); wake_state = AWAKE }
    :: wake_state == AWAKE
#endif
    fi;
#if defined(BUG_SWALLOW) || defined(BUG_LOOK_FIRST)
    notified = false
#endif
}

inline look()
{
    found = (messages > 0);
    found = found || timer
}

inline begin()
{
#ifdef BUG_BLIND_BEGIN
    wake_state = ASLEEP;
    sleeping = true
#else
    d_step {
        sleeping = (wake_state == AWAKE);
        if
        :: sleeping -> wake_state = ASLEEP
        :: else
        fi
    }
#endif
}

inline silence_bell()
{
    if
    :: bell -> bell = false
    :: else
    fi
}

/* epoll: returns when the bell rings, or for a reason that is not ours */
inline sleep()
{
#ifdef BUG_CLEAR_FIRST
    bell = false;
#endif
    if
    :: bell
    :: whims > 0 -> whims--
    fi
}

inline accept_and_look()
{
#ifdef BUG_LOOK_FIRST
    look();
    accept_notifications()
#else
    accept_notifications();
    look()
#endif
}

/* Prepare to sleep, and sleep or not; SLEEPING tells whether it was tried. */
inline sleep_unless_notified()
{
    sleeping = false;
    if
    :: !found && !notified -> begin()
    :: else
    fi;
    if
    :: sleeping -> sleep()
    :: else
    fi
}

active proctype home()
{
    bool notified, found, sleeping, serve;

again:
    if
    :: flag && !flag_seen -> progress_flag: flag_seen = true
    :: else
    fi;
    if
    :: /* aio_poll(ctx, true) */
        accept_and_look();
        sleep_unless_notified();
        silence_bell();
        if
        :: sleeping -> wake_state = AWAKE
        :: else
        fi;
        serve = true

    :: whims > 0 -> /* aio_poll(ctx, false) */
        whims--;
        accept_notifications();
        silence_bell();
        serve = true

    :: /* an iteration of GLib's loop: prepare, its poll, ... */
        accept_and_look();
        sleep_unless_notified();
        if
        :: found ->                         /* ready in prepare, so there is no check */
            silence_bell();
            serve = true
        :: !found ->                        /* check */
            wake_state = AWAKE;
            silence_bell();
            look();
            serve = found
        :: !found && whims > 0 ->           /* a source of higher priority was ready */
            whims--;
            serve = false
        fi
    fi;
    /* dispatch: one exchange takes all messages */
    if
    :: serve && messages > 0 -> progress_messages: messages = 0
    :: else
    fi;
    if
    :: serve && timer -> progress_timer: timer = false
    :: else
    fi;
    d_step { notified = false; found = false; sleeping = false; serve = false }
    goto again
}

/* ---- what must hold ------------------------------------------------------------------ */

active proctype watchdog()
{
    timeout -> assert(!work)
}

ltl served { [] (work -> <> !work) }
