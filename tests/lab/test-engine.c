/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's engine. Small programs are run through all their schedules with up to so many
 * deviations, by an enumeration of this file's own, and what can happen in them is compared
 * with what must: litmus tests for store buffers, planted bugs for every kind of failure.
 * A checker that finds nothing here is not to be believed elsewhere.
 */
#include "miniblk/osdep.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "aio/port.h"
#include "miniblk/atomic.h"
#include "lab/lab.h"
#include "lab/world.h"

/* What the schedules of a case have shown: one bit per outcome. */
static uint64_t seen LAB_KEEP;

static void saw(unsigned outcome)
{
    g_assert_cmpuint(outcome, <, 64);
    seen |= UINT64_C(1) << outcome;
}

/* ---- two threads ----------------------------------------------------------------------- */

static int x, y, r0, r1;
static pthread_mutex_t lock_a, lock_b;
static pthread_cond_t cond;

static void run_two(void *(*first)(void *), void *(*second)(void *))
{
    pthread_t a, b;

    pthread_create(&a, NULL, first, NULL);
    pthread_create(&b, NULL, second, NULL);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
}

static void saw_registers(void)
{
    saw(r0 * 2 + r1);
}

#define THREAD(name, ...)                                                       \
    static void *name(void *opaque)                                             \
    {                                                                           \
        __VA_ARGS__                                                             \
        return NULL;                                                            \
    }
#define LITMUS(name, first, second)                                             \
    THREAD(name##_0, first)                                                     \
    THREAD(name##_1, second)                                                    \
    static void name(void)                                                      \
    {                                                                           \
        run_two(name##_0, name##_1);                                            \
        saw_registers();                                                        \
    }

/* Store buffering: each stores, then looks at the other's. */
LITMUS(store_buffering,
       qatomic_set(&x, 1); r0 = qatomic_read(&y);,
       qatomic_set(&y, 1); r1 = qatomic_read(&x);)
LITMUS(store_buffering_fenced,
       qatomic_set(&x, 1); smp_mb(); r0 = qatomic_read(&y);,
       qatomic_set(&y, 1); smp_mb(); r1 = qatomic_read(&x);)
LITMUS(store_buffering_half_fenced,
       qatomic_set(&x, 1); smp_mb(); r0 = qatomic_read(&y);,
       qatomic_set(&y, 1); r1 = qatomic_read(&x);)
LITMUS(store_buffering_exchanged,
       qatomic_set_mb(&x, 1); r0 = qatomic_read(&y);,
       qatomic_set_mb(&y, 1); r1 = qatomic_read(&x);)
/* A write barrier orders stores only. */
LITMUS(store_buffering_wmb,
       qatomic_store_release(&x, 1); smp_wmb(); r0 = qatomic_load_acquire(&y);,
       qatomic_store_release(&y, 1); smp_wmb(); r1 = qatomic_load_acquire(&x);)
LITMUS(store_buffering_locked,
       pthread_mutex_lock(&lock_a); qatomic_set(&x, 1); pthread_mutex_unlock(&lock_a);
       r0 = qatomic_read(&y);,
       pthread_mutex_lock(&lock_b); qatomic_set(&y, 1); pthread_mutex_unlock(&lock_b);
       r1 = qatomic_read(&x);)
LITMUS(store_buffering_yielding,
       qatomic_set(&x, 1); port_futex_wake(&r0, 1); r0 = qatomic_read(&y);,
       qatomic_set(&y, 1); port_futex_wake(&r1, 1); r1 = qatomic_read(&x);)
/* Message passing: stores land in order. */
LITMUS(message_passing,
       qatomic_set(&x, 1); qatomic_set(&y, 1);,
       r0 = qatomic_read(&y); r1 = qatomic_read(&x);)
LITMUS(load_buffering,
       r0 = qatomic_read(&x); qatomic_set(&y, 1);,
       r1 = qatomic_read(&y); qatomic_set(&x, 1);)

/* Freeing what was stored to is no barrier. */
LITMUS(store_buffering_freeing,
       int *p = g_new0(int, 1); qatomic_set(&x, 1); qatomic_set(p, 1); g_free(p);
       r0 = qatomic_read(&y);,
       int *p = g_new0(int, 1); qatomic_set(&y, 1); qatomic_set(p, 1); g_free(p);
       r1 = qatomic_read(&x);)

/* Two stores to each of two places: in the end they cannot both show the first. */
THREAD(two_two_0, qatomic_set(&x, 1); qatomic_set(&y, 2);)
THREAD(two_two_1, qatomic_set(&y, 1); qatomic_set(&x, 2);)
static void two_and_two_writes(void)
{
    run_two(two_two_0, two_two_1);
    saw((x - 1) * 2 + y - 1);
}

/* A thread sees its own stores at once, by whatever instruction, of whatever size. */
static struct { bool b; uint16_t h; uint32_t w; void *p; } sized;
THREAD(own_stores,
       qatomic_set(&sized.b, true);
       qatomic_set(&sized.h, 0x1234);
       qatomic_set(&sized.w, 1);
       qatomic_set(&sized.w, 2);
       qatomic_set(&sized.p, &sized);
       g_assert_true(*(volatile bool *)&sized.b);
       g_assert_cmpuint(*(volatile uint16_t *)&sized.h, ==, 0x1234);
       g_assert_cmpuint(qatomic_read(&sized.w), ==, 2);
       g_assert_true(qatomic_read(&sized.p) == &sized);
       sized.w = 3;             /* a plain one on top */
       g_assert_cmpuint(qatomic_read(&sized.w), ==, 3);
       qatomic_inc(&sized.w);
       g_assert_cmpuint(sized.w, ==, 4);)
/* Others see them one after the other: no W without B and H, no P without W. */
THREAD(others_stores,
       void *p = qatomic_read(&sized.p);
       unsigned w = qatomic_read(&sized.w);
       unsigned h = qatomic_read(&sized.h);
       bool b = qatomic_read(&sized.b);
       g_assert_true(!p || w >= 2);
       g_assert_true(!w || h);
       g_assert_true(!h || b);
       saw(w);)
static void own_and_others_stores(void)
{
    run_two(own_stores, others_stores);
    g_assert_cmpuint(sized.w, ==, 4);
}

/* The last of three stores is a plain one, which waits with the one before it. */
THREAD(store_thrice, qatomic_set(&x, 1); qatomic_set(&x, 2); *(volatile int *)&x = 3;)
THREAD(see_one_place, saw(qatomic_read(&x));)
static void one_place(void)
{
    run_two(store_thrice, see_one_place);
}

/* Who finds an initialisation done finds what it has stored. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void set_x_once(void)
{
    qatomic_set(&x, 1);
}
THREAD(initialise, pthread_once(&once, set_x_once); g_assert_cmpint(qatomic_read(&x), ==, 1);)
static void initialise_once(void)
{
    run_two(initialise, initialise);
}

/* GLib's locks and queues publish what was stored before. */
static GMutex glib_lock;
THREAD(set_both_locked,
       g_mutex_lock(&glib_lock);
       qatomic_set(&x, 1);
       y = 1;
       g_mutex_unlock(&glib_lock);)
THREAD(see_both_locked,
       g_mutex_lock(&glib_lock);
       saw(y * 2 + qatomic_read(&x));
       g_mutex_unlock(&glib_lock);)
static void glib_mutex(void)
{
    run_two(set_both_locked, see_both_locked);
}

static GAsyncQueue *glib_queue;
THREAD(store_and_push, qatomic_set(&x, 1); g_async_queue_push(glib_queue, &x);)
THREAD(pop_and_see, saw(qatomic_read((int *)g_async_queue_pop(glib_queue)));)
static void glib_async_queue(void)
{
    glib_queue = g_async_queue_new();
    run_two(store_and_push, pop_and_see);
    g_async_queue_unref(glib_queue);
}

/* Memory that is freed has no pending stores. */
THREAD(store_and_free,
       int *p = g_new0(int, 4);
       qatomic_set(&p[1], 1);
       g_free(p);)
static void stores_and_free(void)
{
    run_two(store_and_free, store_and_free);
}

/* ---- planted bugs ---------------------------------------------------------------------- */

static int work, asleep;

/*
 *      waiter                          waker
 *      asleep = 1                      work = 1
 *      work? no:                       asleep? no: nothing to do
 *      sleep
 *
 * needs a full barrier in the middle of both.
 */
static void wait_for_work(bool barrier)
{
    qatomic_set(&asleep, 1);
    if (barrier) {
        smp_mb();
    }
    if (!qatomic_read(&work)) {
        port_futex_wait(&asleep, 1);
    }
}

static void give_work(bool barrier)
{
    qatomic_set(&work, 1);
    if (barrier) {
        smp_mb();
    }
    if (qatomic_read(&asleep)) {
        qatomic_set(&asleep, 0);
        port_futex_wake(&asleep, 1);
    }
}

THREAD(waiter, wait_for_work(false);)
THREAD(waker, give_work(false);)
static void lost_wake_up(void)
{
    run_two(waiter, waker);
}

THREAD(fenced_waiter, wait_for_work(true);)
THREAD(fenced_waker, give_work(true);)
static void no_lost_wake_up(void)
{
    run_two(fenced_waiter, fenced_waker);
}

/* Looks at the flag before it takes the lock. */
THREAD(early_looker,
       if (!qatomic_read(&work)) {
           pthread_mutex_lock(&lock_a);
           pthread_cond_wait(&cond, &lock_a);
           pthread_mutex_unlock(&lock_a);
       })
THREAD(signaller,
       pthread_mutex_lock(&lock_a);
       qatomic_set(&work, 1);
       pthread_cond_signal(&cond);
       pthread_mutex_unlock(&lock_a);)
static void lost_signal(void)
{
    run_two(early_looker, signaller);
}

THREAD(a_then_b, pthread_mutex_lock(&lock_a); pthread_mutex_lock(&lock_b);
       pthread_mutex_unlock(&lock_b); pthread_mutex_unlock(&lock_a);)
THREAD(b_then_a, pthread_mutex_lock(&lock_b); pthread_mutex_lock(&lock_a);
       pthread_mutex_unlock(&lock_a); pthread_mutex_unlock(&lock_b);)
static void lock_order(void)
{
    run_two(a_then_b, b_then_a);
}

/* A circle of two, while a third goes on for ever. */
THREAD(busy_for_ever, for (;;) { usleep(1000); })
static void lock_order_beside_others(void)
{
    pthread_t t;
    pthread_create(&t, NULL, busy_for_ever, NULL);
    run_two(a_then_b, b_then_a);
}

static void self_deadlock(void)
{
    pthread_mutex_lock(&lock_a);
    pthread_mutex_lock(&lock_a);
}

THREAD(keep_lock, pthread_mutex_lock(&lock_a);)
THREAD(nothing,)
static void lock_never_released(void)
{
    run_two(keep_lock, nothing);
    pthread_mutex_lock(&lock_a);
}

THREAD(unlock_a, pthread_mutex_unlock(&lock_a);)
static void unlock_by_another(void)
{
    pthread_mutex_lock(&lock_a);
    run_two(unlock_a, nothing);
}

static void destroy_locked(void)
{
    pthread_mutex_lock(&lock_a);
    pthread_mutex_destroy(&lock_a);
}

static void use_destroyed(void)
{
    pthread_mutex_destroy(&lock_a);
    pthread_mutex_lock(&lock_a);
}

THREAD(wait_on_cond, pthread_mutex_lock(&lock_a); pthread_cond_wait(&cond, &lock_a);)
static void destroy_waited_for(void)
{
    pthread_t t;
    pthread_create(&t, NULL, wait_on_cond, NULL);
    usleep(1);
    pthread_cond_destroy(&cond);
}

THREAD(spin_for_y, while (!qatomic_read(&y)) { port_cpu_relax(); })
THREAD(spin_for_x, while (!qatomic_read(&x)) { port_cpu_relax(); })
static void spin_for_ever(void)
{
    run_two(spin_for_y, spin_for_x);
}

THREAD(set_y_slowly, usleep(1000000); qatomic_set(&y, 1);)
static void spin_for_a_sleeper(void)
{
    run_two(spin_for_y, set_y_slowly);
}

/* No hint to the processor, and the store is still in the buffer of a thread that spins. */
THREAD(set_x_spin_for_y, qatomic_set(&x, 1); while (!qatomic_read(&y)) { })
THREAD(set_y_spin_for_x, qatomic_set(&y, 1); while (!qatomic_read(&x)) { })
static void spin_for_each_other(void)
{
    run_two(set_x_spin_for_y, set_y_spin_for_x);
}

/* With a hint, after which the stores land soon. */
THREAD(set_x_wait_for_y, qatomic_set(&x, 1); while (!qatomic_read(&y)) { port_cpu_relax(); })
THREAD(set_y_wait_for_x, qatomic_set(&y, 1); while (!qatomic_read(&x)) { port_cpu_relax(); })
static void wait_for_each_other(void)
{
    int64_t start_ns = port_clock_ns(false);

    run_two(set_x_wait_for_y, set_y_wait_for_x);
    g_assert_cmpint(port_clock_ns(false) - start_ns, <, 100000);
}

/* Alone, without a hint or a look at the clock. */
THREAD(just_spin_for_y, while (!qatomic_read(&y)) { })
static void just_spin_for_a_sleeper(void)
{
    run_two(just_spin_for_y, set_y_slowly);
}

/* Which comes first is a race, but not one with the lab's own memory. */
static int fd_to_close;
THREAD(close_it, g_assert_cmpint(close(fd_to_close), ==, 0);)
THREAD(read_it,
       uint64_t value;
       ssize_t n = read(fd_to_close, &value, sizeof(value));
       saw(n == sizeof(value));
       g_assert_true(n == sizeof(value) || errno == EBADF);)
static void close_or_read(void)
{
    fd_to_close = eventfd(1, EFD_NONBLOCK);
    run_two(close_it, read_it);
}

THREAD(poll_for_y,
       int fd = port_eventfd(0);
       struct pollfd p = { .fd = fd, .events = POLLIN };
       while (!qatomic_read(&y)) {
           port_poll_ms(&p, 1, 0);
       }
       close(fd);)
static void poll_for_a_sleeper(void)
{
    run_two(poll_for_y, set_y_slowly);
}

static void false_assertion(void)
{
    g_assert_cmpint(x, ==, 1);
}

/* ---- choices of the environment -------------------------------------------------------- */

static int woken_first;         /* 0: nobody yet */

static void wait_as(int number)
{
    pthread_mutex_lock(&lock_a);
    work++;
    pthread_cond_wait(&cond, &lock_a);
    woken_first = woken_first ? woken_first : number;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock_a);
}

THREAD(wait_as_1, wait_as(1);)
THREAD(wait_as_2, wait_as(2);)
static void who_is_woken(void)
{
    pthread_t a, b;

    pthread_create(&a, NULL, wait_as_1, NULL);
    pthread_create(&b, NULL, wait_as_2, NULL);
    pthread_mutex_lock(&lock_a);
    while (work < 2) {
        pthread_mutex_unlock(&lock_a);
        usleep(1);
        pthread_mutex_lock(&lock_a);
    }
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock_a);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    saw(woken_first);
}

THREAD(if_not_while,
       pthread_mutex_lock(&lock_a);
       if (!work) {
           pthread_cond_wait(&cond, &lock_a);
       }
       g_assert_cmpint(work, ==, 1);
       pthread_mutex_unlock(&lock_a);)
static void spurious_wake_up(void)
{
    run_two(if_not_while, signaller);
}

static bool timed_out;

THREAD(timed_waiter,
       pthread_mutex_lock(&lock_a);
       timed_out = !work && !port_cond_timedwait(&cond, &lock_a, 1000000000);
       pthread_mutex_unlock(&lock_a);)
static void signal_or_timeout(void)
{
    run_two(timed_waiter, signaller);
    saw(timed_out);
}

/* No step of one conflicts with any of the other, by what the lab sees; their order matters. */
static int plain;

THREAD(write_plain, qatomic_set(&x, 1); plain = 1;)
THREAD(read_plain, qatomic_set(&y, 1); saw(plain);)
static void plain_memory(void)
{
    run_two(write_plain, read_plain);
}

static void order_of_ready(void)
{
    enum { N = 20 };
    int epfd = epoll_create1(0);
    struct epoll_event ev[N];

    for (int i = 0; i < N; i++) {
        ev[0] = (struct epoll_event) { .events = EPOLLIN, .data.u32 = i };
        epoll_ctl(epfd, EPOLL_CTL_ADD, eventfd(1, 0), &ev[0]);
    }
    g_assert_cmpint(epoll_wait(epfd, ev, N, -1), ==, N);
    saw(ev[0].data.u32);
}

/* ---- the enumeration ------------------------------------------------------------------- */

typedef struct Expectation {
    const char *path;
    void (*test)(void);
    unsigned bound;             /* deviations */
    bool tso, clock, spurious;
    LabVerdict verdict;         /* of some schedule; LAB_OK: of all */
    uint64_t outcomes;          /* exactly these are seen (bits) */
    const char *words;          /* in the message of the failure */
} Expectation;

enum { TSO = 1, SC = 0, CLOCK = 1, SPURIOUS = 1, LIVELOCK_STEPS = 20000 };

static const Expectation expectations[] = {
    { "/tso/store-buffering", store_buffering, 3, TSO, .outcomes = 0xf },
    { "/sc/store-buffering", store_buffering, 3, SC, .outcomes = 0xe },
    { "/tso/store-buffering/fenced", store_buffering_fenced, 3, TSO, .outcomes = 0xe },
    { "/tso/store-buffering/half-fenced", store_buffering_half_fenced, 3, TSO,
      .outcomes = 0xf },
    { "/tso/store-buffering/exchanged", store_buffering_exchanged, 3, TSO, .outcomes = 0xe },
    { "/tso/store-buffering/wmb", store_buffering_wmb, 3, TSO, .outcomes = 0xf },
    { "/tso/store-buffering/locked", store_buffering_locked, 2, TSO, .outcomes = 0xe },
    { "/tso/store-buffering/system-call", store_buffering_yielding, 2, TSO, .outcomes = 0xe },
    { "/tso/store-buffering/freeing", store_buffering_freeing, 3, TSO, .outcomes = 0xf },
    { "/tso/message-passing", message_passing, 3, TSO, .outcomes = 0xb },
    { "/tso/load-buffering", load_buffering, 3, TSO, .outcomes = 0x7 },
    { "/tso/two-and-two-writes", two_and_two_writes, 3, TSO, .outcomes = 0xe },
    { "/sc/two-and-two-writes", two_and_two_writes, 3, SC, .outcomes = 0xe },
    { "/tso/own-stores", own_and_others_stores, 3, TSO, .outcomes = 0x19 },
    { "/tso/stores-to-one-place", one_place, 3, TSO, .outcomes = 0xb },
    { "/tso/once", initialise_once, 3, TSO },
    { "/tso/glib/mutex", glib_mutex, 3, TSO, .outcomes = 0x9 },
    { "/tso/glib/queue", glib_async_queue, 3, TSO, .outcomes = 0x2 },
    { "/tso/free", stores_and_free, 3, TSO },

    { "/bug/lost-wake-up", lost_wake_up, 2, TSO, .verdict = LAB_DEADLOCK, .words = "futex" },
    { "/no-bug/lost-wake-up/sc", lost_wake_up, 3, SC },
    { "/no-bug/lost-wake-up/fenced", no_lost_wake_up, 3, TSO },
    { "/bug/lost-signal", lost_signal, 1, SC, .verdict = LAB_DEADLOCK,
      .words = "condition variable" },
    { "/bug/lock-order", lock_order, 1, SC, .verdict = LAB_CYCLE, .words = "held by T" },
    { "/bug/lock-order/beside-others", lock_order_beside_others, 2, SC,
      .verdict = LAB_CYCLE, .words = "would wait for itself" },
    { "/bug/self-deadlock", self_deadlock, 0, SC, .verdict = LAB_CYCLE,
      .words = "holds itself" },
    { "/bug/never-released", lock_never_released, 0, SC, .verdict = LAB_DEADLOCK,
      .words = "held by T1" },
    { "/bug/unlock-by-another", unlock_by_another, 0, SC, .verdict = LAB_ORACLE,
      .words = "another thread holds it" },
    { "/bug/destroy-locked", destroy_locked, 0, SC, .verdict = LAB_ORACLE,
      .words = "it is locked" },
    { "/bug/use-destroyed", use_destroyed, 0, SC, .verdict = LAB_ORACLE,
      .words = "has been destroyed" },
    { "/bug/destroy-waited-for", destroy_waited_for, 0, SC, .verdict = LAB_ORACLE,
      .words = "threads wait" },
    { "/bug/spin-for-ever", spin_for_ever, 0, SC, .verdict = LAB_LIVELOCK,
      .words = "This repeats" },
    { "/no-bug/spin/sleeper", spin_for_a_sleeper, 1, TSO },
    { "/no-bug/spin/sleeper/no-hint", just_spin_for_a_sleeper, 0, TSO },
    { "/no-bug/spin/each-other", spin_for_each_other, 1, TSO },
    { "/no-bug/spin/each-other/hint", wait_for_each_other, 1, TSO },
    { "/no-bug/poll/sleeper", poll_for_a_sleeper, 1, TSO },
    { "/bug/assertion", false_assertion, 0, SC, .verdict = LAB_ASSERT, .words = "x == 1" },

    { "/choice/waiter", who_is_woken, 1, SC, .outcomes = 0x6 },
    { "/choice/spurious", spurious_wake_up, 1, SC, .spurious = SPURIOUS,
      .verdict = LAB_ASSERT },
    { "/choice/spurious/none", spurious_wake_up, 2, SC },
    { "/choice/timeout", signal_or_timeout, 2, SC, CLOCK, .outcomes = 0x3 },
    { "/choice/close-or-read", close_or_read, 2, SC, .outcomes = 0x3 },
    { "/choice/plain-memory", plain_memory, 1, SC, .outcomes = 0x3 },
    { "/choice/ready", order_of_ready, 1, SC, .outcomes = 0xfffff },
};

enum { CHOICES_MAX = 1 << 16 };

/* Depth first over the options of all choices. */
static struct Search {
    unsigned bound;
    unsigned fixed;             /* options given; what comes after them is 0 */
    unsigned n;                 /* choices of this schedule */
    uint16_t option[CHOICES_MAX], width[CHOICES_MAX];
} search LAB_KEEP;

static unsigned choose(void *opaque, const LabChoice *choice)
{
    struct Search *s = opaque;
    unsigned i = s->n++;

    if (i >= CHOICES_MAX) {
        return 0;
    }
    s->option[i] = i < s->fixed ? s->option[i] : 0;
    s->width[i] = choice->n;
    return s->option[i];
}

/* False: all have been tried. */
static bool next_schedule(struct Search *s)
{
    unsigned deviations = 0, last = s->n < CHOICES_MAX ? s->n : CHOICES_MAX;

    for (unsigned i = 0; i < last; i++) {
        deviations += s->option[i] != 0;
    }
    for (unsigned i = last; i-- > 0;) {
        bool more = s->option[i] + 1 < s->width[i];
        if (more && (s->option[i] || deviations < s->bound)) {
            s->option[i]++;
            s->fixed = i + 1;
            return true;
        }
        deviations -= s->option[i] != 0;
    }
    return false;
}

typedef struct Found {
    uint64_t schedules, failures, diverged;
    LabOutcome failure;         /* the first */
} Found;

static Found explore(unsigned number, const Expectation *e)
{
    static LabOutcome outcome LAB_KEEP;
    static Found found LAB_KEEP;
    LabStrategy strategy = { .choose = choose, .opaque = &search };
    LabLimits limits = { .tso = e->tso, .clock = e->clock, .spurious = e->spurious,
                         .steps = LIVELOCK_STEPS };

    memset(&found, 0, sizeof(found));
    seen = 0;
    search.bound = e->bound;
    search.fixed = 0;
    do {
        search.n = 0;
        lab_execute(number, &strategy, &limits, &outcome);
        if (outcome.verdict != LAB_OK && found.failures++ == 0) {
            found.failure = outcome;
        }
        if (found.schedules++ % 16 == 0) {
            uint64_t hash = outcome.trace_hash;
            unsigned fixed = search.fixed;
            search.fixed = search.n < CHOICES_MAX ? search.n : CHOICES_MAX;
            search.n = 0;
            lab_execute(number, &strategy, &limits, &outcome);
            found.diverged += outcome.trace_hash != hash;
            search.fixed = fixed;
        }
    } while (next_schedule(&search));
    return found;
}

static bool as_expected(const Expectation *e, const Found *f)
{
    bool right = f->diverged == 0 && seen == e->outcomes &&
                 (f->failures > 0) == (e->verdict != LAB_OK) &&
                 (!f->failures || f->failure.verdict == e->verdict) &&
                 (!e->words || strstr(f->failure.message, e->words));

    if (!right) {
        printf("# %" PRIu64 " schedules, %" PRIu64 " failed, %" PRIu64 " diverged; outcomes "
               "0x%" PRIx64 ", must be 0x%" PRIx64 "; verdict must be %s\n", f->schedules,
               f->failures, f->diverged, seen, e->outcomes, lab_verdict_name(e->verdict));
    }
    if (f->failures && (!right || g_getenv("V"))) {
        printf("# %s: %s\n", lab_verdict_name(f->failure.verdict), f->failure.message);
    }
    return right;
}

/* In place of the lab's own. */
int lab_main(void)
{
    int failures = 0;

    if (!lab_world_restores()) {
        printf("1..0 # SKIP with a sanitizer a schedule needs a process of its own\n");
        return 0;
    }

    printf("1..%zu\n", G_N_ELEMENTS(expectations));
    for (unsigned i = 0; i < G_N_ELEMENTS(expectations); i++) {
        Found f = explore(i, &expectations[i]);
        bool right = as_expected(&expectations[i], &f);
        printf("%s %u %s # %" PRIu64 " schedules\n", right ? "ok" : "not ok", i + 1,
               expectations[i].path, f.schedules);
        failures += !right;
    }
    return failures ? 1 : 0;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(expectations); i++) {
        g_test_add_func(expectations[i].path, expectations[i].test);
    }
    return g_test_run();
}
