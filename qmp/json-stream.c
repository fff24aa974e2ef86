/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tokens to messages. A value is complete when its brackets are balanced; one bracket too
 * many ends it as well, and the parser then says what is wrong.
 */
#include "miniblk/osdep.h"
#include "qmp/json.h"

void json_message_clear(JsonMessage *msg)
{
    g_clear_pointer(&msg->value, json_decref);
    g_clear_pointer(&msg->id_text, g_free);
    g_clear_pointer(&msg->error, error_free);
}

void json_stream_init(JsonStream *s)
{
    *s = (JsonStream){ .tokens = g_array_new(false, false, sizeof(JsonToken)) };
    json__lexer_init(&s->lexer);
}

void json_stream_destroy(JsonStream *s)
{
    json__lexer_destroy(&s->lexer);
    g_array_free(s->tokens, true);
}

/* Begin a new value; the lexer may be recovering. */
static void forget_value(JsonStream *s)
{
    json__lexer_clear_text(&s->lexer);
    if (s->tokens->len > 4096) {
        g_array_free(s->tokens, true);
        s->tokens = g_array_new(false, false, sizeof(JsonToken));
    }
    g_array_set_size(s->tokens, 0);
    s->curly = s->square = 0;
    s->skipping = false;
}

void json_stream_reset(JsonStream *s)
{
    forget_value(s);
    s->lexer.state = JSON_LEX_BETWEEN;
}

/* Report an exceeded limit once and ignore what still belongs to the value. */
static bool limit_exceeded(JsonStream *s, const char *what, JsonMessage *msg)
{
    int curly = s->curly, square = s->square;

    forget_value(s);
    s->curly = curly;
    s->square = square;
    s->skipping = true;
    /* The text of what is skipped, even of a token that has begun, is not wanted. */
    s->lexer.dropping = true;
    error_setg(&msg->error, "JSON %s limit exceeded", what);
    return true;
}

static bool value_complete(JsonStream *s)
{
    return s->curly < 0 || s->square < 0 || (s->curly == 0 && s->square == 0);
}

static void count_bracket(JsonStream *s, JsonTokenType type)
{
    s->curly += (type == JSON_TOKEN_LCURLY) - (type == JSON_TOKEN_RCURLY);
    s->square += (type == JSON_TOKEN_LSQUARE) - (type == JSON_TOKEN_RSQUARE);
}

static bool take_stray(JsonStream *s, const JsonToken *t, JsonMessage *msg)
{
    g_autofree char *text = g_strndup(s->lexer.text->str + t->offset, t->len);

    error_setg(&msg->error, "JSON parse error, stray '%s'", text);
    forget_value(s);
    return true;
}

static void parse_value_text(JsonStream *s, JsonMessage *msg)
{
    msg->text_bytes = s->lexer.text->len;
    msg->value = json__parse_tokens((JsonToken *)s->tokens->data, s->tokens->len,
                                    s->lexer.text->str, &msg->id_text, &msg->error);
}

/* True when *MSG is there. */
static bool take_token(JsonStream *s, const JsonToken *t, JsonMessage *msg)
{
    if (t->type == JSON_TOKEN_STRAY) {
        return take_stray(s, t, msg);
    }
    count_bracket(s, t->type);
    if (s->skipping) {
        if (value_complete(s)) {
            forget_value(s);
        }
        return false;
    }
    if (s->curly + s->square > JSON_NESTING_MAX) {
        return limit_exceeded(s, "nesting depth", msg);
    }
    if (s->tokens->len == JSON_TOKENS_MAX) {
        return limit_exceeded(s, "token count", msg);
    }
    g_array_append_val(s->tokens, *t);
    if (!value_complete(s)) {
        return false;
    }
    parse_value_text(s, msg);
    forget_value(s);
    return true;
}

bool json_stream_feed(JsonStream *s, const char *buf, size_t len, size_t *used,
                      JsonMessage *msg)
{
    size_t i = 0;

    *msg = (JsonMessage){ NULL };
    while (i < len) {
        JsonToken token;
        bool byte_used;
        bool complete = json__lexer_feed(&s->lexer, buf[i], &token, &byte_used);

        i += byte_used;
        if (complete && take_token(s, &token, msg)) {
            *used = i;
            return true;
        }
        if (s->lexer.dropping && !s->skipping) {
            *used = i;
            return limit_exceeded(s, "token size", msg);
        }
    }
    *used = i;
    return false;
}

bool json_stream_finish(JsonStream *s, JsonMessage *msg)
{
    JsonToken token;
    bool done = false;

    *msg = (JsonMessage){ NULL };
    if (json__lexer_finish(&s->lexer, &token)) {
        done = take_token(s, &token, msg);
    }
    if (!done && s->tokens->len) {
        parse_value_text(s, msg);
        done = true;
    }
    json_stream_reset(s);
    return done;
}

json_t *json_parse_text(const char *text, Error **errp)
{
    JsonStream s;
    JsonMessage first = { NULL }, second = { NULL };
    size_t len = strlen(text), used = 0;
    bool have_first, have_second = false;

    json_stream_init(&s);
    have_first = json_stream_feed(&s, text, len, &used, &first) ||
                 json_stream_finish(&s, &first);
    if (have_first && !first.error) {
        size_t rest;
        have_second = json_stream_feed(&s, text + used, len - used, &rest, &second) ||
                      json_stream_finish(&s, &second);
    }
    json_stream_destroy(&s);
    if (!have_first) {
        error_setg(errp, "Expecting a JSON value");
    } else if (have_second) {
        error_setg(errp, "Expecting at most one JSON value");
    } else {
        error_propagate(errp, g_steal_pointer(&first.error));
    }
    json_message_clear(&second);
    g_free(first.id_text);
    if (have_second) {
        g_clear_pointer(&first.value, json_decref);
    }
    return first.value;
}
