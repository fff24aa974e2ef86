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

enum { DISKS = 3, LOADS_PER_DISK = 3, SECTIONS_MAX = 5, CHAIN_MAX = 12, LINKS_MAX = 2 };

typedef struct Disk {
    BlockDriverState *store;
    BlockBackend *anchor;       /* needs nothing, minds nothing, and is always on the top */
    Shadow shadow;
    Load *load[LOADS_PER_DISK]; /* NULL: none at present */
} Disk;

static Disk disk[DISKS];
static AioContext *context[CONTEXTS];
static IOThread *io[CONTEXTS];
static GHashTable *held;        /* our references, by node */
static GHashTable *chained;     /* nodes with one of these because they are in a chain */
static GPtrArray *sections;     /* of BlockDriverState; one reference each, in HELD */
static int drain_all_sections;
static BlockDriverState *link_node[LINKS_MAX];
static int operations, refusals, nested;
static int depth;               /* of operations inside of waits */

/* ---- the story so far ------------------------------------------------------------------------ */

static char story[64][96];
static unsigned told;

static void G_GNUC_PRINTF(1, 2) tell(const char *fmt, ...)
{
    va_list ap;
    char *line = story[told++ % ARRAY_SIZE(story)];
    int indent = snprintf(line, sizeof(story[0]), "%*s", depth * 2, "");

    va_start(ap, fmt);
    vsnprintf(line + indent, sizeof(story[0]) - indent, fmt, ap);
    va_end(ap);
}

/* A test that fails aborts: say what led there. */
static void tell_the_story(int sig)
{
    unsigned first = told > ARRAY_SIZE(story) ? told - ARRAY_SIZE(story) : 0;
    for (unsigned i = first; i < told; i++) {
        fprintf(stderr, "# %s\n", story[i % ARRAY_SIZE(story)]);
    }
}

/* ---- random choices and references ----------------------------------------------------------- */

static int below(int n)
{
    return g_test_rand_int_range(0, n);
}

static bool one_in(int n)
{
    return below(n) == 0;
}

static void hold(BlockDriverState *bs)
{
    int n = GPOINTER_TO_INT(g_hash_table_lookup(held, bs));
    g_hash_table_insert(held, bs, GINT_TO_POINTER(n + 1));
}

static void take(BlockDriverState *bs)
{
    bdrv_ref(bs);
    hold(bs);
}

static void drop(BlockDriverState *bs)
{
    int n = GPOINTER_TO_INT(g_hash_table_lookup(held, bs));

    g_assert_cmpint(n, >, 0);
    if (n > 1) {
        g_hash_table_insert(held, bs, GINT_TO_POINTER(n - 1));
    } else {
        g_hash_table_remove(held, bs);
    }
    bdrv_unref(bs);
}

static BlockDriverState *new_node(BlockDriver *drv)
{
    BlockDriverState *bs = bdrv_new_open_driver(drv, NULL, BDRV_O_RDWR, &error_abort);
    hold(bs);
    return bs;
}

/* ---- chains ---------------------------------------------------------------------------------- */

static BlockDriverState *top_of(Disk *d)
{
    return blk_bs(d->anchor);
}

static int length_of(Disk *d)
{
    int n = 1;
    for (BlockDriverState *bs = top_of(d); bs != d->store; bs = bdrv_filter_or_cow_bs(bs)) {
        n++;
    }
    return n;
}

static Disk *any_disk(void)
{
    return &disk[below(DISKS)];
}

/* A reference comes with it. */
static BlockDriverState *any_node(Disk *d)
{
    BlockDriverState *bs = top_of(d);

    for (int i = below(length_of(d)); i > 0; i--) {
        bs = bdrv_filter_or_cow_bs(bs);
    }
    take(bs);
    return bs;
}

static bool is_filter(BlockDriverState *bs)
{
    return bs->drv->is_filter;
}

static bool in_a_chain(BlockDriverState *bs)
{
    for (int i = 0; i < DISKS; i++) {
        for (BlockDriverState *n = top_of(&disk[i]); n; n = bdrv_filter_or_cow_bs(n)) {
            if (n == bs) {
                return true;
            }
        }
    }
    return false;
}

static gboolean is_out(gpointer bs, gpointer unused, gpointer dropped)
{
    if (in_a_chain(bs)) {
        return FALSE;
    }
    g_ptr_array_add(dropped, bs);
    return TRUE;
}

/* Nodes that were put into a chain keep our reference as long as they are there. */
static void forget_what_is_out(void)
{
    g_autoptr(GPtrArray) dropped = g_ptr_array_new();

    g_hash_table_foreach_remove(chained, is_out, dropped);
    for (unsigned i = 0; i < dropped->len; i++) {
        drop(g_ptr_array_index(dropped, i));
    }
}

/* ---- operations ------------------------------------------------------------------------------ */

static bool nested_pending;     /* an operation waits for the next wait */

/*
 * For what would not do what it means if nodes came in between: the next operation's waits
 * are without surprises.
 */
static void no_surprises(void)
{
    while (nested_pending) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* What was refused must have said why. Forgets the error. */
static bool done(int ret, Error **err)
{
    g_assert_true((ret < 0) == (*err != NULL));
    if (ret < 0) {
        tell("    refused: %.70s", error_get_pretty(*err));
        error_free_or_abort(err);
        refusals++;
    }
    return ret >= 0;
}

/* An empty overlay or a filter changes nothing of what is seen, wherever it comes. */
static void op_append(void)
{
    Disk *d = any_disk();
    Error *err = NULL;

    if (length_of(d) >= CHAIN_MAX) {
        return;
    }
    BlockDriverState *bs = any_node(d);
    BlockDriverState *bs_new = new_node(one_in(3) ? &fuzz_overlay : &fuzz_filter);
    tell("append %s %s to %s", bs_new->drv->format_name, bs_new->node_name, bs->node_name);
    if (done(bdrv_append(bs_new, bs, &err), &err)) {
        g_hash_table_add(chained, bs_new);
    } else {
        drop(bs_new);
    }
    drop(bs);
}

static void op_insert(void)
{
    Error *err = NULL;

    no_surprises();
    Disk *d = any_disk();
    if (length_of(d) >= CHAIN_MAX) {
        return;
    }
    BlockDriverState *bs = any_node(d);
    QDict *options = qdict_new();
    qdict_put_str(options, "driver", "fuzz-insert");
    qdict_put_str(options, "file", bs->node_name);
    tell("insert above %s", bs->node_name);
    BlockDriverState *bs_new = bdrv_insert_node(bs, options, BDRV_O_RDWR, &err);
    if (done(bs_new ? 0 : -1, &err)) {
        hold(bs_new);
        g_hash_table_add(chained, bs_new);
    }
    drop(bs);
}

/* Filters go away without trace, by any of the ways there are. */
static void op_drop_filter(void)
{
    int how = below(3), ret;
    Error *err = NULL;

    if (how > 0) {
        no_surprises();
    }
    BlockDriverState *bs = any_node(any_disk());
    if (is_filter(bs)) {
        BlockDriverState *child = bdrv_filter_bs(bs);
        take(child);
        tell("drop filter %s over %s, way %d", bs->node_name, child->node_name, how);
        if (how == 0) {
            ret = bdrv_drop_filter(bs, &err);
        } else if (how == 1) {
            ret = bdrv_replace_node(bs, child, &err);
        } else {
            ret = bdrv_drop_intermediate(bs, child, NULL);
            if (ret < 0) {
                error_setg(&err, "drop intermediate: %s", strerror(-ret));
            }
        }
        done(ret, &err);
        drop(child);
    }
    drop(bs);
}

/* What an overlay has is written into what is below, and then it is taken out. */
static void op_commit(void)
{
    no_surprises();
    BlockDriverState *bs = any_node(any_disk());
    if (bs->drv == &fuzz_overlay) {
        bdrv_drained_begin(bs);
        BlockDriverState *base = bdrv_cow_bs(bs);
        while (base && is_filter(base)) {
            base = bdrv_filter_bs(base);
        }
        if (base) {
            FuzzNode *from = fuzz_node(bs), *to = fuzz_node(base);
            take(base);
            tell("commit %s into %s", bs->node_name, base->node_name);
            for (int i = 0; i < DISK_BLOCKS; i++) {
                if (from->allocated[i]) {
                    to->data[i] = from->data[i];
                    to->allocated[i] = true;
                }
            }
            int ret = bdrv_drop_intermediate(bs, base, "base");
            refusals += ret < 0;
            g_assert_true(ret < 0 || !in_a_chain(bs));
            drop(base);
        }
        bdrv_drained_end(bs);
    }
    drop(bs);
}

/* ---- sections -------------------------------------------------------------------------------- */

static void op_section_begin(void)
{
    BlockDriverState *bs = any_node(any_disk());

    if (sections->len < SECTIONS_MAX && !depth) {
        tell("begin section on %s", bs->node_name);
        bdrv_drained_begin(bs);
        qatomic_set(&fuzz_node(bs)->forbidden, true);
        take(bs);
        g_ptr_array_add(sections, bs);
    }
    drop(bs);
}

static void end_section(unsigned i)
{
    BlockDriverState *bs = g_ptr_array_steal_index_fast(sections, i);

    tell("end section on %s", bs->node_name);
    bdrv_drained_end(bs);
    drop(bs);
}

static void op_section_end(void)
{
    if (sections->len && !depth) {
        end_section(below(sections->len));
    }
}

static void op_drain(void)
{
    BlockDriverState *bs = any_node(any_disk());

    tell("drain %s", bs->node_name);
    bdrv_drained_begin(bs);
    qatomic_set(&fuzz_node(bs)->forbidden, true);
    g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
    bdrv_drained_end(bs);
    drop(bs);
}

static void op_drain_all(void)
{
    if (depth || drain_all_sections > 2) {
        return;
    }
    tell("begin drain all");
    bdrv_drain_all_begin();
    drain_all_sections++;
    for (BlockDriverState *bs = bdrv__next_any(NULL); bs; bs = bdrv__next_any(bs)) {
        g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
        qatomic_set(&fuzz_node(bs)->forbidden, true);
    }
}

static void op_drain_all_end(void)
{
    if (!depth && drain_all_sections) {
        tell("end drain all");
        drain_all_sections--;
        bdrv_drain_all_end();
    }
}

static bool anything_drained(void)
{
    return sections->len || drain_all_sections;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static void op_move(void)
{
    BlockDriverState *bs = any_node(any_disk());
    AioContext *from = bdrv_get_aio_context(bs), *to = context[below(CONTEXTS)];
    Error *err = NULL;

    if (!depth) {
        tell("move %s", bs->node_name);
        aio_context_acquire(from);
        int ret = bdrv_try_change_aio_context(bs, to, NULL, &err);
        aio_context_release(from);
        g_assert_true(bdrv_get_aio_context(bs) == (done(ret, &err) ? to : from));
    }
    drop(bs);
}

/* ---- permissions and frozen links ------------------------------------------------------------ */

static void op_set_perm(void)
{
    Disk *d = any_disk();
    Load *l = d->load[below(LOADS_PER_DISK)];
    uint64_t perm, shared, new_perm, new_shared;
    Error *err = NULL;

    if (!l || depth) {
        return;
    }
    BlockBackend *blk = load_backend(l);
    blk_get_perm(blk, &perm, &shared);
    new_perm = (perm & BLK_PERM_WRITE) | (one_in(4) ? 0 : BLK_PERM_CONSISTENT_READ);
    new_shared = one_in(2) ? BLK_PERM_ALL
                 : one_in(2) ? BLK_PERM_ALL & ~BLK_PERM_RESIZE : BLK_PERM_CONSISTENT_READ;
    tell("backend of %s: needs %x, shares %x", blk_bs(blk) ? blk_bs(blk)->node_name : "-",
         (unsigned)new_perm, (unsigned)new_shared);
    if (!done(blk_set_perm(blk, new_perm, new_shared, &err), &err)) {
        blk_get_perm(blk, &new_perm, &new_shared);
        g_assert_cmphex(new_perm, ==, perm);
        g_assert_cmphex(new_shared, ==, shared);
    }
}

static void op_freeze(void)
{
    Disk *d = any_disk();
    BlockDriverState *bs = top_of(d);
    Error *err = NULL;

    if (!depth && bdrv_freeze_backing_chain(bs, d->store, &err) == 0) {
        BlockDriverState *bs_new = new_node(&fuzz_filter);
        tell("freeze the chain of %s", bs->node_name);
        if (bs != d->store) {
            g_assert_cmpint(bdrv_append(bs_new, d->store, &err), <, 0);
            error_free_or_abort(&err);
            g_assert_cmpint(bdrv_drop_intermediate(bs, d->store, NULL), ==, -EIO);
        }
        bdrv_unfreeze_backing_chain(bs, d->store);
        drop(bs_new);
    }
    error_free(err);
}

/* ---- reopening ------------------------------------------------------------------------------- */

static bool has_writer(Disk *d)
{
    for (int i = 0; i < LOADS_PER_DISK; i++) {
        if (d->load[i] && load_writes(d->load[i])) {
            return true;
        }
    }
    return false;
}

static void op_reopen(void)
{
    BlockReopenQueue *q = NULL;
    BlockDriverState *bs[3];
    int flags[3], n = 1 + below(3);
    Error *err = NULL;

    if (depth) {
        return;
    }
    for (int i = 0; i < n; i++) {
        QDict *options = qdict_new();
        bs[i] = any_node(any_disk());
        qdict_put_bool(options, "read-only", one_in(2));
        fuzz_node(bs[i])->refuse_reopen = one_in(6);
        tell("reopen %s", bs[i]->node_name);
        q = bdrv_reopen_queue(q, bs[i], options, true);
    }
    for (int i = 0; i < n; i++) {
        flags[i] = bs[i]->open_flags;
    }
    bool ok = done(bdrv_reopen_multiple(q, &err), &err);
    for (int i = 0; i < n; i++) {
        g_assert_true(ok || bs[i]->open_flags == flags[i]);
        fuzz_node(bs[i])->refuse_reopen = false;
        drop(bs[i]);
    }
}

static void op_make_writable(void)
{
    Disk *d = any_disk();
    Error *err = NULL;

    if (depth) {
        return;
    }
    no_surprises();
    for (BlockDriverState *bs = top_of(d); bs; bs = bdrv_filter_or_cow_bs(bs)) {
        done(bdrv_reopen_set_read_only(bs, false, &err), &err);
    }
}

/* ---- backends -------------------------------------------------------------------------------- */

static void op_backend(void)
{
    int which = below(LOADS_PER_DISK);
    Disk *d = any_disk();
    Load *l = d->load[which];
    Error *err = NULL;

    no_surprises();
    if (depth || anything_drained()) {
        return;                 /* the workers could not go on */
    }
    if (l) {
        tell("stop a backend");
        d->load[which] = NULL;
        load_stop(l);
        return;
    }
    bool writes = one_in(2) || !has_writer(d);
    BlockBackend *blk = blk_new(context[below(CONTEXTS)],
                                BLK_PERM_CONSISTENT_READ | (writes ? BLK_PERM_WRITE : 0),
                                one_in(4) ? BLK_PERM_CONSISTENT_READ : BLK_PERM_ALL);
    BlockDriverState *bs = top_of(d);
    tell("new backend on %s", bs->node_name);
    if (done(blk_insert_bs(blk, bs, &err), &err)) {
        d->load[which] = load_start(blk, &d->shadow, which * WORKERS * BLOCKS_PER_WORKER,
                                    writes, one_in(2));
    } else {
        blk_unref(blk);
    }
}

/* The medium of a backend in use goes, and comes again. */
static void op_eject(void)
{
    Disk *d = any_disk();
    Load *l = d->load[below(LOADS_PER_DISK)];
    Error *err = NULL;

    no_surprises();
    if (!l || depth) {
        return;
    }
    BlockBackend *blk = load_backend(l);
    tell("%s a medium", blk_bs(blk) ? "eject" : "insert");
    if (blk_bs(blk)) {
        blk_remove_bs(blk);
    } else {
        done(blk_insert_bs(blk, top_of(d), &err), &err);
    }
}

/* ---- nodes aside, and things that are not allowed --------------------------------------------- */

/* A node that uses several disks, and so binds them into one context. */
static void op_link(void)
{
    int i = below(LINKS_MAX);
    Error *err = NULL;

    if (depth) {
        return;
    }
    if (link_node[i]) {
        BlockDriverState *bs = link_node[i];
        tell("unlink %s", bs->node_name);
        link_node[i] = NULL;
        if (one_in(2)) {
            bdrv_unref_child(bs, QLIST_FIRST(&bs->children));
        }
        drop(bs);
        return;
    }
    BlockDriverState *bs = new_node(&fuzz_overlay);
    for (int n = 1 + below(3); n > 0; n--) {
        BlockDriverState *child = any_node(any_disk());
        tell("link %s to %s", bs->node_name, child->node_name);
        bdrv_ref(child);
        bool ok = bdrv_attach_child(bs, child, "link", &child_of_bds, BDRV_CHILD_DATA, &err);
        done(ok ? 0 : -1, &err);
        drop(child);
    }
    link_node[i] = bs;
}

static void op_scratch(void)
{
    BlockDriverState *a = new_node(&fuzz_overlay), *b = new_node(&fuzz_store);

    tell("scratch nodes %s, %s", a->node_name, b->node_name);
    g_assert_cmpint(bdrv_set_backing_hd(a, b, &error_abort), ==, 0);
    if (one_in(2)) {
        drop(b);
        b = NULL;
    }
    drop(a);
    if (b) {
        drop(b);
    }
}

static void op_illegal(void)
{
    BlockDriverState *bs = any_node(any_disk()), *bs_new = new_node(&fuzz_overlay);
    BlockDriverState *lower = bdrv_filter_or_cow_bs(bs);
    Error *err = NULL;

    tell("illegal things with %s", bs->node_name);
    g_assert_null(bdrv_new_open_driver(&fuzz_filter, bs->node_name, 0, &err));
    error_free_or_abort(&err);
    g_assert_cmpint(bdrv_set_backing_hd(bs_new, bs_new, &err), ==, -EINVAL);
    error_free_or_abort(&err);
    if (lower) {
        bdrv_ref(bs);
        g_assert_null(bdrv_attach_child(lower, bs, "loop", &child_of_bds, BDRV_CHILD_DATA,
                                        &err));
        error_free_or_abort(&err);
    }
    if (bs->drv == &fuzz_store) {
        g_assert_cmpint(bdrv_set_backing_hd(bs, bs_new, &err), ==, -EINVAL);
        error_free_or_abort(&err);
    }
    drop(bs_new);
    drop(bs);
}

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
    bdrv_drained_begin(d->store);
    for (int i = 0; i < DISK_BLOCKS; i++) {
        BlockDriverState *bs = top_of(d);
        while (bs != d->store && !fuzz_node(bs)->allocated[i]) {
            bs = bdrv_filter_or_cow_bs(bs);
        }
        /* a writer that is back from its request may not have said so yet */
        int data = fuzz_node(bs)->data[i], coming = qatomic_read(&d->shadow.coming[i]);
        g_assert_true(data == qatomic_read(&d->shadow.now[i]) || data == coming);
    }
    bdrv_drained_end(d->store);
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
    BlockDriverState *bs = top_of(d), *next;
    blk_unref(d->anchor);
    for (; bs; bs = next) {
        next = bdrv_filter_or_cow_bs(bs);
        drop(bs);
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
        disk[i].store = new_node(&fuzz_store);
        disk[i].anchor = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
        blk_insert_bs(disk[i].anchor, disk[i].store, &error_abort);
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
