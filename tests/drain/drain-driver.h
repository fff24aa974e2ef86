/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block drivers for tests: one whose requests finish when the test says so, and filters. */
#ifndef DRAIN_DRIVER_H
#define DRAIN_DRIVER_H

#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

/* State of a "test" node, bs->opaque. */
typedef struct TestNode {
    int drained;                /* begin callbacks minus end callbacks */
    int begins;
    int requests_started;       /* atomic */
    int requests_finished;      /* atomic */
    int sleep_hops;             /* each request goes so many times through its loop */
    bool submit_forbidden;      /* set by the test while drained: a request then aborts */
    int attached, detached;     /* AioContext callbacks */
} TestNode;

extern BlockDriver bdrv_test;           /* a protocol-like leaf or format node */
extern BlockDriver bdrv_test_filter;    /* is_filter over bs->backing */

/* A named node of 1 MiB. */
BlockDriverState *test_node(const char *name);
BlockDriverState *test_filter(const char *name);
TestNode *test_state(BlockDriverState *bs);
/* A backend on BS that lets moves take it along. */
BlockBackend *test_backend(BlockDriverState *bs);

/* ---- what many tests begin and end with --------------------------------------------------- */

/* g_test_init() and the library. */
void test_init(int *argc, char ***argv);
/* COUNT IOThreads called io0, io1, ..., and their contexts. */
void test_threads_start(IOThread **io, AioContext **ctx, int count);
void test_threads_stop(IOThread **io, int count);
/*
 * How often to try what goes wrong in few cases: more in a thorough run (-m thorough),
 * two at most in each schedule of the lab. */
int test_rounds(int quick);
/* In the lab, skip the case because of REASON: then true. */
bool test_skips_lab(const char *reason);
/* Move BS and all that is connected with it. */
void test_move(BlockDriverState *bs, AioContext *ctx);
/* No section, request or callback is left over. */
void test_expect_released(BlockDriverState *bs);

/* A node and its backend. */
typedef struct TestDisk {
    BlockDriverState *bs;
    BlockBackend *blk;
} TestDisk;
TestDisk test_disk_new(const char *name, AioContext *ctx);
void test_disk_free(TestDisk *d);

/* ---- load ---------------------------------------------------------------------------------- */

/* Coroutines that make requests over and over. */
typedef struct TestLoad TestLoad;
struct TestLoad {
    BlockBackend *blk;
    void coroutine_fn (*request)(TestLoad *l);  /* one; counts itself in REQUESTS */
    bool stop;                  /* atomic */
    int running;                /* atomic */
    int64_t requests;           /* atomic; done so far */
};
/* Start COROUTINES of them in BLK's context. */
void test_load_start(TestLoad *l, BlockBackend *blk, int coroutines,
                     void coroutine_fn (*request)(TestLoad *l));
/* Until one more request is done; polls. */
void test_load_wait_for_progress(TestLoad *l);
/* Until all have ended; polls. */
void test_load_stop(TestLoad *l);

#endif
