/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph fuzzer. Three disks, each a chain of filters and overlays above a store, are read
 * and written by backends in two IOThreads and the main loop, while the main thread does to
 * the graph whatever comes to its mind, legal or not, also in the middle of its own waits. All
 * that is done to a chain leaves what the disk shows as it is.
 *
 * Oracles: a node that is drained gets no request; requests run at home; what the graph keeps
 * up to date equals what is recomputed from scratch (check.c); what is refused changes nothing;
 * data equal a shadow copy; all counters are zero in the end, and nothing is left.
 *
 *   test-graph-fuzz [--seed=R02S...]          GLib's; the seed is printed
 *   MINIBLK_FUZZ_SECONDS=N                    5 by default
 */
#include "graph-fuzz.h"

/* ---- running it ------------------------------------------------------------------------------- */

static void random_operation(void);

/* In the middle of whatever the main thread waits for. */
static void operation_in_a_wait(void *opaque)
{
    nested_pending = false;
    depth++;
    nested++;
    random_operation();
    check_graph(NULL, 0, NULL);
    depth--;
}

static void random_operation(void)
{
    static const struct { void (*fn)(void); int weight; } table[] = {
        { op_append, 10 }, { op_insert, 6 }, { op_drop_filter, 14 }, { op_commit, 6 },
        { op_section_begin, 8 }, { op_section_end, 8 }, { op_drain, 4 },
        { op_drain_all, 2 }, { op_drain_all_end, 3 }, { op_move, 10 }, { op_set_perm, 4 },
        { op_freeze, 2 }, { op_reopen, 5 }, { op_make_writable, 2 }, { op_backend, 5 },
        { op_eject, 4 }, { op_link, 3 }, { op_scratch, 3 }, { op_illegal, 2 },
        { op_job_start, 3 }, { op_job_verb, 8 },
    };
    int total = 0, choice;

    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        total += table[i].weight;
    }
    choice = below(total);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        choice -= table[i].weight;
        if (choice < 0) {
            operations++;
            table[i].fn();
            return;
        }
    }
}

/* How many sections of ours there are, by node; a new table. */
static GHashTable *sections_by_node(void)
{
    GHashTable *table = g_hash_table_new(NULL, NULL);

    for (unsigned i = 0; i < sections->len; i++) {
        void *bs = g_ptr_array_index(sections, i);
        int n = GPOINTER_TO_INT(g_hash_table_lookup(table, bs));
        g_hash_table_insert(table, bs, GINT_TO_POINTER(n + 1));
    }
    return table;
}

static void let_run(int rounds)
{
    while (rounds-- > 0) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* What the nodes of a chain hold, against the shadow copy, while nobody writes. */
static void check_data(Disk *d)
{
    BlockDriverState *store = store_of(d);

    take(store);
    bdrv_drained_begin(store);
    for (int i = 0; i < DISK_BLOCKS && store == store_of(d); i++) {
        BlockDriverState *bs = top_of(d);
        while (bs != store && !(is_ours(bs) && fuzz_node(bs)->allocated[i])) {
            bs = bdrv_filter_or_cow_bs(bs);
        }
        /* a writer that is back from its request may not have said so yet */
        int data = fuzz_node(bs)->data[i], coming = qatomic_read(&d->shadow.coming[i]);
        g_assert_true(data == qatomic_read(&d->shadow.now[i]) || data == coming);
    }
    bdrv_drained_end(store);
    drop(store);
}

/* Nothing is left of the sections, and requests get through everywhere. */
static void let_all_go_on(void)
{
    while (sections->len) {
        end_section(sections->len - 1);
    }
    while (drain_all_sections) {
        op_drain_all_end();
    }
    for (int i = 0; i < DISKS * LOADS_PER_DISK; i++) {
        Load *l = disk[i / LOADS_PER_DISK].load[i % LOADS_PER_DISK];
        if (l) {
            int64_t before = load_requests(l);
            while (load_requests(l) == before) {
                aio_poll(qemu_get_aio_context(), false);
            }
        }
    }
}

static void verify(Disk *d)
{
    BlockBackend *blk = blk_new_with_bs(top_of(d), BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                                        &error_abort);
    AioContext *ctx = blk_get_aio_context(blk);
    uint8_t buf[BLOCK_BYTES];

    aio_context_acquire(ctx);
    for (int i = 0; i < DISK_BLOCKS; i++) {
        g_assert_cmpint(blk_pread(blk, i * BLOCK_BYTES, sizeof(buf), buf, 0), ==, 0);
        g_assert_cmpint(buf[0], ==, d->shadow.now[i]);
    }
    aio_context_release(ctx);
    blk_unref(blk);
}

static void tear_down(Disk *d)
{
    for (int i = 0; i < LOADS_PER_DISK; i++) {
        if (d->load[i]) {
            load_stop(d->load[i]);
        }
    }
    verify(d);
    g_autoptr(GPtrArray) ours = g_ptr_array_new();
    for (BlockDriverState *bs = top_of(d); bs; bs = bdrv_filter_or_cow_bs(bs)) {
        if (is_ours(bs)) {      /* a filter of a job that stays is not */
            g_ptr_array_add(ours, bs);
        }
    }
    blk_unref(d->anchor);
    for (unsigned i = 0; i < ours->len; i++) {
        drop(g_ptr_array_index(ours, i));
    }
}

static double seconds_to_run(void)
{
    const char *text = g_getenv("MINIBLK_FUZZ_SECONDS");
    return text ? g_ascii_strtod(text, NULL) : 5;
}

static void test_random_operations(void)
{
    int64_t end_us = g_get_monotonic_time() + seconds_to_run() * 1000000;

    for (int i = 0; i < DISKS; i++) {
        BlockDriverState *store = new_node(&fuzz_store);
        g_hash_table_add(chained, store);
        disk[i].anchor = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
        blk_insert_bs(disk[i].anchor, store, &error_abort);
        blk_set_allow_aio_context_change(disk[i].anchor, true);
    }
    while (g_get_monotonic_time() < end_us) {
        if (!nested_pending && one_in(4)) {
            nested_pending = true;
            aio_bh_schedule_oneshot(qemu_get_aio_context(), operation_in_a_wait, NULL);
        }
        random_operation();
        check_graph(NULL, 0, NULL);
        let_run(below(4));
        jobs_reap();
        forget_what_is_out();
        if (one_in(5)) {
            check_data(any_disk());
        }
        if (one_in(50)) {
            let_all_go_on();
        }
        g_autoptr(GHashTable) levels = sections_by_node();
        check_graph(levels, drain_all_sections, held);
    }
    let_run(10);                /* operations that wait for a wait */
    let_all_go_on();
    jobs_end();
    forget_what_is_out();
    g_hash_table_remove_all(chained);
    for (int i = 0; i < LINKS_MAX; i++) {
        if (link_node[i]) {
            drop(link_node[i]);
        }
    }
    for (int i = 0; i < DISKS; i++) {
        tear_down(&disk[i]);
    }
    let_run(10);
    g_assert_cmpint(g_hash_table_size(held), ==, 0);
    g_assert_null(bdrv_next_node(NULL));
    g_assert_null(blk_all_next(NULL));
    g_test_message("%d operations, %d of them inside of waits, %d refused", operations,
                   nested, refusals);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    error_set_progname("graph-fuzz");
    fuzz_drivers_register();
    signal(SIGABRT, tell_the_story);
    context[0] = qemu_get_aio_context();
    for (int i = 1; i < CONTEXTS; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
        context[i] = iothread_get_aio_context(io[i]);
    }
    held = g_hash_table_new(NULL, NULL);
    chained = g_hash_table_new(NULL, NULL);
    sections = g_ptr_array_new();
    g_test_add_func("/graph-fuzz/random", test_random_operations);
    int ret = g_test_run();
    for (int i = 1; i < CONTEXTS; i++) {
        iothread_destroy(io[i]);
    }
    g_hash_table_destroy(held);
    g_hash_table_destroy(chained);
    g_ptr_array_free(sections, true);
    return ret;
}
