/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tokens of one JSON value to a json_t. Recursion is bounded by JSON_NESTING_MAX. */
#include "miniblk/osdep.h"
#include <math.h>
#include "qmp/json.h"

typedef struct Parser {
    const JsonToken *tokens;
    size_t n_tokens, pos;
    const char *text;
    size_t id_start, id_end;    /* tokens of the outermost "id"; empty when there is none */
    Error **errp;
} Parser;

static void parse_error(Parser *p, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void parse_error(Parser *p, const char *fmt, ...)
{
    va_list ap;
    g_autofree char *message = NULL;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(p->errp, "JSON parse error, %s", message);
}

static const JsonToken *next_token(Parser *p)
{
    if (p->pos == p->n_tokens) {
        parse_error(p, "premature EOI");
        return NULL;
    }
    return &p->tokens[p->pos++];
}

/* ---- strings ---------------------------------------------------------------------- */

/* The code unit of "\uXXXX" at S; -1 when it is none. END: of the string's contents. */
static int unit_at(const char *s, const char *end)
{
    int unit = 0;

    if (end - s < 6 || s[0] != '\\' || s[1] != 'u') {
        return -1;
    }
    for (int i = 2; i < 6; i++) {
        int digit = g_ascii_xdigit_value(s[i]);

        if (digit < 0) {
            return -1;
        }
        unit = unit << 4 | digit;
    }
    return unit;
}

static bool is_noncharacter(gunichar c)
{
    return (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

/* Decode \uXXXX or a pair of them at S; the bytes taken, 0 when it is not a character. */
static size_t unescape_unicode(const char *s, const char *end, GString *out)
{
    int unit = unit_at(s, end);
    gunichar c = unit;
    size_t len = 6;

    if (unit <= 0 || (unit >= 0xdc00 && unit <= 0xdfff)) {
        return 0;
    }
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low = unit_at(s + 6, end);

        if (low < 0xdc00 || low > 0xdfff) {
            return 0;
        }
        c = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        len = 12;
    }
    if (is_noncharacter(c)) {
        return 0;
    }
    g_string_append_unichar(out, c);
    return len;
}

/* The contents of string token T; false when they are not well-formed. */
static bool unescape(Parser *p, const JsonToken *t, GString *out)
{
    static const char from[] = "\"'\\/bfnrt", to[] = "\"'\\/\b\f\n\r\t";
    const char *s = p->text + t->offset + 1;
    const char *end = p->text + t->offset + t->len - 1;

    while (s < end) {
        const char *backslash = memchr(s, '\\', end - s);
        const char *plain_end = backslash ?: end;
        const char *simple;

        if (!g_utf8_validate(s, plain_end - s, NULL)) {
            parse_error(p, "invalid UTF-8 sequence in string");
            return false;
        }
        g_string_append_len(out, s, plain_end - s);
        s = plain_end;
        if (!backslash) {
            break;
        }
        if (s[1] == 'u') {
            size_t len = unescape_unicode(s, end, out);

            if (!len) {
                /* The closing quote may be among the six bytes that were looked at. */
                parse_error(p, "%.*s is not a valid Unicode character",
                            (int)MIN(6, end + 1 - s), s);
                return false;
            }
            s += len;
            continue;
        }
        simple = strchr(from, s[1]);
        if (!simple || !s[1]) {
            parse_error(p, "invalid escape sequence in string");
            return false;
        }
        g_string_append_c(out, to[simple - from]);
        s += 2;
    }
    return true;
}

static json_t *parse_string(Parser *p, const JsonToken *t)
{
    g_autoptr(GString) out = g_string_sized_new(t->len);

    if (!unescape(p, t, out)) {
        return NULL;
    }
    return json_stringn_nocheck(out->str, out->len);
}

/* ---- numbers ---------------------------------------------------------------------- */

typedef struct Number {
    enum { NUMBER_SIGNED, NUMBER_UNSIGNED, NUMBER_REAL } kind;
    int64_t i;
    uint64_t u;                 /* above INT64_MAX */
    double d;
} Number;

static bool parse_number(Parser *p, const JsonToken *t, Number *n)
{
    g_autofree char *text = g_strndup(p->text + t->offset, t->len);

    if (t->type == JSON_TOKEN_INTEGER) {
        errno = 0;
        n->i = g_ascii_strtoll(text, NULL, 10);
        if (!errno) {
            n->kind = NUMBER_SIGNED;
            return true;
        }
        errno = 0;
        n->u = g_ascii_strtoull(text, NULL, 10);
        if (!errno && text[0] != '-') {
            n->kind = NUMBER_UNSIGNED;
            return true;
        }
    }
    n->kind = NUMBER_REAL;
    n->d = g_ascii_strtod(text, NULL);
    if (!isfinite(n->d)) {
        parse_error(p, "number '%.40s' is out of range", text);
        return false;
    }
    return true;
}

static json_t *number_value(const Number *n)
{
    switch (n->kind) {
    case NUMBER_SIGNED:
        return json_integer(n->i);
    case NUMBER_UNSIGNED:
        return json_real(n->u);
    default:
        return json_real(n->d);
    }
}

/* ---- values ----------------------------------------------------------------------- */

static json_t *parse_value(Parser *p, const JsonToken *t, int depth);

/* One "key": value; the key's token is T. */
static bool parse_member(Parser *p, const JsonToken *t, json_t *obj, int depth)
{
    g_autoptr(json_t) key = parse_value(p, t, depth + 1);
    json_t *value;
    size_t start;
    bool is_id;

    if (!key) {
        return false;
    }
    if (!json_is_string(key)) {
        parse_error(p, "key is not a string in object");
        return false;
    }
    t = next_token(p);
    if (!t) {
        return false;
    }
    if (t->type != JSON_TOKEN_COLON) {
        parse_error(p, "missing : in object pair");
        return false;
    }
    start = p->pos;
    t = next_token(p);
    value = t ? parse_value(p, t, depth + 1) : NULL;
    if (!value) {
        return false;
    }
    if (json_object_get(obj, json_string_value(key))) {
        json_decref(value);
        parse_error(p, "duplicate key");
        return false;
    }
    is_id = depth == 0 && !strcmp(json_string_value(key), "id");
    if (is_id) {
        p->id_start = start;
        p->id_end = p->pos;
    }
    json_object_set_new_nocheck(obj, json_string_value(key), value);
    return true;
}

static json_t *parse_object(Parser *p, int depth)
{
    g_autoptr(json_t) obj = json_object();
    const JsonToken *t = next_token(p);

    if (t && t->type == JSON_TOKEN_RCURLY) {
        return g_steal_pointer(&obj);
    }
    while (t && parse_member(p, t, obj, depth)) {
        t = next_token(p);
        if (!t) {
            break;
        }
        if (t->type == JSON_TOKEN_RCURLY) {
            return g_steal_pointer(&obj);
        }
        if (t->type != JSON_TOKEN_COMMA) {
            parse_error(p, "expected separator in dict");
            break;
        }
        t = next_token(p);
    }
    return NULL;
}

static json_t *parse_array(Parser *p, int depth)
{
    g_autoptr(json_t) array = json_array();
    const JsonToken *t = next_token(p);

    if (t && t->type == JSON_TOKEN_RSQUARE) {
        return g_steal_pointer(&array);
    }
    while (t) {
        json_t *value = parse_value(p, t, depth + 1);

        if (!value) {
            break;
        }
        json_array_append_new(array, value);
        t = next_token(p);
        if (!t) {
            break;
        }
        if (t->type == JSON_TOKEN_RSQUARE) {
            return g_steal_pointer(&array);
        }
        if (t->type != JSON_TOKEN_COMMA) {
            parse_error(p, "expected separator in list");
            break;
        }
        t = next_token(p);
    }
    return NULL;
}

static json_t *parse_keyword(Parser *p, const JsonToken *t)
{
    g_autofree char *word = g_strndup(p->text + t->offset, MIN(t->len, 1024));

    if (!strcmp(word, "true")) {
        return json_true();
    }
    if (!strcmp(word, "false")) {
        return json_false();
    }
    if (!strcmp(word, "null")) {
        return json_null();
    }
    parse_error(p, "invalid keyword '%s'", word);
    return NULL;
}

static json_t *parse_value(Parser *p, const JsonToken *t, int depth)
{
    Number n;

    switch (t->type) {
    case JSON_TOKEN_LCURLY:
        return parse_object(p, depth);
    case JSON_TOKEN_LSQUARE:
        return parse_array(p, depth);
    case JSON_TOKEN_STRING:
        return parse_string(p, t);
    case JSON_TOKEN_KEYWORD:
        return parse_keyword(p, t);
    case JSON_TOKEN_INTEGER:
    case JSON_TOKEN_FLOAT:
        return parse_number(p, t, &n) ? number_value(&n) : NULL;
    default:
        parse_error(p, "expecting value");
        return NULL;
    }
}

/* ---- echo ------------------------------------------------------------------------- */

static void echo_token(Parser *p, const JsonToken *t, GString *out)
{
    g_autoptr(GString) text = NULL;
    Number n;

    switch (t->type) {
    case JSON_TOKEN_STRING:
        text = g_string_new(NULL);
        unescape(p, t, text);
        json_write_string(out, text->str, text->len);
        break;
    case JSON_TOKEN_INTEGER:
    case JSON_TOKEN_FLOAT:
        parse_number(p, t, &n);
        if (n.kind == NUMBER_SIGNED) {
            g_string_append_printf(out, "%" PRId64, n.i);
        } else if (n.kind == NUMBER_UNSIGNED) {
            g_string_append_printf(out, "%" PRIu64, n.u);
        } else {
            json_write_real(out, n.d);
        }
        break;
    default:
        g_string_append_len(out, p->text + t->offset, t->len);
        if (t->type == JSON_TOKEN_COMMA || t->type == JSON_TOKEN_COLON) {
            g_string_append_c(out, ' ');
        }
    }
}

/* The "id", which has been parsed without error before. */
static char *echo_id(Parser *p)
{
    GString *out = g_string_new(NULL);

    for (size_t i = p->id_start; i < p->id_end; i++) {
        echo_token(p, &p->tokens[i], out);
    }
    return g_string_free(out, false);
}

json_t *json__parse_tokens(const JsonToken *tokens, size_t n_tokens, const char *text,
                           char **id_text, Error **errp)
{
    Parser p = { .tokens = tokens, .n_tokens = n_tokens, .text = text, .errp = errp };
    const JsonToken *t = next_token(&p);
    json_t *value = t ? parse_value(&p, t, 0) : NULL;

    if (id_text) {
        *id_text = value && p.id_end > p.id_start ? echo_id(&p) : NULL;
    }
    return value;
}
