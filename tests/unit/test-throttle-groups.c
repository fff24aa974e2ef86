/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Throttle groups: turns, threads, drained sections, members that come and go. */
#include "miniblk/lab-test.h"
#include "throttle-test.h"

static AioContext *main_ctx(void)
{
    return qemu_get_aio_context();
}

/* ---- groups and members ----------------------------------------------------------- */

static void test_members_share_the_limits_of_their_group(void)
{
    BlockBackend *blk[3];
    ThrottleConfig cfg, a, b;

    for (int i = 0; i < 3; i++) {
        blk[i] = blk_new(main_ctx(), 0, BLK_PERM_ALL);
        throttle_group_register_tgm(member(blk[i]), i == 1 ? "foo" : "bar", main_ctx());
        g_assert_nonnull(member(blk[i])->throttle_state);
    }
    g_assert_true(member(blk[0])->throttle_state == member(blk[2])->throttle_state);
    g_assert_true(member(blk[0])->throttle_state != member(blk[1])->throttle_state);
    g_assert_cmpstr(throttle_group_get_name(member(blk[1])), ==, "foo");
    g_assert_cmpstr(throttle_group_get_name(member(blk[2])), ==, "bar");
    g_assert_true(throttle_group_exists("foo") && throttle_group_exists("bar"));
    g_assert_null(throttle_group_by_name("foo"));   /* it is no object */

    cfg = one_limit(THROTTLE_BPS_WRITE, 888, 999);
    throttle_group_config(member(blk[0]), &cfg);
    throttle_group_get_config(member(blk[0]), &a);
    throttle_group_get_config(member(blk[2]), &b);
    g_assert_cmpmem(&a, sizeof(a), &b, sizeof(b));
    g_assert_cmpmem(&a, sizeof(a), &cfg, sizeof(cfg));
    throttle_group_get_config(member(blk[1]), &b);
    g_assert_cmpuint(b.buckets[THROTTLE_BPS_WRITE].avg, ==, 0);

    for (int i = 0; i < 3; i++) {
        throttle_group_unregister_tgm(member(blk[i]));
        throttle_group_unregister_tgm(member(blk[i]));      /* nothing */
        g_assert_null(member(blk[i])->throttle_state);
        g_assert_false(throttle_timers_are_initialized(&member(blk[i])->throttle_timers));
        blk_unref(blk[i]);
    }
    g_assert_false(throttle_group_exists("foo") || throttle_group_exists("bar"));
}

static void test_group_object_stays_and_is_deleted_when_unused(void)
{
    ThrottleConfig cfg = one_limit(THROTTLE_OPS_TOTAL, 5, 0), back;
    ThrottleGroup *tg = throttle_group_new("g", &cfg, &error_abort);
    BlockBackend *blk = blk_new(main_ctx(), 0, BLK_PERM_ALL);
    Error *err = NULL;

    g_assert_true(throttle_group_by_name("g") == tg && throttle_group_next(NULL) == tg);
    g_assert_null(throttle_group_next(tg));
    g_assert_null(throttle_group_new("g", &cfg, &err));
    error_free_or_abort(&err);
    blk_io_limits_enable(blk, "g");
    throttle_group_get_config(member(blk), &back);
    g_assert_cmpmem(&back, sizeof(back), &cfg, sizeof(cfg));
    g_assert_false(throttle_group_delete(tg, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "object 'g' is in use, can not be deleted");
    error_free_or_abort(&err);
    blk_io_limits_disable(blk);
    g_assert_true(throttle_group_exists("g"));
    g_assert_true(throttle_group_delete(tg, &error_abort));
    g_assert_false(throttle_group_exists("g"));
    blk_unref(blk);
}

static void test_backend_changes_its_group(void)
{
    BlockBackend *blk = null_backend(main_ctx());

    blk_io_limits_update_group(blk, "a");           /* it is in none */
    g_assert_null(member(blk)->throttle_state);
    blk_io_limits_enable(blk, "a");
    ThrottleState *state = member(blk)->throttle_state;
    blk_io_limits_update_group(blk, "a");
    g_assert_true(member(blk)->throttle_state == state);
    blk_io_limits_update_group(blk, "b");
    g_assert_cmpstr(throttle_group_get_name(member(blk)), ==, "b");
    g_assert_false(throttle_group_exists("a"));
    blk_unref(blk);                                 /* leaves by itself */
    g_assert_false(throttle_group_exists("b"));
}

/* ---- turns ------------------------------------------------------------------------ */

/*
 * ORDER: a letter per request, in the order of submission: which backend, and a capital for a
 * write. All wait, and then N may pass. Returned: those that did, in their order.
 */
static char *order_of_turns(const char *order, BucketType type, int n)
{
    size_t len = strlen(order);
    g_autofree Request **r = g_new0(Request *, len);
    char *result = g_malloc0(n + 1);
    BlockBackend *blk[3];
    ThrottleConfig cfg = almost_nothing();

    for (int i = 0; i < 3; i++) {
        blk[i] = null_backend(main_ctx());
        blk_io_limits_enable(blk[i], "turns");
    }
    blk_set_io_limits(blk[0], &cfg);
    wait_for(r[0] = start_request(blk[0], THROTTLE_READ));
    free_request(r[0]);
    requests_done = 0;
    for (size_t i = 0; i < len; i++) {
        char c = order[i];
        r[i] = start_request(blk[g_ascii_tolower(c) - 'a'],
                             g_ascii_isupper(c) ? THROTTLE_WRITE : THROTTLE_READ);
    }
    let_run(main_ctx());
    g_assert_cmpint(requests_done, ==, 0);

    cfg = exactly(type, n);
    blk_set_io_limits(blk[0], &cfg);
    let_run(main_ctx());
    g_assert_cmpint(requests_done, ==, n);
    for (size_t i = 0; i < len; i++) {
        if (r[i]->serial) {
            result[r[i]->serial - 1] = order[i];
        }
    }
    for (int i = 0; i < 3; i++) {
        blk_unref(blk[i]);                          /* lets the rest go */
    }
    for (size_t i = 0; i < len; i++) {
        free_request(r[i]);
    }
    return result;
}

static void test_members_and_directions_take_turns(void)
{
    static const struct {
        const char *submitted;
        BucketType type;
        int n;
        const char *passed;
    } table[] = {
        { "aaaa",     THROTTLE_OPS_TOTAL, 3, "aaa" },
        { "aaabbb",   THROTTLE_OPS_TOTAL, 4, "abab" },
        { "aaabbbccc", THROTTLE_OPS_TOTAL, 7, "abcabca" },
        { "aaaac",    THROTTLE_OPS_TOTAL, 5, "acaaa" },
        { "bbca",     THROTTLE_OPS_TOTAL, 3, "abc" },
        /* under a common limit reads and writes alternate, each in its own turns */
        { "aaaaAAAA", THROTTLE_OPS_TOTAL, 6, "aAaAaA" },
        { "aaaaBBBB", THROTTLE_OPS_TOTAL, 5, "aBaBa" },
        { "AAAAaabb", THROTTLE_OPS_TOTAL, 6, "aAbAaA" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        g_autofree char *passed = order_of_turns(table[i].submitted, table[i].type,
                                                 table[i].n);
        g_assert_cmpstr(passed, ==, table[i].passed);
    }
}

static void test_limit_of_one_direction_does_not_hold_up_the_other(void)
{
    BlockBackend *blk = null_backend(main_ctx());
    ThrottleConfig cfg = one_limit(THROTTLE_BPS_WRITE, 1, 0);
    Request *w[3], *r;

    blk_io_limits_enable(blk, "g");
    blk_set_io_limits(blk, &cfg);
    for (int i = 0; i < 3; i++) {
        w[i] = start_request(blk, THROTTLE_WRITE);
    }
    wait_for(w[0]);
    for (int i = 0; i < 3; i++) {
        wait_for(r = start_request(blk, THROTTLE_READ));
        free_request(r);
    }
    g_assert_false(is_done(w[1]) || is_done(w[2]));
    blk_unref(blk);
    for (int i = 0; i < 3; i++) {
        free_request(w[i]);
    }
}

/* ---- rates ------------------------------------------------------------------------ */

/* Three members in three threads, 200 requests a second in all: not faster, and all done. */
static void test_rate_holds_over_threads(void)
{
    enum { N = 60, RATE = 200 };
    IOThread *io[2] = { iothread_create("t0", &error_abort),
                        iothread_create("t1", &error_abort) };
    AioContext *ctx[3] = { main_ctx(), iothread_get_aio_context(io[0]),
                           iothread_get_aio_context(io[1]) };
    BlockBackend *blk[3];
    Request *r[N];
    ThrottleConfig cfg = one_limit(THROTTLE_OPS_TOTAL, RATE, 0);

    for (int i = 0; i < 3; i++) {
        blk[i] = null_backend(ctx[i]);
        blk_io_limits_enable(blk[i], "rate");
    }
    blk_set_io_limits(blk[0], &cfg);
    requests_done = 0;
    int64_t start_ns = get_clock();
    for (int i = 0; i < N; i++) {
        r[i] = start_request(blk[i % 3], i / 3 % 2 ? THROTTLE_WRITE : THROTTLE_READ);
    }
    wait_for_count(N);
    int64_t ns = get_clock() - start_ns;
    /* a tenth of a second's worth passes at once, and one goes over the brim */
    g_assert_cmpint(ns, >=, (int64_t)(N - RATE / 10 - 2) * NANOSECONDS_PER_SECOND / RATE);
    for (int i = 0; i < 3; i++) {
        blk_unref(blk[i]);
    }
    for (int i = 0; i < N; i++) {
        free_request(r[i]);
    }
    iothread_destroy(io[0]);
    iothread_destroy(io[1]);
}

/* ---- what ends the waiting, and what must not break it ---------------------------- */

/* A backend with a request that holds up three others. */
typedef struct Jam {
    IOThread *io;               /* NULL: the main loop */
    AioContext *ctx;
    BlockBackend *blk;
    Request *r[3];
} Jam;

static Jam jam_make(bool in_iothread)
{
    Jam j = { .io = in_iothread ? iothread_create("jam", &error_abort) : NULL };
    ThrottleConfig cfg = almost_nothing();
    Request *first;

    j.ctx = j.io ? iothread_get_aio_context(j.io) : main_ctx();
    j.blk = null_backend(j.ctx);
    blk_io_limits_enable(j.blk, "jam");
    blk_set_io_limits(j.blk, &cfg);
    wait_for(first = start_request(j.blk, THROTTLE_READ));
    free_request(first);
    for (int i = 0; i < 3; i++) {
        j.r[i] = start_request(j.blk, i == 1 ? THROTTLE_WRITE : THROTTLE_READ);
    }
    let_run(j.ctx);
    for (int i = 0; i < 3; i++) {
        g_assert_false(is_done(j.r[i]));
    }
    return j;
}

static void jam_free(Jam *j)
{
    for (int i = 0; i < 3; i++) {
        free_request(j->r[i]);
    }
    blk_unref(j->blk);
    if (j->io) {
        iothread_destroy(j->io);
    }
}

static void act_drain(Jam *j) { blk_drain(j->blk); }
static void act_drain_node(Jam *j) { bdrv_drain(blk_bs(j->blk)); }
static void act_drain_all(Jam *j) { bdrv_drain_all(); }
static void act_remove_node(Jam *j) { blk_remove_bs(j->blk); }
static void act_disable(Jam *j) { blk_io_limits_disable(j->blk); }
static void act_other_group(Jam *j) { blk_io_limits_update_group(j->blk, "other"); }

static void act_no_limits(Jam *j)
{
    ThrottleConfig cfg;
    throttle_config_init(&cfg);
    blk_set_io_limits(j->blk, &cfg);
    for (int i = 0; i < 3; i++) {
        wait_for(j->r[i]);
    }
}

static void act_move(Jam *j)
{
    IOThread *other = iothread_create("other", &error_abort);
    AioContext *ctx = iothread_get_aio_context(other);
    Request *r;

    g_assert_cmpint(blk_set_aio_context(j->blk, ctx, &error_abort), ==, 0);
    g_assert_true(member(j->blk)->aio_context == ctx);
    /* its timers work there */
    ThrottleConfig cfg = one_limit(THROTTLE_OPS_TOTAL, 100, 0);
    blk_set_io_limits(j->blk, &cfg);
    for (int i = 0; i < 15; i++) {
        wait_for(r = start_request(j->blk, THROTTLE_READ));
        free_request(r);
    }
    g_assert_cmpint(blk_set_aio_context(j->blk, j->ctx, &error_abort), ==, 0);
    iothread_destroy(other);
}

static const struct {
    const char *name;
    void (*act)(Jam *j);
} acts[] = {
    { "drain", act_drain }, { "drain_node", act_drain_node },
    { "drain_all", act_drain_all }, { "remove_node", act_remove_node },
    { "disable", act_disable }, { "other_group", act_other_group },
    { "no_limits", act_no_limits }, { "move", act_move },
};

static void test_waiting_requests_are_let_go(gconstpointer opaque)
{
    int no = GPOINTER_TO_INT(opaque);
    Jam j = jam_make(no & 1);

    acts[no >> 1].act(&j);
    for (int i = 0; i < 3; i++) {
        g_assert_true(is_done(j.r[i]));
    }
    g_assert_cmpuint(member(j.blk)->io_limits_disabled, ==, 0);
    jam_free(&j);
}

/* What passed because of a drained section has been charged: the limits hold after it. */
static void test_limits_hold_again_after_a_drained_section(void)
{
    Jam j = jam_make(true);
    Request *r;

    blk_drain(j.blk);
    r = start_request(j.blk, THROTTLE_READ);
    let_run(j.ctx);
    g_assert_false(is_done(r));
    blk_drain(j.blk);
    free_request(r);
    jam_free(&j);
}

/*
 * main                          thread of B
 * A waits, its timer is armed
 *                               B waits
 * A is drained: its timer goes
 *                               B's timer is armed and B is served in time
 */
static void test_drained_member_leaves_no_one_without_a_timer(void)
{
    Jam b = jam_make(true);
    BlockBackend *a = null_backend(main_ctx());
    ThrottleConfig cfg = one_limit(THROTTLE_OPS_TOTAL, 10, 0);
    Request *ra;

    blk_io_limits_enable(a, "jam");
    /* the three of B go over the brim, so A's is the first to wait; then B again */
    blk_set_io_limits(a, &cfg);
    for (int i = 0; i < 3; i++) {
        wait_for(b.r[i]);
        free_request(b.r[i]);
    }
    ra = start_request(a, THROTTLE_READ);
    for (int i = 0; i < 3; i++) {
        b.r[i] = start_request(b.blk, THROTTLE_READ);
    }
    let_run(b.ctx);
    blk_unref(a);
    free_request(ra);
    for (int i = 0; i < 3; i++) {
        wait_for(b.r[i]);
    }
    jam_free(&b);
}

/* QB-45: a member is removed while what woke its requests is still under way. */
static void test_qb45_member_removed_while_its_requests_are_restarted(void)
{
    for (int round = 0; round < 50; round++) {
        Jam j = jam_make(true);
        ThrottleConfig cfg = one_limit(THROTTLE_OPS_TOTAL, 100000, 0);

        blk_set_io_limits(j.blk, &cfg);     /* requests are scheduled in the thread ... */
        blk_io_limits_disable(j.blk);       /* ... and the member goes */
        for (int i = 0; i < 3; i++) {
            g_assert_true(is_done(j.r[i]));
        }
        jam_free(&j);
    }
}

/* ---- requests of other threads ---------------------------------------------------- */

typedef struct Guest {
    BlockBackend *blk;
    AioContext *ctx;
    int done;                   /* atomic */
} Guest;

static void coroutine_fn guest_entry(void *opaque)
{
    Guest *g = opaque;

    throttle_group_co_io_limits_intercept(member(g->blk), REQUEST_BYTES, THROTTLE_READ);
    /* wherever it has waited, it goes on where it was */
    g_assert_true(qemu_get_current_aio_context() == g->ctx);
    qatomic_inc(&g->done);
    blk_dec_in_flight(g->blk);
}

/*
 * thread                           main
 * its request must wait: in main's loop
 *                                  drains the member, or lifts the limit
 * goes on, in its own loop
 */
static void test_request_of_another_thread_waits_and_returns(void)
{
    IOThread *io = iothread_create("guest", &error_abort);
    AioContext *there = iothread_get_aio_context(io);

    for (int round = 0; round < 20; round++) {
        Jam j = jam_make(false);
        Guest g = { j.blk, there, 0 };

        blk_inc_in_flight(j.blk);
        aio_co_enter(there, qemu_coroutine_create(guest_entry, &g));
        let_run(there);
        let_run(main_ctx());
        g_assert_false(qatomic_read(&g.done));
        if (round % 2) {
            blk_drain(j.blk);
        } else {
            act_no_limits(&j);
            AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&g.done));
        }
        g_assert_cmpint(qatomic_read(&g.done), ==, 1);
        blk_drain(j.blk);
        jam_free(&j);
    }
    iothread_destroy(io);
}

/* ---- load ------------------------------------------------------------------------- */

typedef struct Flow {
    BlockBackend *blk;
    QEMUIOVector qiov;
    uint8_t buf[REQUEST_BYTES];
    ThrottleDirection direction;
    int in_flight;              /* atomic: 0 or 1 */
    uint64_t count;
    bool *stop;                 /* atomic */
} Flow;

static void flow_cb(void *opaque, int ret);

static void flow_submit(Flow *f)
{
    if (f->direction == THROTTLE_READ) {
        blk_aio_preadv(f->blk, 0, &f->qiov, 0, flow_cb, f);
    } else {
        blk_aio_pwritev(f->blk, 0, &f->qiov, 0, flow_cb, f);
    }
}

static void flow_cb(void *opaque, int ret)
{
    Flow *f = opaque;

    g_assert_cmpint(ret, ==, 0);
    f->count++;
    if (qatomic_read(f->stop)) {
        qatomic_dec(&f->in_flight);
    } else {
        flow_submit(f);
    }
}

/*
 * Many flows over two IOThreads and the main loop, while the main loop changes limits, drains,
 * moves, and takes members out of the group and back in. At the end each has been served.
 */
static void test_changes_of_everything_under_load(void)
{
    enum { BACKENDS = 6, FLOWS = 24 };
    IOThread *io[2] = { iothread_create("l0", &error_abort),
                        iothread_create("l1", &error_abort) };
    AioContext *ctx[3] = { main_ctx(), iothread_get_aio_context(io[0]),
                           iothread_get_aio_context(io[1]) };
    g_autofree Flow *flows = g_new0(Flow, FLOWS);
    BlockBackend *blk[BACKENDS];
    g_autoptr(GRand) rand = g_rand_new_with_seed(4711);
    bool stop = false;
    ThrottleConfig cfg;

    for (int i = 0; i < BACKENDS; i++) {
        blk[i] = null_backend(ctx[i % 3]);
        blk_io_limits_enable(blk[i], "load");
    }
    cfg = one_limit(THROTTLE_OPS_TOTAL, 20000, 0);
    blk_set_io_limits(blk[0], &cfg);
    for (int i = 0; i < FLOWS; i++) {
        Flow *f = &flows[i];
        f->blk = blk[i % BACKENDS];
        f->direction = i / BACKENDS % 2 ? THROTTLE_WRITE : THROTTLE_READ;
        qemu_iovec_init_buf(&f->qiov, f->buf, REQUEST_BYTES);
        f->in_flight = 1;
        f->stop = &stop;
        flow_submit(f);
    }
    int64_t end_ns = get_clock() + LAB_ROUNDS(NANOSECONDS_PER_SECOND, 0);
    for (int round = 0; round < LAB_ROUNDS(300, 12) || get_clock() < end_ns; round++) {
        BlockBackend *b = blk[g_rand_int_range(rand, 0, BACKENDS)];

        switch (g_rand_int_range(rand, 0, 6)) {
        case 0:
            blk_drain(b);
            break;
        case 1:
            bdrv_drain_all();
            break;
        case 2:
            blk_set_aio_context(b, ctx[g_rand_int_range(rand, 0, 3)], &error_abort);
            break;
        case 3:
            if (member(b)->throttle_state) {
                blk_io_limits_disable(b);
            } else {
                blk_io_limits_enable(b, g_rand_boolean(rand) ? "load" : "load2");
            }
            break;
        case 4:
            blk_io_limits_update_group(b, g_rand_boolean(rand) ? "load" : "load2");
            break;
        case 5:
            cfg = one_limit(g_rand_int_range(rand, THROTTLE_OPS_TOTAL, BUCKETS_COUNT),
                            g_rand_int_range(rand, 1000, 30000), 0);
            if (member(b)->throttle_state) {
                blk_set_io_limits(b, &cfg);
            }
            break;
        }
        aio_poll(main_ctx(), false);
    }
    qatomic_set(&stop, true);
    for (int i = 0; i < FLOWS; i++) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_load_acquire(&flows[i].in_flight));
    }
    for (int i = 0; i < BACKENDS; i++) {
        blk_unref(blk[i]);
    }
    for (int i = 0; i < FLOWS; i++) {
        g_assert_cmpuint(flows[i].count, >, 0);
    }
    iothread_destroy(io[0]);
    iothread_destroy(io[1]);
    g_assert_false(throttle_group_exists("load") || throttle_group_exists("load2"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(qemu_init_main_loop(&error_abort), ==, 0);
    bdrv_init();
#define ADD(name) g_test_add_func("/throttle-groups/" #name, test_##name)
    ADD(members_share_the_limits_of_their_group);
    ADD(group_object_stays_and_is_deleted_when_unused);
    ADD(backend_changes_its_group);
    ADD(members_and_directions_take_turns);
    ADD(limit_of_one_direction_does_not_hold_up_the_other);
    ADD(rate_holds_over_threads);
    for (size_t i = 0; i < ARRAY_SIZE(acts) * 2; i++) {
        g_autofree char *name = g_strdup_printf(
            "/throttle-groups/waiting_requests_are_let_go/%s/%s", acts[i >> 1].name,
            i & 1 ? "iothread" : "main");
        g_test_add_data_func(name, GINT_TO_POINTER(i), test_waiting_requests_are_let_go);
    }
    ADD(limits_hold_again_after_a_drained_section);
    ADD(drained_member_leaves_no_one_without_a_timer);
    ADD(qb45_member_removed_while_its_requests_are_restarted);
    ADD(request_of_another_thread_waits_and_returns);
    ADD(changes_of_everything_under_load);
    return g_test_run();
}
