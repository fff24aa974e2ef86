/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The graph lock: readers of several threads, and the writer that waits for them. */
#include "drain-driver.h"
#include "miniblk/graph-lock.h"

enum { THREADS = 2, READERS = 4 };
static IOThread *io[THREADS];
static AioContext *io_ctx[THREADS];

/* ---- exclusion ---------------------------------------------------------------------------------- */

/*
 * Readers in two IOThreads and the main loop come and go; some yield inside, some end in
 * another thread than they began in. The writer changes two words that readers must never
 * see differ. The words are plain memory, so a sanitizer sees what the lock does not order.
 */
static int64_t word_a, word_b;

typedef struct Reader {
    int moves;                  /* to the other thread and back, inside the lock */
    bool stop;                  /* atomic */
    int64_t rounds;             /* atomic */
} Reader;
static Reader reader[3];
static int running;             /* atomic */

static void hop(void)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

static void coroutine_fn read_entry(void *opaque)
{
    Reader *r = opaque;
    for (unsigned n = 0; !qatomic_read(&r->stop); n++) {
        WITH_GRAPH_RDLOCK_GUARD() {
            int64_t a = word_a;
            if (n % 3 == 0) {
                hop();
            }
            if (r->moves && n % 4 == 0) {
                AioContext *here = qemu_get_current_aio_context();
                aio_co_reschedule_self(here == io_ctx[0] ? io_ctx[1] : io_ctx[0]);
            }
            assert_bdrv_graph_readable();
            g_assert_cmpint(word_b, ==, a);
        }
        qatomic_inc(&r->rounds);
        hop();
    }
    qatomic_dec(&running);
    aio_wait_kick();
}

static void test_readers_never_see_half_a_change(void)
{
    AioContext *ctx[] = { io_ctx[0], io_ctx[1], qemu_get_aio_context() };
    for (unsigned t = 0; t < ARRAY_SIZE(ctx); t++) {
        reader[t] = (Reader) { .moves = t < 2 };
        for (int i = 0; i < READERS; i++) {
            qatomic_inc(&running);
            aio_co_enter(ctx[t], qemu_coroutine_create(read_entry, &reader[t]));
        }
    }
    for (int i = 0; i < test_rounds(2000); i++) {
        bdrv_graph_wrlock();
        assert_bdrv_graph_writable();
        word_a++;
        bdrv_graph_wrlock();            /* nests */
        word_b++;
        bdrv_graph_wrunlock();
        bdrv_graph_wrunlock();
        if (i % 8 == 0) {
            int64_t before = qatomic_read(&reader[i / 8 % 3].rounds);
            AIO_WAIT_WHILE_UNLOCKED(NULL, (aio_wait_kick(),
                                    qatomic_read(&reader[i / 8 % 3].rounds) == before));
        }
    }
    for (unsigned t = 0; t < ARRAY_SIZE(ctx); t++) {
        qatomic_set(&reader[t].stop, true);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&running) > 0);
}

/* ---- the writer waits --------------------------------------------------------------------------- */

/*
 *      reader (main loop)     lock, yield ................ unlock
 *      writer                        wrlock, poll ................. has it
 *      2nd reader                             lock: waits ................... has it
 */
typedef struct Order {
    GString *log;
    Coroutine *first;
} Order;

static void coroutine_fn first_reader(void *opaque)
{
    Order *o = opaque;
    assert_bdrv_graph_unlocked();
    bdrv_graph_co_rdlock();
    g_string_append(o->log, "r1+ ");
    qemu_coroutine_yield();
    bdrv_graph_co_rdlock();             /* again, while somebody waits for us */
    bdrv_graph_co_rdunlock();
    g_string_append(o->log, "r1- ");
    bdrv_graph_co_rdunlock();
    assert_bdrv_graph_unlocked();
}

static void coroutine_fn second_reader(void *opaque)
{
    Order *o = opaque;
    g_string_append(o->log, "r2? ");
    bdrv_graph_co_rdlock();
    g_string_append(o->log, "r2+ ");
    bdrv_graph_co_rdunlock();
}

static void let_first_go(void *opaque)
{
    Order *o = opaque;
    aio_co_wake(o->first);
}

static void start_second(void *opaque)
{
    aio_co_enter(qemu_get_aio_context(), qemu_coroutine_create(second_reader, opaque));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), let_first_go, opaque);
}

static void test_writer_waits_for_readers_and_is_waited_for(void)
{
    Order o = { g_string_new(NULL), NULL };
    o.first = qemu_coroutine_create(first_reader, &o);
    qemu_coroutine_enter(o.first);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), start_second, &o);
    bdrv_graph_wrlock();
    g_string_append(o.log, "w+ ");
    aio_poll(qemu_get_aio_context(), false);    /* not the reader's turn yet */
    g_string_append(o.log, "w- ");
    bdrv_graph_wrunlock();
    g_assert_cmpstr(o.log->str, ==, "r1+ r2? r1- w+ w- ");
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the second one was scheduled */
    }
    g_assert_cmpstr(o.log->str, ==, "r1+ r2? r1- w+ w- r2+ ");
    g_string_free(o.log, true);
}

/* A writer comes in the middle of another's wait: it has its turn first. */
static void write_inside(void *opaque)
{
    Order *o = opaque;
    g_string_append(o->log, "w2? ");
    let_first_go(o);
    bdrv_graph_wrlock();
    g_string_append(o->log, "w2+ ");
    bdrv_graph_wrunlock();
}

static void test_writers_inside_a_wait(void)
{
    Order o = { g_string_new(NULL), NULL };
    o.first = qemu_coroutine_create(first_reader, &o);
    qemu_coroutine_enter(o.first);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), write_inside, &o);
    bdrv_graph_wrlock();
    g_string_append(o.log, "w1+ ");
    bdrv_graph_wrunlock();
    g_assert_cmpstr(o.log->str, ==, "r1+ w2? r1- w2+ w1+ ");
    g_string_free(o.log, true);
}

/* A reader begins in a thread that ends before the reader does. */
static void coroutine_fn migrant_entry(void *opaque)
{
    bdrv_graph_co_rdlock();
    aio_co_reschedule_self(io_ctx[0]);
    qatomic_set_mb((int *)opaque, 1);
    aio_wait_kick();
    while (qatomic_read((int *)opaque) != 2) {
        hop();
    }
    bdrv_graph_co_rdunlock();
}

static void release_migrant(void *opaque)
{
    qatomic_set((int *)opaque, 2);
}

static void test_readers_outlive_their_thread(void)
{
    int state = 0;
    IOThread *gone = iothread_create("gone", &error_abort);
    aio_co_enter(iothread_get_aio_context(gone),
                 qemu_coroutine_create(migrant_entry, &state));
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&state) != 1);
    iothread_destroy(gone);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), release_migrant, &state);
    bdrv_graph_wrlock();
    g_assert_cmpint(qatomic_read(&state), ==, 2);
    bdrv_graph_wrunlock();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    for (int i = 0; i < THREADS; i++) {
        io[i] = iothread_create(i ? "io1" : "io0", &error_abort);
        io_ctx[i] = iothread_get_aio_context(io[i]);
    }
    g_test_add_func("/graph-lock/order", test_writer_waits_for_readers_and_is_waited_for);
    g_test_add_func("/graph-lock/nested-wait", test_writers_inside_a_wait);
    g_test_add_func("/graph-lock/thread-ends", test_readers_outlive_their_thread);
    g_test_add_func("/graph-lock/exclusion", test_readers_never_see_half_a_change);
    int ret = g_test_run();
    for (int i = 0; i < THREADS; i++) {
        iothread_destroy(io[i]);
    }
    return ret;
}
