/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between client.c (connections, the loop, reports) and client-request.c (requests). */
#ifndef TESTS_LOAD_CLIENT_INTERNAL_H
#define TESTS_LOAD_CLIENT_INTERNAL_H

#include <libnbd.h>
#include "client.h"

#define RUN_BLOCKS_MAX 24
#define STATIC_READ_BYTES_MAX (64 * 1024)
#define SLOT_BYTES (RUN_BLOCKS_MAX * LOAD_BLOCK_BYTES)

typedef enum RequestKind { READ_OWN, READ_STATIC, WRITE, ZEROES, FLUSH } RequestKind;

extern const char *const client_kind_name[];

typedef struct Client Client;

/* One request; a client has `depth` of them. */
typedef struct Slot {
    Client *client;
    bool active;
    RequestKind kind;
    size_t first, count;                /* own blocks (READ_OWN, WRITE, ZEROES) */
    uint64_t offset_bytes, length_bytes;
    int64_t begin_us;
    uint8_t *data;
} Slot;

typedef struct Counters {
    uint64_t requests, reads, writes, flushes, zeroes, bytes, checked_blocks;
    uint64_t io_errors, verify_errors, connect_errors;
    uint64_t connects, clean_disconnects, abrupt_disconnects;
} Counters;

struct Client {
    const LoadOptions *options;
    LoadState *state;
    const BlockList *all;
    const Reference *ref;
    LatencyLog *log;
    struct nbd_handle *nbd;
    uint64_t random;
    uint64_t export_bytes;
    uint64_t align_bytes;               /* smallest request the server takes */
    bool can_zero, can_flush, can_fua;
    Slot *slots;
    unsigned in_flight;
    uint8_t *busy;                      /* own block has a request in flight */
    Counters total, shown;
    Histogram histogram;
    uint32_t interval_latency_us_max;
    int64_t interval_latency_end_us;    /* when that request ended */
    int64_t next_report_us, next_disconnect_us;
    unsigned errors_printed;
    bool hung;
};

/* 0 to N - 1. */
uint64_t client_random_below(Client *c, uint64_t n);
/* Print a message; after the first twenty, be quiet. */
void client_complain(Client *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Give up a request whose fate is unknown; see BlockState.quarantined. */
void client_abandon_slot(Slot *slot);
/* Take up to WANT free own blocks that follow each other on the disk, from index FIRST. */
bool client_choose_run(Client *c, Slot *slot, size_t first, size_t want, bool writing);
/* Send what SLOT describes. False when the connection refuses; SLOT is then free again. */
bool client_send(Client *c, Slot *slot);
/* Start requests of all kinds until every slot is in use. */
void client_fill_slots(Client *c);

#endif
