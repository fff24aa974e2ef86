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
    PORT_NOTE_CO_HOLD,          /* the coroutine has OBJECT, a TEXT */
    PORT_NOTE_CO_RELEASE,
    PORT_NOTE_WAIT_BEGIN,       /* AIO_WAIT_WHILE; TEXT: its condition */
    PORT_NOTE_WAIT_END,
    PORT_NOTE_JOB,              /* OBJECT: the job; TEXT: its name and state */
    PORT_NOTE_COMMAND_BEGIN,    /* a monitor command, TEXT, starts to change things */
    PORT_NOTE_COMMAND_END,
} PortNote;

#ifdef MINIBLK_LAB
/* TEXT is a format, or NULL. */
void lab_note(PortNote note, const void *object, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
/* PORT_NOTE_WAIT_BEGIN with the text as it is. */
void lab_wait_note(const char *condition);
#define port_note(...) lab_note(__VA_ARGS__)
#else
#define port_note(...) ((void)0)
#endif

#endif
