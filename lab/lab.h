/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside the drain lab: the words that its parts share.
 *
 *      a test program           GTest cases, unchanged                 tests/
 *      the library              built with MINIBLK_LAB                 aio/ block/ ...
 *      ---- the port seam ---------------------------------------------------------------
 *      points                   what a thread does next                sync.c event.c tso.c ...
 *      scheduler                who goes on                            sched.c fiber.c
 *      strategy                 the choices                            strategy-*.c
 *      world                    memory put back, files, the disk       image.c arena.c disk.c
 *      explorer                 schedules, processes, replay, report   explore.c ...
 *
 * All threads of the program are fibers of one kernel thread. A fiber gives up the processor
 * only at a point, that is just before an operation whose order against other threads can
 * matter. There the scheduler computes which agents could take the next step and, if there is
 * more than one, asks the strategy. An agent is a thread, the oldest entry of a thread's store
 * buffer that could land in memory now, a disk request that could complete now, or the clock
 * that could jump to the next deadline.
 *
 * State is of two kinds. What belongs to a schedule (threads, locks, descriptors, the
 * program's own memory) is put back before the next one: plain variables and malloc(). What
 * belongs to the exploration survives: variables marked LAB_KEEP, and memory allocated while
 * no schedule runs.
 */
#ifndef LAB_LAB_H
#define LAB_LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lab/lab-config.h"

/* A variable that is not put back between schedules. Pages of its own: see image.c. */
#define LAB_KEEP __attribute__((section("lab_keep")))
/*
 * These come back from a schedule that has its own process (isolate.c). SHARED: a LAB_KEEP
 * variable that schedules write. LAST: one that is put back, but looked at before that.
 */
#if LAB_OWNS_MEMORY
#define LAB_SHARED LAB_KEEP
#define LAB_LAST
#else
#define LAB_SHARED __attribute__((section("lab_shared")))
#define LAB_LAST __attribute__((section("lab_last")))
#endif

enum { LAB_THREADS_MAX = 64 };

/* ---- operations and agents ------------------------------------------------------------- */

/* What a thread is about to do; the name in timelines is lab_op_name(). */
typedef enum LabOpKind {
    LAB_OP_START,               /* first step of a thread */
    LAB_OP_LOAD, LAB_OP_STORE, LAB_OP_RMW, LAB_OP_FENCE,
    LAB_OP_FLUSH,               /* a store lands in memory */
    LAB_OP_LOCK, LAB_OP_TRYLOCK, LAB_OP_UNLOCK,
    LAB_OP_SIGNAL, LAB_OP_WAIT,         /* condition variables */
    LAB_OP_FUTEX_WAKE, LAB_OP_FUTEX_WAIT,
    LAB_OP_EVENT_WRITE, LAB_OP_EVENT_READ,
    LAB_OP_POLL, LAB_OP_POLL_RETURN,
    LAB_OP_CREATE, LAB_OP_JOIN, LAB_OP_EXIT,
    LAB_OP_CLOCK, LAB_OP_RELAX,
    LAB_OP_SUBMIT, LAB_OP_COMPLETE,     /* disk requests */
    LAB_OP_SYSCALL,                     /* any other visible system call */
    LAB_OP_KINDS
} LabOpKind;

typedef struct LabOp {
    LabOpKind kind;
    bool is_write;              /* conflicts with every operation on OBJECT, not only writes */
    uintptr_t object;           /* address, or descriptor; two operations on different objects
                                   commute */
    const char *where;          /* the library's function or macro text; NULL unknown */
} LabOp;

/* Stable names: they do not depend on the order of what other threads did. */
typedef enum LabAgentKind {
    LAB_AGENT_THREAD,           /* number: the thread's */
    LAB_AGENT_FLUSH,            /* number: the thread whose oldest store lands */
    LAB_AGENT_DISK,             /* number: submitting thread << 16 | its request number */
    LAB_AGENT_CLOCK,            /* number: 0; time jumps to the next deadline */
} LabAgentKind;

typedef struct LabAgent {
    LabAgentKind kind;
    uint32_t number;
} LabAgent;

/* ---- choices --------------------------------------------------------------------------- */

typedef enum LabChoiceKind {
    LAB_CHOICE_AGENT,           /* who takes the next step */
    LAB_CHOICE_WAITER,          /* which waiter a signal or wake picks */
    LAB_CHOICE_READY,           /* which ready descriptor is reported next */
    LAB_CHOICE_SPURIOUS,        /* 0 no, 1: a wait returns without reason */
    LAB_CHOICE_FAULT,           /* 0 none, otherwise what the disk does to a request */
    LAB_CHOICE_VALUE,           /* anything else */
} LabChoiceKind;

enum {
    LAB_OPTIONS_MAX = 1024,     /* of a choice: so many descriptors may be ready */
    LAB_AGENTS_MAX = 256,
};

/*
 * One decision. Its stable name is (thread, op, turn): the thread at whose point it is taken,
 * how many points that thread had passed, and how many decisions were taken there before.
 * Option 0 is always the default policy's: go on with the same thread while it can; otherwise
 * the next enabled thread in turn; stores land and time passes only when no thread can go on.
 */
typedef struct LabChoice {
    LabChoiceKind kind;
    uint32_t thread, op, turn;
    unsigned n;                         /* options, at least 2 */
    const LabAgent *agents;             /* [n] for LAB_CHOICE_AGENT, NULL otherwise */
    const LabOp *ops;                   /* [n] what each agent would do; NULL otherwise */
} LabChoice;

/*
 * The strategy of this schedule; called at every choice with at least two options.
 * Runs in the middle of the program: allocates nothing, calls no point.
 */
typedef struct LabStrategy {
    unsigned (*choose)(void *opaque, const LabChoice *choice);   /* < choice->n */
    /* May be NULL: every step, chosen or not. */
    void (*step)(void *opaque, LabAgent agent, const LabOp *op);
    void *opaque;
} LabStrategy;

/* ---- running one schedule -------------------------------------------------------------- */

typedef enum LabVerdict {
    LAB_OK,
    LAB_SKIP,                   /* the case called g_test_skip() */
    LAB_ASSERT,                 /* abort(), g_assert, g_test_fail, g_error, exit() != 0 */
    LAB_SIGNAL,                 /* SIGSEGV and kin */
    LAB_MEMORY,                 /* double free, write after free, overrun */
    LAB_DEADLOCK,               /* nothing can ever go on */
    LAB_CYCLE,                  /* some threads wait for each other in a circle */
    LAB_LIVELOCK,               /* the step bound passed, also under a fair scheduler */
    LAB_ORACLE,                 /* a rule of the block layer was broken: lab_fail() */
    LAB_DIVERGED,               /* the same choices did not give the same trace */
} LabVerdict;

enum { LAB_STEPS_DEFAULT = 1000000 };

typedef struct LabLimits {
    uint64_t steps;             /* livelock bound; 0: LAB_STEPS_DEFAULT */
    bool tso;                   /* store buffers; otherwise sequentially consistent */
    bool clock;                 /* the clock is an agent always, not only as a last resort */
    bool spurious;              /* waits may return without reason (at most a few times) */
    bool faults;                /* the disk fails now and then (LAB_CHOICE_FAULT) */
    bool torn;                  /* a power cut may leave a part of a sector */
    unsigned logical_sector, physical_sector;   /* of the disk, bytes; 0: 512 */
    bool record;                /* keep the events for pictures, not only the hash */
    bool quiet;                 /* a sanitizer's report goes nowhere: it has been seen before */
} LabLimits;

typedef struct LabOutcome {
    LabVerdict verdict;
    uint64_t steps, choices;
    uint64_t trace_hash;        /* of every step (agent, kind, object's rank): equal traces
                                   are equal schedules */
    int64_t virtual_ns;
    bool cut_short;             /* it passed the step bound: from there on everybody had a turn,
                                   and there were no choices */
    char message[4096];         /* the failure in words, with the wait-for graph */
} LabOutcome;

/*
 * Put the program's memory back to what it was when g_test_run() was called, then run case
 * NUMBER of the test program under STRATEGY. No schedule may be running.
 */
void lab_execute(unsigned number, const LabStrategy *strategy, const LabLimits *limits,
                 LabOutcome *outcome);

/* True between the first and the last instruction of a case. */
extern bool lab_running;

/* The cases, in the order of their registration. */
unsigned lab_case_count(void);
const char *lab_case_path(unsigned number);

/* Called by g_test_run() in place of GLib's: explore as the environment says. */
int lab_main(void);

/* ---- events, for the pictures ---------------------------------------------------------- */

typedef enum LabEventKind {
    LAB_EVENT_STEP,             /* an agent's step: OP */
    LAB_EVENT_SWITCH,           /* a deviation or a forced switch to the thread */
    LAB_EVENT_BLOCK, LAB_EVENT_WAKE,    /* OTHER: the thread that woke it, or LAB_BY_... */
    LAB_EVENT_NOTE,             /* the library says: see PortNote in aio/port-note.h */
    LAB_EVENT_TEXT,             /* g_test_message(), stderr */
    LAB_EVENT_FAIL,
} LabEventKind;

enum { LAB_BY_NOBODY = -1, LAB_BY_DISK = -2, LAB_BY_CLOCK = -3 };

typedef struct LabEvent {
    LabEventKind kind;
    uint8_t note;               /* LAB_EVENT_NOTE: which */
    bool chosen;                /* a deviation from the default policy put it here */
    LabAgent agent;
    uint32_t op_number;         /* of that thread */
    int other;
    size_t cause;               /* LAB_EVENT_WAKE: the event of OTHER that did it */
    int64_t time_ns;            /* since the beginning of the schedule */
    LabOp op;
    const void *object;         /* of a note: the node, request, context */
    char text[48];
} LabEvent;

/* The events of the last schedule that ran with limits.record. */
const LabEvent *lab_events(size_t *count);
const char *lab_op_name(LabOpKind kind);
const char *lab_verdict_name(LabVerdict verdict);
/* "main", "iothread0", "T3", as given to qemu_thread_create(). */
const char *lab_thread_name(unsigned thread);
/* "bs->in_flight of node 'disk'" or the like when somebody has said what lives there, otherwise
 * symbol+offset, otherwise #N: the Nth object that the schedule met. Never a raw address. */
const char *lab_object_name(uintptr_t object, char *buffer, size_t size);

/* ---- what points call ------------------------------------------------------------------ */

/* A point: others may run before the caller does OP. Returns when the caller may. */
void lab_point(LabOpKind kind, uintptr_t object, bool is_write);

/*
 * The caller cannot go on before READY(OPAQUE): a function of the engine's state that is
 * evaluated by the scheduler and changes nothing; REASON for the wait-for graph.
 * DEADLINE_NS < 0: none. False when the deadline came first.
 */
typedef struct LabBlock {
    LabOp op;
    bool (*ready)(const void *opaque);
    const void *opaque;
    int64_t deadline_ns;
    /* Where the number + 1 of the thread stands that it waits for, which may change; NULL, or
     * not positive: nobody in particular. */
    const int *holder;
    /* The same, of lab__engine.waits when it took what is waited for; NULL: just now. */
    const uint32_t *since;
} LabBlock;
bool lab_block(const LabBlock *block);

/* A choice of the environment; 0 is the default. */
unsigned lab_choose(LabChoiceKind kind, unsigned n);

/* Stop the schedule: does not return. */
void lab_fail(LabVerdict verdict, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

#endif
