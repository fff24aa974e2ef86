/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: life, root edge, drained sections, moves. Requests are in backend-io.c.
 *
 * Drain and requests. A request takes its token first and looks at quiesce_counter then;
 * the drainer raises the counter first and looks at the tokens then. Both are sequentially
 * consistent, so one sees the other. A request that finds the backend drained gives its
 * token back and parks; when it is woken it takes the token anew and looks again, because
 * another section may have begun between the wake-up and its first instruction.
 */
#include "block/backend-internal.h"

static QTAILQ_HEAD(, BlockBackend) all_backends = QTAILQ_HEAD_INITIALIZER(all_backends);

/* ---- tokens and parking -------------------------------------------------------------------------- */

void blk_inc_in_flight(BlockBackend *blk)
{
    qatomic_inc(&blk->in_flight);
}

void blk_dec_in_flight(BlockBackend *blk)
{
    unsigned old = qatomic_fetch_dec(&blk->in_flight);
    g_assert(old > 0);
    aio_wait_kick_after_rmw();  /* BLK may be gone by now */
}

bool blk_in_drain(BlockBackend *blk)
{
    return qatomic_read_sc(&blk->quiesce_counter) > 0;
}

static bool must_park(BlockBackend *blk)
{
    return blk_in_drain(blk) && !qatomic_read(&blk->disable_request_queuing);
}

void coroutine_fn blk__wait_while_drained(BlockBackend *blk)
{
    if (likely(!must_park(blk))) {
        return;
    }
    qemu_mutex_lock(&blk->parked_lock);
    while (must_park(blk)) {
        /*
         * The token goes under the lock that the waker takes: a section cannot end, and
         * look for parked requests, between our look and our place in the queue.
         */
        blk_dec_in_flight(blk);
        port_note(PORT_NOTE_REQUEST_PARK, blk, NULL);
        qemu_co_queue_wait(&blk->parked, &blk->parked_lock);
        blk_inc_in_flight(blk);
    }
    qemu_mutex_unlock(&blk->parked_lock);
    /* Moved while we slept? Our token keeps the backend where it is now. */
    aio_co_reschedule_self(blk_get_aio_context(blk));
}

static void wake_parked(BlockBackend *blk)
{
    QEMU_MUTEX_GUARD(&blk->parked_lock);
    while (qemu_co_enter_next(&blk->parked, &blk->parked_lock)) {
        /* each parks again if a new section has begun */
        if (must_park(blk)) {
            break;
        }
    }
}

void blk_set_disable_request_queuing(BlockBackend *blk, bool disable)
{
    qatomic_set_mb(&blk->disable_request_queuing, disable);
    if (disable) {
        wake_parked(blk);
    }
}

/* ---- the root edge -------------------------------------------------------------------------------- */

static char *root_parent_desc(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (blk->user_desc) {
        return g_strdup(blk->user_desc);
    }
    return blk->name ? g_strdup_printf("block device '%s'", blk->name)
                     : g_strdup("an unnamed block device");
}

static const char *root_name(BdrvChild *child)
{
    return blk_name(child->opaque);
}

static void tell_device(BlockBackend *blk)
{
    blk->dev_drained = true;
    if (blk->dev_ops->drained_begin) {
        blk->dev_ops->drained_begin(blk->dev_opaque);
    }
}

void blk__begin_section(BlockBackend *blk)
{
    if (qatomic_fetch_inc(&blk->quiesce_counter) > 0) {
        return;
    }
    port_note(PORT_NOTE_NAME, blk, "backend '%s' of '%s'", blk_name(blk),
              blk_bs(blk) ? blk_bs(blk)->node_name : "");
    port_note(PORT_NOTE_QUIESCE, blk, NULL);
    if (blk->dev_ops) {
        tell_device(blk);
    }
    throttle_group_disable_limits(&blk->public.throttle_group_member);
}

void blk__end_section(BlockBackend *blk)
{
    int old = qatomic_fetch_dec(&blk->quiesce_counter);

    g_assert(old > 0);
    if (old > 1) {
        return;
    }
    port_note(PORT_NOTE_RESUME, blk, NULL);
    throttle_group_enable_limits(&blk->public.throttle_group_member);
    if (blk->dev_drained) {
        blk->dev_drained = false;
        if (blk->dev_ops->drained_end) {
            blk->dev_ops->drained_end(blk->dev_opaque);
        }
    }
    wake_parked(blk);
}

bool blk__section_poll(BlockBackend *blk)
{
    /* the device's own state first: it may be about to become a request */
    if (blk->dev_drained && blk->dev_ops->drained_poll &&
        blk->dev_ops->drained_poll(blk->dev_opaque)) {
        return true;
    }
    if (qatomic_read_sc(&blk->in_flight) > 0) {
        port_note(PORT_NOTE_WAIT_FOR, blk, NULL);
        return true;
    }
    return false;
}

static void root_drained_begin(BdrvChild *child)
{
    blk__begin_section(child->opaque);
}

static void root_drained_end(BdrvChild *child)
{
    blk__end_section(child->opaque);
}

static bool root_drained_poll(BdrvChild *child)
{
    return blk__section_poll(child->opaque);
}

/*
 * Notifiers live on the root node and follow the backend from node to node. The root is set
 * here, and not by who asked for the edge: parked requests go on as soon as it is there.
 */
static void root_attach(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;
    BlkAioNotifier *n;
    blk->root = child;
    QLIST_FOREACH(n, &blk->aio_notifiers, list) {
        bdrv_add_aio_context_notifier(child->bs, n->attached, n->detach, n->opaque);
    }
}

static void root_detach(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;
    BlkAioNotifier *n;
    QLIST_FOREACH(n, &blk->aio_notifiers, list) {
        bdrv_remove_aio_context_notifier(child->bs, n->attached, n->detach, n->opaque);
    }
    blk->root = NULL;
}

/* Nothing is in flight. */
static void set_ctx(BlockBackend *blk, AioContext *ctx)
{
    ThrottleGroupMember *tgm = &blk->public.throttle_group_member;

    if (blk->ctx != ctx) {
        throttle_group_detach_aio_context(tgm);
        throttle_group_attach_aio_context(tgm, ctx);
    }
    qatomic_set(&blk->ctx, ctx);
}

typedef struct SetContext {
    BlockBackend *blk;
    AioContext *ctx;
} SetContext;

static void set_context_commit(void *opaque)
{
    SetContext *s = opaque;
    set_ctx(s->blk, s->ctx);
}

static const TransactionActionDrv set_context_drv = {
    .commit = set_context_commit,
    .clean = g_free,
};

static bool root_change_aio_ctx(BdrvChild *child, AioContext *ctx, GHashTable *visited,
                                Transaction *tran, Error **errp)
{
    BlockBackend *blk = child->opaque;

    /* A named backend that no device uses has nobody to tell. */
    if (!blk->allow_aio_context_change && (!blk->name || blk->dev_ops)) {
        error_setg(errp, "Cannot change iothread of active block backend");
        return false;
    }
    SetContext *s = g_new(SetContext, 1);
    *s = (SetContext) { blk, ctx };
    tran_add(tran, &set_context_drv, s);
    return true;
}

static AioContext *root_parent_aio_context(BdrvChild *child)
{
    return blk_get_aio_context(child->opaque);
}

static void root_resize(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;
    if (blk->dev_ops && blk->dev_ops->resize_cb) {
        blk->dev_ops->resize_cb(blk->dev_opaque);
    }
}

static const BdrvChildClass child_root = {
    .get_parent_desc = root_parent_desc,
    .get_name = root_name,
    .drained_begin = root_drained_begin,
    .drained_end = root_drained_end,
    .drained_poll = root_drained_poll,
    .attach = root_attach,
    .detach = root_detach,
    .change_aio_ctx = root_change_aio_ctx,
    .get_parent_aio_context = root_parent_aio_context,
    .resize = root_resize,
};

/* ---- life ----------------------------------------------------------------------------------------- */

BlockBackend *blk_new(AioContext *ctx, uint64_t perm, uint64_t shared_perm)
{
    GLOBAL_STATE_CODE();
    BlockBackend *blk = g_new0(BlockBackend, 1);
    blk->refcnt = 1;
    blk->ctx = ctx;
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    qemu_mutex_init(&blk->parked_lock);
    qemu_co_queue_init(&blk->parked);
    QLIST_INIT(&blk->aio_notifiers);
    QTAILQ_INSERT_TAIL(&all_backends, blk, all_list);
    return blk;
}

BlockBackend *blk_new_with_bs(BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                              Error **errp)
{
    BlockBackend *blk = blk_new(bdrv_get_aio_context(bs), perm, shared_perm);

    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

BlockBackend *no_coroutine_fn blk_new_open(const char *filename, const char *reference,
                                           QDict *options, int flags, Error **errp)
{
    uint64_t perm = 0, shared = BLK_PERM_ALL;

    GLOBAL_STATE_CODE();
    if (!(flags & BDRV_O_NO_IO)) {
        perm |= BLK_PERM_CONSISTENT_READ;
        if (flags & BDRV_O_RDWR) {
            perm |= BLK_PERM_WRITE;
        }
    }
    if (flags & BDRV_O_RESIZE) {
        perm |= BLK_PERM_RESIZE;
    }
    if (flags & BDRV_O_NO_SHARE) {
        shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    }
    BlockDriverState *bs = bdrv_open(filename, reference, options, flags, errp);
    if (!bs) {
        return NULL;
    }
    BlockBackend *blk = blk_new_with_bs(bs, perm, shared, errp);
    bdrv_unref(bs);
    return blk;
}

void blk_ref(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    blk->refcnt++;
}

void no_coroutine_fn blk_unref(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    if (!blk) {
        return;
    }
    g_assert(blk->refcnt > 0);
    if (blk->refcnt > 1) {
        blk->refcnt--;
        return;
    }
    /* Our reference stays until all that polls is over. */
    blk_drain(blk);
    if (blk->root) {
        blk_remove_bs(blk);
    }
    if (blk->public.throttle_group_member.throttle_state) {
        blk_io_limits_disable(blk);
    }
    g_assert(blk->refcnt == 1 && !blk->name && QLIST_EMPTY(&blk->aio_notifiers));
    g_assert(qemu_co_queue_empty(&blk->parked));
    QTAILQ_REMOVE(&all_backends, blk, all_list);
    qemu_mutex_destroy(&blk->parked_lock);
    g_free(blk->user_desc);
    g_free(blk);
}

typedef struct UnrefHop {
    BlockBackend *blk;
    Coroutine *co;
} UnrefHop;

static void unref_bh(void *opaque)
{
    UnrefHop *hop = opaque;
    blk_unref(hop->blk);
    aio_co_wake(hop->co);
}

void coroutine_fn blk_co_unref(BlockBackend *blk)
{
    UnrefHop hop = { blk, qemu_coroutine_self() };
    aio_bh_schedule_oneshot(qemu_get_aio_context(), unref_bh, &hop);
    qemu_coroutine_yield();
}

BlockBackend *blk_all_next(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    return blk ? QTAILQ_NEXT(blk, all_list) : QTAILQ_FIRST(&all_backends);
}

/* ---- names ----------------------------------------------------------------------------------------- */

bool monitor_add_blk(BlockBackend *blk, const char *name, Error **errp)
{
    BlockBackend *other;

    GLOBAL_STATE_CODE();
    g_assert(!blk->name && *name);
    QTAILQ_FOREACH(other, &all_backends, all_list) {
        if (other->name && !strcmp(other->name, name)) {
            error_setg(errp, "Device with id '%s' already exists", name);
            return false;
        }
    }
    if (bdrv_find_node(name)) {
        error_setg(errp, "Device name '%s' conflicts with an existing node name", name);
        return false;
    }
    blk->name = g_strdup(name);
    return true;
}

void monitor_remove_blk(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    g_free(blk->name);
    blk->name = NULL;
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name ? blk->name : "";
}

void blk_set_user_desc(BlockBackend *blk, const char *desc)
{
    g_free(blk->user_desc);
    blk->user_desc = g_strdup(desc);
}

/* ---- root ------------------------------------------------------------------------------------------ */

BlockDriverState *blk_bs(BlockBackend *blk)
{
    return blk->root ? blk->root->bs : NULL;
}

BdrvChild *blk_root(BlockBackend *blk)
{
    return blk->root;
}

int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(!blk->root);
    bdrv_ref(bs);
    return bdrv_root_attach_child(bs, "root", &child_root,
                                  BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, blk->perm,
                                  blk->shared_perm, blk, errp) ? 0 : -EPERM;
}

void blk_remove_bs(BlockBackend *blk)
{
    BlockDriverState *bs;
    bool removed = false;

    GLOBAL_STATE_CODE();
    /*
     * No request may hold the edge while it goes; the section keeps new ones away. The wait
     * may have put another node under us, for which it does not, or none at all: look again.
     */
    while (!removed && (bs = blk_bs(blk))) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
        removed = blk_bs(blk) == bs;
        if (removed) {
            bdrv_root_unref_child(blk->root);
        }
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
}

int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (blk->root) {
        int ret = bdrv_child_try_set_perm(blk->root, perm, shared_perm, errp);
        if (ret < 0) {
            return ret;
        }
    }
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    return 0;
}

void blk_get_perm(BlockBackend *blk, uint64_t *perm, uint64_t *shared_perm)
{
    *perm = blk->perm;
    *shared_perm = blk->shared_perm;
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    GLOBAL_STATE_CODE();
    blk->dev_ops = ops;
    blk->dev_opaque = opaque;
    blk->dev_drained = false;
    /* a device that comes to a drained backend is told so */
    if (ops && blk_in_drain(blk)) {
        tell_device(blk);
    }
}

/* ---- drain and moves ---------------------------------------------------------------------------------- */

void blk_drain(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    GLOBAL_STATE_CODE();
    if (bs) {
        /* the wait may replace our root, and must not free the node under the section */
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
    } else {
        blk__begin_section(blk);
    }
    AIO_WAIT_WHILE(blk_get_aio_context(blk), blk__section_poll(blk));
    if (bs) {
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    } else {
        blk__end_section(blk);
    }
}

void blk_drain_all(void)
{
    BlockBackend *blk, *next;

    GLOBAL_STATE_CODE();
    bdrv_drain_all_begin();
    /* backends without a root are reached by no node */
    for (blk = blk_all_next(NULL); blk; blk = next) {
        blk_ref(blk);
        if (!blk->root) {
            blk_drain(blk);
        }
        next = blk_all_next(blk);
        blk_unref(blk);
    }
    bdrv_drain_all_end();
}

AioContext *blk_get_aio_context(BlockBackend *blk)
{
    return blk ? qatomic_read(&blk->ctx) : qemu_get_aio_context();
}

int blk_set_aio_context(BlockBackend *blk, AioContext *new_context, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    int ret = 0;

    GLOBAL_STATE_CODE();
    if (bs) {
        bool allowed = blk->allow_aio_context_change;
        blk->allow_aio_context_change = true;
        bdrv_ref(bs);
        ret = bdrv_try_change_aio_context(bs, new_context, NULL, errp);
        bdrv_unref(bs);
        blk->allow_aio_context_change = allowed;
    }
    if (ret == 0) {
        set_ctx(blk, new_context);
    }
    return ret;
}

void blk_set_allow_aio_context_change(BlockBackend *blk, bool allow)
{
    GLOBAL_STATE_CODE();
    blk->allow_aio_context_change = allow;
}

void blk_add_aio_context_notifier(BlockBackend *blk,
        void (*attached_aio_context)(AioContext *new_context, void *opaque),
        void (*detach_aio_context)(void *opaque), void *opaque)
{
    GLOBAL_STATE_CODE();
    BlkAioNotifier *n = g_new0(BlkAioNotifier, 1);
    n->attached = attached_aio_context;
    n->detach = detach_aio_context;
    n->opaque = opaque;
    QLIST_INSERT_HEAD(&blk->aio_notifiers, n, list);
    if (blk->root) {
        bdrv_add_aio_context_notifier(blk->root->bs, attached_aio_context,
                                      detach_aio_context, opaque);
    }
}

void blk_remove_aio_context_notifier(BlockBackend *blk,
        void (*attached_aio_context)(AioContext *, void *),
        void (*detach_aio_context)(void *), void *opaque)
{
    BlkAioNotifier *n;

    GLOBAL_STATE_CODE();
    QLIST_FOREACH(n, &blk->aio_notifiers, list) {
        if (n->attached == attached_aio_context && n->detach == detach_aio_context &&
            n->opaque == opaque) {
            break;
        }
    }
    g_assert(n);
    if (blk->root) {
        bdrv_remove_aio_context_notifier(blk->root->bs, attached_aio_context,
                                         detach_aio_context, opaque);
    }
    QLIST_REMOVE(n, list);
    g_free(n);
}
