/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leaky buckets and limits: arithmetic, without a clock where that is possible. */
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "miniblk/throttle.h"

static bool near(double a, double b)
{
    return a - b < 1e-6 && b - a < 1e-6;
}

static const int64_t SECOND_NS = NANOSECONDS_PER_SECOND;

/* ---- one bucket ------------------------------------------------------------------- */

static void test_bucket_leaks_at_its_rate_and_not_below_empty(void)
{
    static const struct {
        uint64_t avg, max, length;
        double level, burst_level;
        int64_t ns;
        double level_after, burst_level_after;
    } table[] = {
        /* avg  max  s  level burst      ns   level  burst */
        {  100,   0, 1,   50,    0,  100000000,  40,   0 },
        {  100,   0, 1,   50,    0,  500000000,   0,   0 },
        {  100,   0, 1,   50,    0, 5000000000,   0,   0 },
        {  100, 500, 1,   50,   30,  100000000,  40,  30 },     /* no long burst */
        {  100, 500, 2,   50,   30,   10000000,  49,  25 },
        {  100, 500, 2,   50,   30,  100000000,  40,   0 },
        {    0,   0, 1,   50,    0, 1000000000,  50,   0 },
        {  100,   0, 1,   50,    0,          0,  50,   0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        LeakyBucket b = { .avg = table[i].avg, .max = table[i].max,
                          .burst_length = table[i].length, .level = table[i].level,
                          .burst_level = table[i].burst_level };
        throttle_leak_bucket(&b, table[i].ns);
        g_assert_cmpfloat(b.level, ==, table[i].level_after);
        g_assert_cmpfloat(b.burst_level, ==, table[i].burst_level_after);
    }
}

static void test_wait_is_the_time_to_leak_down_to_the_brim(void)
{
    static const struct {
        uint64_t avg, max, length;
        double level, burst_level;
        int64_t ns;
    } table[] = {
        /* avg  max  s  level  burst         ns */
        {    0,   0, 1, 1e12,     0,          0 },      /* no limit */
        {  100,   0, 1,   10,     0,          0 },      /* 100 ms pass at once */
        {  100,   0, 1,   11,     0,   10000000 },
        {  100,   0, 1,  110,     0, 1000000000 },
        {    5,   0, 1,  0.5,     0,          0 },
        {    5,   0, 1,  1.0,     0,  100000000 },
        {  100, 200, 1,  200,     0,          0 },
        {  100, 200, 1,  201,     0,   10000000 },
        {  100, 200, 1,  150,  1000,          0 },      /* burst level is not in use */
        {  100, 200, 3,  600,     0,          0 },
        {  100, 200, 3,  601,     0,   10000000 },
        {  100, 200, 3,  100,    20,          0 },
        {  100, 200, 3,  100,    21,    5000000 },      /* faster than the burst rate */
        {  100, 200, 3,  601,    22,   10000000 },      /* the full bucket counts first */
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        LeakyBucket b = { .avg = table[i].avg, .max = table[i].max,
                          .burst_length = table[i].length, .level = table[i].level,
                          .burst_level = table[i].burst_level };
        g_assert_cmpint(throttle_compute_wait(&b), ==, table[i].ns);
    }
}

static void test_wait_does_not_overflow(void)
{
    LeakyBucket b = { .avg = 1, .burst_length = 1, .level = 1e18 };
    g_assert_cmpint(throttle_compute_wait(&b), ==, INT64_MAX);
}

/* ---- rates over time, with a clock of our own ------------------------------------- */

/* Units that get through in NS when there is always one more of SIZE waiting. */
static double greedy(LeakyBucket b, int64_t ns, double size)
{
    double done = 0;

    for (int64_t now = 0; now < ns; ) {
        int64_t wait = throttle_compute_wait(&b);
        if (wait == 0) {
            b.level += size;
            if (b.burst_length > 1) {
                b.burst_level += size;
            }
            done += size;
        } else {
            throttle_leak_bucket(&b, wait);
            now += wait;
        }
    }
    return done;
}

static void test_rate_in_the_long_run_is_the_average(void)
{
    static const double sizes[] = { 1, 7, 1000 };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        LeakyBucket b = { .avg = 1000, .burst_length = 1 };
        double done = greedy(b, 100 * SECOND_NS, sizes[i]);
        g_assert_cmpfloat(done, >=, 100 * 1000);
        /* plus what passes at once, and the request that goes over the brim */
        g_assert_cmpfloat(done, <=, 100 * 1000 + 100 + 2 * sizes[i]);
    }
}

static void test_burst_has_its_rate_and_its_length(void)
{
    /* the documentation's example: 100 a second, bursts of 2000 for 60 s */
    LeakyBucket b = { .avg = 100, .max = 2000, .burst_length = 60 };

    double first_s = greedy(b, SECOND_NS, 1);
    g_assert_cmpfloat(first_s, >=, 2000);
    g_assert_cmpfloat(first_s, <=, 2000 + 200 + 2);
    double minute = greedy(b, 60 * SECOND_NS, 1);
    g_assert_cmpfloat(minute, >=, 60 * 2000);
    g_assert_cmpfloat(minute, <=, 60 * 2000 + 200 + 2);
    /* 3 s more, because it leaks meanwhile, and then only the average */
    double long_time = greedy(b, 1000 * SECOND_NS, 1);
    g_assert_cmpfloat(long_time, >=, 60 * 2000 + 1000 * 100);
    g_assert_cmpfloat(long_time, <=, 60 * 2000 + 1000 * 100 + 202);
}

static void test_burst_of_one_second_passes_at_once(void)
{
    LeakyBucket b = { .avg = 100, .max = 2000, .burst_length = 1 };
    g_assert_cmpfloat(greedy(b, 1, 1), ==, 2001);
}

/* ---- limits ----------------------------------------------------------------------- */

static void test_new_limits_limit_nothing(void)
{
    ThrottleConfig cfg;
    ThrottleState ts;

    memset(&cfg, 0xff, sizeof(cfg));
    throttle_config_init(&cfg);
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        g_assert_cmpuint(cfg.buckets[i].avg, ==, 0);
        g_assert_cmpuint(cfg.buckets[i].max, ==, 0);
        g_assert_cmpuint(cfg.buckets[i].burst_length, ==, 1);
    }
    g_assert_cmpuint(cfg.op_size, ==, 0);
    g_assert_false(throttle_enabled(&cfg));
    g_assert_true(throttle_is_valid(&cfg, &error_abort));

    memset(&ts, 0xff, sizeof(ts));
    throttle_init(&ts);
    g_assert_false(throttle_enabled(&ts.cfg));
    g_assert_cmpint(ts.previous_leak, ==, 0);
}

static void test_any_rate_is_a_limit_and_a_burst_alone_is_none(void)
{
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        ThrottleConfig cfg;
        throttle_config_init(&cfg);
        cfg.buckets[i].max = 5;
        g_assert_false(throttle_enabled(&cfg));
        cfg.buckets[i].avg = 5;
        g_assert_true(throttle_enabled(&cfg));
    }
}

static void test_config_is_installed_with_empty_buckets_and_a_time(void)
{
    ThrottleConfig cfg, back;
    ThrottleState ts;

    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_BPS_READ].avg = 77;
    cfg.buckets[THROTTLE_OPS_WRITE] = (LeakyBucket) { .avg = 5, .max = 6, .burst_length = 7 };
    cfg.op_size = 4096;
    throttle_init(&ts);
    throttle_config(&ts, QEMU_CLOCK_VIRTUAL, &cfg);
    throttle_get_config(&ts, &back);
    g_assert_cmpmem(&back, sizeof(back), &cfg, sizeof(cfg));
    g_assert_cmpint(ts.previous_leak, !=, 0);

    /* levels are not taken over */
    cfg.buckets[THROTTLE_BPS_READ].level = 3;
    cfg.buckets[THROTTLE_OPS_WRITE].burst_level = 4;
    throttle_config(&ts, QEMU_CLOCK_VIRTUAL, &cfg);
    throttle_get_config(&ts, &cfg);
    g_assert_cmpmem(&back, sizeof(back), &cfg, sizeof(cfg));
}

/* TEXT as JSON, with ' for ". */
static QDict *json_of(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "'", -1);
    g_autofree char *json = g_strjoinv("\"", parts);
    QDict *object = json_loads(json, 0, NULL);
    g_assert_nonnull(object);
    return object;
}

static void test_limits_that_make_no_sense_are_refused(void)
{
    static const char range[] = "bps/iops/max values must be within [0, 1000000000000000]";
    static const char mixed[] = "bps/iops/max total values and read/write values cannot be "
                                "used at the same time";
    static const char need_rate[] = "bps_max/iops_max require corresponding bps/iops values";
    static const char too_low[] = "bps_max/iops_max cannot be lower than bps/iops";
    static const char no_burst[] = "burst length set without burst rate";
    static const char too_long[] = "burst length too high for this burst rate";
    static const char zero[] = "the burst length cannot be 0";
    static const char length_range[] =
        "iops-total-max-length value must be in the range [0, 4294967295]";
    static const struct {
        const char *limits, *error;     /* NULL: fine */
    } table[] = {
        { "{}", NULL },
        { "{'iops-total': 1}", NULL },
        { "{'iops-total': 1000000000000000}", NULL },
        { "{'iops-total': 1000000000000001}", range },
        { "{'iops-total': -4}", range },
        { "{'iops-total': 5, 'iops-total-max': 1000000000000001}", range },
        { "{'iops-total': 5, 'iops-total-max': 1000000000000000}", NULL },
        { "{'iops-total': 100, 'iops-read': 5}", mixed },
        { "{'iops-total': 100, 'iops-write': 5}", mixed },
        { "{'bps-total': 100, 'bps-read': 5}", mixed },
        { "{'bps-total-max': 100, 'bps-read-max': 5}", mixed },
        { "{'bps-total': 100, 'iops-read': 5}", NULL },
        { "{'iops-read': 100, 'iops-write': 5}", NULL },
        { "{'iops-size': 4096}", "iops size requires an iops value to be set" },
        { "{'iops-size': 4096, 'bps-total': 10}",
          "iops size requires an iops value to be set" },
        { "{'iops-size': 4096, 'iops-write': 10}", NULL },
        { "{'iops-total-max': 10}", need_rate },
        { "{'iops-total-max': 100, 'iops-read': 5}", need_rate },
        { "{'iops-total': 100, 'iops-read-max': 5}", need_rate },
        { "{'iops-total': 100, 'iops-total-max': 10}", too_low },
        { "{'iops-total': 100, 'iops-total-max': 100}", NULL },
        { "{'iops-total-max-length': 0}", zero },
        { "{'iops-total-max': 20, 'iops-total-max-length': 0}", zero },
        { "{'iops-total': 100, 'iops-total-max-length': 5}", no_burst },
        { "{'iops-total': 100, 'iops-total-max-length': 1}", NULL },
        { "{'iops-total': 100, 'iops-total-max': 900000000000000,"
          " 'iops-total-max-length': 5000}", too_long },
        { "{'iops-total': 50, 'iops-total-max': 1000000000000000,"
          " 'iops-total-max-length': 1}", NULL },
        { "{'iops-total': 50, 'iops-total-max': 1000000000000000,"
          " 'iops-total-max-length': 2}", too_long },
        { "{'iops-total': 50, 'iops-total-max': 20, 'iops-total-max-length': 4000000000}",
          too_low },
        { "{'iops-total': 50, 'iops-total-max': 20, 'iops-total-max-length': 5000000000}",
          length_range },
        { "{'bps-write': 'x'}", "Invalid parameter type for 'bps-write', expected: integer" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        g_autoptr(json_t) object = json_of(table[i].limits);
        ThrottleConfig cfg, before;
        Error *err = NULL;

        throttle_config_init(&cfg);
        before = cfg;
        bool ok = throttle_config_update(&cfg, object, "", &err);
        g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, table[i].error);
        g_assert_true(ok == !table[i].error);
        if (!ok) {
            g_assert_cmpmem(&cfg, sizeof(cfg), &before, sizeof(before));
            error_free(err);
        }
    }
}

static void test_single_properties_have_their_own_words(void)
{
    g_autoptr(json_t) negative = json_of("{'x-iops-total': -1}");
    g_autoptr(json_t) fine = json_of("{'x-iops-total': 9, 'iops-total': 4, 'other': []}");
    ThrottleConfig cfg;
    Error *err = NULL;

    throttle_config_init(&cfg);
    g_assert_false(throttle_config_update(&cfg, negative, "x-", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Property values cannot be negative");
    error_free(err);
    g_assert_true(throttle_config_update(&cfg, fine, "x-", &error_abort));
    g_assert_cmpuint(cfg.buckets[THROTTLE_OPS_TOTAL].avg, ==, 9);
}

static void test_limits_go_to_names_and_back(void)
{
    g_autoptr(json_t) given = json_of(
        "{'iops-total': 1, 'iops-total-max': 2, 'iops-total-max-length': 3,"
        " 'bps-read': 4, 'bps-read-max': 5, 'bps-read-max-length': 6,"
        " 'bps-write': 7, 'iops-size': 8}");
    g_autoptr(json_t) named = qdict_new();
    ThrottleConfig cfg, back;

    throttle_config_init(&cfg);
    g_assert_true(throttle_config_update(&cfg, given, "", &error_abort));
    throttle_config_to_qdict(&cfg, named, "x-");
    g_assert_cmpint(json_object_size(named), ==, 19);
    g_assert_cmpint(json_integer_value(json_object_get(named, "x-bps-read-max")), ==, 5);
    g_assert_cmpint(json_integer_value(json_object_get(named, "x-iops-write")), ==, 0);
    throttle_config_init(&back);
    g_assert_true(throttle_config_update(&back, named, "x-", &error_abort));
    g_assert_cmpmem(&back, sizeof(back), &cfg, sizeof(cfg));
}

/* ---- charging --------------------------------------------------------------------- */

static void test_request_is_charged_to_its_own_and_the_common_buckets(void)
{
    static const struct {
        ThrottleDirection direction;
        uint64_t op_size, size;
        double bytes, ops;
    } table[] = {
        { THROTTLE_READ,     0,    4096,    4096, 1 },
        { THROTTLE_WRITE,    0,    4096,    4096, 1 },
        { THROTTLE_READ,     0,       0,       0, 1 },
        { THROTTLE_READ,     0, 1 << 20, 1 << 20, 1 },
        { THROTTLE_READ,  4096,    8192,    8192, 2 },  /* the documentation's examples */
        { THROTTLE_WRITE, 4096,    6144,    6144, 1.5 },
        { THROTTLE_READ,  4096,    4096,    4096, 1 },
        { THROTTLE_READ,  4096,     512,     512, 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        bool write = table[i].direction == THROTTLE_WRITE;
        ThrottleState ts;

        throttle_init(&ts);
        ts.cfg.op_size = table[i].op_size;
        ts.cfg.buckets[THROTTLE_BPS_TOTAL].burst_length = 2;
        throttle_account(&ts, table[i].direction, table[i].size);
        LeakyBucket *b = ts.cfg.buckets;
        g_assert_true(near(b[THROTTLE_BPS_TOTAL].level, table[i].bytes));
        g_assert_true(near(b[THROTTLE_BPS_TOTAL].burst_level, table[i].bytes));
        g_assert_true(near(b[THROTTLE_OPS_TOTAL].level, table[i].ops));
        g_assert_true(near(b[THROTTLE_OPS_TOTAL].burst_level, 0));
        g_assert_true(near(b[THROTTLE_BPS_READ].level, write ? 0 : table[i].bytes));
        g_assert_true(near(b[THROTTLE_BPS_WRITE].level, write ? table[i].bytes : 0));
        g_assert_true(near(b[THROTTLE_OPS_READ].level, write ? 0 : table[i].ops));
        g_assert_true(near(b[THROTTLE_OPS_WRITE].level, write ? table[i].ops : 0));
    }
}

/* ---- timers ----------------------------------------------------------------------- */

static void count(void *opaque)
{
    ++*(int *)opaque;
}

static void test_timers_exist_between_attach_and_detach(void)
{
    AioContext *ctx = qemu_get_aio_context();
    ThrottleTimers tt = { 0 };
    int calls = 0;

    g_assert_false(throttle_timers_are_initialized(&tt));
    throttle_timers_init(&tt, ctx, QEMU_CLOCK_VIRTUAL, count, count, &calls);
    g_assert_true(throttle_timers_are_initialized(&tt));
    g_assert_true(tt.timers[THROTTLE_READ] && tt.timers[THROTTLE_WRITE]);
    g_assert_cmpint(tt.clock_type, ==, QEMU_CLOCK_VIRTUAL);
    throttle_timers_detach_aio_context(&tt);
    g_assert_false(throttle_timers_are_initialized(&tt));
    throttle_timers_attach_aio_context(&tt, ctx);
    g_assert_true(throttle_timers_are_initialized(&tt));
    throttle_timers_destroy(&tt);
    g_assert_false(throttle_timers_are_initialized(&tt));
}

static void test_direction_without_callback_has_no_timer(void)
{
    AioContext *ctx = qemu_get_aio_context();
    ThrottleTimers tt = { 0 };
    int calls = 0;

    throttle_timers_init(&tt, ctx, QEMU_CLOCK_VIRTUAL, count, NULL, &calls);
    g_assert_true(tt.timers[THROTTLE_READ] && !tt.timers[THROTTLE_WRITE]);
    g_assert_true(throttle_timers_are_initialized(&tt));
    throttle_timers_destroy(&tt);
    throttle_timers_init(&tt, ctx, QEMU_CLOCK_VIRTUAL, NULL, count, &calls);
    g_assert_true(!tt.timers[THROTTLE_READ] && tt.timers[THROTTLE_WRITE]);
    throttle_timers_destroy(&tt);
}

static void test_timer_is_armed_while_one_must_wait(void)
{
    ThrottleConfig cfg;
    ThrottleState ts;
    ThrottleTimers tt;
    int calls = 0;

    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_OPS_WRITE].avg = 1000;
    throttle_init(&ts);
    throttle_config(&ts, QEMU_CLOCK_VIRTUAL, &cfg);
    throttle_timers_init(&tt, qemu_get_aio_context(), QEMU_CLOCK_VIRTUAL, count, count,
                         &calls);
    g_assert_false(throttle_schedule_timer(&ts, &tt, THROTTLE_WRITE));
    ts.cfg.buckets[THROTTLE_OPS_WRITE].level = 130;
    g_assert_false(throttle_schedule_timer(&ts, &tt, THROTTLE_READ));
    g_assert_true(throttle_schedule_timer(&ts, &tt, THROTTLE_WRITE));
    g_assert_true(timer_pending(tt.timers[THROTTLE_WRITE]));
    g_assert_false(timer_pending(tt.timers[THROTTLE_READ]));
    while (!calls) {
        aio_poll(qemu_get_aio_context(), true);
    }
    /* it came at the right time: not before there was room */
    g_assert_false(throttle_schedule_timer(&ts, &tt, THROTTLE_WRITE));
    g_assert_cmpint(calls, ==, 1);
    throttle_timers_destroy(&tt);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(qemu_init_main_loop(&error_abort), ==, 0);
#define ADD(name) g_test_add_func("/throttle/" #name, test_##name)
    ADD(bucket_leaks_at_its_rate_and_not_below_empty);
    ADD(wait_is_the_time_to_leak_down_to_the_brim);
    ADD(wait_does_not_overflow);
    ADD(rate_in_the_long_run_is_the_average);
    ADD(burst_has_its_rate_and_its_length);
    ADD(burst_of_one_second_passes_at_once);
    ADD(new_limits_limit_nothing);
    ADD(any_rate_is_a_limit_and_a_burst_alone_is_none);
    ADD(config_is_installed_with_empty_buckets_and_a_time);
    ADD(limits_that_make_no_sense_are_refused);
    ADD(single_properties_have_their_own_words);
    ADD(limits_go_to_names_and_back);
    ADD(request_is_charged_to_its_own_and_the_common_buckets);
    ADD(timers_exist_between_attach_and_detach);
    ADD(direction_without_callback_has_no_timer);
    ADD(timer_is_armed_while_one_must_wait);
    return g_test_run();
}
