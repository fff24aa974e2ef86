/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server inside the test program: main loop, a node in memory that can hold its
 * requests back and checks the rules of the house, and client threads.
 */
#ifndef TESTS_UNIT_NBD_FIXTURE_H
#define TESTS_UNIT_NBD_FIXTURE_H

#include "miniblk/export.h"
#include "tests/unit/nbd-raw.h"

/* ---- server ----------------------------------------------------------------------- */

/* Once per program: main loop, drivers, a scratch directory. */
void fx_init(void);
void fx_cleanup(void);
/* Where the server listens. */
const char *fx_socket(void);
void fx_server_start(uint32_t max_connections, uint32_t handshake_max_secs);

/* A monitor-owned-like node of SIZE zero bytes; bdrv_unref() it. */
BlockDriverState *fx_node(const char *name, uint64_t size);
/* JSON text, with single quotes for double ones, to an object. */
QDict *fx_json(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* blk_exp_add() of an NBD export EXTRA is more JSON members or "". Must work. */
BlockExport *fx_export(const char *id, const char *node, const char *extra);
/* Hang up on all clients and wait until the export has gone. */
void fx_export_delete(const char *id);

/* A drained section of NODE, in which no request may reach the driver. */
void fx_drained_begin(BlockDriverState *node);
void fx_drained_end(BlockDriverState *node);
/* Move NODE and its users. 0 or -errno. */
int fx_move(BlockDriverState *node, AioContext *to, Error **errp);

/* The content of the node. */
uint8_t *fx_data(BlockDriverState *bs);
/* Requests that arrive from now on wait in the driver; release lets all go. */
void fx_hold(BlockDriverState *bs);
void fx_release(BlockDriverState *bs);
/* How many wait. */
unsigned fx_held(BlockDriverState *bs);
/* From here on a request that reaches the driver fails the test (or no longer). */
void fx_forbid(BlockDriverState *bs, bool forbid);
/* Flushes that the driver has seen, and writes that carried FUA. */
unsigned fx_flushes(BlockDriverState *bs);
unsigned fx_fua_writes(BlockDriverState *bs);

/* ---- waiting ---------------------------------------------------------------------- */

/* Make the main loop look at its condition again. Any thread. */
void fx_wake(void);
/* Run the main loop while COND holds; whoever changes it calls fx_wake(). */
#define FX_WAIT_WHILE(cond) do {                                                \
        while (cond) {                                                          \
            main_loop_wait(false);                                              \
        }                                                                       \
    } while (0)
/* Run the main loop until the export has no clients. */
void fx_wait_no_clients(BlockExport *exp);

/* ---- client threads --------------------------------------------------------------- */

typedef struct FxThread FxThread;
FxThread *fx_thread_start(void (*run)(void *opaque), void *opaque);
/* Run the main loop until it has ended. */
void fx_thread_join(FxThread *thread);
/* Start and join. */
void fx_client(void (*run)(void *opaque), void *opaque);

#endif
