/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON bytes to tokens, one byte at a time, so that input may be cut anywhere. */
#include "miniblk/osdep.h"
#include "qmp/json.h"

/* Bytes from here on occur in no UTF-8 text. */
#define NEVER_UTF8_MIN 0xf5
/* Room for the text of a stray token even when the limit is reached. */
#define STRAY_BYTES_MAX 1024

void json__lexer_init(JsonLexer *lexer)
{
    *lexer = (JsonLexer){ .state = JSON_LEX_BETWEEN, .text = g_string_new(NULL) };
}

void json__lexer_destroy(JsonLexer *lexer)
{
    g_string_free(lexer->text, true);
}

void json__lexer_clear_text(JsonLexer *lexer)
{
    /* A big message must not keep its memory for the rest of the connection. */
    if (lexer->text->allocated_len > 65536) {
        g_string_free(lexer->text, true);
        lexer->text = g_string_new(NULL);
    }
    g_string_truncate(lexer->text, 0);
    lexer->token_start = 0;
    lexer->dropping = false;
}

static void keep(JsonLexer *lexer, unsigned char byte)
{
    if (lexer->text->len >= JSON_TEXT_BYTES_MAX) {
        lexer->dropping = true;
    }
    if (!lexer->dropping) {
        g_string_append_c(lexer->text, byte);
    }
}

static bool token_done(JsonLexer *lexer, JsonTokenType type, JsonToken *token)
{
    *token = (JsonToken){
        .type = type,
        .offset = lexer->token_start,
        .len = lexer->text->len - lexer->token_start,
    };
    lexer->token_start = lexer->text->len;
    lexer->state = JSON_LEX_BETWEEN;
    return true;
}

static bool stray(JsonLexer *lexer, unsigned char byte, JsonToken *token)
{
    /* Kept even when text is being dropped: the message shall name it. */
    if (lexer->text->len - lexer->token_start < STRAY_BYTES_MAX) {
        g_string_append_c(lexer->text, byte);
    }
    token_done(lexer, JSON_TOKEN_STRAY, token);
    token->len = MIN(token->len, STRAY_BYTES_MAX);
    lexer->state = JSON_LEX_RECOVER;
    return true;
}

static bool structural_type(unsigned char byte, JsonTokenType *type)
{
    static const char chars[] = "{}[]:,";
    const char *p = byte ? strchr(chars, byte) : NULL;

    if (p) {
        *type = JSON_TOKEN_LCURLY + (p - chars);
    }
    return p != NULL;
}

static bool is_space(unsigned char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* The first byte of a token. */
static bool feed_between(JsonLexer *lexer, unsigned char byte, JsonToken *token)
{
    JsonTokenType type;

    if (is_space(byte)) {
        return false;
    }
    if (structural_type(byte, &type)) {
        keep(lexer, byte);
        return token_done(lexer, type, token);
    }
    if (byte == '"' || byte == '\'') {
        lexer->quote = byte;
        lexer->state = JSON_LEX_STRING;
    } else if (byte == '-') {
        lexer->state = JSON_LEX_MINUS;
    } else if (byte == '0') {
        lexer->state = JSON_LEX_ZERO;
    } else if (g_ascii_isdigit(byte)) {
        lexer->state = JSON_LEX_DIGITS;
    } else if (g_ascii_islower(byte)) {
        lexer->state = JSON_LEX_KEYWORD;
    } else {
        return stray(lexer, byte, token);
    }
    keep(lexer, byte);
    return false;
}

static bool feed_string(JsonLexer *lexer, unsigned char byte, JsonToken *token)
{
    if (byte < 0x20 || byte >= NEVER_UTF8_MIN) {
        return stray(lexer, byte, token);
    }
    keep(lexer, byte);
    if (lexer->state == JSON_LEX_ESCAPE) {
        lexer->state = JSON_LEX_STRING;
    } else if (byte == '\\') {
        lexer->state = JSON_LEX_ESCAPE;
    } else if (byte == lexer->quote) {
        return token_done(lexer, JSON_TOKEN_STRING, token);
    }
    return false;
}

/*
 * Where BYTE leads inside a number: the next state; BETWEEN when the number is complete
 * without it, RECOVER when it cannot stand there.
 */
static JsonLexState number_step(JsonLexState state, unsigned char byte)
{
    bool digit = g_ascii_isdigit(byte);
    bool exp = byte == 'e' || byte == 'E';

    switch (state) {
    case JSON_LEX_MINUS:
        return !digit ? JSON_LEX_RECOVER : byte == '0' ? JSON_LEX_ZERO : JSON_LEX_DIGITS;
    case JSON_LEX_ZERO:
        return digit ? JSON_LEX_RECOVER
               : byte == '.' ? JSON_LEX_POINT
               : exp ? JSON_LEX_EXP : JSON_LEX_BETWEEN;
    case JSON_LEX_DIGITS:
        return digit ? JSON_LEX_DIGITS
               : byte == '.' ? JSON_LEX_POINT
               : exp ? JSON_LEX_EXP : JSON_LEX_BETWEEN;
    case JSON_LEX_POINT:
        return digit ? JSON_LEX_FRACTION : JSON_LEX_RECOVER;
    case JSON_LEX_FRACTION:
        return digit ? JSON_LEX_FRACTION : exp ? JSON_LEX_EXP : JSON_LEX_BETWEEN;
    case JSON_LEX_EXP:
        return digit ? JSON_LEX_EXP_DIGITS
               : byte == '+' || byte == '-' ? JSON_LEX_EXP_SIGN : JSON_LEX_RECOVER;
    case JSON_LEX_EXP_SIGN:
        return digit ? JSON_LEX_EXP_DIGITS : JSON_LEX_RECOVER;
    case JSON_LEX_EXP_DIGITS:
        return digit ? JSON_LEX_EXP_DIGITS : JSON_LEX_BETWEEN;
    default:
        g_assert_not_reached();
    }
}

static bool number_is_float(JsonLexState state)
{
    return state == JSON_LEX_FRACTION || state == JSON_LEX_EXP_DIGITS;
}

static bool feed_number(JsonLexer *lexer, unsigned char byte, JsonToken *token, bool *used)
{
    JsonLexState next = number_step(lexer->state, byte);

    if (next == JSON_LEX_RECOVER) {
        return stray(lexer, byte, token);
    }
    if (next == JSON_LEX_BETWEEN) {
        *used = false;
        return token_done(lexer, number_is_float(lexer->state) ? JSON_TOKEN_FLOAT
                                                               : JSON_TOKEN_INTEGER, token);
    }
    keep(lexer, byte);
    lexer->state = next;
    return false;
}

bool json__lexer_feed(JsonLexer *lexer, unsigned char byte, JsonToken *token, bool *used)
{
    JsonTokenType type;

    *used = true;
    switch (lexer->state) {
    case JSON_LEX_BETWEEN:
        return feed_between(lexer, byte, token);
    case JSON_LEX_STRING:
    case JSON_LEX_ESCAPE:
        return feed_string(lexer, byte, token);
    case JSON_LEX_KEYWORD:
        if (g_ascii_islower(byte)) {
            keep(lexer, byte);
            return false;
        }
        *used = false;
        return token_done(lexer, JSON_TOKEN_KEYWORD, token);
    case JSON_LEX_RECOVER:
        if (byte >= NEVER_UTF8_MIN) {
            return stray(lexer, byte, token);
        }
        if (byte == '\n' || structural_type(byte, &type)) {
            lexer->state = JSON_LEX_BETWEEN;
            return feed_between(lexer, byte, token);
        }
        return false;
    default:
        return feed_number(lexer, byte, token, used);
    }
}

bool json__lexer_finish(JsonLexer *lexer, JsonToken *token)
{
    switch (lexer->state) {
    case JSON_LEX_BETWEEN:
    case JSON_LEX_RECOVER:
        lexer->state = JSON_LEX_BETWEEN;
        return false;
    case JSON_LEX_KEYWORD:
        return token_done(lexer, JSON_TOKEN_KEYWORD, token);
    case JSON_LEX_ZERO:
    case JSON_LEX_DIGITS:
        return token_done(lexer, JSON_TOKEN_INTEGER, token);
    case JSON_LEX_FRACTION:
    case JSON_LEX_EXP_DIGITS:
        return token_done(lexer, JSON_TOKEN_FLOAT, token);
    default:
        token_done(lexer, JSON_TOKEN_STRAY, token);
        token->len = MIN(token->len, STRAY_BYTES_MAX);
        return true;
    }
}
