/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes for people, and the two ways to print a tree of values. */
#include "miniblk/osdep.h"
#include "block/json-write.h"
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

void img_print_json(const json_t *value)
{
    g_autoptr(GString) text = g_string_new(NULL);

    json_write(text, value, true, 0);
    printf("%s\n", text->str);
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
        json_write(text, value, false, 0);
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
