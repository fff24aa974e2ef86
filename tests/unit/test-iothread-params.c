/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parameters of IOThreads: what they are by default, what is refused, and what they do. */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"
#include "miniblk/thread-pool.h"
#include "aio/aio-internal.h"

static IOThread *io;
static AioContext *ctx;

static void begin(const char *id)
{
    io = iothread_create(id, &error_abort);
    ctx = iothread_get_aio_context(io);
}

static void test_defaults(void)
{
    begin("io");
    const IOThreadParams *p = iothread_get_params(io);

    g_assert_cmpint(p->poll_max_ns, ==, 32768);
    g_assert_cmpint(p->poll_grow, ==, 0);
    g_assert_cmpint(p->poll_shrink, ==, 0);
    g_assert_cmpint(p->aio_max_batch, ==, 0);
    g_assert_cmpint(p->thread_pool_min, ==, 0);
    g_assert_cmpint(p->thread_pool_max, ==, 64);
    g_assert_cmpint(CPU_COUNT(&p->cpus), ==, 0);
    g_assert_cmpint(qatomic_read(&ctx->poll_max_ns), ==, 32768);
    iothread_destroy(io);
}

/* ---- refused values --------------------------------------------------------------------- */

typedef struct Refused {
    const char *what;
    IOThreadParams params;      /* thread_pool_max 0 stands for the default */
    const char *error;
} Refused;

#define RANGE(name) name " value must be in range [0, 9223372036854775807]"
#define BOUNDS "bad thread-pool-min/thread-pool-max values"

static const Refused refused[] = {
    { "negative window", { .poll_max_ns = -1 }, RANGE("poll-max-ns") },
    { "negative growth", { .poll_grow = -1 }, RANGE("poll-grow") },
    { "negative shrinking", { .poll_shrink = INT64_MIN }, RANGE("poll-shrink") },
    { "negative batch", { .aio_max_batch = -5 }, RANGE("aio-max-batch") },
    { "negative minimum", { .thread_pool_min = -1 }, RANGE("thread-pool-min") },
    { "negative maximum", { .thread_pool_max = -1 }, RANGE("thread-pool-max") },
    { "minimum above maximum", { .thread_pool_min = 3, .thread_pool_max = 2 }, BOUNDS },
    { "maximum too large", { .thread_pool_max = INT_MAX + 1LL }, BOUNDS },
};

static void test_refused_values_change_nothing(void)
{
    begin("io");
    IOThreadParams before = *iothread_get_params(io);

    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        IOThreadParams p = refused[i].params;
        Error *err = NULL;

        g_test_message("%s", refused[i].what);
        p.thread_pool_max = p.thread_pool_max ?: 64;
        g_assert_false(iothread_set_params(io, &p, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, refused[i].error);
        error_free(err);
        g_assert_cmpint(memcmp(&before, iothread_get_params(io), sizeof(before)), ==, 0);
    }
    IOThreadParams none = before;
    none.thread_pool_max = 0;
    g_assert_false(iothread_set_params(io, &none, NULL));
    iothread_destroy(io);
}

/* ---- effects --------------------------------------------------------------------------- */

static void test_loop_parameters_take_effect(void)
{
    begin("io");
    IOThreadParams p = *iothread_get_params(io);

    p.poll_max_ns = 7;
    p.poll_grow = 3;
    p.poll_shrink = 5;
    p.aio_max_batch = 9;
    g_assert_true(iothread_set_params(io, &p, &error_abort));
    g_assert_cmpint(qatomic_read(&ctx->poll_max_ns), ==, 7);
    g_assert_cmpint(qatomic_read(&ctx->poll_grow), ==, 3);
    g_assert_cmpint(qatomic_read(&ctx->poll_shrink), ==, 5);
    g_assert_cmpint(qatomic_read(&ctx->aio_max_batch), ==, 9);
    iothread_destroy(io);
}

/* The name that the system has for the thread with the id. */
static char *thread_name(int id)
{
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/comm", id);
    char *name = NULL;

    g_assert_true(g_file_get_contents(path, &name, NULL, NULL));
    return g_strchomp(name);
}

static void test_thread_is_named(void)
{
    static const struct { const char *id, *name; } cases[] = {
        { "io0", "IO io0" }, { "a-long-identifier", "IO a-long-ident" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        begin(cases[i].id);
        g_autofree char *name = thread_name(iothread_get_thread_id(io));
        g_assert_cmpstr(name, ==, cases[i].name);
        iothread_destroy(io);
    }
}

/* ---- processors ------------------------------------------------------------------------ */

static cpu_set_t cpus_of(int id)
{
    cpu_set_t cpus;
    g_assert_cmpint(sched_getaffinity(id, sizeof(cpus), &cpus), ==, 0);
    return cpus;
}

static int first_cpu(const cpu_set_t *cpus)
{
    for (int i = 0; ; i++) {
        if (CPU_ISSET(i, cpus)) {
            return i;
        }
    }
}

static void set_cpus(const cpu_set_t *cpus)
{
    IOThreadParams p = *iothread_get_params(io);
    p.cpus = *cpus;
    g_assert_true(iothread_set_params(io, &p, &error_abort));
}

static int count_cpus(void *opaque)
{
    cpu_set_t cpus = cpus_of(0);
    return CPU_COUNT(&cpus);
}

static void counted(void *opaque, int ret)
{
    qatomic_store_release((int *)opaque, ret);
}

static void count_in_worker(void *opaque)
{
    thread_pool_submit_aio(count_cpus, NULL, counted, opaque);
}

static void test_bound_to_processors(void)
{
    cpu_set_t all = cpus_of(0), one, none, now;
    int worker_cpus = 0;

    CPU_ZERO(&none);
    CPU_ZERO(&one);
    CPU_SET(first_cpu(&all), &one);
    begin("io");
    now = cpus_of(iothread_get_thread_id(io));
    g_assert_true(CPU_EQUAL(&now, &all));
    set_cpus(&one);
    now = cpus_of(iothread_get_thread_id(io));
    g_assert_true(CPU_EQUAL(&now, &one));

    /* its workers go where they like */
    aio_bh_schedule_oneshot(ctx, count_in_worker, &worker_cpus);
    while (!qatomic_load_acquire(&worker_cpus)) {
        /* until it has been called back */
    }
    g_assert_cmpint(worker_cpus, ==, CPU_COUNT(&all));

    set_cpus(&none);
    now = cpus_of(iothread_get_thread_id(io));
    g_assert_true(CPU_EQUAL(&now, &all));
    iothread_stop(io);
    set_cpus(&one);             /* nobody is there to be bound; the value is kept */
    iothread_destroy(io);
}

static void test_unavailable_processor_is_named(void)
{
    IOThreadParams p;
    cpu_set_t all = cpus_of(0);
    Error *err = NULL;

    begin("io");
    p = *iothread_get_params(io);
    p.poll_max_ns = 1;
    CPU_SET(first_cpu(&all), &p.cpus);
    CPU_SET(1022, &p.cpus);
    g_assert_false(iothread_set_params(io, &p, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "CPU 1022 in 'cpu-affinity' is not available to this process");
    error_free(err);
    g_assert_cmpint(iothread_get_params(io)->poll_max_ns, ==, 32768);
    g_assert_cmpint(CPU_COUNT(&iothread_get_params(io)->cpus), ==, 0);
    iothread_destroy(io);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/iothread-params/defaults", test_defaults);
    g_test_add_func("/iothread-params/refused", test_refused_values_change_nothing);
    g_test_add_func("/iothread-params/loop", test_loop_parameters_take_effect);
    g_test_add_func("/iothread-params/name", test_thread_is_named);
    g_test_add_func("/iothread-params/cpus/bound", test_bound_to_processors);
    g_test_add_func("/iothread-params/cpus/unavailable", test_unavailable_processor_is_named);
    return g_test_run();
}
