/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the engine, shared by the lab's files that make points: threads, the
 * scheduler's state, store buffers. What tests and strategies see is in lab.h.
 *
 * Everything declared here belongs to a schedule unless it is marked LAB_KEEP.
 */
#ifndef LAB_ENGINE_H
#define LAB_ENGINE_H

#include <pthread.h>
#include "lab/lab.h"

/* ---- threads --------------------------------------------------------------------------- */

enum {
    LAB_KEYS_MAX = 64,          /* lab_key_create() */
    LAB_STORES_MAX = 16,        /* entries of a store buffer, as processors have some dozens */
    LAB_DESTRUCTOR_ROUNDS = 4,
};

/* A store that other threads do not see yet. */
typedef struct LabStore {
    uintptr_t address;
    uint32_t size;              /* 1, 2, 4 or 8 */
    const char *where;
    uint64_t new_value;         /* while its thread is switched out: what it has stored */
    uint64_t old_value;         /* while its thread runs: what the others see */
    const void *token;          /* lab_release_begin(); NULL: it is relaxed */
} LabStore;

/* A call of AIO_WAIT_WHILE, or a drained section, that has begun and not ended. */
typedef struct LabWaitNote {
    uint8_t kind;               /* PORT_NOTE_WAIT_BEGIN or PORT_NOTE_DRAIN_BEGIN */
    bool settled;               /* the section: it has been waited for */
    bool polls;                 /* the wait: it does not look at its condition just now */
    uint32_t serial;            /* order of their beginnings in all threads, from 1 */
    uint32_t mark;              /* circle.c's */
    const void *object;         /* the section's node; NULL: all */
    const void *cause;          /* why the wait has not ended; NULL: nobody has said */
    const char *text;           /* the wait's condition */
} LabWaitNote;

/* A coroutine that has been entered and has not yielded. */
typedef struct LabEntered {
    const void *coroutine;
    unsigned mutexes_before;    /* the thread's at that time */
} LabEntered;

typedef struct LabThread {
    /* fiber.c */
    void *sp;                   /* while switched out */
    int saved_errno;

    /* sched.c */
    LabOp op;                   /* its next step; of a running thread the last one */
    uint32_t points;            /* how many it has passed */
    uint32_t turn;              /* decisions taken at the present one */
    uint32_t idle_turns;        /* of its busy-waiting, without anything achieved */
    uint64_t yield_to;          /* threads that have to take a step before it does */
    LabBlock block;             /* valid while its bit in lab__engine.blocked is set */
    uint64_t blocked_at;        /* lab__engine.steps at that time */
    int woken_by;               /* when events are kept: the thread, or LAB_BY_... */
    size_t woken_at;            /* the event */

    /* sync.c and thread.c */
    unsigned mutexes;           /* that it holds */
    const void *waits_on;       /* condition variable or futex */
    uint64_t ticket;            /* order of arrival there */
    bool woken;
    int id;                     /* its number + 1 */
    bool finished, detached, joined;
    void *(*start)(void *);
    void *arg, *result;
    char name[16];
    void *keys[LAB_KEYS_MAX];

    /* tso.c */
    unsigned n_stores;
    LabStore stores[LAB_STORES_MAX];        /* oldest first */

    /* note.c */
    unsigned n_coroutines, n_waits;
    unsigned coroutines_room, waits_room;
    LabEntered *coroutines;     /* that have entered each other here */
    LabWaitNote *waits;         /* in each other, the outermost first */
    const void *home;           /* the context whose loop it runs; or NULL */
    uint32_t mark;              /* circle.c's */
} LabThread;

typedef struct LabEngine {
    int self;                   /* the running thread */
    int n_threads;              /* slots ever used */
    uint64_t live;              /* threads that have not ended */
    uint64_t blocked;           /* threads in lab_block() */
    uint64_t ready;             /* those of BLOCKED that could go on; see lab_changed() */
    uint64_t buffered;          /* threads with pending stores */
    uint64_t yielding;          /* threads that spin: whoever else can go on goes first */
    bool changed;               /* READY is out of date */
    bool fair;                  /* the step bound has passed: everybody in turn */
    uint32_t streak;            /* steps of one thread in a row */
    uint32_t lonely;            /* such streaks in a row, with nobody else to go on */
    unsigned disk_seen;         /* lab_disk_generation when DISK_READY was found */
    bool disk_ready;
    int actor;                  /* who has changed the state last: a thread, or LAB_BY_... */
    int64_t now_ns, start_ns;   /* of the schedule */
    int64_t next_deadline_ns;   /* of blocked threads that are not ready; INT64_MAX: none */
    uint64_t steps, choices;
    uint64_t tickets;           /* given to those who sleep */
    uint32_t requests, waits;   /* noted so far */
    uint32_t searches;          /* twice the number of circle.c's */
    unsigned spurious;          /* waits that have returned without reason */
    uint64_t hash;
} LabEngine;

extern LabEngine lab__engine;
extern LabThread lab__threads[LAB_THREADS_MAX];
extern LabLimits lab__limits;           /* of this schedule; LAB_KEEP */

static inline LabThread *lab__self(void)
{
    return &lab__threads[lab__engine.self];
}
static inline uint64_t lab__bit(unsigned thread)
{
    return (uint64_t)1 << thread;
}

/* ---- agents.c -------------------------------------------------------------------------- */

enum {
    LAB_STREAK_MAX = 2000,      /* steps after which the default policy lets others go on */
    LAB_IDLE_PATIENCE = 4,      /* turns of a busy-waiting loop after which others go first */
};

/* The options of the choice that is being made. */
extern LabAgent lab__agents[LAB_AGENTS_MAX];
extern LabOp lab__agent_ops[LAB_AGENTS_MAX];

/* A set of threads. */
uint64_t lab__enabled_threads(void);
/* Fill these, the default policy's choice first. 0: nothing can ever happen again. */
unsigned lab__list_agents(uint64_t enabled);
/* Whether a disk request could complete now. */
bool lab__disk_is_ready(void);
/* A thread that has gone on for so long may wait, without our seeing it, for somebody else. */
static inline bool lab__impatient(void)
{
    return lab__engine.streak >= LAB_STREAK_MAX || lab__engine.fair;
}

/* ---- schedule.c ------------------------------------------------------------------------ */

extern LabStrategy lab__strategy;       /* of this schedule; LAB_KEEP */
void lab__fail_livelock(void);

/* ---- sched.c --------------------------------------------------------------------------- */

/*
 * The engine's state has changed such that a blocked thread may have become ready, or not
 * ready any more. (A point of any kind but plain memory accesses implies it for what follows.)
 */
static inline void lab_changed(void)
{
    lab__engine.changed = true;
}
/* A point with a text for the timeline. */
void lab_point_at(LabOpKind kind, uintptr_t object, bool is_write, const char *where);
/*
 * A point of a system call: the store buffer is empty when it returns, and other threads
 * could run between the last landing and the call.
 */
void lab_syscall_point(LabOpKind kind, uintptr_t object, bool is_write);
/* The caller spins, or has polled and found nothing: others go first, time passes. */
void lab_idle(void);
/* The caller has achieved something: it does not spin. */
void lab_busy(void);
/* The calling thread has ended; does not return. */
void lab__thread_gone(void) __attribute__((noreturn));

/* ---- affinity.c ------------------------------------------------------------------------- */

/* The running thread makes another in SLOT. */
void lab__affinity_inherit(int slot);

/* ---- fiber.c --------------------------------------------------------------------------- */

/* Give slot THREAD a stack and thread-local variables; its first step calls ENTRY(). */
void lab__fiber_init(int thread, void (*entry)(void));
/* Leave the running thread, which is SAVE, for the one in lab__engine.self; NULL: for good. */
void lab__fiber_switch(LabThread *save);
/* Run ENTRY() in thread 0 until somebody calls lab__fiber_leave(). */
void lab__fiber_run(void (*entry)(void));
void lab__fiber_leave(void) __attribute__((noreturn));
/* port_stack_map(): zero where it matters, that is at the top; put back with the schedule. */
void *lab_stack_map(size_t guard_size, size_t size);
/*
 * Take note of the stacks as they are now, and put them back. For image.c, which does the same
 * for all other memory and leaves [low, high) of lab__fiber_area() out.
 */
void lab__fibers_save(void);
void lab__fibers_restore(void);
void lab__fiber_area(uintptr_t *low, uintptr_t *high);

/* ---- tso.c ----------------------------------------------------------------------------- */

/* Make memory show what everybody sees (hide) or what THREAD sees (show). */
void lab__view_hide(LabThread *thread);
void lab__view_show(LabThread *thread);
/* The oldest store of THREAD lands. */
void lab__flush_oldest(int thread);
/* All stores of the running thread land; no point. */
void lab__drain(void);
/* The same where others may see them before what the thread does next: a point if there is
 * any. */
void lab__drain_at_point(const char *where);
/* [START, START+SIZE) is being freed: what was stored there waits no more. */
void lab__stores_forget(const void *start, size_t size);

/* ---- clock.c --------------------------------------------------------------------------- */

/* The wall clock at virtual time 0. */
extern const int64_t lab__wall_epoch_ns;
/* 1 us later. Not a point. */
void lab__clock_advance(void);
int64_t lab_clock_ns(bool wall);        /* a point */
void lab_sleep_ns(int64_t ns);

/* ---- trace.c --------------------------------------------------------------------------- */

void lab__trace_begin(void);
/* AGENT takes the step OP. */
void lab__trace_step(LabAgent agent, const LabOp *op, bool chosen);
void lab__trace_event(LabEventKind kind, int other, int note, const void *object,
                      const char *text);
/* The running thread has slept, and goes on. */
void lab__trace_wake(void);
/* Number of the last event. */
size_t lab__trace_last(void);
/* Number of OBJECT in the order of first meeting, from 1. */
unsigned lab__object_rank(uintptr_t object, const char *where);
/* The last steps, newest first, for the livelock report: false when there are no more. */
bool lab__trace_recent(unsigned back, LabAgent *agent, LabOp *op);

/* ---- waitfor.c, circle.c, note.c, facts.c ---------------------------------------------- */

/* Describe who waits for whom; returns the length written. */
size_t lab__waitfor_text(char *buffer, size_t size);
/* At the end of a case that went well: fail when a section or a request is left over. */
void lab__check_left_over(void);
/* The name that the library gave OBJECT, or NULL. */
const char *lab__note_name(const void *object);
/* Fail with LAB_CYCLE when a thread waits for itself, through whatever others. Whenever one is
 * about to block. */
void lab__check_circle(void);
/* The same of a coroutine that yields. */
void lab__check_circle_of(const void *co);
/* The thread that BLOCK waits for now; -1: nobody in particular. */
static inline int lab__holder(const LabBlock *block)
{
    return block->holder && *block->holder > 0 ? *block->holder - 1 : -1;
}

#endif
