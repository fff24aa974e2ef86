/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a "blkdebug" node does at which event; see block/filter/blkdebug.h. */
#include "block/filter/blkdebug.h"

typedef enum RuleAction { INJECT_ERROR, SET_STATE, SUSPEND } RuleAction;

struct BlkdebugRule {
    RuleAction action;
    BlkdebugEvent event;
    int state;                  /* in which it applies; 0: any */
    union {
        struct {
            unsigned io_types;  /* a bit for each BlkdebugIOType */
            int error;          /* errno */
            int64_t sector;     /* that the request must touch; -1: any */
            bool once;
            bool immediately;
            bool active;
        } inject;
        int new_state;
        char *tag;              /* of a breakpoint */
    };
    QTAILQ_ENTRY(BlkdebugRule) list;
};

/* A request that is held up; on its stack. */
struct BlkdebugWaiter {
    Coroutine *co;
    const char *tag;
    QTAILQ_ENTRY(BlkdebugWaiter) list;
};

static void rule_free(Blkdebug *d, BlkdebugRule *rule)
{
    QTAILQ_REMOVE(&d->rules, rule, list);
    if (rule->action == SUSPEND) {
        g_free(rule->tag);
    }
    g_free(rule);
}

void blkdebug__init(Blkdebug *d)
{
    qemu_mutex_init(&d->lock);
    d->state = 1;
    QTAILQ_INIT(&d->rules);
    QTAILQ_INIT(&d->waiters);
}

void blkdebug__destroy(Blkdebug *d)
{
    BlkdebugRule *rule, *next;

    g_assert(QTAILQ_EMPTY(&d->waiters));
    QTAILQ_FOREACH_SAFE(rule, &d->rules, list, next) {
        rule_free(d, rule);
    }
    qemu_mutex_destroy(&d->lock);
}

/* ---- events ----------------------------------------------------------------------- */

static bool applies(const Blkdebug *d, const BlkdebugRule *rule, BlkdebugEvent event)
{
    return rule->event == event && (!rule->state || rule->state == d->state);
}

static void deactivate_all(Blkdebug *d)
{
    BlkdebugRule *rule;

    QTAILQ_FOREACH(rule, &d->rules, list) {
        if (rule->action == INJECT_ERROR) {
            rule->inject.active = false;
        }
    }
}

static void apply_rules(Blkdebug *d, BlkdebugEvent event)
{
    int new_state = d->state;
    bool injects = false;
    BlkdebugRule *rule;

    QTAILQ_FOREACH(rule, &d->rules, list) {
        if (!applies(d, rule, event)) {
            continue;
        }
        if (rule->action == INJECT_ERROR) {
            if (!injects) {
                deactivate_all(d);
                injects = true;
            }
            rule->inject.active = true;
        } else if (rule->action == SET_STATE) {
            new_state = rule->new_state;
        }
    }
    d->state = new_state;
}

/* The tag of a breakpoint for EVENT, which is used up; the caller frees it. NULL: none. */
static char *take_breakpoint(Blkdebug *d, BlkdebugEvent event)
{
    BlkdebugRule *rule;

    QTAILQ_FOREACH(rule, &d->rules, list) {
        if (rule->action == SUSPEND && applies(d, rule, event)) {
            char *tag = g_steal_pointer(&rule->tag);
            rule_free(d, rule);
            return tag;
        }
    }
    return NULL;
}

/* With the lock held, which is dropped while it waits. */
static void coroutine_fn hold_up(Blkdebug *d, const char *tag)
{
    BlkdebugWaiter w = { .co = qemu_coroutine_self(), .tag = tag };

    QTAILQ_INSERT_TAIL(&d->waiters, &w, list);
    qemu_mutex_unlock(&d->lock);
    qemu_coroutine_yield();
    qemu_mutex_lock(&d->lock);
}

void coroutine_mixed_fn blkdebug__event(Blkdebug *d, BlkdebugEvent event)
{
    QEMU_MUTEX_GUARD(&d->lock);
    char *tag = take_breakpoint(d, event);

    apply_rules(d, event);
    if (tag) {
        hold_up(d, tag);
        g_free(tag);
    }
}

/* ---- requests --------------------------------------------------------------------- */

static bool fits(const BlkdebugRule *rule, int64_t offset, int64_t bytes,
                 BlkdebugIOType type)
{
    if (rule->action != INJECT_ERROR || !rule->inject.active ||
        !(rule->inject.io_types & (1u << type))) {
        return false;
    }
    int64_t sector = rule->inject.sector;
    return sector < 0 || (sector >= offset >> BDRV_SECTOR_BITS &&
                          sector < DIV_ROUND_UP(offset + bytes, (int64_t)BDRV_SECTOR_SIZE));
}

/* 0, or the errno of the first rule that fits. */
static int find_error(Blkdebug *d, int64_t offset, int64_t bytes, BlkdebugIOType type,
                      bool *immediately)
{
    BlkdebugRule *rule;

    QEMU_MUTEX_GUARD(&d->lock);
    QTAILQ_FOREACH(rule, &d->rules, list) {
        if (fits(rule, offset, bytes, type)) {
            int error = rule->inject.error;
            *immediately = rule->inject.immediately;
            if (rule->inject.once) {
                rule_free(d, rule);
            }
            return error;
        }
    }
    return 0;
}

int coroutine_fn blkdebug__check(Blkdebug *d, int64_t offset, int64_t bytes,
                                 BlkdebugIOType type)
{
    bool immediately;
    int error = find_error(d, offset, bytes, type, &immediately);

    if (error && !immediately) {
        /* as a disk would: later */
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    return -error;
}

/* ---- breakpoints ------------------------------------------------------------------ */

int blkdebug__breakpoint(Blkdebug *d, const char *event, const char *tag)
{
    for (int i = 0; i < BLKDBG__MAX; i++) {
        if (!strcmp(blkdebug_event_names[i], event)) {
            BlkdebugRule *rule = g_new0(BlkdebugRule, 1);
            rule->action = SUSPEND;
            rule->event = i;
            rule->tag = g_strdup(tag);
            QEMU_MUTEX_GUARD(&d->lock);
            QTAILQ_INSERT_TAIL(&d->rules, rule, list);
            return 0;
        }
    }
    return -ENOENT;
}

/* Take the oldest waiter of TAG off the list. NULL: there is none. */
static Coroutine *take_waiter(Blkdebug *d, const char *tag)
{
    BlkdebugWaiter *w;

    QEMU_MUTEX_GUARD(&d->lock);
    QTAILQ_FOREACH(w, &d->waiters, list) {
        if (!strcmp(w->tag, tag)) {
            QTAILQ_REMOVE(&d->waiters, w, list);
            return w->co;       /* W is on its stack */
        }
    }
    return NULL;
}

int blkdebug__resume(Blkdebug *d, const char *tag)
{
    Coroutine *co = take_waiter(d, tag);

    if (!co) {
        return -ENOENT;
    }
    aio_co_wake(co);
    return 0;
}

int blkdebug__remove_breakpoint(Blkdebug *d, const char *tag)
{
    BlkdebugRule *rule, *next;
    int ret = -ENOENT;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        QTAILQ_FOREACH_SAFE(rule, &d->rules, list, next) {
            if (rule->action == SUSPEND && !strcmp(rule->tag, tag)) {
                rule_free(d, rule);
                ret = 0;
            }
        }
    }
    while (blkdebug__resume(d, tag) == 0) {
        ret = 0;
    }
    return ret;
}

bool blkdebug__is_suspended(Blkdebug *d, const char *tag)
{
    BlkdebugWaiter *w;

    QEMU_MUTEX_GUARD(&d->lock);
    QTAILQ_FOREACH(w, &d->waiters, list) {
        if (!strcmp(w->tag, tag)) {
            return true;
        }
    }
    return false;
}

/* ---- rules from options ------------------------------------------------------------ */

/* Like bdrv_opt_size(), without suffixes, from MIN on. */
static bool opt_int(QDict *options, const char *key, int64_t min, int64_t max, int64_t *val,
                    Error **errp)
{
    json_t *value = json_object_get(options, key);
    char *end = NULL;
    int64_t n = 0;

    if (!value) {
        return true;
    }
    if (json_is_integer(value)) {
        n = json_integer_value(value);
    } else if (json_is_string(value)) {
        n = g_ascii_strtoll(json_string_value(value), &end, 0);
    }
    if ((!json_is_integer(value) && (!end || *end || end == json_string_value(value))) ||
        n < min || n > max) {
        error_setg(errp, "Parameter '%s' expects a number", key);
        return false;
    }
    *val = n;
    json_object_del(options, key);
    return true;
}

/* The index of OPTIONS[KEY] in NAMES; -1 if it is absent. */
static bool opt_name(QDict *options, const char *key, const char *const *names, int *val,
                     Error **errp)
{
    g_autofree char *text = NULL;

    *val = -1;
    if (!bdrv_opt_str(options, key, &text, errp) || !text) {
        return !*errp;
    }
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], text)) {
            *val = i;
            return true;
        }
    }
    error_setg(errp, "invalid parameter value: %s", text);
    return false;
}

static bool take_inject(BlkdebugRule *rule, QDict *options, Error **errp)
{
    static const char *const io_types[] = {
        [BLKDEBUG_READ] = "read", [BLKDEBUG_WRITE] = "write",
        [BLKDEBUG_WRITE_ZEROES] = "write-zeroes", [BLKDEBUG_DISCARD] = "discard",
        [BLKDEBUG_FLUSH] = "flush", [BLKDEBUG_BLOCK_STATUS] = "block-status", NULL
    };
    int64_t error = EIO, sector = -1;
    int io_type;

    if (!opt_int(options, "errno", 0, INT_MAX, &error, errp) ||
        !opt_int(options, "sector", -1, BDRV_MAX_LENGTH >> BDRV_SECTOR_BITS, &sector, errp) ||
        !bdrv_opt_bool(options, "once", &rule->inject.once, errp) ||
        !bdrv_opt_bool(options, "immediately", &rule->inject.immediately, errp) ||
        !opt_name(options, "iotype", io_types, &io_type, errp)) {
        return false;
    }
    rule->inject.error = error;
    rule->inject.sector = sector;
    /* who wants block status to fail has to say so */
    rule->inject.io_types = io_type >= 0 ? 1u << io_type : (1u << BLKDEBUG_BLOCK_STATUS) - 1;
    return true;
}

static bool take_rule(BlkdebugRule *rule, const char *section, QDict *options, Error **errp)
{
    int64_t state = 0, new_state = 0;
    int event;

    if (!opt_name(options, "event", blkdebug_event_names, &event, errp)) {
        return false;
    }
    if (event < 0) {
        error_setg(errp, "Missing event name for rule");
        return false;
    }
    if (!opt_int(options, "state", INT_MIN, INT_MAX, &state, errp)) {
        return false;
    }
    if (rule->action == INJECT_ERROR) {
        if (!take_inject(rule, options, errp)) {
            return false;
        }
    } else if (opt_int(options, "new_state", INT_MIN, INT_MAX, &new_state, errp)) {
        rule->new_state = new_state;
    } else {
        return false;
    }
    rule->event = event;
    rule->state = state;
    const char *key = json_object_iter_key(json_object_iter(options));
    if (key) {
        error_setg(errp, "[%s] section doesn't support the option '%s'", section, key);
    }
    return !key;
}

static bool add_section(Blkdebug *d, QDict *options, const char *section, RuleAction action,
                        Error **errp)
{
    ERRP_GUARD();
    g_autoptr(json_t) rules = json_incref(json_object_get(options, section));
    json_t *item;
    size_t i;

    json_object_del(options, section);
    if (rules && !json_is_array(rules)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: array", section);
        return false;
    }
    json_array_foreach(rules, i, item) {
        g_autofree BlkdebugRule *rule = g_new0(BlkdebugRule, 1);

        if (!json_is_object(item)) {
            error_setg(errp, "Invalid parameter type for '%s[%zu]', expected: object", section,
                       i);
            return false;
        }
        rule->action = action;
        if (!take_rule(rule, section, item, errp)) {
            return false;
        }
        QEMU_MUTEX_GUARD(&d->lock);
        QTAILQ_INSERT_TAIL(&d->rules, rule, list);
        rule = NULL;
    }
    return true;
}

bool blkdebug__add_rules(Blkdebug *d, QDict *options, Error **errp)
{
    return add_section(d, options, "inject-error", INJECT_ERROR, errp) &&
           add_section(d, options, "set-state", SET_STATE, errp);
}
