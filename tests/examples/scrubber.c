/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long-running work in the loop of its node, which it follows from thread to thread. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/block.h"
#include "miniblk/block-backend.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

enum { CHUNK_BYTES = 64 * 1024 };

typedef struct Scrubber {
    BlockBackend *blk;
    Coroutine *co;
    bool drained;               /* atomic; written by the main thread */
    bool parked;                /* in the loop while it runs, main thread while it is parked */
    int64_t done_bytes;
    int threads;                /* how often it found itself in another thread */
    bool finished;              /* atomic */
} Scrubber;

/* ---- in the loop of the node ---------------------------------------------------------- */

static void give_token_back(void *opaque)
{
    Scrubber *s = opaque;
    blk_dec_in_flight(s->blk);
}

/*
 * Between two requests: if the node is drained, stand still until it is not any more.
 * The token is given back by the loop and not by us, so after we have yielded: once it is
 * gone the move goes on, and we may be entered in another thread at any moment.
 */
static void coroutine_fn scrubber_pause_point(Scrubber *s)
{
    while (qatomic_read(&s->drained)) {
        s->parked = true;
        aio_bh_schedule_oneshot(qemu_get_current_aio_context(), give_token_back, s);
        qemu_coroutine_yield();         /* until drained_end, which has taken it again */
    }
}

static void coroutine_fn scrubber_run(void *opaque)
{
    Scrubber *s = opaque;
    g_autofree char *buf = g_malloc(CHUNK_BYTES);
    int64_t total_bytes = blk_getlength(s->blk);
    AioContext *here = NULL;

    while (s->done_bytes < total_bytes) {
        scrubber_pause_point(s);
        /* We hold a token: until we park again nobody can move us. */
        s->threads += here != qemu_get_current_aio_context();
        here = qemu_get_current_aio_context();
        g_assert(here == blk_get_aio_context(s->blk));
        if (blk_co_pread(s->blk, s->done_bytes, CHUNK_BYTES, buf, 0) < 0) {
            break;
        }
        s->done_bytes += CHUNK_BYTES;
    }
    qatomic_set_mb(&s->finished, true);
    blk_dec_in_flight(s->blk);          /* the last thing: S may be gone */
    aio_wait_kick();
}

/* ---- in the main thread ----------------------------------------------------------------- */

static void scrubber_enter(Scrubber *s)
{
    blk_inc_in_flight(s->blk);          /* before there is anything to count */
    aio_co_schedule(blk_get_aio_context(s->blk), s->co);
}

static void scrubber_drained_begin(void *opaque)
{
    Scrubber *s = opaque;
    qatomic_set(&s->drained, true);
}

static void scrubber_drained_end(void *opaque)
{
    Scrubber *s = opaque;

    qatomic_set(&s->drained, false);
    if (s->parked) {
        s->parked = false;
        scrubber_enter(s);              /* where the node lives now */
    }
}

static const BlockDevOps scrubber_dev_ops = {
    .drained_begin = scrubber_drained_begin,
    .drained_end = scrubber_drained_end,
};

static void scrubber_start(Scrubber *s, BlockDriverState *bs)
{
    *s = (Scrubber) { .co = qemu_coroutine_create(scrubber_run, s) };
    s->blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_fatal);
    blk_set_dev_ops(s->blk, &scrubber_dev_ops, s);
    blk_set_allow_aio_context_change(s->blk, true);
    /* It parks by itself, with its token; a request must not park under it as well. */
    blk_set_disable_request_queuing(s->blk, true);
    scrubber_enter(s);
}

/* ---- a node that travels --------------------------------------------------------------- */

static BlockDriverState *open_disk(void)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", 1 << 30);
    qdict_put_int(options, "latency-ns", 1000);
    return bdrv_open(NULL, NULL, options, 0, &error_fatal);
}

static void move(BlockDriverState *bs, AioContext *to)
{
    AioContext *from = bdrv_get_aio_context(bs);

    aio_context_acquire(from);
    bdrv_try_change_aio_context(bs, to, NULL, &error_fatal);
    aio_context_release(from);
}

int main(void)
{
    Scrubber s;
    AioContext *homes[3];
    int moves = 0;

    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    homes[0] = qemu_get_aio_context();
    homes[1] = iothread_get_aio_context(iothread_create("io0", &error_fatal));
    homes[2] = iothread_get_aio_context(iothread_create("io1", &error_fatal));
    BlockDriverState *bs = open_disk();

    scrubber_start(&s, bs);
    while (!qatomic_read_sc(&s.finished)) {
        move(bs, homes[++moves % 3]);
    }
    move(bs, homes[0]);
    blk_unref(s.blk);
    bdrv_unref(bs);
    iothread_destroy(iothread_by_id("io0"));
    iothread_destroy(iothread_by_id("io1"));
    printf("%d MiB in %d moves, %d times in a new thread\n", (int)(s.done_bytes >> 20), moves,
           s.threads);
    return s.done_bytes == 1 << 30 ? 0 : 1;
}
