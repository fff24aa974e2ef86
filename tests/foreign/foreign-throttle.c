/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Throttling by QEMU's names: buckets, limits, timers, groups of backends. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/throttle-groups.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/throttle.h"
#include "qemu/throttle-options.h"
#include "sysemu/block-backend.h"

static ThrottleState state;
static ThrottleTimers timers;

static void read_timer_cb(void *opaque)
{
}

static void write_timer_cb(void *opaque)
{
}

static void test_bucket(void)
{
    LeakyBucket bkt = { .avg = 100, .level = 100, .burst_length = 1 };

    throttle_leak_bucket(&bkt, NANOSECONDS_PER_SECOND / 2);
    g_assert_cmpfloat(bkt.level, ==, 50);
    g_assert_cmpint(throttle_compute_wait(&bkt), ==, 4 * (NANOSECONDS_PER_SECOND / 10));
    bkt.max = 100;
    g_assert_cmpint(throttle_compute_wait(&bkt), ==, 0);
}

static void test_state_and_timers(void)
{
    AioContext *ctx = qemu_get_aio_context();
    ThrottleConfig cfg, read_back;

    throttle_init(&state);
    throttle_timers_init(&timers, ctx, QEMU_CLOCK_VIRTUAL, read_timer_cb, write_timer_cb,
                         &state);
    g_assert_true(throttle_timers_are_initialized(&timers));
    g_assert_nonnull(timers.timers[THROTTLE_READ]);
    g_assert_cmpint(timers.clock_type, ==, QEMU_CLOCK_VIRTUAL);

    throttle_config_init(&cfg);
    g_assert_false(throttle_enabled(&cfg));
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        g_assert_cmpint(cfg.buckets[i].burst_length, ==, 1);
    }
    cfg.buckets[THROTTLE_OPS_TOTAL].avg = THROTTLE_VALUE_MAX;
    cfg.op_size = 512;
    g_assert_true(throttle_enabled(&cfg));
    g_assert_true(throttle_is_valid(&cfg, &error_abort));
    throttle_config(&state, QEMU_CLOCK_VIRTUAL, &cfg);
    throttle_get_config(&state, &read_back);
    g_assert_true(!memcmp(&cfg, &read_back, sizeof(cfg)));
    g_assert_true(state.previous_leak != 0);
    throttle_account(&state, THROTTLE_WRITE, 1024);
    g_assert_cmpfloat(state.cfg.buckets[THROTTLE_OPS_TOTAL].level, ==, 2);
    g_assert_cmpfloat(state.cfg.buckets[THROTTLE_BPS_WRITE].level, ==, 1024);

    throttle_timers_detach_aio_context(&timers);
    g_assert_false(throttle_timers_are_initialized(&timers));
    throttle_timers_attach_aio_context(&timers, ctx);
    throttle_timers_destroy(&timers);
    g_assert_false(throttle_timers_are_initialized(&timers));
}

static void test_limits_out_of_range(void)
{
    ThrottleConfig cfg;
    Error *err = NULL;

    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_BPS_READ].avg = THROTTLE_VALUE_MAX + 1;
    g_assert_false(throttle_is_valid(&cfg, &err));
    error_free_or_abort(&err);
}

static void test_groups(void)
{
    BlockBackend *blk[2];
    ThrottleGroupMember *tgm[2];
    ThrottleConfig cfg[2];

    for (int i = 0; i < 2; i++) {
        blk[i] = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
        tgm[i] = &blk_get_public(blk[i])->throttle_group_member;
        g_assert_null(tgm[i]->throttle_state);
        throttle_group_register_tgm(tgm[i], "group", blk_get_aio_context(blk[i]));
        g_assert_cmpstr(throttle_group_get_name(tgm[i]), ==, "group");
    }
    g_assert_true(tgm[0]->throttle_state == tgm[1]->throttle_state);
    throttle_config_init(&cfg[0]);
    cfg[0].buckets[THROTTLE_BPS_TOTAL].avg = 1000;
    throttle_group_config(tgm[0], &cfg[0]);
    for (int i = 0; i < 2; i++) {
        throttle_group_get_config(tgm[i], &cfg[1]);
        g_assert_true(!memcmp(&cfg[0], &cfg[1], sizeof(cfg[0])));
    }
    for (int i = 0; i < 2; i++) {
        throttle_group_unregister_tgm(tgm[i]);
        g_assert_null(tgm[i]->throttle_state);
        g_assert_false(throttle_timers_are_initialized(&tgm[i]->throttle_timers));
        blk_unref(blk[i]);
    }
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    module_call_init(MODULE_INIT_QOM);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/bucket", test_bucket);
    g_test_add_func("/throttle/state-and-timers", test_state_and_timers);
    g_test_add_func("/throttle/limits-out-of-range", test_limits_out_of_range);
    g_test_add_func("/throttle/groups", test_groups);
    return g_test_run();
}
