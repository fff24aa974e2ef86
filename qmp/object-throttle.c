/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Throttle groups as objects: their limits, as one structure and one by one. */
#include "miniblk/osdep.h"
#include "miniblk/throttle-groups.h"
#include "qmp/object.h"
#include "qmp/schema.h"

#define LIMITS "limits"
/* Before the name of a limit that is a property by itself. */
#define SINGLE "x-"

#define BUCKET_PROPERTIES(name)                                                 \
    { SINGLE name, "int" }, { SINGLE name "-max", "int" },                      \
    { SINGLE name "-max-length", "int" }

static const QmpObjectProperty properties[] = {
    { LIMITS, "ThrottleLimits" },
    BUCKET_PROPERTIES("iops-total"),
    BUCKET_PROPERTIES("iops-read"),
    BUCKET_PROPERTIES("iops-write"),
    BUCKET_PROPERTIES("bps-total"),
    BUCKET_PROPERTIES("bps-read"),
    BUCKET_PROPERTIES("bps-write"),
    { SINGLE "iops-size", "int" },
    { NULL }
};

static bool throttle_add(const char *id, QDict *args, Error **errp)
{
    json_t *limits = json_object_get(args, LIMITS);
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    /* each of them a whole that makes sense; the single ones win */
    return (!limits || throttle_config_update(&cfg, limits, "", errp)) &&
           throttle_config_update(&cfg, args, SINGLE, errp) &&
           throttle_group_new(id, &cfg, errp);
}

static bool throttle_del(void *obj, Error **errp)
{
    return throttle_group_delete(obj, errp);
}

static void *throttle_next(void *obj)
{
    return throttle_group_next(obj);
}

static char *throttle_id(void *obj)
{
    return g_strdup(throttle_group_name(obj));
}

static json_t *throttle_get(void *obj, const char *name)
{
    bool whole = !strcmp(name, LIMITS);
    g_autoptr(json_t) all = qdict_new();
    ThrottleConfig cfg;

    throttle_group_get_limits(obj, &cfg);
    throttle_config_to_qdict(&cfg, all, whole ? "" : SINGLE);
    return whole ? g_steal_pointer(&all) : json_incref(json_object_get(all, name));
}

/* What LIMITS does not name stays as it is. */
static bool throttle_set(void *obj, const char *name, const json_t *value, Error **errp)
{
    ThrottleConfig cfg;

    if (strcmp(name, LIMITS) != 0) {
        error_setg(errp, "Property cannot be set after initialization");
        return false;
    }
    g_autoptr(json_t) limits = schema_convert(schema_type("ThrottleLimits"), value, LIMITS,
                                              SCHEMA_TYPED, errp);
    if (!limits) {
        return false;
    }
    throttle_group_get_limits(obj, &cfg);
    if (!throttle_config_update(&cfg, limits, "", errp)) {
        return false;
    }
    throttle_group_set_limits(obj, &cfg);
    return true;
}

const QmpObjectType qmp_object_throttle_group = {
    .name = "throttle-group",
    .help = ",id=ID[,limits.{iops,bps}-{total,read,write}[-max[-length]]=N]\n"
            "                 [,limits.iops-size=BYTES]",
    .properties = properties,
    .add = throttle_add,
    .del = throttle_del,
    .next = throttle_next,
    .get_id = throttle_id,
    .get = throttle_get,
    .set = throttle_set,
};
