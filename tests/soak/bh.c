/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bottom halves of all kinds, and what else happens in a loop without waiting for anything. */
#include "tests/soak/soak.h"

enum { NESTING_MAX = 6, CHAIN_MAX = 6 };

/* ---- one-shot -------------------------------------------------------------------------- */

/*
 * They need no user of the loop once they are posted: a loop that ends runs them before. In
 * one loop the one-shot works of a producer run in the order of posting.
 */
static void one_shot_seen(SoakId id, unsigned producer, uint64_t sequence)
{
    Slot *slot = slot_here();

    ledger_seen(id);
    slot->one_shots_seen++;
    if (sequence <= slot->last_sequence[producer]) {
        soak_fail(id, "it was overtaken by entry %" PRIu64, slot->last_sequence[producer]);
    }
    slot->last_sequence[producer] = sequence;
}

typedef struct OneShot {
    SoakId id;
    unsigned producer;
    uint64_t sequence;
} OneShot;

static void one_shot_cb(void *opaque)
{
    const OneShot *o = opaque;
    one_shot_seen(o->id, o->producer, o->sequence);
}

static OneShot *one_shot_new(SoakKind kind, Producer *p, Slot *slot)
{
    OneShot *o = slot_new(slot, OneShot);

    o->id = ledger_open(kind, p, slot);
    o->producer = p->index;
    o->sequence = p->opened;
    qatomic_inc(&slot->one_shots);
    return o;
}

void soak_bh_oneshot(Producer *p, Slot *slot)
{
    aio_bh_schedule_oneshot(slot->ctx, one_shot_cb, one_shot_new(BH_ONESHOT, p, slot));
    slot_put(slot, 1);
}

/* What a loop has been given before it ends leads to more, which runs as well. */
typedef struct Chain {
    SoakId id;
    unsigned left;
} Chain;

static void chain_cb(void *opaque)
{
    Chain *c = opaque;

    if (c->left--) {
        aio_bh_schedule_oneshot(slot_here()->ctx, chain_cb, c);
    } else {
        ledger_seen(c->id);
        slot_here()->one_shots_seen++;
    }
}

void soak_bh_chained(Producer *p, Slot *slot)
{
    Chain *c = slot_new(slot, Chain);

    c->id = ledger_open(BH_CHAINED, p, slot);
    c->left = g_rand_int_range(p->rand, 0, CHAIN_MAX);
    qatomic_inc(&slot->one_shots);
    aio_bh_schedule_oneshot(slot->ctx, chain_cb, c);
    slot_put(slot, 1);
}

static void set_cb(void *opaque)
{
    *(bool *)opaque = true;
}

/*
 * Poll from inside a callback: what the outer iteration has yet to run runs here, once, and a
 * wait for something that comes later ends.
 */
static void nested_cb(void *opaque)
{
    Slot *slot = slot_here();
    bool done = false;

    one_shot_cb(opaque);
    if (slot->nesting >= NESTING_MAX) {
        return;
    }
    slot->nesting++;
    aio_poll(slot->ctx, false);
    aio_bh_schedule_oneshot(slot->ctx, set_cb, &done);
    while (!done) {
        aio_poll(slot->ctx, true);
    }
    slot->nesting--;
}

void soak_bh_nested(Producer *p, Slot *slot)
{
    aio_bh_schedule_oneshot(slot->ctx, nested_cb, one_shot_new(BH_NESTED, p, slot));
    slot_put(slot, 1);
}

/* ---- scheduled by everybody ---------------------------------------------------------- */

/* Each schedule is followed by a run that begins after it; there are no more than that. */
void soak_shared_bh_cb(void *opaque)
{
    Slot *slot = opaque;
    SharedBh *shared = &slot->shared;
    unsigned posted = qatomic_load_acquire(&shared->posted);
    unsigned n = posted - shared->handled;

    shared->runs++;
    shared->handled = posted;
    if (n) {
        ledger_saw(BH_REUSED, n);
        slot_put(slot, n);
    }
}

void soak_bh_reused(Producer *p, Slot *slot)
{
    unsigned n = g_rand_int_range(p->rand, 1, 4);

    qatomic_add(&slot->users, n);
    ledger_expect(BH_REUSED, n);
    for (unsigned i = 0; i < n; i++) {
        qatomic_inc(&slot->shared.posted);
        qemu_bh_schedule(slot->shared.bh);
    }
    slot_put(slot, 1);
}

/* ---- one bottom half each ------------------------------------------------------------ */

typedef struct OwnBh {
    SoakId id;
    Slot *slot;
    QEMUBH *bh;
    unsigned runs, runs_max;    /* home thread */
    bool over;                  /* home thread; must not run again */
} OwnBh;

static void own_run(OwnBh *o)
{
    o->runs++;
    if (o->over || o->runs > o->runs_max) {
        soak_fail(o->id, "run %u%s", o->runs, o->over ? " after it was over" : "");
    }
}

static OwnBh *own_new(SoakKind kind, Producer *p, Slot *slot, QEMUBHFunc *cb,
                      unsigned runs_max)
{
    OwnBh *o = slot_new(slot, OwnBh);

    o->id = ledger_open(kind, p, slot);
    o->slot = slot;
    o->runs_max = runs_max;
    o->bh = aio_bh_new(slot->ctx, cb, o);
    return o;
}

static void own_close(OwnBh *o)
{
    o->over = true;
    if (o->runs) {
        ledger_seen(o->id);
    } else {
        ledger_void(o->id);
    }
    slot_put(slot_here(), 1);
}

static void own_cb(void *opaque)
{
    own_run(opaque);
}

static void delete_self_cb(void *opaque)
{
    OwnBh *o = opaque;

    own_run(o);
    qemu_bh_delete(o->bh);
    own_close(o);
}

void soak_bh_deletes_itself(Producer *p, Slot *slot)
{
    OwnBh *o = own_new(BH_DELETES_ITSELF, p, slot, delete_self_cb, 1);
    qemu_bh_schedule(o->bh);
}

/* Idle ones run soon all the same, and one that is hurried afterwards runs once, not twice. */
static void idle_cb(void *opaque)
{
    qemu_bh_schedule_idle(((OwnBh *)opaque)->bh);
}

static void idle_hurried_cb(void *opaque)
{
    OwnBh *o = opaque;

    qemu_bh_schedule_idle(o->bh);
    qemu_bh_schedule(o->bh);
}

void soak_bh_idle(Producer *p, Slot *slot)
{
    OwnBh *o = own_new(BH_IDLE, p, slot, delete_self_cb, 1);

    switch (g_rand_int_range(p->rand, 0, 3)) {
    case 0:
        qemu_bh_schedule_idle(o->bh);
        break;
    case 1:
        aio_bh_schedule_oneshot(slot->ctx, idle_cb, o);
        break;
    default:
        aio_bh_schedule_oneshot(slot->ctx, idle_hurried_cb, o);
    }
}

/*
 * A referee is a one-shot posted after the producer has cancelled or deleted. Because messages
 * run in the order of posting, what was to run has run when the referee does.
 */
static void deleted_referee(void *opaque)
{
    own_close(opaque);
}

static void cancelled_referee(void *opaque)
{
    OwnBh *o = opaque;
    qemu_bh_delete(o->bh);
    own_close(o);
}

static void cancel_later(Producer *p, void *opaque)
{
    OwnBh *o = opaque;

    qemu_bh_cancel(o->bh);
    aio_bh_schedule_oneshot(o->slot->ctx, cancelled_referee, o);
}

void soak_bh_cancelled(Producer *p, Slot *slot)
{
    OwnBh *o = own_new(BH_CANCELLED, p, slot, own_cb, 1);

    qemu_bh_schedule(o->bh);
    soak_later(p, cancel_later, o);
}

static void delete_later(Producer *p, void *opaque)
{
    OwnBh *o = opaque;

    qemu_bh_delete(o->bh);
    aio_bh_schedule_oneshot(o->slot->ctx, deleted_referee, o);
}

void soak_bh_deleted(Producer *p, Slot *slot)
{
    OwnBh *o = own_new(BH_DELETED, p, slot, own_cb, 1);

    qemu_bh_schedule(o->bh);
    soak_later(p, delete_later, o);
}

static void cancel_at_home_cb(void *opaque)
{
    OwnBh *o = opaque;

    qemu_bh_schedule(o->bh);
    qemu_bh_cancel(o->bh);
    aio_bh_schedule_oneshot(slot_here()->ctx, cancelled_referee, o);
}

void soak_bh_cancelled_at_home(Producer *p, Slot *slot)
{
    OwnBh *o = own_new(BH_CANCELLED_AT_HOME, p, slot, own_cb, 0);
    aio_bh_schedule_oneshot(slot->ctx, cancel_at_home_cb, o);
}

/* ---- the context lock ---------------------------------------------------------------- */

void soak_lock(Producer *p, Slot *slot)
{
    unsigned depth = g_rand_int_range(p->rand, 1, 3);

    ledger_expect(LOCK, 1);
    qatomic_inc(&slot->locked_expected);
    for (unsigned i = 0; i < depth; i++) {
        aio_context_acquire(slot->ctx);
    }
    slot->locked_count++;       /* not atomic on purpose */
    for (unsigned i = 0; i < depth; i++) {
        aio_context_release(slot->ctx);
    }
    ledger_saw(LOCK, 1);
    slot_put(slot, 1);
}

/* ---- somebody else's source ---------------------------------------------------------- */

typedef struct GlibWork {
    SoakId id;
} GlibWork;

static gboolean glib_source_cb(void *opaque)
{
    const GlibWork *w = opaque;

    ledger_seen(w->id);
    slot_put(slot_here(), 1);
    return G_SOURCE_REMOVE;
}

static void glib_attach_cb(void *opaque)
{
    GSource *source = g_idle_source_new();

    g_source_set_priority(source, G_PRIORITY_HIGH);
    g_source_set_callback(source, glib_source_cb, opaque, NULL);
    g_source_attach(source, slot_here()->glib);
    g_source_unref(source);
}

/*
 * In the GMainContext that drives a loop, a source of higher priority: when it is ready GLib
 * polls without blocking and does not ask the loop's source whether it is ready (no check).
 * Attached at home, because ThreadSanitizer does not know GLib's locks.
 */
void soak_glib_source(Producer *p, Slot *slot)
{
    if (!slot->glib) {
        soak_bh_oneshot(p, slot);
        return;
    }
    GlibWork *w = slot_new(slot, GlibWork);
    w->id = ledger_open(GLIB_SOURCE, p, slot);
    aio_bh_schedule_oneshot(slot->ctx, glib_attach_cb, w);
}
