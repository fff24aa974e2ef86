/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * NBD exports: what is served under which name, and how drained sections stop and restart
 * the clients.
 *
 * A drained section parks each client: the main thread takes a token of the backend and
 * sends a bottom half to the client's thread; that removes the client's handlers and drops
 * the token. From then on, until unparked, nobody touches the client, so the export may
 * move to another thread. Bottom halves run in the order they were sent, so that any
 * sequence of begin and end leaves the client in the state that was asked for last.
 */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include "miniblk/atomic.h"

static QTAILQ_HEAD(, NBDExport) nbd_exports = QTAILQ_HEAD_INITIALIZER(nbd_exports);

NBDExport *nbd_export_find(const char *name)
{
    NBDExport *exp;

    QTAILQ_FOREACH(exp, &nbd_exports, next) {
        if (!strcmp(exp->name, name)) {
            return exp;
        }
    }
    return NULL;
}

NBDExport *nbd_export_next(NBDExport *exp)
{
    return exp ? QTAILQ_NEXT(exp, next) : QTAILQ_FIRST(&nbd_exports);
}

/* ---- drained sections ------------------------------------------------------------- */

static void nbd_drained_begin(void *opaque)
{
    NBDExport *exp = opaque;
    NBDClient *client;

    if (!exp->quiesced) {
        exp->quiesced = true;
        QLIST_FOREACH(client, &exp->clients, next) {
            nbd_client_park(client);
        }
    }
}

static void nbd_drained_end(void *opaque)
{
    NBDExport *exp = opaque;
    NBDClient *client;

    if (exp->quiesced) {
        exp->quiesced = false;
        QLIST_FOREACH(client, &exp->clients, next) {
            nbd_client_unpark(client);
        }
    }
}

static const BlockDevOps nbd_dev_ops = {
    .drained_begin = nbd_drained_begin,
    .drained_end = nbd_drained_end,
};

/* ---- life ------------------------------------------------------------------------- */

static bool take_options(NBDExport *exp, QDict *options, Error **errp)
{
    if (!bdrv_opt_str(options, "name", &exp->name, errp) ||
        !bdrv_opt_str(options, "description", &exp->description, errp)) {
        return false;
    }
    if (!exp->name) {
        exp->name = g_strdup(bdrv_get_node_name(blk_bs(exp->common.blk)));
    }
    if (strlen(exp->name) > NBD_MAX_STRING_SIZE) {
        error_setg(errp, "export name '%s' too long", exp->name);
        return false;
    }
    if (exp->description && strlen(exp->description) > NBD_MAX_STRING_SIZE) {
        error_setg(errp, "description '%s' too long", exp->description);
        return false;
    }
    return true;
}

static uint16_t transmission_flags(const NBDExport *exp)
{
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;

    if (exp->common.writable) {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    /* All connections go to one node: a flush covers the completed writes of every one. */
    if (!nbd_server_single_connection()) {
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    return flags;
}

static void nbd_export_clear(NBDExport *exp)
{
    g_clear_pointer(&exp->name, g_free);
    g_clear_pointer(&exp->description, g_free);
}

static int nbd_export_create(BlockExport *common, QDict *options, Error **errp)
{
    NBDExport *exp = container_of(common, NBDExport, common);
    BlockBackend *blk = common->blk;
    uint64_t perm, shared;
    int64_t len;
    int ret = -EINVAL;

    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return -EINVAL;
    }
    if (!take_options(exp, options, errp)) {
        goto fail;
    }
    if (nbd_export_find(exp->name)) {
        error_setg(errp, "NBD server already has export named '%s'", exp->name);
        ret = -EEXIST;
        goto fail;
    }
    len = blk_getlength(blk);
    if (len < 0) {
        error_setg_errno(errp, -len, "Failed to determine the NBD export's length");
        ret = len;
        goto fail;
    }
    /* Clients are told the size once, so nobody may change it. */
    blk_get_perm(blk, &perm, &shared);
    ret = blk_set_perm(blk, perm, shared & ~(uint64_t)BLK_PERM_RESIZE, errp);
    if (ret < 0) {
        goto fail;
    }

    exp->size_bytes = len;
    exp->flags = transmission_flags(exp);
    QLIST_INIT(&exp->clients);
    /*
     * A request that was received before a drained section goes through while the section
     * waits for it: it holds a token, so parking it would be a deadlock.
     */
    blk_set_disable_request_queuing(blk, true);
    blk_set_dev_ops(blk, &nbd_dev_ops, exp);
    exp->quiesced = blk_in_drain(blk);
    QTAILQ_INSERT_TAIL(&nbd_exports, exp, next);
    return 0;

fail:
    nbd_export_clear(exp);
    return ret;
}

static void unlist(NBDExport *exp)
{
    if (QTAILQ_IN_USE(exp, next)) {
        QTAILQ_REMOVE(&nbd_exports, exp, next);
    }
}

static void nbd_export_request_shutdown(BlockExport *common)
{
    NBDExport *exp = container_of(common, NBDExport, common);
    NBDClient *client;

    unlist(exp);
    QLIST_FOREACH(client, &exp->clients, next) {
        nbd_client_hang_up(client);
    }
}

static void nbd_export_delete(BlockExport *common)
{
    NBDExport *exp = container_of(common, NBDExport, common);

    g_assert(QLIST_EMPTY(&exp->clients));
    unlist(exp);
    blk_set_dev_ops(common->blk, NULL, NULL);
    nbd_export_clear(exp);
}

static int nbd_export_clients(BlockExport *common)
{
    return container_of(common, NBDExport, common)->client_count;
}

static uint64_t nbd_export_requests(BlockExport *common)
{
    return qatomic_read(&container_of(common, NBDExport, common)->requests);
}

const BlockExportDriver nbd_export_driver = {
    .type = "nbd",
    .instance_size = sizeof(NBDExport),
    .create = nbd_export_create,
    .request_shutdown = nbd_export_request_shutdown,
    .delete = nbd_export_delete,
    .clients = nbd_export_clients,
    .requests = nbd_export_requests,
};

static void __attribute__((constructor)) nbd_export_register(void)
{
    blk_exp_register(&nbd_export_driver);
}
