/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The soak: threads that have no event loop (producers) make work for event loops (slots)
 * that come and go. Every piece of work is entered in a ledger before it is made, and closed
 * exactly once: seen, or void when it was cancelled in time.
 */
#ifndef TESTS_SOAK_H
#define TESTS_SOAK_H

#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"

typedef struct Producer Producer;
typedef struct Slot Slot;

/* ---- ledger.c: what was expected, what was seen -------------------------------------- */

typedef enum SoakKind {
    BH_ONESHOT,
    BH_CHAINED,                 /* the first of a few, each of which schedules the next */
    BH_NESTED,                  /* its callback polls its own loop */
    BH_REUSED,
    BH_IDLE,
    BH_CANCELLED,               /* by its producer: may have run already */
    BH_CANCELLED_AT_HOME,       /* in the loop's thread: must not run */
    BH_DELETED,                 /* by its producer: may have run already */
    BH_DELETES_ITSELF,
    TIMER_ONCE,
    TIMER_REARMED,              /* by its producer while it is pending */
    TIMER_REARMS_ITSELF,
    TIMER_CANCELLED,            /* by its producer: may have fired already */
    CO_ONCE,                    /* scheduled from a producer, ends where it began */
    CO_JOURNEY,
    CO_HOP,                     /* aio_co_reschedule_self() */
    CO_WAKE_LOOP,               /* aio_co_wake() from another loop */
    CO_WAKE_THREAD,             /* aio_co_wake() from a thread without a loop */
    CO_SLEEP,
    FD_EVENTFD,
    FD_MOVED,                   /* handler removed and set elsewhere meanwhile */
    FD_RIVALS,                  /* two, of which each removes the other */
    FD_PIPE,
    FD_PIPE_WORDS,
    LOCK,                       /* a context lock taken, and a plain counter raised under it */
    GLIB_SOURCE,                /* somebody else's source in the GMainContext of a loop */
    SOAK_KINDS
} SoakKind;

enum { PRODUCERS = 14, WAKERS = 2, THREADS = PRODUCERS + WAKERS };

/* An entry: its kind, slot, producer and sequence number. Fits the opaque of a callback. */
typedef uint64_t SoakId;

void ledger_init(uint32_t seed);
void ledger_free(void);
/* Enter one piece of work. Producer's thread. */
SoakId ledger_open(SoakKind kind, Producer *p, const Slot *slot);
/* Close it: it has happened / it was cancelled before. In the slot's home thread. */
void ledger_seen(SoakId id);
void ledger_void(SoakId id);
/* The same for work that is only counted. Any thread. */
void ledger_expect(SoakKind kind, uint64_t n);
void ledger_saw(SoakKind kind, uint64_t n);
/* Fail unless every entry is closed. No other thread is running. */
void ledger_check(void);
/* Print the table, each line behind a '#'. */
void ledger_print(FILE *out);
/* Say what is wrong with ID (0: with nothing in particular), the seed and the table; abort. */
void soak_fail(SoakId id, const char *fmt, ...) G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;

/* ---- slot.c: event loops that come and go -------------------------------------------- */

enum { LOOPS = 8, GLIB_LOOPS = 2, MAIN_SLOT = LOOPS, SLOTS };

typedef struct SharedBh {
    QEMUBH *bh;
    unsigned posted;            /* atomic */
    unsigned handled;           /* home thread */
    unsigned runs;              /* home thread */
} SharedBh;

struct Slot {
    unsigned index;
    AioContext *ctx;            /* written by the main thread while the slot is closed */
    struct IOThread *iothread;  /* NULL: driven by GLIB_THREAD, or the main thread */
    GMainContext *glib;
    QemuThread glib_thread;
    QemuEvent glib_started;
    bool glib_stop;             /* home thread */

    /*
     * atomic: SLOT_CLOSED, and the number of those who need the loop alive. The loop ends
     * when it is closed and that number is 0; one-shot work may still be on its way then.
     */
    unsigned users;
    unsigned gets;              /* atomic; how often it was used in this generation */
    unsigned one_shots, one_shots_seen;     /* atomic, home thread; of this generation */
    unsigned last_words;        /* main thread, then home thread */
    unsigned generation;        /* main thread */

    SharedBh shared;
    void *graves;               /* atomic; what is freed with the loop only */
    uint64_t last_sequence[PRODUCERS];      /* home thread; of one-shot bottom halves */
    unsigned nesting;           /* home thread */
    uint64_t locked_count;      /* protected by the context lock; LOCKED_EXPECTED at the end */
    unsigned locked_expected;   /* atomic */
};
extern Slot slots[SLOTS];

void slots_open_all(void);
void slots_close_all(void);
/* End one loop and begin another in its place. Main thread; polls. */
void slot_renew(Slot *slot);
/* Become a user of a random slot other than OTHER (may be NULL). */
Slot *slot_pick(GRand *rand, const Slot *other);
/* Become a user of SLOT; false when it is closed. */
bool slot_get(Slot *slot);
void slot_put(Slot *slot, unsigned n);
/* Nobody needs the loop alive (any more). */
bool slot_unused(const Slot *slot);
/* The slot whose loop the calling thread runs. */
Slot *slot_here(void);
/* Memory that outlives the work it describes: a second run finds out what it was. */
void *slot_alloc(Slot *slot, size_t bytes);
#define slot_new(slot, type) ((type *)slot_alloc((slot), sizeof(type)))

/* ---- producers: test-soak.c ------------------------------------------------------------- */

/* Something that a producer does somewhat later: other work lies between. */
typedef struct Later {
    void (*fn)(Producer *p, void *opaque);
    void *opaque;
} Later;
enum { LATERS = 4 };

struct Producer {
    unsigned index;
    GRand *rand;
    QemuThread thread;
    uint64_t opened;            /* its own thread */
    uint64_t closed;            /* atomic */
    QemuEvent progress;         /* CLOSED has changed */
    Later laters[LATERS];
};
extern Producer producers[PRODUCERS];
extern bool soak_stopping;      /* atomic */

/* Have P call FN(P, OPAQUE) a few operations from now. P's thread. */
void soak_later(Producer *p, void (*fn)(Producer *p, void *opaque), void *opaque);

/* What a producer can do with a slot it uses; it gives up that use in the end. */
typedef void SoakOp(Producer *p, Slot *slot);
SoakOp soak_bh_oneshot, soak_bh_chained, soak_bh_nested, soak_bh_reused, soak_bh_idle,
       soak_bh_cancelled, soak_bh_cancelled_at_home, soak_bh_deleted, soak_bh_deletes_itself;
SoakOp soak_timer_once, soak_timer_rearmed, soak_timer_rearms_itself, soak_timer_cancelled;
SoakOp soak_co_once, soak_co_journey;
SoakOp soak_fd_eventfd, soak_fd_moved, soak_fd_rivals, soak_fd_pipe;
SoakOp soak_lock, soak_glib_source;
void soak_shared_bh_cb(void *opaque);

/* The thread function of a waker, and the end of all of them. co.c */
void *soak_waker(void *opaque);
void soak_wakers_stop(void);
void soak_co_init(void);

#endif
