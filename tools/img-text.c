/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes for people, and the two ways to print a tree of values. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#define INDENT 4

char *img_size_text(uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = bytes;
    size_t unit = 0;

    /* From 1000 on the next unit is used, so that three digits always suffice. */
    while (value >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    return g_strdup_printf("%.3g %s", value, units[unit]);
}

json_t *img_json_string(const char *s)
{
    return json_string_nocheck(s);
}

static void newline(GString *out, int level)
{
    g_string_append_printf(out, "\n%*s", level * INDENT, "");
}

/* A name from outside may be any bytes; JSON is Unicode, and ours is all of printable ASCII. */
static void append_string(GString *out, const char *s)
{
    g_autofree char *valid = g_utf8_make_valid(s, -1);
    json_t *value = json_string(valid);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

    for (const char *c = text; *c; c++) {
        if (*c == '\x7f') {
            g_string_append(out, "\\u007F");
        } else {
            g_string_append_c(out, *c);
        }
    }
    free(text);
    json_decref(value);
}

static void append_scalar(GString *out, const json_t *value)
{
    if (json_is_string(value)) {
        append_string(out, json_string_value(value));
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    g_string_append(out, text);
    free(text);
}

/* Empty objects and arrays take two lines, as all others take more than one. */
static void append_json(GString *out, const json_t *value, int level)
{
    bool object = json_is_object(value);

    if (!object && !json_is_array(value)) {
        append_scalar(out, value);
        return;
    }
    g_string_append_c(out, object ? '{' : '[');
    if (object) {
        const char *key;
        json_t *member;
        const char *comma = "";
        json_object_foreach((json_t *)value, key, member) {
            g_string_append(out, comma);
            newline(out, level + 1);
            append_string(out, key);
            g_string_append(out, ": ");
            append_json(out, member, level + 1);
            comma = ",";
        }
    } else {
        for (size_t i = 0; i < json_array_size(value); i++) {
            g_string_append(out, i ? "," : "");
            newline(out, level + 1);
            append_json(out, json_array_get(value, i), level + 1);
        }
    }
    newline(out, level);
    g_string_append_c(out, object ? '}' : ']');
}

char *img_json_text(const json_t *value)
{
    GString *out = g_string_new(NULL);

    append_json(out, value, 0);
    return g_string_free(out, FALSE);
}

static void print_nested_value(const char *name, const json_t *value, int indent)
{
    if (json_is_object(value) || json_is_array(value)) {
        printf("%*s%s:\n", indent, "", name);
        img_print_nested(value, indent + INDENT);
    } else if (json_is_string(value)) {
        printf("%*s%s: %s\n", indent, "", name, json_string_value(value));
    } else {
        g_autoptr(GString) text = g_string_new(NULL);
        append_scalar(text, value);
        printf("%*s%s: %s\n", indent, "", name, text->str);
    }
}

void img_print_nested(const json_t *value, int indent)
{
    const char *key;
    json_t *member;

    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            g_autofree char *name = g_strdup_printf("[%zu]", i);
            print_nested_value(name, json_array_get(value, i), indent);
        }
    }
    json_object_foreach((json_t *)value, key, member) {
        g_autofree char *name = g_strdelimit(g_strdup(key), "-", ' ');
        print_nested_value(name, member, indent);
    }
}
