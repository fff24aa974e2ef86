/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The explorer over a toy engine, of which everything is known: how many schedules there are,
 * how likely a bug is, what the shortest failing schedule looks like.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"
#include "tests/lab/toy.h"

#include <math.h>

static LabFailure *failure;

static LabConfig config_for(uint64_t schedules)
{
    return (LabConfig) {
        .schedules = schedules, .jobs = 1, .seed = 1, .limits.tso = true,
        .hang_ns = 60 * INT64_C(1000000000), .check_every = 64, .directory = ".",
        .program = "toy", .times = 1,
    };
}

static LabResult explore(const LabConfig *config, const Toy *toy)
{
    LabResult result = { .failure = failure };

    toy_set(toy, 1);
    lab_explore(config, 0, &result);
    return result;
}

/* T1 is in the gap of T0 between its steps 5 and 6, and T0 then in the gap of T1 between its
 * steps 3 and 4: two deviations at least. */
static const Toy lost_update = {
    "/toy/lost-update", .threads = 2, .steps = { 10, 10 }, .n_orders = 3,
    .orders = { { 0, 5, 1, 3 }, { 1, 3, 0, 6 }, { 0, 7, 1, 4 } },
};

/* ---- levels ---------------------------------------------------------------------------- */

static uint64_t multinomial(const Toy *toy)
{
    double result = 0;
    unsigned sum = 0;

    for (unsigned i = 0; i < toy->threads; i++) {
        sum += toy->steps[i];
        result -= lgamma(toy->steps[i] + 1);
    }
    return llround(exp(result + lgamma(sum + 1)));
}

/* All levels together are all interleavings, each of them once. */
static void test_levels_are_everything(void)
{
    static const Toy toys[] = {
        { "/1+1", 2, { 1, 1 } }, { "/2+3", 2, { 2, 3 } }, { "/3+2", 2, { 3, 2 } },
        { "/4+4", 2, { 4, 4 } }, { "/5+3", 2, { 5, 3 } }, { "/2+2+2", 3, { 2, 2, 2 } },
        { "/3+1+2", 3, { 3, 1, 2 } }, { "/0+4", 2, { 0, 4 } },
        { "/1+1+1+1", 4, { 1, 1, 1, 1 } },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(toys); i++) {
        for (unsigned jobs = 1; jobs <= 3; jobs++) {
            LabConfig config = config_for(UINT32_MAX);
            LabResult result;

            config.mode = LAB_MODE_PROVE;
            config.bound = LAB_DEPTH_MAX;
            config.jobs = jobs;
            config.check_every = 0;
            result = explore(&config, &toys[i]);
            g_assert_false(result.failed);
            g_assert_true(result.exhausted);
            g_assert_cmpuint(result.schedules, ==, multinomial(&toys[i]));
            g_assert_cmpuint(result.distinct, ==, multinomial(&toys[i]));
        }
    }
}

/*
 * Two threads of n and m steps. The default runs T0, then T1: n places to leave it. A
 * deviation before step i of T0 runs all of T1 (m places, but none before its first step),
 * and then T0 alone: so level 2 has n * (m - 1) schedules.
 */
static void test_levels_by_deviations(void)
{
    enum { N = 7, M = 5 };
    static const Toy toy = { "/n+m", 2, { N, M } };
    static const uint64_t expected[] = { 1, 1 + N, 1 + N + N * (M - 1) };

    for (unsigned bound = 0; bound < G_N_ELEMENTS(expected); bound++) {
        LabConfig config = config_for(UINT32_MAX);
        LabResult result;

        config.mode = LAB_MODE_PROVE;
        config.bound = bound;
        result = explore(&config, &toy);
        g_assert_cmpuint(result.schedules, ==, expected[bound]);
        g_assert_cmpint(result.complete, ==, bound);
        g_assert_false(result.unfinished);
    }
}

static void test_proof_finds(void)
{
    LabConfig config = config_for(UINT32_MAX);
    LabResult result;

    config.mode = LAB_MODE_PROVE;
    config.bound = 1;
    result = explore(&config, &lost_update);
    g_assert_false(result.failed);
    g_assert_cmpint(result.complete, ==, 1);

    config.bound = 2;
    result = explore(&config, &lost_update);
    g_assert_true(result.failed);
    g_assert_cmpint(result.complete, ==, 1);
    g_assert_cmpint(failure->plan.kind, ==, LAB_STRATEGY_BOUND);
    g_assert_cmpuint(failure->deviations.count, ==, 2);
}

static void test_proof_unfinished(void)
{
    LabConfig config = config_for(20);
    static const Toy toy = { "/toy", 2, { 10, 10 } };
    LabResult result;

    config.mode = LAB_MODE_PROVE;
    config.bound = 2;
    result = explore(&config, &toy);
    g_assert_false(result.failed);
    g_assert_true(result.unfinished);
    g_assert_cmpint(result.complete, ==, 1);
    g_assert_cmpuint(result.level_done, ==, 20 - 11);
    g_assert_cmpuint(result.level_count, ==, 10 * 9);
}

/* ---- random strategies ----------------------------------------------------------------- */

static unsigned count_failures(const Toy *toy, LabPlan plan, unsigned seeds)
{
    LabChooser *chooser = lab_chooser_new();
    LabLimits limits = { .tso = true };
    unsigned failures = 0;

    toy_set(toy, 1);
    for (unsigned seed = 0; seed < seeds; seed++) {
        LabOutcome outcome;

        plan.seed = lab_mix(99, seed);
        lab_chooser_begin(chooser, &plan, NULL);
        lab_execute(0, &chooser->strategy, &limits, &outcome);
        failures += outcome.verdict == LAB_ASSERT;
    }
    lab_chooser_free(chooser);
    return failures;
}

/*
 * The bound of the paper: a bug of depth d is found with probability >= 1 / (n * k^(d-1)).
 * Below it by more than four standard deviations means that the strategy is not PCT.
 */
static void test_pct_keeps_its_promise(void)
{
    static const struct {
        Toy toy;
        unsigned depth, places;
        double promise;         /* one in so many */
    } table[] = {
        /* T1 before T0 at all */
        { { "/d1", 2, { 8, 8 }, .n_orders = 1, .orders = { { 1, 7, 0, 0 } } }, 1, 8, 2 },
        { { "/d1-of-3", 3, { 4, 4, 4 }, .n_orders = 2,
            .orders = { { 2, 3, 0, 0 }, { 2, 3, 1, 0 } } }, 1, 8, 3 },
        /* inside of T0 */
        { { "/d2", 2, { 10, 10 }, .n_orders = 2,
            .orders = { { 0, 5, 1, 0 }, { 1, 9, 0, 6 } } }, 2, 19, 2 * 19 },
        /* T0 is in T1's gap and T1 in T0's */
        { { "/d3", 2, { 10, 10 }, .n_orders = 3,
            .orders = { { 0, 4, 1, 3 }, { 1, 3, 0, 5 }, { 0, 7, 1, 4 } } }, 3, 19,
          2 * 19 * 19 },
        /* All three initial priorities matter (one order of six) and two places. The first to
         * fall has to end last, or not: falls are not ordered by time. */
        { { "/d3-crossed", 3, { 4, 4, 4 }, .n_orders = 4,
            .orders = { { 0, 1, 1, 0 }, { 1, 1, 2, 3 }, { 2, 3, 1, 2 }, { 1, 3, 0, 2 } } },
          3, 12, 6 * 12 * 12 },
        { { "/d3-uncrossed", 3, { 4, 4, 4 }, .n_orders = 4,
            .orders = { { 0, 1, 1, 0 }, { 1, 1, 2, 3 }, { 2, 3, 0, 2 }, { 0, 3, 1, 2 } } },
          3, 12, 6 * 12 * 12 },
    };
    enum { SEEDS = 40000 };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        LabPlan plan = { LAB_STRATEGY_PCT, table[i].depth, table[i].places };
        double p = 1 / table[i].promise;
        double sigma = sqrt(SEEDS * p * (1 - p));
        unsigned found = count_failures(&table[i].toy, plan, SEEDS);

        g_test_message("%s: %u of %u, promised %.0f", table[i].toy.path, found, SEEDS,
                       SEEDS * p);
        g_assert_cmpfloat(found, >=, SEEDS * p - 4 * sigma);
    }
}

/* Two steps in each of two threads have six interleavings; uniform choices make one of them
 * (T0 T1 T0 T1, say) with probability 1/8, and T0 T0 T1 T1 with 1/4. */
static void test_random_is_uniform(void)
{
    static const Toy toy = { "/2+2", 2, { 2, 2 }, .n_orders = 3,
                             .orders = { { 0, 0, 1, 0 }, { 1, 0, 0, 1 }, { 0, 1, 1, 1 } } };
    enum { SEEDS = 40000 };
    LabPlan plan = { LAB_STRATEGY_RANDOM };
    unsigned found = count_failures(&toy, plan, SEEDS);

    g_assert_cmpfloat(fabs(found - SEEDS / 8.0), <, 5 * sqrt(SEEDS / 8.0 * 7 / 8));
}

/*
 * T1's only step conflicts with the first of T0's eleven and shall come after all of them. In
 * partial order sampling its priority must be the lower one of two, and then, as the conflict
 * gives it a new one, the lowest of eleven: 1/22. A uniform walk has 1/2^11.
 */
static void test_pos_samples_orders(void)
{
    static const Toy toy = { "/11+1", 2, { 11, 1 }, .n_orders = 1,
                             .orders = { { 0, 10, 1, 0 } } };
    enum { SEEDS = 20000 };
    unsigned pos = count_failures(&toy, (LabPlan) { LAB_STRATEGY_POS }, SEEDS);
    unsigned random = count_failures(&toy, (LabPlan) { LAB_STRATEGY_RANDOM }, SEEDS);

    g_test_message("pos %u, random %u of %u", pos, random, SEEDS);
    g_assert_cmpfloat(fabs(pos - SEEDS / 22.0), <, 5 * sqrt(SEEDS / 22.0));
    g_assert_cmpfloat(fabs(random - SEEDS / 2048.0), <, 5 * sqrt(SEEDS / 2048.0));
}

static void test_every_strategy_finds(void)
{
    static const LabStrategyKind kinds[] = {
        LAB_STRATEGY_PORTFOLIO, LAB_STRATEGY_RANDOM, LAB_STRATEGY_PCT, LAB_STRATEGY_POS,
        LAB_STRATEGY_FEW, LAB_STRATEGY_BOUND,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        LabConfig config = config_for(5000);
        LabResult result;

        config.strategy = kinds[i];
        result = explore(&config, &lost_update);
        g_test_message("%s: schedule %" PRIu64, lab_strategy_name(kinds[i]),
                       failure->number);
        g_assert_true(result.failed);
        g_assert_cmpint(failure->outcome.verdict, ==, LAB_ASSERT);
    }
}

/*
 * T1 ends before T0 in every other schedule, and not in the default one: one of the first fails.
 * It has its strategy and its seed from the base seed and its number.
 */
static void test_first_schedules(void)
{
    static const Toy overtaken = { "/toy/overtaken", 2, { 9, 9 }, .n_orders = 1,
                                   .orders = { { 1, 8, 0, 8 } } };
    static const struct {
        LabStrategyKind asked, first;
    } table[] = {
        { LAB_STRATEGY_RANDOM, LAB_STRATEGY_RANDOM }, { LAB_STRATEGY_POS, LAB_STRATEGY_POS },
        { LAB_STRATEGY_BOUND, LAB_STRATEGY_BOUND },
        /* to see how long a schedule is */
        { LAB_STRATEGY_PCT, LAB_STRATEGY_RANDOM }, { LAB_STRATEGY_FEW, LAB_STRATEGY_RANDOM },
        { LAB_STRATEGY_PORTFOLIO, LAB_STRATEGY_RANDOM },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        for (unsigned seed = 0; seed < 4; seed++) {
            LabConfig config = config_for(100);

            config.strategy = table[i].asked;
            config.seed = seed;
            g_assert_true(explore(&config, &overtaken).failed);
            g_assert_cmpuint(failure->number, >=, 1);
            g_assert_cmpuint(failure->number, <=, 7);
            g_assert_cmpint(failure->plan.kind, ==, table[i].first);
            if (table[i].asked == LAB_STRATEGY_BOUND) {
                g_assert_cmpuint(failure->plan.depth, ==, 1);
                g_assert_cmpuint(failure->number, ==, 1);
            } else {
                g_assert_cmpuint(failure->plan.seed, ==, lab_mix(seed, failure->number));
            }
        }
    }
}

/* ---- processes ------------------------------------------------------------------------- */

static void test_same_result_for_any_number_of_processes(void)
{
    static const Toy rare = {
        "/toy/rare", 2, { 20, 20 }, .n_orders = 4,
        .orders = { { 0, 5, 1, 3 }, { 1, 3, 0, 6 }, { 0, 9, 1, 9 }, { 1, 9, 0, 10 } },
    };
    static const Toy fine = { "/toy/fine", 3, { 6, 6, 6 }, .shared = true };
    uint64_t number = 0, distinct = 0, pairs = 0;

    for (unsigned jobs = 1; jobs <= 5; jobs += 2) {
        LabConfig config = config_for(30000);
        LabResult result;

        config.jobs = jobs;
        result = explore(&config, &rare);
        g_assert_true(result.failed);
        if (jobs == 1) {
            number = failure->number;
            g_assert_cmpuint(number, >, 100);   /* not in the first range of anybody */
        }
        g_assert_cmpuint(failure->number, ==, number);

        config.schedules = 3000;
        result = explore(&config, &fine);
        g_assert_false(result.failed);
        g_assert_cmpuint(result.schedules, ==, 3000);
        if (jobs == 1) {
            distinct = result.distinct;
            pairs = result.pairs;
            g_assert_cmpuint(pairs, ==, 2);     /* store after load, load after store */
        }
        g_assert_cmpuint(result.distinct, ==, distinct);
        g_assert_cmpuint(result.pairs, ==, pairs);
    }
}

static void test_seed_matters(void)
{
    static const Toy fine = { "/toy/fine", 2, { 20, 20 } };
    uint64_t hashes[2];

    for (unsigned i = 0; i < 2; i++) {
        LabConfig config = config_for(0);
        LabPlan plan;

        config.seed = i;
        config.strategy = LAB_STRATEGY_RANDOM;
        lab_portfolio_plan(&config, (LabHorizon) { 40, 40 }, 17, &plan);
        hashes[i] = plan.seed;
    }
    g_assert_cmpuint(hashes[0], !=, hashes[1]);
    g_assert_cmpstr(fine.path, ==, "/toy/fine");
}

static void test_uncontrolled_is_reported(void)
{
    static const Toy dice = { "/toy/dice", 2, { 4, 4 }, TOY_DICE };
    LabConfig config = config_for(500);
    LabResult result = explore(&config, &dice);

    g_assert_true(result.failed);
    g_assert_cmpint(failure->outcome.verdict, ==, LAB_DIVERGED);
}

static void test_lost_process_is_a_failure(void)
{
    Toy toy = lost_update;
    LabConfig config = config_for(5000);
    LabResult result;

    toy.trick = TOY_KILLS;
    config.strategy = LAB_STRATEGY_BOUND;
    result = explore(&config, &toy);
    g_assert_true(result.failed);
    g_assert_cmpint(failure->outcome.verdict, ==, LAB_SIGNAL);
    g_assert_nonnull(strstr(failure->outcome.message, "signal 9"));
    g_assert_cmpuint(failure->deviations.count, ==, 2);

    toy.trick = TOY_HANGS;
    config.hang_ns = 300 * INT64_C(1000000);
    result = explore(&config, &toy);
    g_assert_true(result.failed);
    g_assert_cmpint(failure->outcome.verdict, ==, LAB_LIVELOCK);
    g_assert_cmpuint(failure->deviations.count, ==, 2);
}

static void test_skip(void)
{
    static const Toy skips = { "/toy/skips", 1, { 1 }, TOY_SKIPS };
    LabConfig config = config_for(500);
    LabResult result = explore(&config, &skips);

    g_assert_true(result.skipped);
    g_assert_false(result.failed);
    g_assert_cmpuint(result.schedules, ==, 1);
    g_assert_cmpstr(failure->outcome.message, ==, "nothing to do");
}

/* A schedule that was given up half-way has proved nothing. */
static void test_some_given_up(gconstpointer trick)
{
    Toy toy = lost_update;
    LabConfig config = config_for(UINT32_MAX);
    LabResult result;

    toy.trick = GPOINTER_TO_INT(trick);
    config.mode = LAB_MODE_PROVE;
    config.bound = 1;
    result = explore(&config, &toy);
    g_assert_cmpint(result.complete, ==, 1);
    g_assert_cmpuint(result.given_up, ==, 0);
    g_assert_false(result.unfinished);

    config.bound = 2;
    result = explore(&config, &toy);
    g_assert_false(result.failed);
    g_assert_false(result.skipped);
    g_assert_cmpuint(result.given_up, >, 0);
    g_assert_cmpint(result.complete, ==, 1);
    g_assert_true(result.unfinished);
}

static void test_time_limit(void)
{
    static const Toy fine = { "/toy/fine", 2, { 30, 30 } };
    LabConfig config = config_for(UINT32_MAX);
    LabResult result;

    config.time_ns = 300 * INT64_C(1000000);
    result = explore(&config, &fine);
    g_assert_false(result.failed);
    g_assert_true(result.out_of_time);
    g_assert_cmpuint(result.schedules, >, 1);
}

/* ---- shrinking ------------------------------------------------------------------------- */

/* The shortest failing schedule of each toy has as many deviations as is written here. */
static void test_shrink_to_the_minimum(void)
{
    static const struct {
        Toy toy;
        unsigned deviations;
    } table[] = {
        { { "/always", 2, { 9, 9 }, .n_orders = 1, .orders = { { 0, 0, 1, 8 } } }, 0 },
        { { "/one", 2, { 9, 9 }, .n_orders = 1, .orders = { { 1, 8, 0, 4 } } }, 1 },
        { { "/two", 2, { 9, 9 }, .n_orders = 2,
            .orders = { { 0, 5, 1, 3 }, { 1, 3, 0, 6 } } , }, 1 },
        { { "/three", 2, { 9, 9 }, .n_orders = 3,
            .orders = { { 0, 4, 1, 3 }, { 1, 3, 0, 5 }, { 0, 7, 1, 4 } } }, 2 },
        { { "/four", 2, { 12, 12 }, .n_orders = 5,
            .orders = { { 0, 2, 1, 3 }, { 1, 3, 0, 3 }, { 0, 7, 1, 4 }, { 1, 6, 0, 8 },
                        { 0, 9, 1, 8 } } }, 4 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        LabConfig config = config_for(200000);
        LabShrunk shrunk;

        config.strategy = LAB_STRATEGY_RANDOM;
        g_assert_true(explore(&config, &table[i].toy).failed);
        lab_shrink(&config, 0, &failure->outcome, 200000, 0, &failure->deviations, &shrunk);
        g_test_message("%s: %u deviations after %" PRIu64 " schedules", table[i].toy.path,
                       failure->deviations.count, shrunk.schedules);
        g_assert_true(shrunk.reproduced);
        g_assert_cmpuint(failure->deviations.count, ==, table[i].deviations);
        g_assert_cmpuint(shrunk.complete, ==, table[i].deviations);
    }
}

static void test_shrink_of_what_does_not_fail(void)
{
    static const Toy fine = { "/toy/fine", 2, { 5, 5 } };
    LabConfig config = config_for(100);
    LabOutcome wanted = { .verdict = LAB_ASSERT, .message = "planted after 10 steps" };
    LabShrunk shrunk;

    toy_set(&fine, 1);
    failure->deviations.count = 0;
    lab_shrink(&config, 0, &wanted, 100, 0, &failure->deviations, &shrunk);
    g_assert_false(shrunk.reproduced);
}

/* Out of time: what there is so far, which fails. */
static void test_shrink_in_no_time(void)
{
    static const Toy three = { "/three", 2, { 9, 9 }, .n_orders = 3,
        .orders = { { 0, 4, 1, 3 }, { 1, 3, 0, 5 }, { 0, 7, 1, 4 } } };
    LabConfig config = config_for(200000);
    LabShrunk shrunk;

    config.strategy = LAB_STRATEGY_RANDOM;
    g_assert_true(explore(&config, &three).failed);
    lab_shrink(&config, 0, &failure->outcome, 200000, 1, &failure->deviations, &shrunk);
    g_assert_true(shrunk.reproduced);
    g_assert_cmpuint(shrunk.complete, ==, 0);
    g_assert_cmpuint(shrunk.schedules, <, 10);
}

static void test_same_failure(void)
{
    static const struct {
        LabOutcome a, b;
        bool same;
    } table[] = {
        { { LAB_ASSERT, .message = "x 12 == 13\nmore" },
          { LAB_ASSERT, .message = "x 5 == 1\nother" }, true },
        { { LAB_ASSERT, .message = "x 12" }, { LAB_ASSERT, .message = "y 12" }, false },
        { { LAB_ASSERT, .message = "x" }, { LAB_ASSERT, .message = "xy" }, false },
        { { LAB_ASSERT, .message = "x" }, { LAB_DEADLOCK, .message = "x" }, false },
        { { LAB_ASSERT, .message = "" }, { LAB_ASSERT, .message = "\nx" }, true },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpint(lab_same_failure(&table[i].a, &table[i].b), ==, table[i].same);
        g_assert_cmpint(lab_same_failure(&table[i].b, &table[i].a), ==, table[i].same);
    }
}

/* ---- words ----------------------------------------------------------------------------- */

/* main stores x0 x1 x2, T1 loads x0 x1 x2. It fails when T1 loads x1 before main has stored
 * it: one deviation, and this is what it is about. */
static const Toy early_load = {
    "/toy/early-load", 2, { 3, 3 }, .n_orders = 2,
    .orders = { { 0, 0, 1, 0 }, { 1, 1, 0, 1 } },
};

static void run_list(const Toy *toy, const LabDeviations *list, LabTrace *trace)
{
    LabChooser *chooser = lab_chooser_new();
    LabLimits limits = { .tso = true, .record = true };
    LabOutcome outcome;

    toy_set(toy, 1);
    lab_chooser_begin_replay(chooser, list, true, NULL);
    lab_execute(0, &chooser->strategy, &limits, &outcome);
    g_assert_cmpstr(chooser->replay.divergence, ==, "");
    lab_trace_take(trace);
    lab_chooser_free(chooser);
}

static void find_early_load(void)
{
    LabConfig config = config_for(100);

    config.strategy = LAB_STRATEGY_BOUND;
    g_assert_true(explore(&config, &early_load).failed);
    g_assert_cmpuint(failure->deviations.count, ==, 1);
}

static void test_order_in_words(void)
{
    g_autofree LabDeviations *none = g_new0(LabDeviations, 1);
    g_autoptr(GString) words = g_string_new(NULL);
    g_autoptr(GHashTable) objects = g_hash_table_new(NULL, NULL);
    LabTrace failing, passing;

    find_early_load();
    run_list(&early_load, none, &passing);
    run_list(&early_load, &failure->deviations, &failing);
    lab_order_in_words(&failing, &passing, false, 1, words, objects);
    g_assert_cmpstr(words->str, ==, "T1 read x1 before main stored x1\n");
    g_assert_cmpuint(g_hash_table_size(objects), ==, 1);
    lab_order_in_words(&failing, &failing, false, 5, words, objects);
    g_assert_cmpstr(words->str, ==, "T1 read x1 before main stored x1\n");
    lab_trace_clear(&failing);
    lab_trace_clear(&passing);
}

static void test_timeline(void)
{
    g_autoptr(GString) text = g_string_new(NULL);
    LabTrace trace;

    find_early_load();
    run_list(&early_load, &failure->deviations, &trace);
    lab_timeline(&trace, NULL, text);
    g_assert_cmpstr(text->str, ==,
        "  main                                    T1\n"
        "  store x0\n"
        "                                        * load x0\n"
        "                                          load x1\n"
        "                                          load x2\n"
        "  store x1\n"
        "  store x2\n"
        "  ==== planted\n");
    lab_trace_clear(&trace);
}

/* ---- replay ---------------------------------------------------------------------------- */

static char *temporary(const char *name)
{
    g_autofree char *unique = g_strdup_printf("lab-explore-%d-%s", getpid(), name);

    return g_build_filename(g_get_tmp_dir(), unique, NULL);
}

static void test_replay_file(void)
{
    LabReplayFile file = {
        .seed = { .path = (char *)"/a:b/c", .build_id = (char *)"12ab",
                  .plan = { LAB_STRATEGY_PCT, 3, 1200, 0x7f3a }, .limits = { .tso = true } },
        .program = (char *)"/bin/a program", .verdict = LAB_DEADLOCK,
        .message = (char *)"main waits\nfor ever", .list = g_new0(LabDeviations, 1),
    };
    static const LabDeviation deviations[] = {
        { 0, 12, 0, LAB_CHOICE_AGENT, 1, 3, 0x8d33f0a1, { LAB_AGENT_FLUSH, 1 } },
        { 1, 40, 2, LAB_CHOICE_WAITER, 2, 3 },
        { 2, 7, 0, LAB_CHOICE_AGENT, 2, 4, 1, { LAB_AGENT_DISK, 3 << 16 | 9 } },
        { 2, 8, 0, LAB_CHOICE_AGENT, 1, 2, 1, { LAB_AGENT_CLOCK, 0 } },
    };
    g_autofree char *name = temporary("file.lab"), *problem = NULL, *text = NULL;
    LabReplayFile read;

    memcpy(file.list->items, deviations, sizeof(deviations));
    file.list->count = G_N_ELEMENTS(deviations);
    g_assert_cmpint(lab_replay_save(name, &file, &problem), ==, 0);
    g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
    g_assert_cmpstr(text, ==,
        "miniblk-lab replay file 1\n"
        "seed LAB1:/a:b/c:pct:3,1200:tso:last:7f3a:12ab\n"
        "program /bin/a program\n"
        "verdict deadlock\n"
        "message main waits\n"
        "deviation T0 12 0 agent 1/3 flush:T1 8d33f0a1\n"
        "deviation T1 40 2 waiter 2/3\n"
        "deviation T2 7 0 agent 2/4 disk:T3.9 00000001\n"
        "deviation T2 8 0 agent 1/2 clock 00000001\n"
        "end\n");
    g_assert_true(lab_replay_load(name, &read, &problem));
    g_assert_cmpstr(read.seed.path, ==, "/a:b/c");
    g_assert_cmpstr(read.program, ==, "/bin/a program");
    g_assert_cmpstr(read.message, ==, "main waits");
    g_assert_cmpint(read.verdict, ==, LAB_DEADLOCK);
    g_assert_cmpuint(read.seed.plan.horizon, ==, 1200);
    g_assert_cmpuint(read.list->count, ==, file.list->count);
    g_assert_cmpmem(read.list->items, sizeof(deviations), deviations, sizeof(deviations));
    lab_replay_clear(&read);
    g_free(file.list);
    g_unlink(name);
}

/* Names are anything that a C string can be; each stays on its line, and comes back. */
static void test_replay_file_names(void)
{
    static const char *const names[] = {
        "/a\nend\nb", "/\r\t\x01\x7f\x1b[31m", "/back\\slash\\", "/\\n", "/\xff\xc3\xbc \"<&>'",
        "/a:b::", "",
    };
    g_autofree char *name = temporary("names.lab");

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        LabReplayFile read, file = {
            .seed = { .path = (char *)names[i], .build_id = (char *)"id",
                      .plan = { LAB_STRATEGY_POS, 0, 0, 1 } },
            .program = (char *)names[i], .verdict = LAB_DEADLOCK,
            .message = (char *)"m", .list = g_new0(LabDeviations, 1),
        };
        g_autofree char *problem = NULL, *text = NULL;

        g_assert_cmpint(lab_replay_save(name, &file, &problem), ==, 0);
        g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
        for (const char *c = text; *c; c++) {
            g_assert_true(*c == '\n' || !g_ascii_iscntrl(*c));
        }
        g_assert_true(lab_replay_load(name, &read, &problem));
        g_assert_cmpstr(read.seed.path, ==, names[i]);
        g_assert_cmpstr(read.program, ==, names[i]);
        lab_replay_clear(&read);
        g_free(file.list);
    }
    g_unlink(name);
}

#define HEAD "miniblk-lab replay file 1\n"
#define SEED "seed LAB1:/a:bound:2:sc:agent+faults:3.4:id\n"
#define REST "program p\nverdict assert\nmessage m\n"

/* Files come from anywhere. */
static void test_replay_file_refused(void)
{
    static const struct {
        const char *text, *problem;
    } table[] = {
        { "", "not a replay file" },
        { "miniblk-lab replay file 2\n", "not a replay file" },
        { HEAD, "not complete" },
        { HEAD SEED REST, "not complete" },
        { HEAD SEED "end\n", "not complete" },
        { HEAD SEED "program p\nverdict ok\nend\n", "not complete" },
        { HEAD SEED "verdict glory\n", "line 3: no such verdict" },
        { HEAD "seed LAB2:/a:bound:0:sc:last:-:id\n", "line 2: not of the form" },
        { HEAD "seed LAB1:/a\n", "line 2: not of the form" },
        { HEAD "seed LAB1:/a:luck:0:sc:last:1:id\n", "no such strategy" },
        { HEAD "seed LAB1:/a:pct:3:sc:last:1:id\n", "bad depth" },
        { HEAD "seed LAB1:/a:pct:99,1:sc:last:1:id\n", "bad depth" },
        { HEAD "seed LAB1:/a:pos:0:arm:last:1:id\n", "neither tso nor sc" },
        { HEAD "seed LAB1:/a:pos:0:sc:never:1:id\n", "bad clock" },
        { HEAD "seed LAB1:/a:pos:0:sc:last+x:1:id\n", "bad clock" },
        { HEAD "seed LAB1:/a:pos:0:sc:last:xyz:id\n", "bad seed" },
        { HEAD "seed LAB1:/a:bound:2:sc:last:1:id\n", "bad seed" },
        { HEAD SEED REST "deviation T0 1 0 agent 1/2 T1\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 agent 0/2 T1 00\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 agent 2/2 T1 00\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 agent 1/999999 T1 00\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T99 1 0 agent 1/2 T1 00\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 agent 1/2 U1 00\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 mood 1/2\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 -1 0 value 1/2\nend\n", "bad deviation" },
        { HEAD SEED REST "deviation T0 1 0 value 1/2\ndeviation T0 1 0 value 1/3\nend\n",
          "a second deviation at the same place" },
        { HEAD SEED REST "what\nend\n", "line 6: not understood" },
        { HEAD "seed LAB1:/a\\:pos:0:sc:last:1:id\n", "name ends in a backslash" },
        { HEAD SEED "program \\\\\\\n", "name ends in a backslash" },
    };
    g_autofree char *name = temporary("bad.lab");

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autofree char *problem = NULL;
        LabReplayFile file;

        g_assert_true(g_file_set_contents(name, table[i].text, -1, NULL));
        g_assert_false(lab_replay_load(name, &file, &problem));
        if (!strstr(problem, table[i].problem)) {
            g_error("%u: '%s' does not say '%s'", i, problem, table[i].problem);
        }
    }
    g_unlink(name);
}

/* The first difference is named, with what was expected and what is there. */
static void test_replay_divergence(void)
{
    static const Toy two = { "/toy", 2, { 3, 3 } };
    static const struct {
        LabDeviation deviation;
        const char *words;
    } table[] = {
        { { 0, 1, 0, LAB_CHOICE_AGENT, 1, 2, 7, { LAB_AGENT_FLUSH, 1 } },
          "deviation 1 (T0, operation 1, turn 0): flush:T1 cannot go on now; "
          "these can: T0 T1" },
        { { 0, 1, 0, LAB_CHOICE_AGENT, 1, 2, 7, { LAB_AGENT_THREAD, 1 } },
          "deviation 1 (T0, operation 1, turn 0): other agents can go on now: T0 T1" },
        { { 0, 1, 0, LAB_CHOICE_WAITER, 1, 2 },
          "deviation 1 (T0, operation 1, turn 0): it is a choice of another kind now" },
        { { 5, 1, 0, LAB_CHOICE_WAITER, 1, 2 }, "" },
    };

    toy_set(&two, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autofree LabDeviations *list = g_new0(LabDeviations, 1);
        LabChooser *chooser = lab_chooser_new();
        LabLimits limits = { .tso = true };
        LabOutcome outcome;

        list->items[list->count++] = table[i].deviation;
        lab_chooser_begin_replay(chooser, list, true, NULL);
        lab_execute(0, &chooser->strategy, &limits, &outcome);
        g_assert_cmpstr(chooser->replay.divergence, ==, table[i].words);
        g_assert_true(lab_chooser_complete(chooser) == (i == 1));
        lab_chooser_free(chooser);
    }
}

/* What any strategy did can be done again from its list, step by step. */
static void test_replay_of_every_strategy(void)
{
    static const Toy toy = { "/toy", 3, { 7, 7, 7 }, .shared = true };
    g_autofree LabDeviations *list = g_new0(LabDeviations, 1);
    LabChooser *chooser = lab_chooser_new();
    LabLimits limits = { .tso = true };

    toy_set(&toy, 1);
    for (unsigned i = 0; i < 2000; i++) {
        LabConfig config = config_for(0);
        LabOutcome outcome, again;
        LabPlan plan;

        config.seed = i;
        lab_portfolio_plan(&config, (LabHorizon) { 20, 40 }, i, &plan);
        lab_chooser_begin(chooser, &plan, list);
        lab_execute(0, &chooser->strategy, &limits, &outcome);
        lab_chooser_begin_replay(chooser, list, true, NULL);
        lab_execute(0, &chooser->strategy, &limits, &again);
        g_assert_cmpstr(chooser->replay.divergence, ==, "");
        g_assert_true(lab_chooser_complete(chooser));
        g_assert_cmpuint(outcome.trace_hash, ==, again.trace_hash);
    }
    lab_chooser_free(chooser);
}

/* ---- configuration --------------------------------------------------------------------- */

static void test_config_wants(void)
{
    char *argv[] = { (char *)"program", (char *)"--tap", (char *)"-p", (char *)"/drain/iothread",
                     (char *)"-p=/loop/", (char *)"-s", (char *)"/loop/slow", NULL };
    LabConfig config;
    g_autofree char *problem = NULL;
    static const struct {
        const char *path;
        bool wanted;
    } table[] = {
        { "/drain/iothread", true }, { "/drain/iothread/two", true },
        { "/drain/iothreads", false }, { "/drain", false }, { "/loop/bh", true },
        { "/loop", true }, { "/loop/slow", false }, { "/other", false },
    };

    g_assert_true(lab_config_read(&config, argv, &problem));
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpint(lab_config_wants(&config, table[i].path), ==, table[i].wanted);
    }
    lab_config_clear(&config);

    argv[2] = NULL;
    g_assert_true(lab_config_read(&config, argv, &problem));
    g_assert_true(lab_config_wants(&config, "/other"));
    lab_config_clear(&config);
}

static void test_config_environment(void)
{
    static const struct {
        const char *name, *value;
        bool good;
    } table[] = {
        { "LAB_SCHEDULES", "20000", true }, { "LAB_SCHEDULES", "0", false },
        { "LAB_SCHEDULES", "many", false }, { "LAB_SCHEDULES", "-1", false },
        { "LAB_JOBS", "2", true }, { "LAB_JOBS", "100000", false },
        { "LAB_SEED", "18446744073709551615", true }, { "LAB_SEED", "0x1", false },
        { "LAB_STRATEGY", "pct", true }, { "LAB_STRATEGY", "replay", false },
        { "LAB_STRATEGY", "luck", false }, { "LAB_DEPTH", "17", false },
        { "LAB_TSO", "off", true }, { "LAB_TSO", "maybe", false },
        { "LAB_TIME", "0.5", true }, { "LAB_TIME", "nan", false }, { "LAB_TIME", "-1", false },
        { "LAB_TIME", "1s", false }, { "LAB_MODE", "prove", true }, { "LAB_MODE", "p", false },
        { "LAB_MODE", "replay", false }, { "LAB_BOUND", "9", false },
        { "LAB_TIMELINE", "whole", true }, { "LAB_TIMELINE", "long", false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autofree char *problem = NULL;
        char *argv[] = { (char *)"program", NULL };
        LabConfig config;

        g_setenv(table[i].name, table[i].value, true);
        g_assert_cmpint(lab_config_read(&config, argv, &problem), ==, table[i].good);
        if (!table[i].good) {
            g_assert_nonnull(strstr(problem, table[i].name));
        }
        lab_config_clear(&config);
        g_unsetenv(table[i].name);
    }
}

int main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    failure = g_new0(LabFailure, 1);
    g_test_add_func("/explore/levels/everything", test_levels_are_everything);
    g_test_add_func("/explore/levels/deviations", test_levels_by_deviations);
    g_test_add_func("/explore/proof/finds", test_proof_finds);
    g_test_add_func("/explore/proof/unfinished", test_proof_unfinished);
    g_test_add_func("/explore/pct/promise", test_pct_keeps_its_promise);
    g_test_add_func("/explore/random/uniform", test_random_is_uniform);
    g_test_add_func("/explore/pos/orders", test_pos_samples_orders);
    g_test_add_func("/explore/strategies/find", test_every_strategy_finds);
    g_test_add_func("/explore/strategies/first", test_first_schedules);
    g_test_add_func("/explore/processes/same-result",
                    test_same_result_for_any_number_of_processes);
    g_test_add_func("/explore/processes/lost", test_lost_process_is_a_failure);
    g_test_add_func("/explore/seed", test_seed_matters);
    g_test_add_func("/explore/uncontrolled", test_uncontrolled_is_reported);
    g_test_add_func("/explore/skip", test_skip);
    g_test_add_data_func("/explore/skips-in-some-schedules", GINT_TO_POINTER(TOY_GIVES_UP),
                         test_some_given_up);
    g_test_add_data_func("/explore/cut-short-in-some-schedules",
                         GINT_TO_POINTER(TOY_CUT_SHORT), test_some_given_up);
    g_test_add_func("/explore/time-limit", test_time_limit);
    g_test_add_func("/explore/shrink/minimum", test_shrink_to_the_minimum);
    g_test_add_func("/explore/shrink/not-failing", test_shrink_of_what_does_not_fail);
    g_test_add_func("/explore/shrink/in-no-time", test_shrink_in_no_time);
    g_test_add_func("/explore/same-failure", test_same_failure);
    g_test_add_func("/explore/words/order", test_order_in_words);
    g_test_add_func("/explore/words/timeline", test_timeline);
    g_test_add_func("/explore/replay/file", test_replay_file);
    g_test_add_func("/explore/replay/names", test_replay_file_names);
    g_test_add_func("/explore/replay/refused", test_replay_file_refused);
    g_test_add_func("/explore/replay/divergence", test_replay_divergence);
    g_test_add_func("/explore/replay/strategies", test_replay_of_every_strategy);
    g_test_add_func("/explore/config/paths", test_config_wants);
    g_test_add_func("/explore/config/environment", test_config_environment);
    status = g_test_run();
    g_free(failure);
    return status;
}
