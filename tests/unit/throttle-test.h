/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of throttling share: limits, requests in any thread, waiting for them. */
#ifndef THROTTLE_TEST_H
#define THROTTLE_TEST_H

#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "miniblk/throttle-groups.h"

enum { REQUEST_BYTES = 4096 };

static inline ThrottleGroupMember *member(BlockBackend *blk)
{
    return &blk_get_public(blk)->throttle_group_member;
}

/* A backend on a null-co node of its own, in CTX. */
static inline BlockBackend *null_backend(AioContext *ctx)
{
    QDict *options = qdict_new();
    qdict_put_str(options, "driver", "null-co");
    BlockBackend *blk = blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    blk_set_allow_aio_context_change(blk, true);
    g_assert_cmpint(blk_set_aio_context(blk, ctx, &error_abort), ==, 0);
    return blk;
}

static inline ThrottleConfig one_limit(BucketType type, uint64_t avg, uint64_t max)
{
    ThrottleConfig cfg;
    throttle_config_init(&cfg);
    cfg.buckets[type].avg = avg;
    cfg.buckets[type].max = max;
    return cfg;
}

/* So little that nothing passes for hours after the first request. */
static inline ThrottleConfig almost_nothing(void)
{
    return one_limit(THROTTLE_BPS_TOTAL, 1, 0);
}

/* The next N operations pass at once, and then none for hours. */
static inline ThrottleConfig exactly(BucketType type, int n)
{
    /* the bucket holds N - 1, and one more may go over its brim */
    return one_limit(type, 1, n - 1);
}

typedef struct Request {
    BlockBackend *blk;
    QEMUIOVector qiov;
    uint8_t buf[REQUEST_BYTES];
    int done;                   /* atomic; how often it was completed */
    int serial;                 /* of its completion, over all; from 1 */
} Request;

static int requests_done;       /* atomic */

static inline void request_cb(void *opaque, int ret)
{
    Request *r = opaque;

    g_assert_cmpint(ret, ==, 0);
    r->serial = qatomic_fetch_inc(&requests_done) + 1;
    qatomic_inc(&r->done);
}

static inline Request *start_request(BlockBackend *blk, ThrottleDirection d)
{
    Request *r = g_new0(Request, 1);

    r->blk = blk;
    qemu_iovec_init_buf(&r->qiov, r->buf, REQUEST_BYTES);
    if (d == THROTTLE_READ) {
        blk_aio_preadv(blk, 0, &r->qiov, 0, request_cb, r);
    } else {
        blk_aio_pwritev(blk, 0, &r->qiov, 0, request_cb, r);
    }
    return r;
}

static inline bool is_done(Request *r)
{
    return qatomic_load_acquire(&r->done) > 0;
}

static inline void wait_for(Request *r)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(r));
}

static inline void wait_for_count(int n)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_load_acquire(&requests_done) < n);
}

/* Run what is ready in CTX's thread. */
static inline void nothing(void *opaque) { }
static inline void let_run(AioContext *ctx)
{
    for (int i = 0; i < 3; i++) {
        if (ctx == qemu_get_aio_context()) {
            while (aio_poll(ctx, false)) {
                /* until it is idle */
            }
        } else {
            aio_wait_bh_oneshot(ctx, nothing, NULL);
        }
    }
}

static inline void free_request(Request *r)
{
    g_assert_cmpint(qatomic_read(&r->done), ==, 1);
    g_free(r);
}

#endif
