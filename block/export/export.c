/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of block exports: what is common to all ways to serve a node. */
#include "miniblk/osdep.h"
#include "miniblk/id.h"
#include "block/export/export-internal.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

enum { EXPORT_DRIVERS_MAX = 8 };

static const BlockExportDriver *export_drivers[EXPORT_DRIVERS_MAX];
static size_t export_driver_count;
static QTAILQ_HEAD(, BlockExport) exports = QTAILQ_HEAD_INITIALIZER(exports);
static void (*export_deleted_cb)(const char *id);

/* The options that every export has. */
typedef struct ExportParams {
    const BlockExportDriver *drv;
    char *id, *node_name, *iothread;
    bool writable, writethrough, fixed_iothread;
} ExportParams;

void blk_exp_register(const BlockExportDriver *drv)
{
    g_assert(export_driver_count < EXPORT_DRIVERS_MAX);
    g_assert(drv->instance_size >= sizeof(BlockExport));
    export_drivers[export_driver_count++] = drv;
}

static const BlockExportDriver *find_driver(const char *type)
{
    for (size_t i = 0; i < export_driver_count; i++) {
        if (!strcmp(export_drivers[i]->type, type)) {
            return export_drivers[i];
        }
    }
    return NULL;
}

BlockExport *blk_exp_find(const char *id)
{
    BlockExport *exp;

    GLOBAL_STATE_CODE();
    QTAILQ_FOREACH(exp, &exports, next) {
        if (!strcmp(exp->id, id)) {
            return exp;
        }
    }
    return NULL;
}

BlockExport *blk_exp_next(BlockExport *exp)
{
    GLOBAL_STATE_CODE();
    return exp ? QTAILQ_NEXT(exp, next) : QTAILQ_FIRST(&exports);
}

void blk_exp_set_deleted_callback(void (*cb)(const char *id))
{
    GLOBAL_STATE_CODE();
    export_deleted_cb = cb;
}

/* ---- adding ----------------------------------------------------------------------- */

static bool require(const char *value, const char *key, Error **errp)
{
    if (!value) {
        error_setg(errp, "Parameter '%s' is missing", key);
    }
    return value;
}

static bool params_parse(ExportParams *p, QDict *options, Error **errp)
{
    g_autofree char *type = NULL;

    if (!bdrv_opt_str(options, "type", &type, errp) || !require(type, "type", errp)) {
        return false;
    }
    p->drv = find_driver(type);
    if (!p->drv) {
        error_setg(errp, "Parameter 'type' does not accept value '%s'", type);
        return false;
    }
    if (!bdrv_opt_str(options, "id", &p->id, errp) || !require(p->id, "id", errp) ||
        !bdrv_opt_str(options, "node-name", &p->node_name, errp) ||
        !require(p->node_name, "node-name", errp) ||
        !bdrv_opt_str(options, "iothread", &p->iothread, errp) ||
        !bdrv_opt_bool(options, "fixed-iothread", &p->fixed_iothread, errp) ||
        !bdrv_opt_bool(options, "writable", &p->writable, errp) ||
        !bdrv_opt_bool(options, "writethrough", &p->writethrough, errp)) {
        return false;
    }
    if (!id_wellformed(p->id)) {
        error_setg(errp, "Invalid block export id");
        return false;
    }
    if (blk_exp_find(p->id)) {
        error_setg(errp, "Block export id '%s' is already in use", p->id);
        return false;
    }
    return true;
}

static void params_clear(ExportParams *p)
{
    g_free(p->id);
    g_free(p->node_name);
    g_free(p->iothread);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ExportParams, params_clear)

static void attached_aio_context(AioContext *new_context, void *opaque)
{
    BlockExport *exp = opaque;

    exp->ctx = new_context;
}

static void detach_aio_context(void *opaque)
{
    /* Nothing: the drained section around the move has stopped the server already. */
}

/* A backend on BS with what the export needs. CTX, where BS lives, is locked. */
static BlockBackend *backend_new(BlockDriverState *bs, AioContext *ctx,
                                 const ExportParams *p, Error **errp)
{
    g_autofree char *desc = g_strdup_printf("export '%s'", p->id);
    uint64_t perm = BLK_PERM_CONSISTENT_READ | (p->writable ? BLK_PERM_WRITE : 0);
    BlockBackend *blk;

    if (p->writable && bdrv_is_read_only(bs)) {
        error_setg(errp, "Block node is read-only");
        return NULL;
    }
    blk = blk_new(ctx, perm, BLK_PERM_ALL);
    blk_set_user_desc(blk, desc);
    blk_set_allow_aio_context_change(blk, !p->fixed_iothread);
    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

static void export_free(BlockExport *exp)
{
    blk_remove_aio_context_notifier(exp->blk, attached_aio_context, detach_aio_context, exp);
    blk_unref(exp->blk);
    g_free(exp->id);
    g_free(exp);
}

/* Make the export; CTX, where BS lives, is locked. */
static BlockExport *export_new(BlockDriverState *bs, AioContext *ctx, const ExportParams *p,
                               QDict *options, Error **errp)
{
    BlockBackend *blk = backend_new(bs, ctx, p, errp);
    BlockExport *exp;

    if (!blk) {
        return NULL;
    }
    exp = g_malloc0(p->drv->instance_size);
    *exp = (BlockExport) {
        .drv = p->drv,
        .id = g_strdup(p->id),
        .blk = blk,
        .ctx = ctx,
        .refcount = 1,
        .user_owned = true,
        .writable = p->writable,
        .writethrough = p->writethrough,
        .fixed_iothread = p->fixed_iothread,
    };
    blk_add_aio_context_notifier(blk, attached_aio_context, detach_aio_context, exp);
    if (p->drv->create(exp, options, errp) < 0) {
        export_free(exp);
        return NULL;
    }
    if (json_object_size(options)) {
        error_setg(errp, "Parameter '%s' is unexpected",
                   json_object_iter_key(json_object_iter(options)));
        p->drv->delete(exp);
        export_free(exp);
        return NULL;
    }
    QTAILQ_INSERT_TAIL(&exports, exp, next);
    return exp;
}

/*
 * Move BS to the IOThread that P asks for. *CTX is the context it lives in, locked on entry
 * and on return. Without fixed-iothread a refusal is no error: another user holds the node
 * where it is.
 */
static bool move_to_iothread(BlockDriverState *bs, AioContext **ctx, const ExportParams *p,
                             IOThread *iothread, Error **errp)
{
    AioContext *new_ctx = iothread_get_aio_context(iothread);

    if (new_ctx == *ctx) {
        return true;
    }
    if (bdrv_try_change_aio_context(bs, new_ctx, NULL,
                                    p->fixed_iothread ? errp : NULL) < 0) {
        return !p->fixed_iothread;
    }
    aio_context_release(*ctx);
    aio_context_acquire(new_ctx);
    *ctx = new_ctx;
    return true;
}

BlockExport *blk_exp_add(QDict *options, Error **errp)
{
    g_autoptr(json_t) consumed = options;
    g_auto(ExportParams) p = { NULL };
    IOThread *iothread = NULL;
    BlockDriverState *bs;
    AioContext *ctx, *old_ctx;
    BlockExport *exp = NULL;

    GLOBAL_STATE_CODE();
    if (!params_parse(&p, options, errp)) {
        return NULL;
    }
    bs = bdrv_lookup_bs(NULL, p.node_name, errp);
    if (!bs) {
        return NULL;
    }
    if (p.iothread) {
        iothread = iothread_by_id(p.iothread);
        if (!iothread) {
            error_setg(errp, "iothread \"%s\" not found", p.iothread);
            return NULL;
        }
    }

    bdrv_ref(bs);
    ctx = old_ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    if (!iothread || move_to_iothread(bs, &ctx, &p, iothread, errp)) {
        exp = export_new(bs, ctx, &p, options, errp);
    }
    if (!exp && ctx != bdrv_get_aio_context(bs)) {
        /* the failed export took its context along when it went */
        aio_context_release(ctx);
        ctx = bdrv_get_aio_context(bs);
        aio_context_acquire(ctx);
    }
    if (!exp && ctx != old_ctx) {
        /* It has been there before, nobody but us has kept it from being there. */
        bdrv_try_change_aio_context(bs, old_ctx, NULL, NULL);
    }
    aio_context_release(ctx);
    bdrv_unref(bs);
    return exp;
}

/* ---- going ------------------------------------------------------------------------ */

void blk_exp_ref(BlockExport *exp)
{
    GLOBAL_STATE_CODE();
    g_assert(exp->refcount > 0);
    exp->refcount++;
}

static void export_delete(BlockExport *exp)
{
    g_autofree char *id = g_strdup(exp->id);
    AioContext *ctx = exp->ctx;

    g_assert(!exp->user_owned);
    QTAILQ_REMOVE(&exports, exp, next);
    aio_context_acquire(ctx);
    exp->drv->delete(exp);
    export_free(exp);
    aio_context_release(ctx);
    if (export_deleted_cb) {
        export_deleted_cb(id);
    }
}

void blk_exp_unref(BlockExport *exp)
{
    GLOBAL_STATE_CODE();
    g_assert(exp->refcount > 0);
    if (--exp->refcount == 0) {
        export_delete(exp);
    }
}

void blk_exp_request_shutdown(BlockExport *exp)
{
    GLOBAL_STATE_CODE();
    if (!exp->user_owned) {
        return;
    }
    exp->user_owned = false;
    exp->drv->request_shutdown(exp);
    blk_exp_unref(exp);
}

static BlockExport *first_export(const BlockExportDriver *drv, bool user_owned)
{
    BlockExport *exp;

    QTAILQ_FOREACH(exp, &exports, next) {
        if ((!drv || exp->drv == drv) && (exp->user_owned || !user_owned)) {
            return exp;
        }
    }
    return NULL;
}

void blk_exp_close_all_type(const BlockExportDriver *drv)
{
    BlockExport *exp;

    GLOBAL_STATE_CODE();
    while ((exp = first_export(drv, true))) {
        blk_exp_request_shutdown(exp);
    }
    while (first_export(drv, false)) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, !blk_exp_deferred_pending());
        blk_exp_deferred_run();
    }
}

void blk_exp_close_all(void)
{
    blk_exp_close_all_type(NULL);
}
