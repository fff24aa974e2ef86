/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All of drain. This file is the only writer of quiesce_counter, of an edge's
 * quiesced_parent flag, of in_flight and of at_rest.
 *
 *   quiesce  tell every parent, recursively upwards, to start nothing new. No polling: the
 *            graph cannot change under the walk.
 *   poll     one loop until nothing is in flight on the node or above it. The condition
 *            looks at the graph afresh each time, so callbacks may change it.
 *   resume   the mirror image of quiesce; never polls.
 *
 * Each edge adds one level to its parent, recorded in the edge itself. So a change of the
 * graph in the middle always knows whether this edge has a level to give back, and need not
 * derive it from what the child's counter happens to be now.
 *
 * Counting: a token (in_flight) exists from before work is spawned until after its last
 * access to the node. Starting a request is
 *
 *      requester                               drainer
 *      in_flight++        (RMW)                quiesce_counter++     (RMW)
 *      read quiesce_counter                    read in_flight
 *
 * so either the requester sees the section and steps back, or the drainer sees the request
 * and waits for it. (block/backend.c has the requester's side.)
 */
#include "block/block-internal.h"
#include "miniblk/coroutine-int.h"

/* Number of global drained sections in force. Main thread. */
static unsigned drain_all_sections;

/* ---- tokens -------------------------------------------------------------------------------- */

void bdrv_inc_in_flight(BlockDriverState *bs)
{
    qatomic_inc(&bs->in_flight);
}

void bdrv_dec_in_flight(BlockDriverState *bs)
{
    unsigned old = qatomic_fetch_dec(&bs->in_flight);
    g_assert(old > 0);
    /* BS may be gone from here on. The decrement comes before the kick: see aio/wait.c. */
    aio_wait_kick_after_rmw();
}

/* ---- quiesce and resume ---------------------------------------------------------------------- */

void bdrv__parent_drained_begin(BdrvChild *c)
{
    GLOBAL_STATE_CODE();
    g_assert(!c->quiesced_parent);
    c->quiesced_parent = true;
    if (c->klass->drained_begin) {
        c->klass->drained_begin(c);
    }
}

void bdrv__parent_drained_end(BdrvChild *c)
{
    GLOBAL_STATE_CODE();
    g_assert(c->quiesced_parent);
    c->quiesced_parent = false;
    if (c->klass->drained_end) {
        c->klass->drained_end(c);
    }
}

bool bdrv__parent_drained_poll(BdrvChild *c)
{
    return c->klass->drained_poll && c->klass->drained_poll(c);
}

/*
 * The driver's callbacks come in pairs, begin first, between open and close: whether begin
 * has been called is a fact of its own, since nodes are opened and closed while drained.
 */
static void driver_begin(BlockDriverState *bs)
{
    if (bs->driver_open && !bs->driver_drained) {
        bs->driver_drained = true;
        if (bs->drv->bdrv_drain_begin) {
            bs->drv->bdrv_drain_begin(bs);
        }
    }
}

static void driver_end(BlockDriverState *bs)
{
    if (bs->driver_drained) {
        bs->driver_drained = false;
        if (bs->drv->bdrv_drain_end) {
            bs->drv->bdrv_drain_end(bs);
        }
    }
}

void bdrv__driver_opened(BlockDriverState *bs)
{
    bs->driver_open = true;
    if (bs->quiesce_counter) {
        driver_begin(bs);
    }
}

void bdrv__driver_closed(BlockDriverState *bs)
{
    driver_end(bs);
    bs->driver_open = false;
}

void bdrv__quiesce(BlockDriverState *bs)
{
    BdrvChild *c, *next;

    GLOBAL_STATE_CODE();
    if (qatomic_fetch_inc(&bs->quiesce_counter) > 0) {
        return;
    }
    QLIST_FOREACH_SAFE(c, &bs->parents, next_parent, next) {
        if (!c->quiesced_parent) {
            bdrv__parent_drained_begin(c);
        }
    }
    driver_begin(bs);
}

static BdrvChild *quiesced_edge(BlockDriverState *bs)
{
    BdrvChild *c;
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->quiesced_parent) {
            return c;
        }
    }
    return NULL;
}

void bdrv__unquiesce(BlockDriverState *bs)
{
    BdrvChild *c;

    GLOBAL_STATE_CODE();
    if (bs->quiesce_counter == 1) {
        qatomic_set(&bs->at_rest, false);       /* who sees the counter at 0 sees this */
    }
    int old = qatomic_fetch_dec(&bs->quiesce_counter);
    g_assert(old > 0);
    if (old > 1) {
        return;
    }
    driver_end(bs);
    /*
     * A released parent may at once change the graph, or begin a new section: look again
     * from the start each time. The flags say what is left to do.
     */
    while (qatomic_read(&bs->quiesce_counter) == 0 && (c = quiesced_edge(bs))) {
        bdrv__parent_drained_end(c);
    }
}

static int compare_heights(gconstpointer a, gconstpointer b)
{
    const BlockDriverState *x = *(BlockDriverState *const *)a;
    const BlockDriverState *y = *(BlockDriverState *const *)b;
    return x->height > y->height ? -1 : x->height < y->height;
}

/* Whether C's parent is a node that the callback does no more than ask, and that is COVERED. */
static bool is_covered(GHashTable *covered, BdrvChild *c)
{
    return c->klass->drained_poll == child_of_bds.drained_poll &&
           (!covered || g_hash_table_contains(covered, c->opaque));
}

/* Nothing is in flight on BS or above. If it is drained that stays so. */
static void found_idle(BlockDriverState *bs)
{
    if (bs->quiesce_counter > 0 && !bs->at_rest) {
        qatomic_set(&bs->at_rest, true);
    }
}

static bool node_is_busy(BlockDriverState *bs)
{
    if (qatomic_read_sc(&bs->in_flight) == 0) {
        return false;
    }
    port_note(PORT_NOTE_WAIT_FOR, bs, NULL);
    return true;
}

bool bdrv__any_in_flight(GPtrArray *nodes, GHashTable *covered)
{
    BdrvChild *c;

    /*
     * What is in flight further up may still start something below and end: who was looked
     * at first could not be trusted then. So parents come before their children.
     */
    g_ptr_array_sort(nodes, compare_heights);
    for (unsigned i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);
        QLIST_FOREACH(c, &bs->parents, next_parent) {
            if (!is_covered(covered, c) && bdrv__parent_drained_poll(c)) {
                return true;
            }
        }
        if (node_is_busy(bs)) {
            return true;
        }
    }
    for (unsigned i = 0; i < nodes->len; i++) {
        found_idle(g_ptr_array_index(nodes, i));
    }
    return false;
}

static bool has_plain_parent(BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (is_covered(NULL, c)) {
            return true;
        }
    }
    return false;
}

/* The nodes above BS are collected, each once however many ways lead there. */
static bool poll_all_above(BlockDriverState *bs)
{
    g_autoptr(GHashTable) covered = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BdrvChild *c;

    g_hash_table_add(covered, bs);
    g_ptr_array_add(nodes, bs);
    for (unsigned i = 0; i < nodes->len; i++) {
        bs = g_ptr_array_index(nodes, i);
        QLIST_FOREACH(c, &bs->parents, next_parent) {
            if (is_covered(NULL, c) && g_hash_table_add(covered, c->opaque)) {
                g_ptr_array_add(nodes, c->opaque);
            }
        }
    }
    return bdrv__any_in_flight(nodes, covered);
}

bool bdrv__drain_poll(BlockDriverState *bs)
{
    BdrvChild *c;

    if (has_plain_parent(bs)) {
        return poll_all_above(bs);
    }
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (bdrv__parent_drained_poll(c)) {
            return true;
        }
    }
    if (node_is_busy(bs)) {
        return true;
    }
    found_idle(bs);
    return false;
}

/* ---- nobody submits while drained ------------------------------------------------------------ */

/*
 * A section that has been waited for is broken into by a request that nobody let in. These are
 * let in:
 *
 *   - one that was counted before, on the node or, when it comes from a node above, on that:
 *     the section's owner has done so, or the section would not have been waited for;
 *   - those of a coroutine that has begun the section;
 *   - those that the main thread waits for: whoever changes a node while its users are held
 *     off writes it back, reopens it, copies what is left.
 *
 * A token of a backend does not help: it is taken before one looks whether one may go on.
 */
static unsigned sync_calls;     /* atomic; main thread writes */

void bdrv__sync_call_begin(void)
{
    qatomic_set(&sync_calls, sync_calls + 1);
}

void bdrv__sync_call_end(void)
{
    qatomic_set(&sync_calls, sync_calls - 1);
}

void bdrv__check_submission(BlockDriverState *bs, BdrvChild *c, const char *request,
                            int64_t offset)
{
    BlockDriverState *parent = c && c->klass->parent_is_bds ? c->opaque : NULL;

    if (qatomic_read(&bs->in_flight) || (parent && qatomic_read(&parent->in_flight)) ||
        qemu_coroutine_self()->drained_sections || qatomic_read(&sync_calls)) {
        return;
    }
    g_autofree char *user = c ? bdrv_child_user_desc(c) : g_strdup("nobody it knows");
    fprintf(stderr, "miniblk: %s: request to node '%s' at offset %" PRId64 " in a drained "
            "section (quiesce counter %d), submitted by %s\n", request, bs->node_name, offset,
            bs->quiesce_counter, user);
    abort();
}

/* ---- sections -------------------------------------------------------------------------------- */

static bool any_node_busy(void)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    for (BlockDriverState *bs = bdrv__next_any(NULL); bs; bs = bdrv__next_any(bs)) {
        g_ptr_array_add(nodes, bs);
    }
    return bdrv__any_in_flight(nodes, NULL);
}

static void do_drained_begin(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    port_note(PORT_NOTE_DRAIN_BEGIN, bs, NULL);
    bdrv__quiesce(bs);
    AIO_WAIT_WHILE(bdrv_get_aio_context(bs), bdrv__drain_poll(bs));
    port_note(PORT_NOTE_DRAIN_SETTLED, bs, NULL);
}

static void do_drained_end(BlockDriverState *bs)
{
    port_note(PORT_NOTE_DRAIN_END, bs, NULL);
    bdrv__unquiesce(bs);
}

/* Give BS as many levels as there are global sections, or take them back. */
static void sync_drain_all_levels(BlockDriverState *bs)
{
    while (bs->drain_all_levels < drain_all_sections) {
        bs->drain_all_levels++;
        bdrv__quiesce(bs);
    }
    while (bs->drain_all_levels > drain_all_sections) {
        bs->drain_all_levels--;
        bdrv__unquiesce(bs);
    }
}

/*
 * Callbacks may make nodes, which come to the end of the list with the right number of
 * levels, and may drop the reference to any: each node says itself what it is owed.
 */
static void sync_all_nodes(void)
{
    BlockDriverState *bs = bdrv__next_any(NULL), *next;

    if (bs) {
        bdrv_ref(bs);
    }
    while (bs) {
        sync_drain_all_levels(bs);
        next = bdrv__next_any(bs);
        if (next) {
            bdrv_ref(next);
        }
        bdrv_unref(bs);
        bs = next;
    }
}

static void do_drain_all_begin(BlockDriverState *unused)
{
    GLOBAL_STATE_CODE();
    port_note(PORT_NOTE_DRAIN_BEGIN, NULL, NULL);
    drain_all_sections++;
    sync_all_nodes();
    AIO_WAIT_WHILE(NULL, any_node_busy());
    port_note(PORT_NOTE_DRAIN_SETTLED, NULL, NULL);
}

static void do_drain_all_end(BlockDriverState *unused)
{
    GLOBAL_STATE_CODE();
    g_assert(drain_all_sections > 0);
    port_note(PORT_NOTE_DRAIN_END, NULL, NULL);
    drain_all_sections--;
    sync_all_nodes();
}

void bdrv__drain_all_join(BlockDriverState *bs)
{
    sync_drain_all_levels(bs);
}

void bdrv__drain_all_leave(BlockDriverState *bs)
{
    while (bs->drain_all_levels > 0) {
        bs->drain_all_levels--;
        bdrv__unquiesce(bs);
    }
}

/*
 * A coroutine does not poll: whom it waits for may be waiting for it to yield. It has the
 * main loop do the work, and yields. No lock is held meanwhile: its context's lock is
 * dropped by whoever had entered it.
 */
typedef struct DrainHop {
    Coroutine *co;
    BlockDriverState *bs;
    void (*fn)(BlockDriverState *bs);
} DrainHop;

static void drain_hop_bh(void *opaque)
{
    DrainHop *hop = opaque;
    AioContext *ctx = bdrv_get_aio_context(hop->bs);

    port_note(PORT_NOTE_CO_HOLD, hop, "drained section");
    aio_context_acquire(ctx);
    hop->fn(hop->bs);
    aio_context_release(ctx);
    port_note(PORT_NOTE_CO_RELEASE, hop, NULL);
    aio_co_wake(hop->co);
}

static void in_main_thread(void (*fn)(BlockDriverState *bs), BlockDriverState *bs)
{
    if (!qemu_in_coroutine()) {
        fn(bs);
        return;
    }
    DrainHop hop = { qemu_coroutine_self(), bs, fn };
    port_note_pair(PORT_NOTE_SCHEDULE, &hop, qemu_get_aio_context());
    aio_bh_schedule_oneshot(qemu_get_aio_context(), drain_hop_bh, &hop);
    port_note(PORT_NOTE_CO_WAIT, &hop, "a drained section");
    qemu_coroutine_yield();
}

/* Who begins a section in a coroutine may be another than who ends it. */
static void count_own_section(int n)
{
    Coroutine *self = qemu_coroutine_self();

    if (qemu_in_coroutine() && (n > 0 || self->drained_sections > 0)) {
        self->drained_sections += n;
    }
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    /* who changes the graph may have to wait for the section, and waits for readers */
    assert_bdrv_graph_unlocked();
    in_main_thread(do_drained_begin, bs);
    count_own_section(1);
}

void bdrv_drained_end(BlockDriverState *bs)
{
    count_own_section(-1);
    in_main_thread(do_drained_end, bs);
}

void bdrv_drain(BlockDriverState *bs)
{
    bdrv_drained_begin(bs);
    bdrv_drained_end(bs);
}

void bdrv_drain_all_begin(void)
{
    assert_bdrv_graph_unlocked();
    in_main_thread(do_drain_all_begin, NULL);
    count_own_section(1);
}

void bdrv_drain_all_end(void)
{
    count_own_section(-1);
    in_main_thread(do_drain_all_end, NULL);
}

void bdrv_drain_all(void)
{
    bdrv_drain_all_begin();
    bdrv_drain_all_end();
}
