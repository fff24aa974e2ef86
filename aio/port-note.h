/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notes that the library makes for whoever watches it: the drain lab draws them and explains
 * with them who waits for whom. Natively they are nothing at all, their arguments included.
 */
#ifndef AIO_PORT_NOTE_H
#define AIO_PORT_NOTE_H

typedef enum PortNote {
    PORT_NOTE_NAME,             /* TEXT is the name of OBJECT from now on */
    PORT_NOTE_DRAIN_BEGIN,      /* OBJECT: the node (NULL: all); a section of this thread */
    PORT_NOTE_DRAIN_SETTLED,    /* nothing is in flight any more */
    PORT_NOTE_DRAIN_END,
    PORT_NOTE_REQUEST_BEGIN,    /* OBJECT: the request; TEXT: what and where. From when it is
                                   counted as in flight */
    PORT_NOTE_REQUEST_END,
    PORT_NOTE_REQUEST_PARK,     /* OBJECT: the backend; the coroutine waits for the end of a
                                   drained section */
    PORT_NOTE_MOVE,             /* OBJECT: the node, which is in another context now */
    PORT_NOTE_ENTER,            /* OBJECT: the coroutine */
    PORT_NOTE_YIELD,            /* OBJECT: the coroutine, which yields or ends */
    PORT_NOTE_CO_WAIT,          /* the coroutine will yield and wait for OBJECT, a TEXT */
    PORT_NOTE_CO_QUEUE,         /* the same in the CoQueue OBJECT */
    PORT_NOTE_CO_HOLD,          /* the coroutine, or what the thread is doing, has OBJECT, a
                                   TEXT, alone */
    PORT_NOTE_CO_SHARE,         /* the same, with others */
    PORT_NOTE_CO_RELEASE,
    PORT_NOTE_WAIT_BEGIN,       /* AIO_WAIT_WHILE; TEXT: its condition */
    PORT_NOTE_WAIT_END,
    PORT_NOTE_JOB,              /* OBJECT: the job; TEXT: its name and state */
    PORT_NOTE_COMMAND_BEGIN,    /* a monitor command, TEXT, starts to change things */
    PORT_NOTE_COMMAND_END,

    /* From here on for who waits for whom only; not drawn. */
    PORT_NOTE_HOME,             /* OBJECT: the context whose loop this thread runs; or NULL */
    PORT_NOTE_THREAD_HOLD,      /* OBJECT: a lock, by the address that others sleep on; the
                                   thread has it, whatever coroutine runs */
    PORT_NOTE_THREAD_RELEASE,
    PORT_NOTE_CO_END,           /* OBJECT: the coroutine, which has returned */
    PORT_NOTE_WAIT_POLL,        /* AIO_WAIT_WHILE polls: the locks that it drops are dropped */
    PORT_NOTE_WAIT_LOOK,        /* ... and is about to look at its condition again */
    PORT_NOTE_WAIT_FOR,         /* the condition that is being looked at holds because of
                                   OBJECT, whatever else: see port_note_pair() */
    PORT_NOTE_CO_WAKE,          /* OBJECT: a CoQueue, of which the first waiter is woken, if there
                                   is one */
    PORT_NOTE_QUIESCE,          /* OBJECT: a backend, held off by the section that begins */
    PORT_NOTE_RESUME,

    /* Of two objects. */
    PORT_NOTE_COUNTED,          /* the request is counted in flight in OTHER: node, backend */
    PORT_NOTE_SCHEDULE,         /* the coroutine, or a task to be waited for, goes on in the
                                   loop of the context OTHER */
    PORT_NOTE_SERVED,           /* who waits for OBJECT is let go by a timer of the context OTHER
                                   at the latest; NULL: by nobody */
} PortNote;

/*
 * What may be waited for (CO_WAIT, WAIT_FOR), and when that is over: a lock, when those who
 * have it have let it go; a node or backend, when all requests counted in it have ended; a
 * coroutine, when it has ended; a task, when the loop has come to it and has released it; the
 * loop of a context, when it turns. Of anything else the lab supposes that anybody may end it.
 */

#ifdef MINIBLK_LAB
/* TEXT is a format, or NULL. */
void lab_note(PortNote note, const void *object, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
void lab_note_pair(PortNote note, const void *object, const void *other);
/* PORT_NOTE_WAIT_BEGIN with the text as it is. */
void lab_wait_note(const char *condition);
#define port_note(...) lab_note(__VA_ARGS__)
#define port_note_pair(...) lab_note_pair(__VA_ARGS__)
#else
#define port_note(...) ((void)0)
#define port_note_pair(...) ((void)0)
#endif

#endif
