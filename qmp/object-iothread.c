/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* IOThreads as objects: properties, use, query-iothreads. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/export.h"
#include "miniblk/iothread.h"
#include "qmp/object.h"
#include "qmp/schema.h"

#define CPU_AFFINITY "cpu-affinity"

static const QmpObjectProperty properties[] = {
    { "poll-max-ns", "int" },
    { "poll-grow", "int" },
    { "poll-shrink", "int" },
    { "aio-max-batch", "int" },
    { "thread-pool-min", "int" },
    { "thread-pool-max", "int" },
    { CPU_AFFINITY, "CpuList" },
    { NULL }
};

/* Where the number NAME is kept; NULL: it is not a number. */
static int64_t *number_field(IOThreadParams *params, const char *name)
{
    int64_t *const fields[] = {
        &params->poll_max_ns, &params->poll_grow, &params->poll_shrink,
        &params->aio_max_batch, &params->thread_pool_min, &params->thread_pool_max,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        if (!strcmp(properties[i].name, name)) {
            return fields[i];
        }
    }
    return NULL;
}

/* ---- CPU lists -------------------------------------------------------------------- */

static bool add_cpu(cpu_set_t *cpus, int64_t cpu, Error **errp)
{
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
        error_setg(errp, "CPU %" PRId64 " in '" CPU_AFFINITY "' is not in range [0, %d]", cpu,
                   CPU_SETSIZE - 1);
        return false;
    }
    CPU_SET(cpu, cpus);
    return true;
}

/* Take a number off *TEXT. */
static bool take_number(const char **text, int64_t *number)
{
    if (!g_ascii_isdigit(**text)) {
        return false;
    }
    /* too large a number is clamped, and so out of range as well */
    *number = g_ascii_strtoll(*text, (char **)text, 10);
    return true;
}

/* "3" or "0-3" */
static bool parse_range(const char *text, int64_t *first, int64_t *last)
{
    if (!take_number(&text, first)) {
        return false;
    }
    *last = *first;
    if (*text == '-') {
        text++;
        if (!take_number(&text, last)) {
            return false;
        }
    }
    return !*text;
}

static bool add_range(cpu_set_t *cpus, const char *text, Error **errp)
{
    int64_t first, last;

    if (!parse_range(text, &first, &last)) {
        error_setg(errp, "'%s' in '" CPU_AFFINITY "' is not a CPU number or range", text);
        return false;
    }
    if (last < first) {
        error_setg(errp, "CPU range '%s' in '" CPU_AFFINITY "' is empty", text);
        return false;
    }
    if (!add_cpu(cpus, last, errp)) {
        return false;
    }
    while (first < last) {
        CPU_SET(first++, cpus);
    }
    return true;
}

/* "0-3,8"; the empty text is the empty list. */
static bool parse_cpu_list(cpu_set_t *cpus, const char *text, Error **errp)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    for (char **part = parts; *part; part++) {
        if (!add_range(cpus, *part, errp)) {
            return false;
        }
    }
    return true;
}

static bool convert_cpus(cpu_set_t *cpus, const json_t *value, Error **errp)
{
    g_autoptr(json_t) list = schema_convert(schema_type("CpuList"), value, CPU_AFFINITY,
                                            SCHEMA_TYPED, errp);
    json_t *item;
    size_t i;

    CPU_ZERO(cpus);
    if (!list) {
        return false;
    }
    if (json_is_string(list)) {
        return parse_cpu_list(cpus, json_string_value(list), errp);
    }
    json_array_foreach(list, i, item) {
        if (!add_cpu(cpus, json_integer_value(item), errp)) {
            return false;
        }
    }
    return true;
}

/* ---- properties ------------------------------------------------------------------- */

static json_t *iothread_get(void *obj, const char *name)
{
    IOThreadParams params = *iothread_get_params(obj);
    int64_t *number = number_field(&params, name);
    json_t *list;

    if (number) {
        return json_integer(*number);
    }
    list = json_array();
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &params.cpus)) {
            json_array_append_new(list, json_integer(cpu));
        }
    }
    return list;
}

static bool update_params(IOThreadParams *params, const char *name, const json_t *value,
                          Error **errp)
{
    int64_t *number = number_field(params, name);

    if (!number) {
        return convert_cpus(&params->cpus, value, errp);
    }
    if (!qmp_property_is_int(name, value, errp)) {
        return false;
    }
    *number = json_integer_value(value);
    return true;
}

static bool iothread_set(void *obj, const char *name, const json_t *value, Error **errp)
{
    IOThreadParams params = *iothread_get_params(obj);

    return update_params(&params, name, value, errp) &&
           iothread_set_params(obj, &params, errp);
}

/* ---- life ------------------------------------------------------------------------- */

static bool set_all(IOThread *iothread, QDict *args, Error **errp)
{
    IOThreadParams params = *iothread_get_params(iothread);

    for (const QmpObjectProperty *p = properties; p->name; p++) {
        json_t *value = json_object_get(args, p->name);

        if (value && !update_params(&params, p->name, value, errp)) {
            return false;
        }
    }
    return iothread_set_params(iothread, &params, errp);
}

static bool iothread_add(const char *id, QDict *args, Error **errp)
{
    IOThread *iothread = iothread_create(id, errp);

    if (!iothread) {
        return false;
    }
    if (!set_all(iothread, args, errp)) {
        iothread_destroy(iothread);
        return false;
    }
    return true;
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

static bool iothread_del(void *obj, Error **errp)
{
    if (context_in_use(iothread_get_aio_context(obj))) {
        g_autofree char *id = iothread_get_id(obj);

        error_setg(errp, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    iothread_destroy(obj);
    return true;
}

static void *iothread_obj_next(void *obj)
{
    return iothread_next(obj);
}

static char *iothread_obj_id(void *obj)
{
    return iothread_get_id(obj);
}

const QmpObjectType qmp_object_iothread = {
    .name = "iothread",
    .help = ",id=ID[,poll-max-ns=N][,poll-grow=N][,poll-shrink=N]\n"
            "           [,aio-max-batch=N][,thread-pool-min=N][,thread-pool-max=N]\n"
            "           [,cpu-affinity=N|N-N|,cpu-affinity.0=N,cpu-affinity.1=N...]",
    .properties = properties,
    .add = iothread_add,
    .del = iothread_del,
    .next = iothread_obj_next,
    .get_id = iothread_obj_id,
    .get = iothread_get,
    .set = iothread_set,
};

/* ---- query-iothreads --------------------------------------------------------------- */

json_t *qmp_query_iothreads(json_t *args, Error **errp)
{
    json_t *list = json_array();

    for (IOThread *io = iothread_next(NULL); io; io = iothread_next(io)) {
        const IOThreadParams *params = iothread_get_params(io);
        g_autofree char *id = iothread_get_id(io);
        json_t *info = json_object();

        qdict_put_str(info, "id", id);
        qdict_put_int(info, "thread-id", iothread_get_thread_id(io));
        qdict_put_int(info, "poll-max-ns", params->poll_max_ns);
        qdict_put_int(info, "poll-grow", params->poll_grow);
        qdict_put_int(info, "poll-shrink", params->poll_shrink);
        qdict_put_int(info, "aio-max-batch", params->aio_max_batch);
        json_array_append_new(list, info);
    }
    return list;
}
