/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known about the library's objects, from its notes. */
#ifndef LAB_NOTE_H
#define LAB_NOTE_H

#include "aio/port-note.h"
#include "lab/engine.h"

enum { LAB_FACTS_MAX = 1024, LAB_FACT_TEXT = 64 };

typedef enum LabFactKind {
    LAB_FACT_NONE, LAB_FACT_NAME, LAB_FACT_REQUEST, LAB_FACT_COROUTINE, LAB_FACT_LOCK,
    LAB_FACT_JOB,
} LabFactKind;

typedef struct LabFact {
    const void *object;
    uint8_t kind;
    bool active;                /* a request in flight; a lock that is held */
    uint8_t thread;             /* where that began; where a coroutine ran last */
    uint32_t serial;            /* of a request: R1, R2, ... */
    const void *coroutine;      /* whose it is; NULL: nobody's */
    const void *waits_for;      /* of a coroutine, while it waits */
    char text[LAB_FACT_TEXT];   /* a name; what a request does; what a coroutine waits for */
} LabFact;

/* NULL: nothing is known. */
const LabFact *lab__fact(const void *object);
const LabFact *lab__facts(unsigned *count);

#endif
