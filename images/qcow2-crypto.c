/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypted images. Their data is out of reach, but what does not need a key can be done: tell
 * how they are encrypted, and check them. The header is described in "LUKS1 On-Disk Format
 * Specification".
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

#define LUKS_HEADER_BYTES   592
#define LUKS_VERSION        1
#define LUKS_SLOTS          8
#define LUKS_SLOT_BYTES     48
#define LUKS_SLOT_ACTIVE    0x00ac71f3U
#define LUKS_SECTOR_BYTES   512

/* Where the fields are; names are padded with NULs. */
enum {
    LUKS_VERSION_AT = 6, LUKS_CIPHER_AT = 8, LUKS_MODE_AT = 40, LUKS_HASH_AT = 72,
    LUKS_PAYLOAD_AT = 104, LUKS_KEY_BYTES_AT = 108, LUKS_ITERATIONS_AT = 164,
    LUKS_UUID_AT = 168, LUKS_SLOTS_AT = 208,
    /* in a slot */
    LUKS_SLOT_STATE_AT = 0, LUKS_SLOT_ITERATIONS_AT = 4, LUKS_SLOT_KEY_AT = 40,
    LUKS_SLOT_STRIPES_AT = 44,
};
enum { LUKS_NAME_BYTES = 32, LUKS_UUID_BYTES = 40 };

int qcow2_crypto_open(Qcow2State *s, int flags, Error **errp)
{
    static const uint8_t magic[LUKS_VERSION_AT] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };
    const Qcow2Header *h = &s->header;

    if (h->crypt_method && !(flags & (BDRV_O_NO_IO | BDRV_O_CHECK))) {
        error_setg(errp, "Encrypted qcow2 images are not supported");
        return -ENOTSUP;
    }
    if (h->crypt_method != QCOW2_CRYPT_LUKS) {
        return 0;
    }
    if (h->crypto_bytes < LUKS_HEADER_BYTES || h->crypto_offset > s->file_bytes ||
        h->crypto_bytes > s->file_bytes - h->crypto_offset) {
        error_setg(errp, "The encryption header (offset %" PRIu64 ", %" PRIu64 " bytes) is "
                   "too short or not in the image file", h->crypto_offset, h->crypto_bytes);
        return -EINVAL;
    }
    s->luks_header = g_malloc(LUKS_HEADER_BYTES);
    int ret = qcow2_file_read(s, h->crypto_offset, LUKS_HEADER_BYTES, s->luks_header);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the encryption header");
        return ret;
    }
    if (memcmp(s->luks_header, magic, sizeof(magic)) != 0) {
        error_setg(errp, "Volume is not in LUKS format");
        return -EINVAL;
    }
    uint16_t version = lduw_be_p(s->luks_header + LUKS_VERSION_AT);
    if (version != LUKS_VERSION) {
        error_setg(errp, "LUKS version %u is not supported", version);
        return -ENOTSUP;
    }
    return 0;
}

/* ---- information ------------------------------------------------------------------- */

static void put_text(json_t *out, const char *key, const char *value)
{
    json_object_set_new(out, key, json_string_nocheck(value));
}

/* The number at P, which counts sectors, in bytes. */
static json_t *luks_offset(const uint8_t *p)
{
    return json_integer((json_int_t)qcow2_load32(p) * LUKS_SECTOR_BYTES);
}

static json_t *luks_slots(const uint8_t *header)
{
    json_t *slots = json_array();

    for (int i = 0; i < LUKS_SLOTS; i++) {
        const uint8_t *slot = header + LUKS_SLOTS_AT + i * LUKS_SLOT_BYTES;
        bool active = qcow2_load32(slot + LUKS_SLOT_STATE_AT) == LUKS_SLOT_ACTIVE;
        json_t *out = json_object();
        json_object_set_new(out, "active", json_boolean(active));
        if (active) {
            json_object_set_new(out, "iters",
                                json_integer(qcow2_load32(slot + LUKS_SLOT_ITERATIONS_AT)));
        }
        json_object_set_new(out, "key-offset", luks_offset(slot + LUKS_SLOT_KEY_AT));
        if (active) {
            json_object_set_new(out, "stripes",
                                json_integer(qcow2_load32(slot + LUKS_SLOT_STRIPES_AT)));
        }
        json_array_append_new(slots, out);
    }
    return slots;
}

static json_t *luks_info(const uint8_t *header)
{
    const char *text = (const char *)header;
    g_autofree char *cipher = g_strndup(text + LUKS_CIPHER_AT, LUKS_NAME_BYTES);
    g_autofree char *mode = g_strndup(text + LUKS_MODE_AT, LUKS_NAME_BYTES);
    g_autofree char *hash = g_strndup(text + LUKS_HASH_AT, LUKS_NAME_BYTES);
    g_autofree char *uuid = g_strndup(text + LUKS_UUID_AT, LUKS_UUID_BYTES);
    /* "xts-plain64", "cbc-essiv:sha256" */
    g_auto(GStrv) part = g_strsplit(mode, "-", 2);
    g_auto(GStrv) ivgen = g_strsplit(part[0] && part[1] ? part[1] : "", ":", 2);
    const char *chaining = part[0] ?: "";
    /* xts has a second key for the sectors' numbers */
    uint32_t key_bits = qcow2_load32(header + LUKS_KEY_BYTES_AT) * 8 /
                        (strcmp(chaining, "xts") ? 1 : 2);
    g_autofree char *algorithm = g_strdup_printf("%s-%" PRIu32, cipher, key_bits);
    json_t *out = json_object();

    put_text(out, "ivgen-alg", ivgen[0] ?: "");
    put_text(out, "hash-alg", hash);
    put_text(out, "cipher-alg", algorithm);
    put_text(out, "uuid", uuid);
    if (ivgen[0] && ivgen[1]) {
        put_text(out, "ivgen-hash-alg", ivgen[1]);
    }
    put_text(out, "format", "luks");
    put_text(out, "cipher-mode", chaining);
    json_object_set_new(out, "slots", luks_slots(header));
    json_object_set_new(out, "payload-offset", luks_offset(header + LUKS_PAYLOAD_AT));
    json_object_set_new(out, "master-key-iters",
                        json_integer(qcow2_load32(header + LUKS_ITERATIONS_AT)));
    return out;
}

json_t *qcow2_crypto_info(const Qcow2State *s)
{
    return s->header.crypt_method == QCOW2_CRYPT_AES ? json_pack("{s:s}", "format", "aes") :
           s->luks_header ? luks_info(s->luks_header) : NULL;
}
