/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replacing the header and what goes with it, so that a power failure leaves the one or the
 * other. Only a single sector of 512 bytes is written whole or not at all, and all that
 * matters is in the first one: the fields, and the extensions but for the names of features
 * and those that nobody knows (and perhaps a very long name of a data file). So:
 *
 *   1. the new name of the backing file, where neither old name nor old extensions are
 *   2. the first sector, with the chain of extensions cut where it leaves the sector
 *   3. the other sectors
 *   4. the first sector with the whole chain
 *
 * What lies between two of these steps is a valid image, whichever of the sectors were
 * written. So after an error the same way leads back.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

#define SECTOR 512u

#define STEPS 4

/* Write the sectors of the file's first N bytes in which FROM and TO differ. */
static int coroutine_mixed_fn write_step(Qcow2State *s, const uint8_t *from, const uint8_t *to,
                                         size_t n)
{
    bool any = false;

    for (size_t o = 0; o < n; o += SECTOR) {
        if (memcmp(from + o, to + o, SECTOR) == 0) {
            continue;
        }
        any = true;
        int ret = qcow2_header_patch(s, o, to + o, SECTOR);
        if (ret < 0) {
            return ret;
        }
    }
    return any ? bdrv_flush(s->bs->file->bs) : 0;
}

/* Where the chain of extensions that begins at POS ends, its end marker included. */
static size_t chain_end(const uint8_t *b, size_t pos, size_t bytes)
{
    while (pos + 8 <= bytes && qcow2_load32(b + pos) != QCOW2_EXT_END) {
        pos += 8 + ROUND_UP((uint64_t)qcow2_load32(b + pos + 4), 8);
    }
    return MIN(pos + 8, bytes);
}

/* End the chain in the first sector before the first extension that leaves it. */
static void cut_chain(uint8_t *b, size_t pos)
{
    while (pos + 8 <= SECTOR && qcow2_load32(b + pos) != QCOW2_EXT_END) {
        uint64_t next = pos + 8 + ROUND_UP((uint64_t)qcow2_load32(b + pos + 4), 8);
        if (next + 8 > SECTOR) {
            memset(b + pos, 0, 8);
            return;
        }
        pos = next;
    }
}

/*
 * The states of the file's first N bytes from NOW to the last one, which is there already; H
 * is its header. State number i is at STATES + i * N.
 */
static void plan_steps(uint8_t *states, size_t n, const uint8_t *now, const Qcow2Header *h)
{
    uint8_t *named = states + n, *cut = named + n, *grown = cut + n, *last = grown + n;

    memcpy(states, now, n);
    memcpy(named, now, n);
    memcpy(named + h->backing_offset, last + h->backing_offset,
           h->backing_offset ? h->backing_size : 0);
    memcpy(cut, last, SECTOR);
    memcpy(cut + SECTOR, named + SECTOR, n - SECTOR);
    if (memcmp(now + SECTOR, last + SECTOR, n - SECTOR) != 0) {
        cut_chain(cut, h->header_length);
    }
    memcpy(grown, cut, SECTOR);
    memcpy(grown + SECTOR, last + SECTOR, n - SECTOR);
}

/* From the first state to the last one; back again after an error. */
static int coroutine_mixed_fn write_steps(Qcow2State *s, const uint8_t *states, size_t n)
{
    const uint8_t *at = states;
    int ret = 0, back = 0;

    for (; at < states + STEPS * n && ret >= 0; at += n) {
        ret = write_step(s, at, at + n, n);
    }
    for (; ret < 0 && at > states && back >= 0; at -= n) {
        back = write_step(s, at, at - n, n);
    }
    if (back < 0) {
        s->corrupt = true;      /* nobody knows which header the file has */
    }
    return ret;
}

/* Build the header H. The backing file's name stays, or comes where nothing was. */
static uint8_t *build(Qcow2State *s, Qcow2Header *h, Qcow2HeaderNames names,
                      const uint8_t *now, size_t *bytes, int *ret)
{
    const Qcow2Header *old = &s->header;
    size_t old_end = chain_end(now, old->header_length, s->cluster_bytes);
    const char *name = names.backing_file ? names.backing_file : "";

    old_end = MAX(old_end, old->backing_offset ? old->backing_offset + old->backing_size : 0);
    if (old->backing_offset && old->backing_size == strlen(name) &&
        memcmp(now + old->backing_offset, name, old->backing_size) == 0) {
        names.backing_from = old->backing_offset;
        uint8_t *b = qcow2_header_build(h, s->extensions, &names, bytes, ret);
        if (!b || h->backing_offset == old->backing_offset) {
            return b;
        }
        g_free(b);
    }
    names.backing_from = old_end;
    return qcow2_header_build(h, s->extensions, &names, bytes, ret);
}

/* Forget the names of features, the only extension that nobody needs. False: there is none. */
static bool drop_feature_names(GByteArray *extensions)
{
    for (guint pos = 0; pos + 8 <= extensions->len; ) {
        const uint8_t *e = extensions->data + pos;
        uint32_t bytes = 8 + ROUND_UP(qcow2_load32(e + 4), 8);
        if (qcow2_load32(e) == QCOW2_EXT_FEATURE_NAMES) {
            g_byte_array_remove_range(extensions, pos, bytes);
            return true;
        }
        pos += bytes;
    }
    return false;
}

int coroutine_mixed_fn qcow2_header_update(Qcow2State *s, Qcow2Header *h,
                                           const Qcow2HeaderNames *names)
{
    g_autofree uint8_t *now = g_malloc0(s->cluster_bytes);
    size_t bytes;
    int ret = qcow2_file_read(s, 0, s->cluster_bytes, now);

    if (ret < 0) {
        return ret;
    }
    g_autofree uint8_t *b = build(s, h, *names, now, &bytes, &ret);
    if (!b && drop_feature_names(s->extensions)) {
        b = build(s, h, *names, now, &bytes, &ret);
    }
    if (!b) {
        return ret;
    }
    size_t n = ROUND_UP(bytes, SECTOR);
    g_autofree uint8_t *states = g_malloc0((STEPS + 1) * n);
    uint8_t *last = states + STEPS * n;
    memcpy(last, b, bytes);
    if (h->header_length == s->header.header_length) {
        /* fields of a longer header that we do not know */
        size_t known = MIN(h->header_length, QCOW2_KNOWN_HEADER_BYTES);
        memcpy(last + known, now + known, h->header_length - known);
    }
    plan_steps(states, n, now, h);
    ret = write_steps(s, states, n);
    if (ret < 0) {
        return ret;
    }
    s->header = *h;
    return 0;
}

Qcow2HeaderNames qcow2_header_names(const Qcow2State *s)
{
    return (Qcow2HeaderNames){ .backing_file = s->bs->backing_file,
                               .backing_fmt = s->bs->backing_format,
                               .data_file = s->data_file_name };
}

int coroutine_mixed_fn qcow2_header_set_backing(Qcow2State *s, const char *backing_file,
                                                const char *backing_fmt)
{
    Qcow2HeaderNames names = qcow2_header_names(s);
    Qcow2Header h = s->header;

    if (backing_file && strlen(backing_file) > QCOW2_BACKING_NAME_BYTES_MAX) {
        return -EINVAL;
    }
    if (backing_fmt && strlen(backing_fmt) > 15) {
        return -EINVAL;
    }
    names.backing_file = backing_file;
    names.backing_fmt = backing_fmt;
    return qcow2_header_update(s, &h, &names);
}
