/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots: event loops in IOThreads, in threads that run GLib's main loop, and the main loop.
 * All but the last are ended and begun anew all the time.
 */
#include "tests/soak/soak.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

enum { GETS_PER_GENERATION = 200, LAST_WORDS = 4 };
#define SLOT_CLOSED (1u << 31)

Slot slots[SLOTS];

static __thread Slot *here;

/* Not inlined: a coroutine may continue in another thread. */
QEMU_NOINLINE Slot *slot_here(void)
{
    Slot *slot = here;
    __asm__ volatile("" : "+r"(slot));
    return slot;
}

static void enter_slot(void *opaque)
{
    here = opaque;
}

/* ---- users --------------------------------------------------------------------------- */

bool slot_get(Slot *slot)
{
    unsigned old = qatomic_read(&slot->users), seen;

    while (!(old & SLOT_CLOSED)) {
        seen = qatomic_cmpxchg(&slot->users, old, old + 1);
        if (seen == old) {
            qatomic_inc(&slot->gets);
            return true;
        }
        old = seen;
    }
    return false;
}

void slot_put(Slot *slot, unsigned n)
{
    qatomic_sub(&slot->users, n);
    aio_wait_kick();
}

bool slot_unused(const Slot *slot)
{
    return !(qatomic_read_sc(&slot->users) & ~SLOT_CLOSED);
}

Slot *slot_pick(GRand *rand, const Slot *other)
{
    Slot *slot;

    do {
        slot = &slots[g_rand_int_range(rand, 0, SLOTS)];
    } while (slot == other || !slot_get(slot));
    return slot;
}

/* ---- memory -------------------------------------------------------------------------- */

typedef struct Grave {
    struct Grave *next;
    _Alignas(max_align_t) char bytes[];
} Grave;

void *slot_alloc(Slot *slot, size_t bytes)
{
    Grave *grave = g_malloc0(sizeof(Grave) + bytes);
    void *head = qatomic_read(&slot->graves), *seen;

    for (;;) {
        grave->next = head;
        seen = qatomic_cmpxchg(&slot->graves, head, (void *)grave);
        if (seen == head) {
            return grave->bytes;
        }
        head = seen;
    }
}

static void free_graves(Slot *slot)
{
    Grave *grave = slot->graves;

    slot->graves = NULL;
    while (grave) {
        Grave *next = grave->next;
        g_free(grave);
        grave = next;
    }
}

/* ---- loops driven by GLib ------------------------------------------------------------ */

static void glib_stop(void *opaque)
{
    Slot *slot = opaque;
    slot->glib_stop = true;
}

static void *glib_run(void *opaque)
{
    Slot *slot = opaque;
    GSource *source = aio_get_g_source(slot->ctx);

    enter_slot(slot);
    qemu_set_current_aio_context(slot->ctx);
    g_source_attach(source, slot->glib);
    qemu_event_set(&slot->glib_started);
    while (!slot->glib_stop) {
        g_main_context_iteration(slot->glib, true);
    }
    while (aio_poll(slot->ctx, false)) {
        /* what was scheduled runs before the loop ends, as in an IOThread */
    }
    g_source_destroy(source);
    g_source_unref(source);
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void glib_create(Slot *slot)
{
    slot->glib = g_main_context_new();
    slot->ctx = aio_context_new(&error_abort);
    slot->glib_stop = false;
    qemu_event_init(&slot->glib_started, false);
    qemu_thread_create(&slot->glib_thread, "glib", glib_run, slot, QEMU_THREAD_JOINABLE);
    qemu_event_wait(&slot->glib_started);
}

static void glib_destroy(Slot *slot)
{
    aio_bh_schedule_oneshot(slot->ctx, glib_stop, slot);
    qemu_thread_join(&slot->glib_thread);
    qemu_event_destroy(&slot->glib_started);
    aio_context_unref(slot->ctx);
    g_main_context_unref(slot->glib);
    slot->glib = NULL;
}

/* ---- generations --------------------------------------------------------------------- */

static void slot_open(Slot *slot)
{
    if (slot->index == MAIN_SLOT) {
        slot->ctx = qemu_get_aio_context();
        enter_slot(slot);
    } else if (slot->index < GLIB_LOOPS) {
        glib_create(slot);
    } else {
        g_autofree char *id = g_strdup_printf("io%u", slot->index);
        slot->iothread = iothread_create(id, &error_abort);
        slot->ctx = iothread_get_aio_context(slot->iothread);
        aio_bh_schedule_oneshot(slot->ctx, enter_slot, slot);
    }
    if (slot->generation++ % 2) {
        /* no busy polling: the loop is asleep whenever it can be */
        aio_context_set_poll_params(slot->ctx, 0, 0, 0, &error_abort);
    }
    slot->gets = slot->one_shots = slot->one_shots_seen = 0;
    slot->locked_count = slot->locked_expected = 0;
    slot->shared = (SharedBh) { 0 };
    slot->shared.bh = aio_bh_new(slot->ctx, soak_shared_bh_cb, slot);
    memset(slot->last_sequence, 0, sizeof(slot->last_sequence));
    qatomic_set_mb(&slot->users, 0);
}

static void check_counts(const Slot *slot)
{
    const SharedBh *shared = &slot->shared;

    if (slot->one_shots != slot->one_shots_seen) {
        soak_fail(0, "slot %u ended with %u of %u one-shot works done", slot->index,
                  slot->one_shots_seen, slot->one_shots);
    }
    if (shared->handled != shared->posted || shared->runs > shared->posted) {
        soak_fail(0, "the bottom half of slot %u was scheduled %u times, ran %u times and has "
                  "seen %u", slot->index, shared->posted, shared->runs, shared->handled);
    }
    if (slot->locked_count != slot->locked_expected) {
        soak_fail(0, "the lock of slot %u was taken %u times, the counter says %" PRIu64,
                  slot->index, slot->locked_expected, slot->locked_count);
    }
}

/* A loop that ends still runs what its last work has led to. */
static void last_words(void *opaque)
{
    Slot *slot = opaque;

    if (slot->last_words--) {
        aio_bh_schedule_oneshot(slot->ctx, last_words, slot);
    } else {
        slot->one_shots_seen++;
    }
}

static void slot_close(Slot *slot)
{
    qatomic_or(&slot->users, SLOT_CLOSED);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&slot->users) != SLOT_CLOSED);

    qatomic_inc(&slot->one_shots);
    slot->last_words = LAST_WORDS;
    aio_bh_schedule_oneshot(slot->ctx, last_words, slot);
    qemu_bh_delete(slot->shared.bh);
    if (slot->index == MAIN_SLOT) {
        while (aio_poll(slot->ctx, false)) {
            /* what is still scheduled */
        }
    } else if (slot->iothread) {
        iothread_destroy(slot->iothread);
    } else {
        glib_destroy(slot);
    }
    check_counts(slot);
    free_graves(slot);
}

void slots_open_all(void)
{
    for (int i = 0; i < SLOTS; i++) {
        slots[i].index = i;
        slot_open(&slots[i]);
    }
}

void slots_close_all(void)
{
    for (int i = 0; i < SLOTS; i++) {
        slot_close(&slots[i]);
    }
}

void slot_renew(Slot *slot)
{
    aio_poll(qemu_get_aio_context(), false);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&slot->gets) < GETS_PER_GENERATION &&
                                  !qatomic_read(&soak_stopping));
    slot_close(slot);
    slot_open(slot);
}
