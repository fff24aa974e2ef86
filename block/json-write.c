/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json_t to text. Not jansson's own printer because the text has to be the peer's byte for
 * byte, and because file names that are not UTF-8 must come out as something.
 */
#include "miniblk/osdep.h"
#include "block/json-write.h"

void json_write_real(GString *out, double value)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];

    g_string_append(out, g_ascii_formatd(buf, sizeof(buf), "%.17g", value));
}

static void write_escaped_unit(GString *out, unsigned unit)
{
    g_string_append_printf(out, "\\u%04X", unit);
}

static void write_char(GString *out, gunichar c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *special = c && c < 0x80 ? strchr(from, c) : NULL;

    if (special) {
        g_string_append_c(out, '\\');
        g_string_append_c(out, to[special - from]);
    } else if (c >= 0x20 && c < 0x7f) {
        g_string_append_c(out, c);
    } else if (c < 0x10000) {
        write_escaped_unit(out, c);
    } else {
        write_escaped_unit(out, 0xd800 + ((c - 0x10000) >> 10));
        write_escaped_unit(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    }
}

void json_write_string(GString *out, const char *text, size_t len)
{
    const char *p = text, *end = text + len;

    g_string_append_c(out, '"');
    while (p < end) {
        gunichar c = g_utf8_get_char_validated(p, end - p);

        if (!*p || c == (gunichar)-1 || c == (gunichar)-2) {
            write_char(out, *p ? 0xfffd : 0);
            p++;
        } else {
            write_char(out, c);
            p = g_utf8_next_char(p);
        }
    }
    g_string_append_c(out, '"');
}

static void write_break(GString *out, bool pretty, int depth)
{
    if (pretty) {
        g_string_append_printf(out, "\n%*s", depth * 4, "");
    }
}

static void write_comma(GString *out, bool pretty)
{
    g_string_append(out, pretty ? "," : ", ");
}

void json_write(GString *out, const json_t *value, bool pretty, int depth)
{
    const char *key;
    json_t *item;
    size_t i, n = 0;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        g_string_append_c(out, '{');
        json_object_foreach((json_t *)value, key, item) {
            if (n++) {
                write_comma(out, pretty);
            }
            write_break(out, pretty, depth + 1);
            json_write_string(out, key, strlen(key));
            g_string_append(out, ": ");
            json_write(out, item, pretty, depth + 1);
        }
        write_break(out, pretty, depth);
        g_string_append_c(out, '}');
        break;
    case JSON_ARRAY:
        g_string_append_c(out, '[');
        json_array_foreach(value, i, item) {
            if (i) {
                write_comma(out, pretty);
            }
            write_break(out, pretty, depth + 1);
            json_write(out, item, pretty, depth + 1);
        }
        write_break(out, pretty, depth);
        g_string_append_c(out, ']');
        break;
    case JSON_STRING:
        json_write_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        g_string_append_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        json_write_real(out, json_real_value(value));
        break;
    default:
        g_string_append(out, json_is_null(value) ? "null"
                             : json_is_true(value) ? "true" : "false");
    }
}
