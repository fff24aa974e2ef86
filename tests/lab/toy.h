/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine small enough to know everything about: it stands in for the lab's where the
 * explorer itself is tested.
 *
 * A toy is a table: threads of some steps each, which can always go on. Its bug is a list of
 * orders; a schedule that has all of them fails.
 */
#ifndef TESTS_LAB_TOY_H
#define TESTS_LAB_TOY_H

#include "lab/lab.h"

enum { TOY_THREADS_MAX = 4, TOY_STEPS_MAX = 32, TOY_ORDERS_MAX = 6 };

/* Step A of thread THREAD_A comes before step B of THREAD_B. */
typedef struct ToyOrder {
    unsigned thread_a, a, thread_b, b;
} ToyOrder;

typedef enum ToyTrick {
    TOY_FAILS,                  /* with its bug it ends in LAB_ASSERT */
    TOY_KILLS,                  /* ... takes its process with it */
    TOY_HANGS,                  /* ... never comes back */
    TOY_DICE,                   /* a step more or less that no choice decides */
    TOY_SKIPS,
    TOY_GIVES_UP,               /* with its bug it skips */
    TOY_CUT_SHORT,              /* ... it passes the step bound, and ends well */
} ToyTrick;

typedef struct Toy {
    const char *path;
    unsigned threads;
    unsigned steps[TOY_THREADS_MAX];    /* of each; step i of every thread is on object i */
    ToyTrick trick;
    unsigned n_orders;                  /* 0: no bug */
    ToyOrder orders[TOY_ORDERS_MAX];
    bool shared;                        /* all steps are on one object */
} Toy;

/* The cases of the "program"; TOYS must stay. */
void toy_set(const Toy *toys, unsigned count);

/* Schedules run in this process. */
extern unsigned long toy_executions;

#endif
