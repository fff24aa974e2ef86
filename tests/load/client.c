/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "client-internal.h"

#define CONNECT_TRIES_MAX 5

static uint64_t errors_of(const Counters *n)
{
    return n->io_errors + n->verify_errors + n->connect_errors;
}

/* ---- connections ------------------------------------------------------------------ */

/* A handle for the export, in the middle of connecting. */
static struct nbd_handle *start_connecting(Client *c)
{
    struct nbd_handle *nbd = nbd_create();

    if (!nbd || nbd_set_handle_name(nbd, c->options->name) < 0
        || nbd_aio_connect_uri(nbd, c->options->uri) < 0) {
        client_complain(c, "cannot connect: %s", nbd_get_error());
        if (nbd) {
            nbd_close(nbd);
        }
        return NULL;
    }
    return nbd;
}

static struct nbd_handle *connect_once(Client *c)
{
    struct nbd_handle *nbd = start_connecting(c);
    int64_t deadline_us = g_get_monotonic_time() + c->options->hang_s * 1e6;

    while (nbd && !nbd_aio_is_ready(nbd)) {
        if (nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd) || nbd_poll(nbd, 100) < 0
            || g_get_monotonic_time() > deadline_us) {
            const char *why = nbd_get_error();

            client_complain(c, "cannot connect: %s", why ? why : "the server does not answer");
            nbd_close(nbd);
            nbd = NULL;
        }
    }
    return nbd;
}

static void learn_export(Client *c)
{
    int64_t size = nbd_get_size(c->nbd);
    int64_t minimum = nbd_get_block_size(c->nbd, LIBNBD_SIZE_MINIMUM);

    c->export_bytes = MAX(size, 0);
    c->align_bytes = MAX(minimum, 1);
    c->can_zero = c->options->zeroes && nbd_can_zero(c->nbd) > 0;
    c->can_flush = nbd_can_flush(c->nbd) > 0;
    c->can_fua = nbd_can_fua(c->nbd) > 0;
}

static void plan_disconnect(Client *c)
{
    double mean_us = c->options->reconnect_s * 1e6;

    c->next_disconnect_us = mean_us > 0
        ? g_get_monotonic_time() + (int64_t)(mean_us / 2) + client_random_below(c, mean_us + 1)
        : INT64_MAX;
}

static bool open_connection(Client *c)
{
    for (unsigned tries = 0; tries < CONNECT_TRIES_MAX; tries++) {
        c->nbd = connect_once(c);
        if (c->nbd) {
            const BlockList *own = &c->state->blocks;

            learn_export(c);
            if (c->export_bytes < own->offset_bytes[own->count - 1] + LOAD_BLOCK_BYTES) {
                client_complain(c, "the export has %" PRIu64 " bytes only", c->export_bytes);
                c->total.connect_errors++;
                return false;
            }
            c->total.connects++;
            plan_disconnect(c);
            return true;
        }
        c->total.connect_errors++;
        g_usleep(100000);       /* the server may be restarting */
    }
    return false;
}

static void close_abruptly(Client *c)
{
    nbd_close(c->nbd);
    c->nbd = NULL;
    for (unsigned i = 0; i < c->options->depth; i++) {
        if (c->slots[i].active) {
            client_abandon_slot(&c->slots[i]);
        }
    }
    assert(c->in_flight == 0);
}

/* ---- the loop --------------------------------------------------------------------- */

static void report(Client *c, int64_t now_us)
{
    Counters *t = &c->total, *s = &c->shown;

    printf("{\"client\": %u, \"name\": \"%s\", \"t_us\": %" PRId64 ", \"requests\": %" PRIu64
           ", \"bytes\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"connects\": %" PRIu64
           ", \"latency_us_max\": %u, \"latency_end_us\": %" PRId64 "}\n",
           c->state->client, c->options->name, now_us, t->requests - s->requests,
           t->bytes - s->bytes, errors_of(t) - errors_of(s), t->connects - s->connects,
           c->interval_latency_us_max, c->interval_latency_end_us);
    fflush(stdout);
    latency_log_flush(c->log);
    c->shown = c->total;
    c->interval_latency_us_max = 0;
    c->next_report_us = now_us + c->options->interval_s * 1e6;
}

static void check_for_hang(Client *c, int64_t now_us)
{
    for (unsigned i = 0; i < c->options->depth && !c->hung; i++) {
        const Slot *slot = &c->slots[i];

        if (slot->active && now_us - slot->begin_us > c->options->hang_s * 1e6) {
            c->hung = true;
            c->total.io_errors++;
            client_complain(c, "%s of %" PRIu64 " bytes at offset %" PRIu64
                     " has had no answer for %.1f s (%u requests in flight)",
                     client_kind_name[slot->kind], slot->length_bytes, slot->offset_bytes,
                     (now_us - slot->begin_us) / 1e6, c->in_flight);
        }
    }
}

/* Wait for answers once. False when the connection is gone or the server hangs. */
static bool poll_once(Client *c)
{
    int64_t now_us;
    bool alive = nbd_poll(c->nbd, 50) >= 0 && !nbd_aio_is_dead(c->nbd)
        && !nbd_aio_is_closed(c->nbd);

    /* Completed commands stay on libnbd's list unless they are retired; ours say 1. */
    now_us = g_get_monotonic_time();
    if (now_us >= c->next_report_us) {
        report(c, now_us);
        check_for_hang(c, now_us);
    }
    if (!alive) {
        const char *why = nbd_get_error();

        c->total.connect_errors++;
        client_complain(c, "the server closed the connection: %s", why ? why : "end of file");
    }
    return alive && !c->hung;
}

static bool wait_for_answers(Client *c)
{
    while (c->in_flight) {
        if (!poll_once(c)) {
            return false;
        }
    }
    return true;
}

static size_t quarantined_blocks(const Client *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->state->blocks.count; i++) {
        n += c->state->block[i].quarantined;
    }
    return n;
}

/* Leave in one of the ways clients leave; false when the connection was lost meanwhile. */
static bool disconnect(Client *c)
{
    bool may_abandon = quarantined_blocks(c) < c->state->blocks.count / 4;
    struct nbd_handle *passer_by;

    if (may_abandon && client_random_below(c, 2)) {
        c->total.abrupt_disconnects++;
        close_abruptly(c);
    } else {
        if (!wait_for_answers(c)) {
            return false;
        }
        c->total.clean_disconnects++;
        if (nbd_shutdown(c->nbd, 0) < 0) {
            c->total.connect_errors++;
            client_complain(c, "disconnecting: %s", nbd_get_error());
        }
        close_abruptly(c);
    }
    /* Now and then somebody knocks and runs away in the middle of the handshake. */
    if (client_random_below(c, 2)) {
        passer_by = start_connecting(c);
        if (passer_by) {
            (void)nbd_poll(passer_by, 0);
            nbd_close(passer_by);
        }
    }
    return true;
}

static bool run_mixed(Client *c, const volatile int *stop)
{
    int64_t end_us = g_get_monotonic_time() + c->options->duration_s * 1e6;

    while (!*stop && g_get_monotonic_time() < end_us) {
        bool alive;

        client_fill_slots(c);
        alive = poll_once(c);
        if (c->hung) {
            return false;
        }
        if (alive && g_get_monotonic_time() < c->next_disconnect_us) {
            continue;
        }
        if (!alive || !disconnect(c)) {
            close_abruptly(c);
        }
        if (c->hung || !open_connection(c)) {
            return false;
        }
    }
    return true;
}

/* Read every own block once more, in order. */
static bool run_read_back(Client *c)
{
    size_t next = 0;

    while (next < c->state->blocks.count || c->in_flight) {
        for (unsigned i = 0; i < c->options->depth && next < c->state->blocks.count; i++) {
            Slot *slot = &c->slots[i];

            if (!slot->active) {
                slot->kind = READ_OWN;
                if (!client_choose_run(c, slot, next, RUN_BLOCKS_MAX, false)
                    || !client_send(c, slot)) {
                    return false;
                }
                next += slot->count;
            }
        }
        if (c->in_flight && !poll_once(c)) {
            return false;
        }
    }
    return true;
}

static bool finish(Client *c)
{
    if (!wait_for_answers(c)) {
        return false;
    }
    if (c->can_flush) {
        c->slots[0].kind = FLUSH;
        c->slots[0].offset_bytes = c->slots[0].length_bytes = c->slots[0].count = 0;
        if (!client_send(c, &c->slots[0]) || !wait_for_answers(c)) {
            return false;
        }
    }
    if (c->options->read_back && !run_read_back(c)) {
        return false;
    }
    if (nbd_shutdown(c->nbd, 0) < 0) {
        c->total.connect_errors++;
        client_complain(c, "disconnecting: %s", nbd_get_error());
        return false;
    }
    return true;
}

static void report_total(Client *c)
{
    const Counters *t = &c->total;
    const Histogram *h = &c->histogram;

    printf("{\"client\": %u, \"name\": \"%s\", \"final\": true, \"requests\": %" PRIu64
           ", \"reads\": %" PRIu64 ", \"writes\": %" PRIu64 ", \"zeroes\": %" PRIu64
           ", \"flushes\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"checked_blocks\": %" PRIu64
           ", \"io_errors\": %" PRIu64 ", \"verify_errors\": %" PRIu64
           ", \"connect_errors\": %" PRIu64 ", \"connects\": %" PRIu64
           ", \"clean_disconnects\": %" PRIu64 ", \"abrupt_disconnects\": %" PRIu64
           ", \"blocks_in_doubt\": %zu"
           ", \"latency_us\": {\"p50\": %" PRIu64 ", \"p99\": %" PRIu64 ", \"p999\": %" PRIu64
           ", \"max\": %" PRIu64 "}}\n", c->state->client, c->options->name, t->requests,
           t->reads, t->writes, t->zeroes, t->flushes, t->bytes, t->checked_blocks,
           t->io_errors, t->verify_errors, t->connect_errors, t->connects,
           t->clean_disconnects, t->abrupt_disconnects, load_state_in_doubt(c->state),
           histogram_quantile(h, 0.5), histogram_quantile(h, 0.99),
           histogram_quantile(h, 0.999), h->max);
    fflush(stdout);
}

bool load_client_run(const LoadOptions *options, LoadState *state, const BlockList *all,
                     const Reference *ref, LatencyLog *log, const volatile int *stop)
{
    Client c = {
        .options = options, .state = state, .all = all, .ref = ref, .log = log,
        .random = options->seed };
    bool ok;

    c.slots = g_new0(Slot, options->depth);
    c.busy = g_malloc0(state->blocks.count);
    for (unsigned i = 0; i < options->depth; i++) {
        c.slots[i] = (Slot){ .client = &c, .data = g_malloc0(SLOT_BYTES) };
    }
    c.next_report_us = g_get_monotonic_time() + options->interval_s * 1e6;
    ok = open_connection(&c) && run_mixed(&c, stop) && finish(&c);
    if (c.nbd) {
        close_abruptly(&c);
    }
    report(&c, g_get_monotonic_time());
    report_total(&c);
    for (unsigned i = 0; i < options->depth; i++) {
        g_free(c.slots[i].data);
    }
    g_free(c.slots);
    g_free(c.busy);
    return ok && errors_of(&c.total) == 0;
}
