/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block exports: a node served to the outside. All calls GS unless noted.
 */
#ifndef MINIBLK_EXPORT_H
#define MINIBLK_EXPORT_H

#include "block-backend.h"

typedef struct BlockExport BlockExport;
typedef struct BlockExportDriver BlockExportDriver;

struct BlockExportDriver {
    const char *type;               /* "nbd" */
    size_t instance_size;           /* of the structure that begins with a BlockExport */
    /* Take the driver's keys out of OPTIONS. */
    int (*create)(BlockExport *exp, QDict *options, Error **errp);
    /* Ask all clients to go; each drops its reference when it has. May not poll. */
    void (*request_shutdown)(BlockExport *exp);
    /* The last reference is gone. */
    void (*delete)(BlockExport *exp);
    /* Number of connected clients. */
    int (*clients)(BlockExport *exp);
    /* Requests served since creation. Any thread. */
    uint64_t (*requests)(BlockExport *exp);
};

struct BlockExport {
    const BlockExportDriver *drv;
    char *id;
    BlockBackend *blk;
    AioContext *ctx;                /* follows the backend; main thread writes it drained */
    int refcount;                   /* main thread */
    bool user_owned;                /* not yet deleted by the user */
    bool writable;
    bool writethrough;
    bool fixed_iothread;
    QTAILQ_ENTRY(BlockExport) next;
};

void blk_exp_register(const BlockExportDriver *drv);
BlockExport *blk_exp_find(const char *id);
BlockExport *blk_exp_next(BlockExport *exp);
/*
 * block-export-add: OPTIONS {type, id, node-name, writable?, writethrough?, iothread?,
 * fixed-iothread?, and the driver's own}; consumed. NULL with ERRP set, in the peer's words
 * ("Block export id 'x' is already in use", "iothread \"x\" not found", ...), and then
 * nothing has changed. Polls.
 */
BlockExport *blk_exp_add(QDict *options, Error **errp);
void blk_exp_ref(BlockExport *exp);
/* The last reference deletes the export and reports it (on_deleted). */
void blk_exp_unref(BlockExport *exp);
/* block-export-del: the clients are sent away; the export goes when they have gone. */
void blk_exp_request_shutdown(BlockExport *exp);
/* Shut down exports (DRV NULL: all) and poll until they are gone. */
void blk_exp_close_all_type(const BlockExportDriver *drv);
void blk_exp_close_all(void);
/* CB(id) is told each time an export has gone; the monitor makes an event of it. */
void blk_exp_set_deleted_callback(void (*cb)(const char *id));

/* ---- the NBD server (one per process) --------------------------------------------- */

/*
 * Listen on ADDR: {"type": "unix", "path"} or {"type": "inet", "host", "port"} (flat) and
 * serve all NBD exports. MAX_CONNECTIONS 0: no limit. HANDSHAKE_MAX_SECS 0: no limit.
 * False with ERRP set: "NBD server already running", "Failed to bind socket: ...".
 */
bool nbd_server_start(QDict *addr, uint32_t max_connections, uint32_t handshake_max_secs,
                      Error **errp);
/* Stop listening, close all connections and NBD exports. False: "NBD server not running". */
bool nbd_server_stop(Error **errp);
bool nbd_server_is_running(void);

#endif
