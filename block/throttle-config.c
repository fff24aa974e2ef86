/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits as their users write them: names, ranges, and what goes together. */
#include "miniblk/osdep.h"
#include "miniblk/throttle.h"

/* The part of a limit's name that says which bucket it is about. */
static const char *const bucket_names[BUCKETS_COUNT] = {
    [THROTTLE_BPS_TOTAL] = "bps-total", [THROTTLE_BPS_READ] = "bps-read",
    [THROTTLE_BPS_WRITE] = "bps-write", [THROTTLE_OPS_TOTAL] = "iops-total",
    [THROTTLE_OPS_READ] = "iops-read", [THROTTLE_OPS_WRITE] = "iops-write",
};

void throttle_config_init(ThrottleConfig *cfg)
{
    memset(cfg, 0, sizeof(*cfg));
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        cfg->buckets[i].burst_length = 1;
    }
}

bool throttle_enabled(ThrottleConfig *cfg)
{
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        if (cfg->buckets[i].avg) {
            return true;
        }
    }
    return false;
}

/* ---- rules ------------------------------------------------------------------------ */

/* A limit on all I/O beside one on a part of it. TOTAL is followed by its two parts. */
static bool total_and_part(const ThrottleConfig *cfg, BucketType total)
{
    const LeakyBucket *b = &cfg->buckets[total];
    return (b[0].avg && (b[1].avg || b[2].avg)) || (b[0].max && (b[1].max || b[2].max));
}

static bool any_iops(const ThrottleConfig *cfg)
{
    return cfg->buckets[THROTTLE_OPS_TOTAL].avg || cfg->buckets[THROTTLE_OPS_READ].avg ||
           cfg->buckets[THROTTLE_OPS_WRITE].avg;
}

G_STATIC_ASSERT(THROTTLE_VALUE_MAX == 1000000000000000LL);
static const char out_of_range[] =
    "bps/iops/max values must be within [0, 1000000000000000]";

/* What is wrong with one bucket, or NULL. */
static const char *bucket_fault(const LeakyBucket *bkt)
{
    if (bkt->avg > THROTTLE_VALUE_MAX || bkt->max > THROTTLE_VALUE_MAX) {
        return out_of_range;
    }
    if (!bkt->burst_length) {
        return "the burst length cannot be 0";
    }
    if (bkt->burst_length > 1 && !bkt->max) {
        return "burst length set without burst rate";
    }
    if (bkt->max && bkt->burst_length > THROTTLE_VALUE_MAX / bkt->max) {
        return "burst length too high for this burst rate";
    }
    if (bkt->max && !bkt->avg) {
        return "bps_max/iops_max require corresponding bps/iops values";
    }
    if (bkt->max && bkt->max < bkt->avg) {
        return "bps_max/iops_max cannot be lower than bps/iops";
    }
    return NULL;
}

bool throttle_is_valid(ThrottleConfig *cfg, Error **errp)
{
    const char *fault = NULL;

    if (total_and_part(cfg, THROTTLE_BPS_TOTAL) || total_and_part(cfg, THROTTLE_OPS_TOTAL)) {
        fault = "bps/iops/max total values and read/write values cannot be used at the same "
                "time";
    } else if (cfg->op_size && !any_iops(cfg)) {
        fault = "iops size requires an iops value to be set";
    }
    for (int i = 0; i < BUCKETS_COUNT && !fault; i++) {
        fault = bucket_fault(&cfg->buckets[i]);
    }
    if (fault) {
        error_setg(errp, "%s", fault);
    }
    return !fault;
}

/* ---- names ------------------------------------------------------------------------ */

/* A limit: its name after the bucket's, and where it is kept. */
typedef struct Limit {
    const char *suffix;
    size_t offset;              /* in a LeakyBucket */
    uint64_t max;
} Limit;

static const Limit limits[] = {
    { "", offsetof(LeakyBucket, avg), UINT64_MAX },
    { "-max", offsetof(LeakyBucket, max), UINT64_MAX },
    { "-max-length", offsetof(LeakyBucket, burst_length), UINT32_MAX },
};

static uint64_t *limit_field(ThrottleConfig *cfg, BucketType type, const Limit *limit)
{
    return (uint64_t *)((char *)&cfg->buckets[type] + limit->offset);
}

/* FIELD = OBJECT[NAME], if it is there. */
static bool take_limit(const QDict *object, const char *name, uint64_t max, uint64_t *field,
                       const char *negative, Error **errp)
{
    json_t *value = json_object_get(object, name);

    if (!value) {
        return true;
    }
    if (!json_is_integer(value)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: integer", name);
        return false;
    }
    if (json_integer_value(value) < 0) {
        error_setg(errp, "%s", negative);
        return false;
    }
    if ((uint64_t)json_integer_value(value) > max) {
        error_setg(errp, "%s value must be in the range [0, %" PRIu64 "]", name, max);
        return false;
    }
    *field = json_integer_value(value);
    return true;
}

bool throttle_config_update(ThrottleConfig *cfg, const QDict *object, const char *prefix,
                            Error **errp)
{
    ThrottleConfig new = *cfg;
    const char *negative = *prefix ? "Property values cannot be negative" : out_of_range;

    for (int type = 0; type < BUCKETS_COUNT; type++) {
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
            g_autofree char *name = g_strconcat(prefix, bucket_names[type],
                                                limits[i].suffix, NULL);
            if (!take_limit(object, name, limits[i].max,
                            limit_field(&new, type, &limits[i]), negative, errp)) {
                return false;
            }
        }
    }
    g_autofree char *size_name = g_strconcat(prefix, "iops-size", NULL);
    if (!take_limit(object, size_name, UINT64_MAX, &new.op_size, negative, errp) ||
        !throttle_is_valid(&new, errp)) {
        return false;
    }
    *cfg = new;
    return true;
}

void throttle_config_to_qdict(const ThrottleConfig *cfg, QDict *object, const char *prefix)
{
    ThrottleConfig copy = *cfg;
    g_autofree char *size_name = g_strconcat(prefix, "iops-size", NULL);

    for (int type = 0; type < BUCKETS_COUNT; type++) {
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
            g_autofree char *name = g_strconcat(prefix, bucket_names[type],
                                                limits[i].suffix, NULL);
            qdict_put_int(object, name, *limit_field(&copy, type, &limits[i]));
        }
    }
    qdict_put_int(object, size_name, copy.op_size);
}
