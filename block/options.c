/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options as JSON objects: making them and typed getters. The values come from outside:
 * nothing here asserts about them.
 */
#include "miniblk/osdep.h"
#include <math.h>
#include "miniblk/qdict.h"

/* ---- QDict ------------------------------------------------------------------------ */

QDict *qdict_new(void)
{
    return json_object();
}

/*
 * File names are bytes, not text: values from command lines are kept as they are, and
 * whoever prints JSON escapes what is not UTF-8.
 */
void qdict_put_str(QDict *qdict, const char *key, const char *value)
{
    json_object_set_new_nocheck(qdict, key, json_string_nocheck(value));
}

void qdict_put_int(QDict *qdict, const char *key, int64_t value)
{
    json_object_set_new_nocheck(qdict, key, json_integer(value));
}

void qdict_put_bool(QDict *qdict, const char *key, bool value)
{
    json_object_set_new_nocheck(qdict, key, json_boolean(value));
}

const char *qdict_get_try_str(const QDict *qdict, const char *key)
{
    return json_string_value(json_object_get(qdict, key));
}

bool qdict_haskey(const QDict *qdict, const char *key)
{
    return json_object_get(qdict, key) != NULL;
}

void qdict_del(QDict *qdict, const char *key)
{
    json_object_del(qdict, key);
}

/* ---- typed getters ---------------------------------------------------------------- */

/*
 * Take KEY out: the member of that very name, or, for a dotted KEY, the one that its parts
 * lead to through nested objects; objects that become empty on the way go too. NULL when
 * absent.
 */
static json_t *option_take(json_t *options, const char *key)
{
    json_t *value = json_object_get(options, key);
    const char *dot;
    g_autofree char *head = NULL;
    json_t *sub;

    if (value) {
        json_incref(value);
        json_object_del(options, key);
        return value;
    }
    dot = strchr(key, '.');
    if (!dot) {
        return NULL;
    }
    head = g_strndup(key, dot - key);
    sub = json_object_get(options, head);
    if (!json_is_object(sub)) {
        return NULL;
    }
    value = option_take(sub, dot + 1);
    if (value && !json_object_size(sub)) {
        json_object_del(options, head);
    }
    return value;
}

bool bdrv_opt_str(QDict *options, const char *key, char **val, Error **errp)
{
    g_autoptr(json_t) value = option_take(options, key);

    if (!value) {
        return true;
    }
    if (!json_is_string(value)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: string", key);
        return false;
    }
    g_free(*val);
    *val = g_strdup(json_string_value(value));
    return true;
}

bool qapi_bool_parse(const char *name, const char *value, bool *obj, Error **errp)
{
    static const char *const yes[] = { "on", "yes", "true", "y", NULL };
    static const char *const no[] = { "off", "no", "false", "n", NULL };

    *obj = g_strv_contains(yes, value);
    if (!*obj && !g_strv_contains(no, value)) {
        error_setg(errp, "Parameter '%s' expects 'on' or 'off'", name);
        return false;
    }
    return true;
}

bool bdrv_opt_bool(QDict *options, const char *key, bool *val, Error **errp)
{
    g_autoptr(json_t) value = option_take(options, key);

    if (!value) {
        return true;
    }
    if (json_is_boolean(value)) {
        *val = json_is_true(value);
        return true;
    }
    /* (what is no word is none of the words) */
    return qapi_bool_parse(key, json_is_string(value) ? json_string_value(value) : "", val,
                           errp);
}

static bool bad_size(const char *name, Error **errp)
{
    ERRP_GUARD();
    error_setg(errp, "Parameter '%s' expects a non-negative number below 2^64", name);
    error_append_hint(errp, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
                      "tera-, peta-\nand exabytes, respectively.\n");
    return false;
}

bool bdrv_opt_size(QDict *options, const char *key, uint64_t *val, Error **errp)
{
    g_autoptr(json_t) value = option_take(options, key);
    ERRP_GUARD();

    if (!value) {
        return true;
    }
    if (json_is_string(value)) {
        return parse_option_size(key, json_string_value(value), val, errp);
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return bad_size(key, errp);
    }
    *val = json_integer_value(value);
    return true;
}

bool bdrv_opt_enum(QDict *options, const char *key, const char *const *names, int *val,
                   Error **errp)
{
    g_autoptr(json_t) value = option_take(options, key);
    const char *text;

    if (!value) {
        return true;
    }
    text = json_string_value(value);
    if (!text) {
        error_setg(errp, "Invalid parameter type for '%s', expected: string", key);
        return false;
    }
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], text)) {
            *val = i;
            return true;
        }
    }
    error_setg(errp, "Parameter '%s' does not accept value '%s'", key, text);
    return false;
}

/* The power of 1024 a suffix stands for; -1 when it is none. */
static int suffix_shift(char c)
{
    static const char suffixes[] = "bkmgtpe";
    const char *p = c ? strchr(suffixes, g_ascii_tolower(c)) : NULL;

    return p ? (int)(p - suffixes) * 10 : -1;
}

int bdrv_parse_size(const char *text, uint64_t *size)
{
    while (g_ascii_isspace(*text)) {
        text++;
    }
    text += *text == '+';

    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    double fraction = 0;
    char *end;
    int shift = 0;

    if (!g_ascii_isdigit(text[0]) || (hex && !g_ascii_isxdigit(text[2]))) {
        return -EINVAL;
    }
    errno = 0;
    uint64_t n = g_ascii_strtoull(text, &end, hex ? 16 : 10);
    if (errno == ERANGE) {
        return -ERANGE;
    }
    if (*end == '.' && !hex) {
        size_t digits = strspn(end + 1, "0123456789");
        g_autofree char *part = g_strdup_printf("0.%.*s", (int)digits, end + 1);
        fraction = g_ascii_strtod(part, NULL);
        end += 1 + digits;
    }
    if (*end) {
        shift = suffix_shift(*end);
        if (shift < 0 || end[1]) {
            return -EINVAL;
        }
        if (hex) {
            warn_report("Using a multiplier suffix on hex numbers is deprecated: %s", text);
        }
    }
    if (fraction > 0 && shift == 0) {
        return -EINVAL;         /* there is no part of a byte */
    }
    uint64_t part = (uint64_t)(ldexp(fraction, shift) + 0.5);
    if (n > (UINT64_MAX - part) >> shift) {
        return -ERANGE;
    }
    *size = (n << shift) + part;
    return 0;
}

bool parse_option_size(const char *name, const char *value, uint64_t *ret, Error **errp)
{
    int error = bdrv_parse_size(value, ret);

    if (error == -ERANGE) {
        error_setg(errp, "Value '%s' is out of range for parameter '%s'", value, name);
    }
    return error == -EINVAL ? bad_size(name, errp) : !error;
}
