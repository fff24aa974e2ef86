/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about exports and the NBD server. */
#include "miniblk/osdep.h"
#include "miniblk/export.h"
#include "miniblk/iothread.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"
#include "qmp/schema.h"

/* What a server does that was not told otherwise. */
#define NBD_CONNECTIONS_DEFAULT 100
#define NBD_HANDSHAKE_SECS_DEFAULT 10

bool qmp_block_export_add(QDict *args, Error **errp)
{
    return blk_exp_add(json_deep_copy(args), errp) != NULL;
}

static json_t *cmd_block_export_add(json_t *args, Error **errp)
{
    qmp_block_export_add(args, errp);
    return NULL;
}

static json_t *cmd_block_export_del(json_t *args, Error **errp)
{
    ERRP_GUARD();
    const char *id = qdict_get_try_str(args, "id");
    const char *mode = qdict_get_try_str(args, "mode");
    bool hard = mode && !strcmp(mode, "hard");
    BlockExport *exp = blk_exp_find(id);

    if (!exp) {
        error_setg(errp, "Export '%s' is not found", id);
        return NULL;
    }
    if (!exp->user_owned) {
        error_setg(errp, "Export '%s' is already shutting down", id);
        return NULL;
    }
    if (!hard && exp->drv->clients && exp->drv->clients(exp) > 0) {
        error_setg(errp, "export '%s' still in use", id);
        error_append_hint(errp, "Use mode='hard' to force client disconnect\n");
        return NULL;
    }
    blk_exp_request_shutdown(exp);
    return NULL;
}

static json_t *export_info(BlockExport *exp)
{
    BlockDriverState *bs = blk_bs(exp->blk);
    IOThread *iothread = iothread_by_aio_context(exp->ctx);
    json_t *info = json_object();

    qdict_put_str(info, "node-name", bs ? bdrv_get_node_name(bs) : "");
    qdict_put_bool(info, "shutting-down", !exp->user_owned);
    qdict_put_str(info, "type", exp->drv->type);
    qdict_put_str(info, "id", exp->id);
    if (iothread) {
        g_autofree char *name = iothread_get_id(iothread);
        qdict_put_str(info, "iothread", name);
    }
    if (exp->drv->clients) {
        qdict_put_int(info, "clients", exp->drv->clients(exp));
    }
    if (exp->drv->requests) {
        qdict_put_int(info, "requests", exp->drv->requests(exp));
    }
    return info;
}

static json_t *cmd_query_block_exports(json_t *args, Error **errp)
{
    json_t *list = json_array();

    for (BlockExport *exp = blk_exp_next(NULL); exp; exp = blk_exp_next(exp)) {
        json_array_append_new(list, export_info(exp));
    }
    return list;
}

/* {"type": T, "data": {...}} and the flat form to the flat form. */
static json_t *flat_address(const json_t *addr, Error **errp)
{
    const SchemaType *flat = schema_type("SocketAddress");
    json_t *data = json_object_get(addr, "data");
    g_autoptr(json_t) merged = NULL;
    const char *key;
    json_t *value;

    if (!data) {
        return schema_convert(flat, addr, "addr", SCHEMA_TYPED, errp);
    }
    merged = json_object();
    json_object_foreach((json_t *)addr, key, value) {
        if (value != data) {
            json_object_set_nocheck(merged, key, value);
        }
    }
    if (!json_is_object(data)) {
        error_setg(errp, "Invalid parameter type for 'addr.data', expected: object");
        return NULL;
    }
    if (json_object_get(data, "type")) {
        error_setg(errp, "Parameter 'addr.data.type' is unexpected");
        return NULL;
    }
    if (json_object_size(merged) > 1) {
        /* Let the check below name what does not belong there. */
        return schema_convert(schema_type("{type:str, data:any}"), addr, "addr",
                              SCHEMA_TYPED, errp);
    }
    json_object_update(merged, data);
    return schema_convert(flat, merged, "addr.data", SCHEMA_TYPED, errp);
}

static uint32_t optional_uint32(const json_t *args, const char *key, uint32_t value)
{
    json_t *item = json_object_get(args, key);

    return item ? json_integer_value(item) : value;
}

bool qmp_nbd_server_start(QDict *args, Error **errp)
{
    json_t *addr = flat_address(json_object_get(args, "addr"), errp);
    bool ok;

    if (!addr) {
        return false;
    }
    ok = nbd_server_start(addr,
                          optional_uint32(args, "max-connections", NBD_CONNECTIONS_DEFAULT),
                          optional_uint32(args, "handshake-max-seconds",
                                          NBD_HANDSHAKE_SECS_DEFAULT), errp);
    json_decref(addr);
    return ok;
}

static json_t *cmd_nbd_server_start(json_t *args, Error **errp)
{
    qmp_nbd_server_start(args, errp);
    return NULL;
}

static json_t *cmd_nbd_server_stop(json_t *args, Error **errp)
{
    nbd_server_stop(errp);
    return NULL;
}

const QmpCommand qmp_commands_export[] = {
    { "block-export-add", "BlockExportOptions", cmd_block_export_add },
    { "block-export-del", "{id:str, mode?:{safe|hard}}", cmd_block_export_del },
    { "query-block-exports", "{}", cmd_query_block_exports },
    { "nbd-server-start", "NbdServerOptions", cmd_nbd_server_start },
    { "nbd-server-stop", "{}", cmd_nbd_server_stop },
    { NULL }
};
