/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "loop-parts.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"

void test_nothing_bh(void *opaque)
{
}

void *test_open_gate(void *opaque)
{
    qatomic_set_mb((bool *)opaque, true);
    aio_wait_kick();
    return NULL;
}

/* ---- gone as soon as it runs ------------------------------------------------------------ */

typedef struct Suicide {
    QEMUBH *bh;
    int *left;                  /* atomic */
} Suicide;

static void suicide_bh(void *opaque)
{
    Suicide *s = opaque;
    int *left = s->left;

    qemu_bh_delete(s->bh);
    memset(s, 0xff, sizeof(*s));
    g_free(s);
    qatomic_dec(left);
    aio_wait_kick();
}

void test_schedule_suicide(AioContext *ctx, int *left)
{
    Suicide *s = g_new(Suicide, 1);
    QEMUBH *bh = aio_bh_new(ctx, suicide_bh, s);

    *s = (Suicide) { bh, left };
    qemu_bh_schedule(bh);       /* S may be gone from here on */
}

static void *short_life(void *opaque)
{
    TestShortLife *s = opaque;
    AioContext *ctx = aio_context_new(&error_abort);

    qemu_set_current_aio_context(ctx);
    s->ctx = ctx;
    qemu_event_set(&s->ready);
    while (!s->end) {
        aio_poll(ctx, !s->awake);
    }
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
    return NULL;
}

void test_short_life_start(TestShortLife *s, bool awake)
{
    *s = (TestShortLife) { .awake = awake };
    qemu_event_init(&s->ready, false);
    qemu_thread_create(&s->thread, "short", short_life, s, QEMU_THREAD_JOINABLE);
    qemu_event_wait(&s->ready);
}

void test_short_life_end_bh(void *s)
{
    ((TestShortLife *)s)->end = true;
}

void test_short_life_join(TestShortLife *s)
{
    qemu_thread_join(&s->thread);
    qemu_event_destroy(&s->ready);
}

/* ---- a ring ----------------------------------------------------------------------------- */

static void ring_serve(EventNotifier *e)
{
    TestRing *ring = container_of(e, TestRing, doorbell);

    event_notifier_test_and_clear(e);
    qatomic_set_mb(&ring->served, qatomic_read_sc(&ring->requests));
    aio_wait_kick();
}

static bool ring_poll(void *opaque)
{
    EventNotifier *e = opaque;
    TestRing *ring = container_of(e, TestRing, doorbell);

    return qatomic_read(&ring->requests) != qatomic_read(&ring->served);
}

void test_ring_attach_bh(void *opaque)
{
    TestRing *ring = opaque;

    aio_set_event_notifier(ring->ctx, &ring->doorbell, ring_serve, ring_poll, ring_serve);
}

void test_ring_detach_bh(void *opaque)
{
    TestRing *ring = opaque;

    aio_set_event_notifier(ring->ctx, &ring->doorbell, NULL, NULL, NULL);
}

void test_ring_init(TestRing *ring, AioContext *ctx, int64_t poll_max_ns)
{
    *ring = (TestRing) { .ctx = ctx };
    g_assert_cmpint(event_notifier_init(&ring->doorbell, 0), ==, 0);
    aio_context_set_poll_params(ctx, poll_max_ns, 0, 0, &error_abort);
    test_ring_attach_bh(ring);
}

void test_ring_free(TestRing *ring)
{
    aio_wait_bh_oneshot(ring->ctx, test_ring_detach_bh, ring);
    aio_context_set_poll_params(ring->ctx, 0, 0, 0, &error_abort);
    event_notifier_cleanup(&ring->doorbell);
}

void test_ring_request(TestRing *ring)
{
    qatomic_inc(&ring->requests);
    event_notifier_set(&ring->doorbell);
}

void test_ring_wait(TestRing *ring)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&ring->served) !=
                                  qatomic_read_sc(&ring->requests));
}
