/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checking and converting values from outside. Recursion follows the value, whose nesting
 * its parser has bounded.
 */
#include "miniblk/osdep.h"
#include "miniblk/block.h"
#include "qmp/schema-internal.h"

/* Where a value is: a list from the inside out, on the stack. */
typedef struct Path {
    const struct Path *parent;
    const char *name;           /* NULL for an array's element */
    size_t index;
} Path;

typedef struct Check {
    SchemaInput input;
    Error **errp;
} Check;

static json_t *convert(Check *c, const SchemaType *type, const json_t *value,
                       const Path *path);

/* ---- messages --------------------------------------------------------------------- */

static void append_path(const Check *c, const Path *path, GString *text)
{
    if (!path) {
        return;
    }
    append_path(c, path->parent, text);
    if (path->name) {
        g_string_append_printf(text, "%s%s", text->len ? "." : "", path->name);
    } else if (c->input == SCHEMA_KEYVAL) {
        g_string_append_printf(text, ".%zu", path->index);
    } else {
        g_string_append_printf(text, "[%zu]", path->index);
    }
}

/* "a.b[0]", newly allocated; "arguments" for the outermost value. */
static char *path_text(const Check *c, const Path *path)
{
    GString *text = g_string_new(NULL);

    append_path(c, path, text);
    if (!text->len) {
        g_string_append(text, "arguments");
    }
    return g_string_free(text, false);
}

static json_t *wrong_type(Check *c, const Path *path, const json_t *value,
                          const char *expected)
{
    g_autofree char *where = path_text(c, path);

    if (c->input == SCHEMA_KEYVAL && !json_is_string(value) && strcmp(expected, "object") &&
        strcmp(expected, "array")) {
        error_setg(c->errp, "Parameters '%s.*' are unexpected", where);
    } else {
        error_setg(c->errp, "Invalid parameter type for '%s', expected: %s", where, expected);
    }
    return NULL;
}

static json_t *bad_value(Check *c, const Path *path, const char *expected)
{
    g_autofree char *where = path_text(c, path);

    error_setg(c->errp, "Parameter '%s' expects %s", where, expected);
    return NULL;
}

/* ---- scalars ---------------------------------------------------------------------- */

static json_t *convert_bool(Check *c, const json_t *value, const Path *path)
{
    if (c->input == SCHEMA_TYPED) {
        return json_is_boolean(value) ? json_incref((json_t *)value)
                                      : wrong_type(c, path, value, "boolean");
    }
    if (!json_is_string(value)) {
        return wrong_type(c, path, value, "boolean");
    }
    g_autoptr(json_t) holder = json_object();
    bool result = false;

    json_object_set(holder, "value", (json_t *)value);
    if (!bdrv_opt_bool(holder, "value", &result, NULL)) {
        return bad_value(c, path, "'on' or 'off'");
    }
    return json_boolean(result);
}

static bool int_in_range(SchemaKind kind, int64_t n)
{
    return kind == SCHEMA_INT || (n >= 0 && (kind != SCHEMA_UINT32 || n <= UINT32_MAX));
}

static const char *int_name(SchemaKind kind)
{
    return kind == SCHEMA_INT ? "integer" : kind == SCHEMA_UINT32 ? "uint32_t"
           : "a non-negative number";
}

/* Command lines: decimal, octal or hexadecimal as C writes it. */
static bool parse_int(const char *text, int64_t *n)
{
    char *end;

    if (!*text || g_ascii_isspace(*text)) {
        return false;
    }
    errno = 0;
    *n = g_ascii_strtoll(text, &end, 0);
    return !errno && !*end;
}

static json_t *convert_int(Check *c, const SchemaType *type, const json_t *value,
                           const Path *path)
{
    int64_t n;

    if (c->input == SCHEMA_TYPED) {
        if (!json_is_integer(value)) {
            return wrong_type(c, path, value, "integer");
        }
        n = json_integer_value(value);
    } else if (!json_is_string(value)) {
        return wrong_type(c, path, value, "integer");
    } else if (type->kind == SCHEMA_SIZE) {
        uint64_t size;

        if (!parse_option_size("", json_string_value(value), &size, NULL) ||
            size > INT64_MAX) {
            return bad_value(c, path, "a non-negative number below 2^64");
        }
        n = size;
    } else if (!parse_int(json_string_value(value), &n)) {
        return bad_value(c, path, "integer");
    }
    if (!int_in_range(type->kind, n)) {
        return bad_value(c, path, int_name(type->kind));
    }
    return json_integer(n);
}

static json_t *convert_enum(Check *c, const SchemaType *type, const json_t *value,
                            const Path *path)
{
    const char *text = json_string_value(value);

    if (!text) {
        return wrong_type(c, path, value, "string");
    }
    if (type->kind == SCHEMA_DRIVER
        ? bdrv_find_format(text) != NULL
        : g_strv_contains((const char *const *)type->names, text)) {
        return json_incref((json_t *)value);
    }
    g_autofree char *where = path && path->name ? g_strdup(path->name) : path_text(c, path);
    error_setg(c->errp, "Parameter '%s' does not accept value '%s'", where, text);
    return NULL;
}

/* ---- composed values -------------------------------------------------------------- */

static bool convert_members(Check *c, const SchemaType *type, const json_t *value,
                            const Path *path, json_t *out)
{
    for (guint i = 0; i < type->members->len; i++) {
        const SchemaMember *m = &g_array_index(type->members, SchemaMember, i);
        Path here = { .parent = path, .name = m->name };
        const json_t *item = json_object_get(value, m->name);
        json_t *converted;

        if (!item && m->optional) {
            continue;
        }
        if (!item) {
            g_autofree char *where = path_text(c, &here);
            error_setg(c->errp, "Parameter '%s' is missing", where);
            return false;
        }
        converted = convert(c, m->type, item, &here);
        if (!converted) {
            return false;
        }
        json_object_set_new_nocheck(out, m->name, converted);
    }
    return true;
}

/* What OUT does not have is unexpected, or, with KEEP, taken over as it is. */
static bool check_rest(Check *c, const json_t *value, const Path *path, bool keep,
                       json_t *out)
{
    const char *key;
    json_t *item;

    json_object_foreach((json_t *)value, key, item) {
        if (json_object_get(out, key)) {
            continue;
        }
        if (!keep) {
            Path here = { .parent = path, .name = key };
            g_autofree char *where = path_text(c, &here);

            error_setg(c->errp, "Parameter '%s' is unexpected", where);
            return false;
        }
        json_object_set_nocheck(out, key, item);
    }
    return true;
}

static json_t *convert_object(Check *c, const SchemaType *type, const json_t *value,
                              const Path *path)
{
    g_autoptr(json_t) out = json_object();
    bool keep_rest = false;

    if (!json_is_object(value)) {
        return wrong_type(c, path, value, "object");
    }
    if (!convert_members(c, type, value, path, out)) {
        return NULL;
    }
    if (type->tag) {
        const char *tag_value = json_string_value(json_object_get(out, type->tag));
        const SchemaType *branch = tag_value ? schema__branch(type, tag_value) : NULL;

        /* A driver that this text does not know checks its options itself. */
        keep_rest = tag_value && !branch;
        if (branch && !convert_members(c, branch, value, path, out)) {
            return NULL;
        }
    }
    return check_rest(c, value, path, keep_rest, out) ? g_steal_pointer(&out) : NULL;
}

static json_t *convert_array(Check *c, const SchemaType *type, const json_t *value,
                             const Path *path)
{
    g_autoptr(json_t) out = json_array();
    const json_t *item;
    size_t i;

    if (!json_is_array(value)) {
        return wrong_type(c, path, value, "array");
    }
    json_array_foreach(value, i, item) {
        Path here = { .parent = path, .index = i };
        json_t *converted = convert(c, type->element, item, &here);

        if (!converted) {
            return NULL;
        }
        json_array_append_new(out, converted);
    }
    return g_steal_pointer(&out);
}

/* Whether VALUE is of the JSON type that TYPE is written as. */
static bool looks_like(const Check *c, const SchemaType *type, const json_t *value)
{
    switch (type->kind) {
    case SCHEMA_STR:
    case SCHEMA_ENUM:
    case SCHEMA_DRIVER:
        return json_is_string(value);
    case SCHEMA_OBJECT:
        return json_is_object(value);
    case SCHEMA_ARRAY:
        return json_is_array(value);
    case SCHEMA_NULL:
        return json_is_null(value);
    case SCHEMA_BOOL:
        return json_is_boolean(value);
    default:
        return json_is_integer(value);
    }
}

static json_t *convert_alternate(Check *c, const SchemaType *type, const json_t *value,
                                 const Path *path)
{
    for (guint i = 0; i < type->choices->len; i++) {
        const SchemaType *choice = g_ptr_array_index(type->choices, i);

        if (looks_like(c, choice, value)) {
            return convert(c, choice, value, path);
        }
    }
    return wrong_type(c, path, value, type->name ?: "another type");
}

static json_t *convert(Check *c, const SchemaType *type, const json_t *value,
                       const Path *path)
{
    switch (type->kind) {
    case SCHEMA_STR:
        return json_is_string(value) ? json_incref((json_t *)value)
                                     : wrong_type(c, path, value, "string");
    case SCHEMA_NULL:
        return json_is_null(value) ? json_null() : wrong_type(c, path, value, "null");
    case SCHEMA_ANY:
        return json_incref((json_t *)value);
    case SCHEMA_BOOL:
        return convert_bool(c, value, path);
    case SCHEMA_INT:
    case SCHEMA_UINT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE:
        return convert_int(c, type, value, path);
    case SCHEMA_ENUM:
    case SCHEMA_DRIVER:
        return convert_enum(c, type, value, path);
    case SCHEMA_OBJECT:
        return convert_object(c, type, value, path);
    case SCHEMA_ARRAY:
        return convert_array(c, type, value, path);
    case SCHEMA_ALTERNATE:
        return convert_alternate(c, type, value, path);
    default:
        g_assert_not_reached();
    }
}

json_t *schema_convert(const SchemaType *type, const json_t *value, const char *path,
                       SchemaInput input, Error **errp)
{
    Check c = { .input = input, .errp = errp };
    Path root = { .name = path };

    return convert(&c, type, value, *path ? &root : NULL);
}
