/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flat spellings of nested options: dotted keys and the key=value syntax of command lines.
 * All of it is input from outside: nothing is asserted about it, and recursion is bounded
 * by OPTION_DEPTH_MAX.
 */
#include "miniblk/osdep.h"
#include "miniblk/qdict.h"

/* Deepest nesting that dotted keys may ask for; also what the JSON parser allows. */
#define OPTION_DEPTH_MAX 1024
/* Longest part of a dotted key, in bytes. */
#define KEY_PART_BYTES_MAX 127

/* ---- lists ------------------------------------------------------------------------ */

/* Whether KEY is how an index is written: digits, no superfluous zeroes. */
static bool key_is_index(const char *key)
{
    return key[0] && strspn(key, "0123456789") == strlen(key) &&
           (key[0] != '0' || !key[1]);
}

/* How many of OBJ's keys are indices. */
static size_t count_indices(json_t *obj)
{
    const char *key;
    json_t *value;
    size_t n = 0;

    json_object_foreach(obj, key, value) {
        n += key_is_index(key);
    }
    return n;
}

/* The first of 0 .. SIZE-1 that is not a key of OBJ; SIZE when none is missing. */
static size_t first_missing_index(json_t *obj, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char key[24];

        snprintf(key, sizeof(key), "%zu", i);
        if (!json_object_get(obj, key)) {
            return i;
        }
    }
    return size;
}

/* OBJ has the keys 0 .. SIZE-1: the array of their values. */
static json_t *object_to_array(json_t *obj, size_t size)
{
    json_t *array = json_array();

    for (size_t i = 0; i < size; i++) {
        char key[24];

        snprintf(key, sizeof(key), "%zu", i);
        json_array_append(array, json_object_get(obj, key));
    }
    return array;
}

/* ---- nesting ---------------------------------------------------------------------- */

static bool put_dotted(json_t *obj, const char *key, json_t *value, int depth, Error **errp)
{
    const char *dot = strchr(key, '.');
    g_autofree char *head = NULL;
    json_t *sub;

    if (depth > OPTION_DEPTH_MAX) {
        error_setg(errp, "Option keys are nested too deeply");
        return false;
    }
    if (!dot) {
        if (json_object_get(obj, key)) {
            error_setg(errp, "Cannot mix scalar and non-scalar keys");
            return false;
        }
        json_object_set_nocheck(obj, key, value);
        return true;
    }
    head = g_strndup(key, dot - key);
    sub = json_object_get(obj, head);
    if (!sub) {
        sub = json_object();
        json_object_set_new_nocheck(obj, head, sub);
    } else if (!json_is_object(sub)) {
        error_setg(errp, "Cannot mix scalar and non-scalar keys");
        return false;
    }
    return put_dotted(sub, dot + 1, value, depth + 1, errp);
}

static bool unfold_keys(json_t *obj, Error **errp)
{
    g_autoptr(GPtrArray) dotted = g_ptr_array_new_with_free_func(g_free);
    const char *key;
    json_t *value;

    json_object_foreach(obj, key, value) {
        if (strchr(key, '.')) {
            g_ptr_array_add(dotted, g_strdup(key));
        }
    }
    for (guint i = 0; i < dotted->len; i++) {
        const char *name = g_ptr_array_index(dotted, i);
        g_autoptr(json_t) held = json_incref(json_object_get(obj, name));

        json_object_del(obj, name);
        if (!put_dotted(obj, name, held, 0, errp)) {
            return false;
        }
    }
    return true;
}

static bool nest(json_t *value, int depth, Error **errp);

static bool nest_members(json_t *obj, int depth, Error **errp)
{
    const char *key;
    json_t *value;
    void *tmp;

    json_object_foreach_safe(obj, tmp, key, value) {
        size_t size;

        if (!nest(value, depth + 1, errp)) {
            return false;
        }
        if (!json_is_object(value) || !count_indices(value)) {
            continue;
        }
        size = json_object_size(value);
        if (count_indices(value) != size || first_missing_index(value, size) != size) {
            error_setg(errp, "Cannot mix list and non-list keys");
            return false;
        }
        json_object_set_new_nocheck(obj, key, object_to_array(value, size));
    }
    return true;
}

static bool nest(json_t *value, int depth, Error **errp)
{
    if (depth > OPTION_DEPTH_MAX) {
        error_setg(errp, "Option keys are nested too deeply");
        return false;
    }
    if (json_is_object(value)) {
        return unfold_keys(value, errp) && nest_members(value, depth, errp);
    }
    if (json_is_array(value)) {
        size_t i;
        json_t *element;

        json_array_foreach(value, i, element) {
            if (!nest(element, depth + 1, errp)) {
                return false;
            }
        }
    }
    return true;
}

bool bdrv_options_nest(QDict *options, Error **errp)
{
    return nest(options, 0, errp);
}

/* ---- key=value,... ---------------------------------------------------------------- */

/* Bytes of a well-formed key part at P; 0 when there is none. FIRST: no index allowed. */
static size_t key_part_len(const char *p, bool first)
{
    size_t n = 0;

    if (g_ascii_isdigit(*p) && !first) {
        n = strspn(p, "0123456789");
        return n > 1 && *p == '0' ? 0 : n;
    }
    if (!g_ascii_isalpha(*p)) {
        return 0;
    }
    while (g_ascii_isalnum(p[n]) || p[n] == '-' || p[n] == '_') {
        n++;
    }
    return n;
}

/* A value ends at a single comma; a doubled one stands for itself. Returns its end. */
static const char *keyval_value(const char *p, GString *value)
{
    g_string_truncate(value, 0);
    for (; *p; p++) {
        if (*p == ',') {
            if (p[1] != ',') {
                break;
            }
            p++;
        }
        g_string_append_c(value, *p);
    }
    return p;
}

/* Store VALUE under the dotted KEY (LEN bytes) of ROOT; what was there is replaced. */
static bool keyval_put(json_t *root, const char *key, size_t len, const char *value,
                       Error **errp)
{
    json_t *cur = root;
    const char *p = key;

    for (int depth = 0; ; depth++) {
        size_t n = key_part_len(p, p == key);
        bool last = p + n == key + len;
        g_autofree char *part = g_strndup(p, n);
        json_t *sub;

        if (!n || (!last && p[n] != '.') || depth > OPTION_DEPTH_MAX) {
            error_setg(errp, "Invalid parameter '%.*s'", (int)len, key);
            return false;
        }
        if (n > KEY_PART_BYTES_MAX) {
            error_setg(errp, "Parameter '%s' is too long", part);
            return false;
        }
        sub = json_object_get(cur, part);
        if (sub && json_is_object(sub) == last) {
            error_setg(errp, "Parameters '%.*s.*' used inconsistently",
                       (int)(p + n - key), key);
            return false;
        }
        if (last) {
            qdict_put_str(cur, part, value);
            return true;
        }
        if (!sub) {
            sub = json_object();
            json_object_set_new_nocheck(cur, part, sub);
        }
        cur = sub;
        p += n + 1;
    }
}

/* Objects whose keys are indices become arrays, innermost first. PATH: where OBJ is. */
static bool keyval_make_lists(json_t *obj, const char *path, Error **errp)
{
    const char *key;
    json_t *value;
    void *tmp;

    json_object_foreach_safe(obj, tmp, key, value) {
        g_autofree char *sub_path = g_strdup_printf("%s%s%s", path, *path ? "." : "", key);
        size_t indices, missing;

        if (!json_is_object(value)) {
            continue;
        }
        if (!keyval_make_lists(value, sub_path, errp)) {
            return false;
        }
        indices = count_indices(value);
        if (!indices) {
            continue;
        }
        if (indices != json_object_size(value)) {
            error_setg(errp, "Parameters '%s.*' used inconsistently", sub_path);
            return false;
        }
        missing = first_missing_index(value, indices);
        if (missing != indices) {
            error_setg(errp, "Parameter '%s.%zu' missing", sub_path, missing);
            return false;
        }
        json_object_set_new_nocheck(obj, key, object_to_array(value, indices));
    }
    return true;
}

QDict *keyval_parse(const char *params, const char *implied_key, Error **errp)
{
    g_autoptr(json_t) root = json_object();
    g_autoptr(GString) value = g_string_new(NULL);
    const char *p = params;
    bool first = true;

    while (*p) {
        size_t len = strcspn(p, "=,");

        if (first && implied_key && len && p[len] != '=') {
            g_autofree char *text = g_strndup(p, len);
            qdict_put_str(root, implied_key, text);
            p += len;
        } else {
            if (p[len] != '=' && key_part_len(p, true)) {
                error_setg(errp, "Expected '=' after parameter '%.*s'", (int)len, p);
                return NULL;
            }
            const char *end = p[len] == '=' ? keyval_value(p + len + 1, value) : p + len;
            if (!keyval_put(root, p, len, value->str, errp)) {
                return NULL;
            }
            p = end;
        }
        first = false;
        if (*p == ',') {
            p++;
        }
    }
    if (!keyval_make_lists(root, "", errp)) {
        return NULL;
    }
    return g_steal_pointer(&root);
}
