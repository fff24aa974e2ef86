/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of the handshake: what is asked and what is answered. */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"

#define BLOCK_SIZE_MIN          1
#define BLOCK_SIZE_PREFERRED    4096
#define CONTEXT_BASE            "base:"
#define CONTEXT_BASE_ALLOCATION "base:allocation"
#define CONTEXT_ID_BASE_ALLOCATION 0
/* An export name is echoed up to this length. */
#define ECHO_MAX_CHARS          80

/* A reader of an option's payload; after an overrun OK is false and values are 0. */
typedef struct Cursor {
    const uint8_t *pos;
    size_t left_bytes;
    bool ok;
} Cursor;

static const uint8_t *cursor_take(Cursor *c, size_t len)
{
    const uint8_t *p = c->pos;

    if (!c->ok || c->left_bytes < len) {
        c->ok = false;
        return NULL;
    }
    c->pos += len;
    c->left_bytes -= len;
    return p;
}

static uint32_t cursor_get32(Cursor *c)
{
    const uint8_t *p = cursor_take(c, 4);

    return p ? nbd_get32(p) : 0;
}

static uint16_t cursor_get16(Cursor *c)
{
    const uint8_t *p = cursor_take(c, 2);

    return p ? nbd_get16(p) : 0;
}

/* A counted string, newly allocated; NULL if it is malformed or holds a zero byte. */
static char *cursor_get_string(Cursor *c)
{
    uint32_t len = cursor_get32(c);
    const uint8_t *p = len <= NBD_MAX_STRING_SIZE ? cursor_take(c, len) : NULL;

    if (!p || memchr(p, 0, len)) {
        c->ok = false;
        return NULL;
    }
    return g_strndup((const char *)p, len);
}

/* ---- replies ---------------------------------------------------------------------- */

static void reply_begin(NBDHandshake *hs, uint32_t option, uint32_t type, size_t len)
{
    uint8_t header[NBD_OPTION_REPLY_SIZE];

    nbd_put32(nbd_put32(nbd_put32(nbd_put64(header, NBD_REP_MAGIC), option), type), len);
    g_byte_array_append(hs->out, header, sizeof(header));
}

static void reply_bytes(NBDHandshake *hs, const void *data, size_t len)
{
    g_byte_array_append(hs->out, data, len);
}

static void reply_u32(NBDHandshake *hs, uint32_t v)
{
    uint8_t b[4];

    nbd_put32(b, v);
    reply_bytes(hs, b, sizeof(b));
}

static void reply_u16(NBDHandshake *hs, uint16_t v)
{
    uint8_t b[2];

    nbd_put16(b, v);
    reply_bytes(hs, b, sizeof(b));
}

static void reply_ack(NBDHandshake *hs, uint32_t option)
{
    reply_begin(hs, option, NBD_REP_ACK, 0);
}

void nbd_option_reply_error(NBDHandshake *hs, uint32_t option, uint32_t type,
                            const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    reply_begin(hs, option, type, strlen(text));
    reply_bytes(hs, text, strlen(text));
}

static NBDOptionResult reply_invalid(NBDHandshake *hs, uint32_t option, const char *text)
{
    nbd_option_reply_error(hs, option, NBD_REP_ERR_INVALID, "%s", text);
    return NBD_OPTION_NEXT;
}

static NBDOptionResult reply_unknown_export(NBDHandshake *hs, uint32_t option,
                                            const char *name)
{
    nbd_option_reply_error(hs, option, NBD_REP_ERR_UNKNOWN, "export '%.*s%s' not present",
                           ECHO_MAX_CHARS, name,
                           strlen(name) > ECHO_MAX_CHARS ? "..." : "");
    return NBD_OPTION_NEXT;
}

/* ---- choosing an export ----------------------------------------------------------- */

static void choose(NBDHandshake *hs, NBDExport *exp)
{
    hs->chosen = exp;
    /* A context counts only for the export that it was selected for. */
    if (g_strcmp0(hs->meta_export, exp->name)) {
        hs->params.base_allocation = false;
    }
}

/* What this client, which may have negotiated more than others, can do. */
static uint16_t flags_for_client(const NBDHandshake *hs, const NBDExport *exp)
{
    return exp->flags | (hs->params.structured_replies ? NBD_FLAG_SEND_DF : 0);
}

/* There is no way to say no: an unknown name ends the connection. */
static NBDOptionResult option_export_name(NBDHandshake *hs, const uint8_t *data, uint32_t len)
{
    static const uint8_t zeroes[NBD_EXPORT_NAME_ZEROES];
    g_autofree char *name = g_strndup((const char *)data, len);
    NBDExport *exp;
    uint8_t b[10];

    if (len > NBD_MAX_STRING_SIZE || strlen(name) != len) {
        return NBD_OPTION_CLOSE;
    }
    exp = nbd_export_find(name);
    if (!exp) {
        return NBD_OPTION_CLOSE;
    }
    choose(hs, exp);
    nbd_put16(nbd_put64(b, exp->size_bytes), flags_for_client(hs, exp));
    reply_bytes(hs, b, sizeof(b));
    if (!hs->no_zeroes) {
        reply_bytes(hs, zeroes, sizeof(zeroes));
    }
    return NBD_OPTION_TRANSMIT;
}

static void reply_info_export(NBDHandshake *hs, uint32_t option, const NBDExport *exp)
{
    uint8_t b[12];

    nbd_put16(nbd_put64(nbd_put16(b, NBD_INFO_EXPORT), exp->size_bytes),
              flags_for_client(hs, exp));
    reply_begin(hs, option, NBD_REP_INFO, sizeof(b));
    reply_bytes(hs, b, sizeof(b));
}

static void reply_info_block_size(NBDHandshake *hs, uint32_t option)
{
    reply_begin(hs, option, NBD_REP_INFO, 14);
    reply_u16(hs, NBD_INFO_BLOCK_SIZE);
    reply_u32(hs, BLOCK_SIZE_MIN);
    reply_u32(hs, BLOCK_SIZE_PREFERRED);
    reply_u32(hs, NBD_MAX_PAYLOAD_SIZE);
}

static void reply_info_string(NBDHandshake *hs, uint32_t option, uint16_t info,
                              const char *text)
{
    reply_begin(hs, option, NBD_REP_INFO, 2 + strlen(text));
    reply_u16(hs, info);
    reply_bytes(hs, text, strlen(text));
}

/* NBD_OPT_INFO and NBD_OPT_GO. */
static NBDOptionResult option_info(NBDHandshake *hs, uint32_t option, const uint8_t *data,
                                   uint32_t len)
{
    Cursor c = { .pos = data, .left_bytes = len, .ok = true };
    g_autofree char *name = cursor_get_string(&c);
    uint16_t count = cursor_get16(&c);
    unsigned asked = 0;
    NBDExport *exp;

    for (unsigned i = 0; i < count && c.ok; i++) {
        uint16_t info = cursor_get16(&c);
        if (info < 16) {
            asked |= 1u << info;        /* others do not exist yet, and may be ignored */
        }
    }
    if (!c.ok || c.left_bytes) {
        return reply_invalid(hs, option, "malformed information request");
    }
    exp = nbd_export_find(name);
    if (!exp) {
        return reply_unknown_export(hs, option, name);
    }
    if (asked & (1u << NBD_INFO_NAME)) {
        reply_info_string(hs, option, NBD_INFO_NAME, exp->name);
    }
    if ((asked & (1u << NBD_INFO_DESCRIPTION)) && exp->description) {
        reply_info_string(hs, option, NBD_INFO_DESCRIPTION, exp->description);
    }
    if (asked & (1u << NBD_INFO_BLOCK_SIZE)) {
        reply_info_block_size(hs, option);
    }
    reply_info_export(hs, option, exp);
    reply_ack(hs, option);
    if (option == NBD_OPT_INFO) {
        return NBD_OPTION_NEXT;
    }
    choose(hs, exp);
    return NBD_OPTION_TRANSMIT;
}

static NBDOptionResult option_list(NBDHandshake *hs)
{
    for (NBDExport *exp = nbd_export_next(NULL); exp; exp = nbd_export_next(exp)) {
        size_t name_len = strlen(exp->name);
        const char *desc = exp->description ?: "";

        reply_begin(hs, NBD_OPT_LIST, NBD_REP_SERVER, 4 + name_len + strlen(desc));
        reply_u32(hs, name_len);
        reply_bytes(hs, exp->name, name_len);
        reply_bytes(hs, desc, strlen(desc));
    }
    reply_ack(hs, NBD_OPT_LIST);
    return NBD_OPTION_NEXT;
}

/* ---- metadata contexts ------------------------------------------------------------ */

/* Whether QUERY asks for base:allocation; a bare namespace lists, but does not select. */
static bool query_matches(const char *query, bool listing)
{
    return !strcmp(query, CONTEXT_BASE_ALLOCATION) ||
           (listing && !strcmp(query, CONTEXT_BASE));
}

/* NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
static NBDOptionResult option_meta_context(NBDHandshake *hs, uint32_t option,
                                           const uint8_t *data, uint32_t len)
{
    bool listing = option == NBD_OPT_LIST_META_CONTEXT;
    Cursor c = { .pos = data, .left_bytes = len, .ok = true };
    g_autofree char *name = cursor_get_string(&c);
    uint32_t count = cursor_get32(&c);
    bool found = listing && count == 0;

    if (!listing) {
        /* Each selection replaces the one before, also when it fails. */
        hs->params.base_allocation = false;
        g_clear_pointer(&hs->meta_export, g_free);
    }
    if (!hs->params.structured_replies) {
        return reply_invalid(hs, option, "structured replies are not negotiated");
    }
    for (uint32_t i = 0; i < count && c.ok; i++) {
        g_autofree char *query = cursor_get_string(&c);
        found |= query && query_matches(query, listing);
    }
    if (!c.ok || c.left_bytes) {
        return reply_invalid(hs, option, "malformed metadata context query");
    }
    if (!nbd_export_find(name)) {
        return reply_unknown_export(hs, option, name);
    }
    if (found) {
        reply_begin(hs, option, NBD_REP_META_CONTEXT, 4 + strlen(CONTEXT_BASE_ALLOCATION));
        reply_u32(hs, CONTEXT_ID_BASE_ALLOCATION);
        reply_bytes(hs, CONTEXT_BASE_ALLOCATION, strlen(CONTEXT_BASE_ALLOCATION));
    }
    reply_ack(hs, option);
    if (!listing) {
        hs->params.base_allocation = found;
        hs->meta_export = g_steal_pointer(&name);
    }
    return NBD_OPTION_NEXT;
}

/* ---- dispatch --------------------------------------------------------------------- */

/* Options without a payload. */
static NBDOptionResult option_bare(NBDHandshake *hs, uint32_t option)
{
    switch (option) {
    case NBD_OPT_ABORT:
        reply_ack(hs, option);
        return NBD_OPTION_CLOSE;
    case NBD_OPT_LIST:
        return option_list(hs);
    case NBD_OPT_STRUCTURED_REPLY:
        if (hs->params.structured_replies) {
            return reply_invalid(hs, option, "structured reply already negotiated");
        }
        hs->params.structured_replies = true;
        reply_ack(hs, option);
        return NBD_OPTION_NEXT;
    default:
        g_assert(option == NBD_OPT_STARTTLS);
        nbd_option_reply_error(hs, option, NBD_REP_ERR_POLICY, "TLS not configured");
        return NBD_OPTION_NEXT;
    }
}

NBDOptionResult nbd_option_handle(NBDHandshake *hs, uint32_t option, const uint8_t *data,
                                  uint32_t len)
{
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return option_export_name(hs, data, len);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return option_info(hs, option, data, len);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return option_meta_context(hs, option, data, len);
    case NBD_OPT_ABORT:
        /* with whatever payload: the client is leaving */
        return option_bare(hs, option);
    case NBD_OPT_LIST:
    case NBD_OPT_STARTTLS:
    case NBD_OPT_STRUCTURED_REPLY:
        if (len) {
            return reply_invalid(hs, option, "option has a payload, but should have none");
        }
        return option_bare(hs, option);
    default:
        nbd_option_reply_error(hs, option, NBD_REP_ERR_UNSUP, "Unsupported option %" PRIu32,
                               option);
        return NBD_OPTION_NEXT;
    }
}
