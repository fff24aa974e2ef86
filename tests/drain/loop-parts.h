/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests of event loops schedule, wait for and lose: each once, or over and over. */
#ifndef LOOP_PARTS_H
#define LOOP_PARTS_H

#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/thread.h"

void test_nothing_bh(void *opaque);

/* Thread function: set the bool that OPAQUE points to, and kick who waits for it. */
void *test_open_gate(void *opaque);

/*
 * Schedule in CTX a bottom half that deletes itself as soon as it runs, decrements *LEFT
 * (atomic) and kicks.
 */
void test_schedule_suicide(AioContext *ctx, int *left);

/*
 * A thread with a context of its own, which ends, and drops the context, when it is told so
 * there. AWAKE: it never sleeps meanwhile.
 */
typedef struct TestShortLife {
    AioContext *ctx;
    bool awake;
    bool end;                   /* home thread */
    QemuEvent ready;
    QemuThread thread;
} TestShortLife;
void test_short_life_start(TestShortLife *s, bool awake);
/* A bottom half for S->ctx that tells it. */
void test_short_life_end_bh(void *s);
void test_short_life_join(TestShortLife *s);

/* A device with a doorbell, whose handler in CTX can be taken away and put back. */
typedef struct TestRing {
    AioContext *ctx;
    EventNotifier doorbell;
    int requests, served;       /* atomic */
} TestRing;
/* CTX busy-polls for POLL_MAX_NS (0: not at all) until the ring is freed. */
void test_ring_init(TestRing *ring, AioContext *ctx, int64_t poll_max_ns);
void test_ring_free(TestRing *ring);
/* Bottom halves in CTX. */
void test_ring_attach_bh(void *ring);
void test_ring_detach_bh(void *ring);
/* One request, and its event. Any thread. */
void test_ring_request(TestRing *ring);
/* Until all have been served; polls. */
void test_ring_wait(TestRing *ring);

#endif
