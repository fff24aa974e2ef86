/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON as it is spoken on a QMP connection: a stream of values without framing, in which a
 * broken value costs one error and not the connection. Values are jansson's.
 *
 * Beyond RFC 8259: strings may be quoted with ' too (and \' is an escape). Narrower: no
 * U+0000 and no noncharacters by escape, nesting and size are limited. The byte 0xFF (any
 * from 0xF5 on) never belongs to JSON; clients send it to make the parser forget what they
 * have sent so far.
 */
#ifndef QMP_JSON_H
#define QMP_JSON_H

#include <jansson.h>
#include "block/json-write.h"
#include "miniblk/error.h"
#include "miniblk/qdict.h"

/* Limits per value. */
#define JSON_NESTING_MAX 1024
#define JSON_TEXT_BYTES_MAX (16 << 20)
#define JSON_TOKENS_MAX (1 << 20)

/* ---- tokens ----------------------------------------------------------------------- */

typedef enum JsonTokenType {
    JSON_TOKEN_LCURLY, JSON_TOKEN_RCURLY, JSON_TOKEN_LSQUARE, JSON_TOKEN_RSQUARE,
    JSON_TOKEN_COLON, JSON_TOKEN_COMMA,
    JSON_TOKEN_INTEGER, JSON_TOKEN_FLOAT, JSON_TOKEN_KEYWORD,
    JSON_TOKEN_STRING,          /* with its quotes, escapes not yet resolved */
    JSON_TOKEN_STRAY,           /* what cannot be the beginning of a token */
} JsonTokenType;

/* A token's text is LEN bytes at OFFSET of its owner's text buffer. */
typedef struct JsonToken {
    JsonTokenType type;
    uint32_t offset, len;
} JsonToken;

typedef enum JsonLexState {
    JSON_LEX_BETWEEN,           /* in front of a token */
    JSON_LEX_STRING, JSON_LEX_ESCAPE,
    JSON_LEX_MINUS, JSON_LEX_ZERO, JSON_LEX_DIGITS,
    JSON_LEX_POINT, JSON_LEX_FRACTION,
    JSON_LEX_EXP, JSON_LEX_EXP_SIGN, JSON_LEX_EXP_DIGITS,
    JSON_LEX_KEYWORD,
    JSON_LEX_RECOVER,           /* after a stray: skip to where a value may begin */
} JsonLexState;

typedef struct JsonLexer {
    JsonLexState state;
    char quote;                 /* that ends the string */
    bool dropping;              /* TEXT is at its limit: tokens lose their text */
    size_t token_start;         /* of the unfinished token, in TEXT */
    GString *text;
} JsonLexer;

void json__lexer_init(JsonLexer *lexer);
void json__lexer_destroy(JsonLexer *lexer);
/* Forget all text; the state is kept. */
void json__lexer_clear_text(JsonLexer *lexer);
/*
 * Take one byte. True when it completes *TOKEN; *USED is false when the byte only ended the
 * token and is to be offered again.
 */
bool json__lexer_feed(JsonLexer *lexer, unsigned char byte, JsonToken *token, bool *used);
/* End of input: true when *TOKEN was pending. */
bool json__lexer_finish(JsonLexer *lexer, JsonToken *token);

/* ---- values ----------------------------------------------------------------------- */

/*
 * Parse exactly the N_TOKENS tokens. NULL with ERRP set ("JSON parse error, ..."). When the
 * value is an object with a member "id", *ID_TEXT is that member as JSON text, with numbers
 * that no json_t can hold; newly allocated, else NULL. ID_TEXT may be NULL.
 */
json_t *json__parse_tokens(const JsonToken *tokens, size_t n_tokens, const char *text,
                           char **id_text, Error **errp);

/* One thing that a stream has delivered: either VALUE or ERROR is set. */
typedef struct JsonMessage {
    json_t *value;
    char *id_text;              /* see json__parse_tokens() */
    Error *error;
    size_t text_bytes;          /* how long the value was */
} JsonMessage;
void json_message_clear(JsonMessage *msg);

typedef struct JsonStream {
    JsonLexer lexer;
    GArray *tokens;             /* of JsonToken, of the unfinished value */
    int curly, square;          /* open so far */
    bool skipping;              /* a limit was exceeded: ignore the rest of the value */
} JsonStream;

void json_stream_init(JsonStream *s);
void json_stream_destroy(JsonStream *s);
/* Forget everything that was fed. */
void json_stream_reset(JsonStream *s);
/*
 * Feed bytes until a message is there (true, *MSG is filled, the caller owns it) or all LEN
 * are used up (false). *USED is how many were taken.
 */
bool json_stream_feed(JsonStream *s, const char *buf, size_t len, size_t *used,
                      JsonMessage *msg);
/* End of input: true with *MSG when something was pending. */
bool json_stream_finish(JsonStream *s, JsonMessage *msg);

/* TEXT is one value. NULL with ERRP set. */
json_t *json_parse_text(const char *text, Error **errp);

#endif
