/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "client-internal.h"

#define ERRORS_PRINTED_MAX 20

const char *const client_kind_name[] = { "read", "read", "write", "write zeroes", "flush" };

uint64_t client_random_below(Client *c, uint64_t n)
{
    return load_random(&c->random) % n;
}

void client_complain(Client *c, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    if (c->errors_printed++ >= ERRORS_PRINTED_MAX) {
        return;
    }
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    /* One call, so that the lines of several clients do not mix. */
    fprintf(stderr, "nbd-load %s: %s\n", c->options->name, text);
}

/* ---- the end of a request --------------------------------------------------------- */

static void release_slot(Slot *slot)
{
    Client *c = slot->client;

    for (size_t i = 0; slot->kind != FLUSH && slot->kind != READ_STATIC && i < slot->count;
         i++) {
        c->busy[slot->first + i] = 0;
    }
    slot->active = false;
    c->in_flight--;
}

/* The request's fate is unknown; see BlockState.quarantined. */
void client_abandon_slot(Slot *slot)
{
    if (slot->kind == WRITE || slot->kind == ZEROES) {
        for (size_t i = 0; i < slot->count; i++) {
            slot->client->state->block[slot->first + i].quarantined = 1;
        }
    }
    release_slot(slot);
}

static void check_read(Slot *slot)
{
    Client *c = slot->client;

    if (slot->kind == READ_STATIC) {
        c->total.checked_blocks += DIV_ROUND_UP(slot->length_bytes, LOAD_BLOCK_BYTES);
        if (memcmp(slot->data, c->ref->data + slot->offset_bytes, slot->length_bytes) != 0) {
            c->total.verify_errors++;
            client_complain(c, "contents at offset %" PRIu64 ", length %" PRIu64
                     ", differ from the reference image", slot->offset_bytes,
                     slot->length_bytes);
        }
        return;
    }
    for (size_t i = 0; i < slot->count; i++) {
        g_autofree char *wrong = load_state_check(c->state, slot->first + i,
                                                  slot->data + i * LOAD_BLOCK_BYTES, c->ref);

        c->total.checked_blocks++;
        if (wrong) {
            c->total.verify_errors++;
            client_complain(c, "%s", wrong);
        }
    }
}

static void count_request(Slot *slot)
{
    Client *c = slot->client;
    int64_t now_us = g_get_monotonic_time();
    uint32_t latency_us = MAX(now_us - slot->begin_us, 0);

    c->total.requests++;
    c->total.bytes += slot->length_bytes;
    c->total.reads += slot->kind == READ_OWN || slot->kind == READ_STATIC;
    c->total.writes += slot->kind == WRITE;
    c->total.zeroes += slot->kind == ZEROES;
    c->total.flushes += slot->kind == FLUSH;
    histogram_add(&c->histogram, latency_us);
    latency_log_add(c->log, now_us, latency_us);
    if (latency_us >= c->interval_latency_us_max) {
        c->interval_latency_us_max = latency_us;
        c->interval_latency_end_us = now_us;
    }
}

static int request_done(void *opaque, int *error)
{
    Slot *slot = opaque;
    Client *c = slot->client;

    if (!slot->active) {
        return 1;       /* abandoned before: its connection was dropped on purpose */
    }
    if (*error == ENOTCONN) {
        client_abandon_slot(slot);      /* the loss of the connection is reported once */
        return 1;
    } else if (*error) {
        c->total.io_errors++;
        client_complain(c, "%s of %" PRIu64 " bytes at offset %" PRIu64 ": %s",
                 client_kind_name[slot->kind], slot->length_bytes, slot->offset_bytes,
                 strerror(*error));
        client_abandon_slot(slot);
        return 1;
    }
    count_request(slot);
    if (slot->kind == READ_OWN || slot->kind == READ_STATIC) {
        check_read(slot);
    } else if (slot->kind != FLUSH) {
        for (size_t i = 0; i < slot->count; i++) {
            BlockState *b = &c->state->block[slot->first + i];

            b->sure = b->maybe;
        }
    }
    release_slot(slot);
    return 1;
}

/* ---- starting requests ------------------------------------------------------------ */

static bool may_use(const Client *c, size_t i, bool writing)
{
    return !c->busy[i] && !(writing && c->state->block[i].quarantined);
}

/* Choose up to WANT free own blocks that follow each other on the disk. */
bool client_choose_run(Client *c, Slot *slot, size_t first, size_t want, bool writing)
{
    const uint64_t *offset = c->state->blocks.offset_bytes;
    size_t n = 0;

    while (n < want && first + n < c->state->blocks.count && may_use(c, first + n, writing)
           && offset[first + n] == offset[first] + n * LOAD_BLOCK_BYTES) {
        n++;
    }
    if (n == 0) {
        return false;
    }
    slot->first = first;
    slot->count = n;
    slot->offset_bytes = offset[first];
    slot->length_bytes = n * LOAD_BLOCK_BYTES;
    memset(c->busy + first, 1, n);
    return true;
}

static void new_generations(Client *c, Slot *slot)
{
    for (size_t i = 0; i < slot->count; i++) {
        BlockState *b = &c->state->block[slot->first + i];
        uint32_t number = LOAD_GEN_NUMBER(b->sure) + 1;

        if (slot->kind == WRITE) {
            BlockInfo info = {
                .offset_bytes = c->state->blocks.offset_bytes[slot->first + i],
                .generation = number, .client = c->state->client };

            pattern_fill(slot->data + i * LOAD_BLOCK_BYTES, &info);
        }
        b->maybe = slot->kind == ZEROES ? number | LOAD_GEN_ZEROES : number;
    }
}

/* An area that nobody writes; half of the requests are aligned to nothing at all. */
static bool choose_static(Client *c, Slot *slot)
{
    uint64_t size = MIN(c->ref->size_bytes, c->export_bytes);
    uint64_t align = client_random_below(c, 2) ? MAX(c->align_bytes, 512) : c->align_bytes;

    if (size < STATIC_READ_BYTES_MAX) {
        return false;
    }
    for (unsigned tries = 0; tries < 8; tries++) {
        uint64_t longest = STATIC_READ_BYTES_MAX >> client_random_below(c, 2) * 4;
        uint64_t length = QEMU_ALIGN_UP(1 + client_random_below(c, longest), align);
        uint64_t offset = QEMU_ALIGN_DOWN(client_random_below(c, size - length + 1), align);

        if (!block_list_overlaps(c->all, offset, length)) {
            slot->offset_bytes = offset;
            slot->length_bytes = length;
            slot->count = 0;
            return true;
        }
    }
    return false;
}

static RequestKind choose_kind(Client *c)
{
    unsigned dice = client_random_below(c, 100);

    if (dice < 42) {
        return WRITE;
    } else if (dice < 45) {
        return c->can_zero ? ZEROES : WRITE;
    } else if (dice < 47) {
        return c->can_flush ? FLUSH : WRITE;
    } else if (dice < 60 && c->ref->data) {
        return READ_STATIC;
    }
    return READ_OWN;
}

static bool choose_request(Client *c, Slot *slot)
{
    slot->kind = choose_kind(c);
    slot->offset_bytes = slot->length_bytes = slot->count = 0;
    switch (slot->kind) {
    case FLUSH:
        return true;
    case READ_STATIC:
        return choose_static(c, slot);
    default: {
        size_t first = client_random_below(c, c->state->blocks.count);
        /* Mostly single blocks, now and then a large request. */
        bool large = client_random_below(c, 8) == 0;
        size_t want = large ? 1 + client_random_below(c, RUN_BLOCKS_MAX) : 1;
        bool writing = slot->kind != READ_OWN;

        if (!client_choose_run(c, slot, first, want, writing)) {
            return false;
        }
        if (writing) {
            new_generations(c, slot);
        }
        return true;
    }
    }
}

bool client_send(Client *c, Slot *slot)
{
    nbd_completion_callback done = { .callback = request_done, .user_data = slot };
    uint32_t fua = c->can_fua && client_random_below(c, 16) == 0 ? LIBNBD_CMD_FLAG_FUA : 0;
    uint32_t no_hole = client_random_below(c, 2) ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    int64_t cookie = -1;

    slot->active = true;
    slot->begin_us = g_get_monotonic_time();
    c->in_flight++;
    switch (slot->kind) {
    case READ_OWN:
    case READ_STATIC:
        cookie = nbd_aio_pread(c->nbd, slot->data, slot->length_bytes, slot->offset_bytes,
                               done, 0);
        break;
    case WRITE:
        cookie = nbd_aio_pwrite(c->nbd, slot->data, slot->length_bytes, slot->offset_bytes,
                                done, fua);
        break;
    case ZEROES:
        cookie = nbd_aio_zero(c->nbd, slot->length_bytes, slot->offset_bytes, done,
                              fua | no_hole);
        break;
    case FLUSH:
        cookie = nbd_aio_flush(c->nbd, done, 0);
        break;
    }
    if (cookie >= 0) {
        return true;
    }
    if (slot->active) {
        c->total.io_errors++;
        client_complain(c, "%s: %s", client_kind_name[slot->kind], nbd_get_error());
        client_abandon_slot(slot);
    }
    return false;
}

void client_fill_slots(Client *c)
{
    for (unsigned i = 0; i < c->options->depth && !nbd_aio_is_dead(c->nbd); i++) {
        Slot *slot = &c->slots[i];

        /* A choice may hit blocks in use; the slot then stays empty until the next turn. */
        for (unsigned tries = 0; !slot->active && tries < 4; tries++) {
            if (choose_request(c, slot) && !client_send(c, slot)) {
                return;
            }
        }
    }
}
