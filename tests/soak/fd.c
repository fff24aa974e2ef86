/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File descriptors: eventfds and pipes whose handlers are set, moved and removed. */
#include "tests/soak/soak.h"

enum { WRITES_MAX = 12, WORDS_MAX = 1500, PIPE_BYTES = 4096 };

/* ---- eventfds ------------------------------------------------------------------------ */

typedef struct SoakEvent {
    SoakId id;
    EventNotifier notifier;
    Slot *slot, *next_slot;
    bool left;                  /* home thread of SLOT: the handler has moved to NEXT_SLOT */
    uint64_t written;           /* atomic; raised before the write */
    uint64_t read;              /* atomic */
    uint64_t total;             /* when READ comes to that it is over */
    bool over;                  /* home thread of the last slot */
} SoakEvent;

static uint64_t event_take(SoakEvent *e)
{
    uint64_t n;

    if (read(event_notifier_get_fd(&e->notifier), &n, sizeof(n)) != sizeof(n)) {
        g_assert_cmpint(errno, ==, EAGAIN);
        return 0;
    }
    return n;
}

static void event_give(SoakEvent *e)
{
    qatomic_inc(&e->written);
    if (event_notifier_set(&e->notifier) < 0) {
        soak_fail(e->id, "cannot write an eventfd");
    }
}

static SoakEvent *soak_event_new(SoakKind kind, Producer *p, Slot *slot)
{
    SoakEvent *e = slot_new(slot, SoakEvent);

    e->id = ledger_open(kind, p, slot);
    e->slot = slot;
    e->total = g_rand_int_range(p->rand, 1, WRITES_MAX);
    if (event_notifier_init(&e->notifier, 0) < 0) {
        soak_fail(e->id, "cannot make an eventfd");
    }
    return e;
}

static void event_finish(SoakEvent *e)
{
    e->over = true;
    event_notifier_cleanup(&e->notifier);
    ledger_seen(e->id);
    slot_put(slot_here(), 1);
}

static void event_check(SoakEvent *e, uint64_t n)
{
    uint64_t sum = qatomic_fetch_add(&e->read, n) + n;

    if (e->over || sum > qatomic_read(&e->written)) {
        soak_fail(e->id, "%" PRIu64 " read, %" PRIu64 " written%s", sum, e->written,
                  e->over ? "; after it was over" : "");
    }
}

/* Removes its handler itself when all has come. */
static void event_read_cb(EventNotifier *notifier)
{
    SoakEvent *e = container_of(notifier, SoakEvent, notifier);

    event_check(e, event_take(e));
    if (e->read == e->total) {
        aio_set_event_notifier(e->slot->ctx, notifier, NULL, NULL, NULL);
        event_finish(e);
    }
}

/* Busy polling: looks at memory only. */
static bool event_poll_cb(void *opaque)
{
    SoakEvent *e = container_of((EventNotifier *)opaque, SoakEvent, notifier);
    return qatomic_read(&e->written) > qatomic_read(&e->read);
}

void soak_fd_eventfd(Producer *p, Slot *slot)
{
    SoakEvent *e = soak_event_new(FD_EVENTFD, p, slot);
    uint64_t n = e->total;
    bool polled = g_rand_int_range(p->rand, 0, 2);

    aio_set_event_notifier(slot->ctx, &e->notifier, event_read_cb,
                           polled ? event_poll_cb : NULL, polled ? event_read_cb : NULL);
    while (n--) {
        event_give(e);          /* at the last one E is no longer ours */
    }
}

/*
 *      producer                        home thread of A            home thread of B
 *      set the handler in A
 *      write a few                     handler reads some
 *      remove it from A
 *      post the referee to A           (handler may be running)
 *      write the rest                  referee: set it in B
 *                                                                  handler reads the rest
 */
static void moved_cb(EventNotifier *notifier)
{
    SoakEvent *e = container_of(notifier, SoakEvent, notifier);

    if (slot_here() == e->slot && e->left) {
        soak_fail(e->id, "called in slot %u, where it was removed", e->slot->index);
    }
    event_check(e, event_take(e));
    if (slot_here() == e->next_slot && qatomic_read(&e->read) == e->total) {
        aio_set_event_notifier(e->next_slot->ctx, notifier, NULL, NULL, NULL);
        event_finish(e);
    }
}

static void moved_referee(void *opaque)
{
    SoakEvent *e = opaque;
    Slot *from = slot_here();

    e->left = true;
    /* One more, so that there is something to read in B even if all has come to A. */
    aio_set_event_notifier(e->next_slot->ctx, &e->notifier, moved_cb, NULL, NULL);
    event_give(e);
    slot_put(from, 1);
}

void soak_fd_moved(Producer *p, Slot *slot)
{
    Slot *from = slot_pick(p->rand, slot);
    SoakEvent *e = soak_event_new(FD_MOVED, p, slot);
    uint64_t before = g_rand_int_range(p->rand, 0, e->total + 1), after = e->total - before;

    e->slot = from;
    e->next_slot = slot;
    e->total++;                 /* the referee's */
    aio_set_event_notifier(from->ctx, &e->notifier, moved_cb, NULL, NULL);
    while (before--) {
        event_give(e);
    }
    aio_set_event_notifier(from->ctx, &e->notifier, NULL, NULL, NULL);
    while (after--) {
        event_give(e);
    }
    aio_bh_schedule_oneshot(from->ctx, moved_referee, e);
}

/* ---- two descriptors that are ready in the same iteration ---------------------------- */

/* Whichever handler is called first removes the other, which must not be called then. */
typedef struct Rivals {
    SoakId id;
    EventNotifier notifiers[2];
    unsigned calls;
} Rivals;

static void rival_won(Rivals *r)
{
    if (r->calls++) {
        soak_fail(r->id, "both handlers were called, though the first removed the second");
    }
    for (int i = 0; i < 2; i++) {
        aio_set_event_notifier(slot_here()->ctx, &r->notifiers[i], NULL, NULL, NULL);
        event_notifier_cleanup(&r->notifiers[i]);
    }
    ledger_seen(r->id);
    slot_put(slot_here(), 1);
}

static void rival_0_cb(EventNotifier *notifier)
{
    rival_won(container_of(notifier, Rivals, notifiers[0]));
}

static void rival_1_cb(EventNotifier *notifier)
{
    rival_won(container_of(notifier, Rivals, notifiers[1]));
}

static void rivals_start_cb(void *opaque)
{
    Rivals *r = opaque;
    AioContext *ctx = slot_here()->ctx;

    for (int i = 0; i < 2; i++) {
        if (event_notifier_init(&r->notifiers[i], 1) < 0) {
            soak_fail(r->id, "cannot make an eventfd");
        }
    }
    aio_set_event_notifier(ctx, &r->notifiers[0], rival_0_cb, NULL, NULL);
    aio_set_event_notifier(ctx, &r->notifiers[1], rival_1_cb, NULL, NULL);
}

void soak_fd_rivals(Producer *p, Slot *slot)
{
    Rivals *r = slot_new(slot, Rivals);

    r->id = ledger_open(FD_RIVALS, p, slot);
    aio_bh_schedule_oneshot(slot->ctx, rivals_start_cb, r);
}

/* ---- pipes --------------------------------------------------------------------------- */

/* Numbers in ascending order through a short pipe from one loop to another, then its end. */
typedef struct SoakPipe {
    SoakId id;                  /* of the reading slot */
    int read_fd, write_fd;
    Slot *reader, *writer;
    unsigned words;
    unsigned written;           /* writer's thread */
    unsigned seen;              /* reader's thread */
    bool writer_done;           /* atomic; the writer does not touch this any more */
} SoakPipe;

static void pipe_write_cb(void *opaque)
{
    SoakPipe *q = opaque;

    while (q->written < q->words) {
        uint32_t word = q->written;
        if (write(q->write_fd, &word, sizeof(word)) != sizeof(word)) {
            g_assert_cmpint(errno, ==, EAGAIN);
            return;
        }
        q->written++;
    }
    Slot *writer = q->writer;
    int write_fd = q->write_fd;
    /* pairs with the load in pipe_read_cb(); the end of the pipe orders them too, unseen by C */
    qatomic_store_release(&q->writer_done, true);
    aio_set_fd_handler(writer->ctx, write_fd, NULL, NULL, NULL, NULL, NULL);
    close(write_fd);            /* the reader comes to its end, and Q may be gone */
    slot_put(writer, 1);
}

static void pipe_read_cb(void *opaque)
{
    SoakPipe *q = opaque;
    uint32_t words[64];
    ssize_t n = read(q->read_fd, words, sizeof(words));

    if (n < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
        return;
    }
    if (n == 0) {
        g_assert_true(qatomic_load_acquire(&q->writer_done));
        if (q->seen != q->words) {
            soak_fail(q->id, "it ends after %u of %u words", q->seen, q->words);
        }
        aio_set_fd_handler(q->reader->ctx, q->read_fd, NULL, NULL, NULL, NULL, NULL);
        close(q->read_fd);
        ledger_saw(FD_PIPE_WORDS, q->seen);
        ledger_seen(q->id);
        slot_put(q->reader, 1);
        return;
    }
    for (unsigned i = 0; i < n / sizeof(words[0]); i++) {
        if (words[i] != q->seen++) {
            soak_fail(q->id, "word %u where %u was due", words[i], q->seen - 1);
        }
    }
}

void soak_fd_pipe(Producer *p, Slot *slot)
{
    SoakPipe *q = slot_new(slot, SoakPipe);
    int fds[2];

    q->id = ledger_open(FD_PIPE, p, slot);
    q->reader = slot;
    q->writer = slot_pick(p->rand, slot);
    q->words = g_rand_int_range(p->rand, 0, WORDS_MAX);
    ledger_expect(FD_PIPE_WORDS, q->words);
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
        soak_fail(q->id, "cannot make a pipe");
    }
    q->read_fd = fds[0];
    q->write_fd = fds[1];
    fcntl(q->write_fd, F_SETPIPE_SZ, PIPE_BYTES);
    aio_set_fd_handler(slot->ctx, q->read_fd, pipe_read_cb, NULL, NULL, NULL, q);
    aio_set_fd_handler(q->writer->ctx, q->write_fd, NULL, pipe_write_cb, NULL, NULL, q);
}
