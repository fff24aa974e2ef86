/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known about the library's objects, from its notes (aio/port-note.h). */
#ifndef LAB_NOTE_H
#define LAB_NOTE_H

#include "aio/port-note.h"
#include "lab/engine.h"

/* ---- facts.c: what is known of an object ----------------------------------------------- */

enum { LAB_FACTS_MAX = 4096, LAB_FACT_TEXT = 96 };

typedef enum LabFactKind {
    LAB_FACT_NONE, LAB_FACT_NAME, LAB_FACT_REQUEST, LAB_FACT_COROUTINE, LAB_FACT_LOCK,
    LAB_FACT_TASK, LAB_FACT_JOB, LAB_FACT_QUEUE, LAB_FACT_TURN,
} LabFactKind;

typedef struct LabFact {
    const void *object;
    uint8_t kind;
    bool active;                /* a request in flight */
    uint8_t thread;             /* where that began; where a coroutine ran last; who has woken
                                   somebody in a queue last, or tried to */
    uint32_t serial;            /* of a request: R1, R2, ... */
    uint32_t mark;              /* circle.c's */
    uint64_t at;                /* lab__engine.steps when a coroutine began to wait; when that
                                   was that somebody woke; 0: never */
    const void *coroutine;      /* of a request; NULL: none */
    const void *counted[2];     /* of a request: in this node, and in this backend */
    const void *waits_for;      /* of a coroutine, while it waits; of a task, until it runs; of
                                   a throttled direction: the context whose timer serves it */
    char text[LAB_FACT_TEXT];   /* a name ("": none); what a request does; what a coroutine waits
                                   for */
} LabFact;

/* NULL: nothing is known. */
LabFact *lab__fact(const void *object);
/* All, in the order in which they were met first. */
LabFact *lab__facts(unsigned *count);
/* Whether there have been more objects than could be remembered. Nothing wrong is said of those
 * that have, but perhaps not all. */
bool lab__facts_are_missing(void);
/* The fact of OBJECT, made when there is none; NULL: there are too many. */
LabFact *lab__fact_for(const void *object);

/* Make room for one more in an array that a schedule has, of N elements of SIZE bytes. */
void *lab__grown(void *array, unsigned n, unsigned *room, size_t size);

/*
 * OBJECT is held by a coroutine, also what belongs to its thread and the coroutine has taken; or
 * by what a thread is doing: that goes on until all waits have ended that it has begun since.
 */
typedef struct LabHold {
    const void *object;
    const void *coroutine;      /* NULL: the thread */
    int thread;
    uint32_t since;             /* lab__engine.waits at that time */
    uint32_t section;           /* held by this drained section while it begins; or 0 */
} LabHold;

const LabHold *lab__holds(unsigned *count);
void lab__hold_add(const LabHold *hold);
/* The last one of OBJECT that COROUTINE has, or the last one, is over. */
void lab__hold_remove(const void *object, const void *coroutine);
/* All of OBJECT. */
void lab__hold_clear(const void *object);
/* All that COROUTINE has, which has ended. */
void lab__hold_forget(const void *coroutine);
/* All of a drained section. */
void lab__hold_end_section(uint32_t section);

/* ---- words.c --------------------------------------------------------------------------- */

typedef struct LabText {
    char *buffer;
    size_t size, length;
} LabText;

/* Append; what has no room is left out. */
void lab__say(LabText *t, const char *format, ...) G_GNUC_PRINTF(2, 3);
void lab__say_object(LabText *t, const void *object);
/* The thread that runs the loop of CTX: "IO io0"; or the context. */
void lab__say_loop(LabText *t, const void *ctx);
/* "request R1 (read 0+512 of disk)" or "coroutine C3". */
void lab__say_coroutine(LabText *t, const void *co);
/* ", held by coroutine C1 and main"; ", which nobody holds". */
void lab__say_holders(LabText *t, const void *object);
/* The request that CO carries out; NULL: none. */
const LabFact *lab__request_of(const void *co);

#endif
