/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notes that the library makes for whoever watches it: the drain lab draws them and explains
 * with them who waits for whom. Natively they are nothing at all.
 */
#ifndef AIO_PORT_NOTE_H
#define AIO_PORT_NOTE_H

typedef enum PortNote {
    PORT_NOTE_NAME,             /* TEXT is the name of OBJECT from now on */
    PORT_NOTE_DRAIN_BEGIN,      /* OBJECT: the node; the section of this thread begins */
    PORT_NOTE_DRAIN_SETTLED,    /* nothing is in flight any more */
    PORT_NOTE_DRAIN_END,
    PORT_NOTE_REQUEST_BEGIN,    /* OBJECT: the request; TEXT: what and where */
    PORT_NOTE_REQUEST_END,
    PORT_NOTE_REQUEST_PARK,     /* it waits for the end of a drained section */
    PORT_NOTE_MOVE,             /* OBJECT: the node; TEXT: the new context */
    PORT_NOTE_ENTER,            /* OBJECT: the coroutine */
    PORT_NOTE_YIELD,
    PORT_NOTE_WAIT_BEGIN,       /* AIO_WAIT_WHILE; TEXT: its condition */
    PORT_NOTE_WAIT_END,
    PORT_NOTE_JOB,              /* OBJECT: the job; TEXT: its state */
} PortNote;

#ifdef MINIBLK_LAB
void lab_note(PortNote note, const void *object, const char *text);
#define port_note(note, object, text) lab_note(note, object, text)
#else
#define port_note(note, object, text) ((void)0)
#endif

#endif
