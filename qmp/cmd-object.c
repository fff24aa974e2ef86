/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about user-creatable objects, that is, IOThreads. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/export.h"
#include "miniblk/iothread.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"

/* A property of an IOThread object and where it is kept. */
typedef struct Property {
    const char *name;
    size_t offset;
} Property;

static const Property properties[] = {
    { "poll-max-ns", offsetof(IOThreadParams, poll_max_ns) },
    { "poll-grow", offsetof(IOThreadParams, poll_grow) },
    { "poll-shrink", offsetof(IOThreadParams, poll_shrink) },
    { "aio-max-batch", offsetof(IOThreadParams, aio_max_batch) },
    { "thread-pool-min", offsetof(IOThreadParams, thread_pool_min) },
    { "thread-pool-max", offsetof(IOThreadParams, thread_pool_max) },
};

static int64_t *property_field(IOThreadParams *params, const Property *prop)
{
    return (int64_t *)((char *)params + prop->offset);
}

bool qmp_object_add(QDict *args, Error **errp)
{
    IOThread *iothread = iothread_create(qdict_get_try_str(args, "id"), errp);
    IOThreadParams params;

    if (!iothread) {
        return false;
    }
    params = *iothread_get_params(iothread);
    for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
        json_t *value = json_object_get(args, properties[i].name);

        if (value) {
            *property_field(&params, &properties[i]) = json_integer_value(value);
        }
    }
    if (!iothread_set_params(iothread, &params, errp)) {
        iothread_destroy(iothread);
        return false;
    }
    return true;
}

static json_t *cmd_object_add(json_t *args, Error **errp)
{
    qmp_object_add(args, errp);
    return NULL;
}

/* Whether anything lives in CTX that would lose its loop. */
static bool context_in_use(AioContext *ctx)
{
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bdrv_get_aio_context(bs) == ctx) {
            return true;
        }
    }
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk_get_aio_context(blk) == ctx) {
            return true;
        }
    }
    for (BlockExport *exp = blk_exp_next(NULL); exp; exp = blk_exp_next(exp)) {
        if (exp->ctx == ctx) {
            return true;
        }
    }
    return false;
}

static json_t *cmd_object_del(json_t *args, Error **errp)
{
    const char *id = qdict_get_try_str(args, "id");
    IOThread *iothread = iothread_by_id(id);

    if (!iothread) {
        error_setg(errp, "object '%s' not found", id);
        return NULL;
    }
    if (context_in_use(iothread_get_aio_context(iothread))) {
        error_setg(errp, "object '%s' is in use, can not be deleted", id);
        return NULL;
    }
    iothread_destroy(iothread);
    return NULL;
}

static json_t *cmd_query_iothreads(json_t *args, Error **errp)
{
    json_t *list = json_array();

    for (IOThread *io = iothread_next(NULL); io; io = iothread_next(io)) {
        IOThreadParams params = *iothread_get_params(io);
        g_autofree char *id = iothread_get_id(io);
        json_t *info = json_object();

        qdict_put_str(info, "id", id);
        qdict_put_int(info, "thread-id", iothread_get_thread_id(io));
        for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
            qdict_put_int(info, properties[i].name,
                          *property_field(&params, &properties[i]));
        }
        json_array_append_new(list, info);
    }
    return list;
}

/* ---- paths: /objects and /objects/ID ---------------------------------------------- */

#define OBJECTS_PATH "/objects"

/* The IOThread that PATH names, or an error. */
static IOThread *find_by_path(const char *path, Error **errp)
{
    const char *prefix = OBJECTS_PATH "/";
    IOThread *iothread = NULL;

    if (g_str_has_prefix(path, prefix)) {
        iothread = iothread_by_id(path + strlen(prefix));
    }
    if (!iothread) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", path);
    }
    return iothread;
}

static void add_entry(json_t *list, const char *name, const char *type)
{
    json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "type", type));
}

static json_t *cmd_qom_list(json_t *args, Error **errp)
{
    const char *path = qdict_get_try_str(args, "path");
    g_autoptr(json_t) list = json_array();

    add_entry(list, "type", "string");
    if (!strcmp(path, OBJECTS_PATH)) {
        for (IOThread *io = iothread_next(NULL); io; io = iothread_next(io)) {
            g_autofree char *id = iothread_get_id(io);
            add_entry(list, id, "child<iothread>");
        }
    } else {
        if (!find_by_path(path, errp)) {
            return NULL;
        }
        for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
            add_entry(list, properties[i].name, "int");
        }
    }
    return g_steal_pointer(&list);
}

static const Property *find_property(const char *name, Error **errp)
{
    for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
        if (!strcmp(properties[i].name, name)) {
            return &properties[i];
        }
    }
    error_setg(errp, "Property 'iothread.%s' not found", name);
    return NULL;
}

static json_t *cmd_qom_get(json_t *args, Error **errp)
{
    IOThread *iothread = find_by_path(qdict_get_try_str(args, "path"), errp);
    const char *name = qdict_get_try_str(args, "property");
    const Property *prop;
    IOThreadParams params;

    if (!iothread) {
        return NULL;
    }
    if (!strcmp(name, "type")) {
        return json_string("iothread");
    }
    prop = find_property(name, errp);
    if (!prop) {
        return NULL;
    }
    params = *iothread_get_params(iothread);
    return json_integer(*property_field(&params, prop));
}

static json_t *cmd_qom_set(json_t *args, Error **errp)
{
    IOThread *iothread = find_by_path(qdict_get_try_str(args, "path"), errp);
    const char *name = qdict_get_try_str(args, "property");
    json_t *value = json_object_get(args, "value");
    const Property *prop = iothread ? find_property(name, errp) : NULL;
    IOThreadParams params;

    if (!prop) {
        return NULL;
    }
    if (!json_is_integer(value)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: integer", name);
        return NULL;
    }
    params = *iothread_get_params(iothread);
    *property_field(&params, prop) = json_integer_value(value);
    iothread_set_params(iothread, &params, errp);
    return NULL;
}

const QmpCommand qmp_commands_object[] = {
    { "object-add", "ObjectOptions", cmd_object_add },
    { "object-del", "{id:str}", cmd_object_del },
    { "query-iothreads", "{}", cmd_query_iothreads },
    { "qom-list", "{path:str}", cmd_qom_list },
    { "qom-get", "{path:str, property:str}", cmd_qom_get },
    { "qom-set", "{path:str, property:str, value:any}", cmd_qom_set },
    { NULL }
};
