/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the NBD server and what they ask of each other.
 *
 *   nbd-server.c      listening sockets, connection limit         main thread, control context
 *   nbd-socket.c      making the listening sockets                main thread
 *   nbd-handshake.c   a connection up to its choice of export     main thread, control context
 *   nbd-options.c     the options of the handshake                main thread, control context
 *   nbd-export.c      an export, its drained sections             main thread
 *   nbd-client.c      a connection that serves requests           its home thread
 *   nbd-request.c     requests and their buffers                  its home thread
 *   nbd-reply.c       replies on the wire                         its home thread
 */
#ifndef BLOCK_EXPORT_NBD_INTERNAL_H
#define BLOCK_EXPORT_NBD_INTERNAL_H

#include "block/export/export-internal.h"
#include "block/export/nbd.h"

typedef struct NBDClient NBDClient;
typedef struct NBDHandshake NBDHandshake;

/* ---- exports (main thread, except where noted) ------------------------------------ */

typedef struct NBDExport {
    BlockExport common;
    char *name, *description;           /* DESCRIPTION may be NULL */
    uint64_t size_bytes;                /* fixed: the backend does not share "resize" */
    uint16_t flags;                     /* NBD_FLAG_*; fixed */
    uint64_t requests;                  /* atomic; written by the home thread only */
    bool quiesced;                      /* in a drained section */
    unsigned client_count;
    QLIST_HEAD(, NBDClient) clients;    /* until reaped */
    QTAILQ_ENTRY(NBDExport) next;       /* among those that clients may choose */
} NBDExport;

extern const BlockExportDriver nbd_export_driver;
/* The export that clients know as NAME, or NULL. */
NBDExport *nbd_export_find(const char *name);
/* Iterate over the exports that clients may choose (NULL: first). */
NBDExport *nbd_export_next(NBDExport *exp);

/* ---- server (main thread) --------------------------------------------------------- */

/* Whether at most one connection at a time is possible. */
bool nbd_server_single_connection(void);
/* Forget HS: its connection goes over to a client or is about to be closed. */
void nbd_server_handshake_ended(NBDHandshake *hs);
/* A connection that was accepted has been closed. */
void nbd_server_connection_closed(void);
/*
 * Listening sockets for ADDR (consumed keys: all), appended to FDS as ints; *UNIX_PATH is
 * set for a unix socket and removed by whoever closes it.
 */
bool nbd_socket_listen(QDict *addr, GArray *fds, char **unix_path, Error **errp);

/* ---- handshake (main thread) ------------------------------------------------------ */

/* What the client has chosen for the transmission phase. */
typedef struct NBDSessionParams {
    bool structured_replies;
    bool base_allocation;               /* metadata context base:allocation, id 0 */
} NBDSessionParams;

typedef enum NBDOptionResult {
    NBD_OPTION_NEXT,        /* answered; go on */
    NBD_OPTION_TRANSMIT,    /* hs->chosen is set; the transmission phase begins */
    NBD_OPTION_CLOSE,       /* answered; close */
} NBDOptionResult;

struct NBDHandshake {
    int fd;
    enum { NBD_HS_CLIENT_FLAGS, NBD_HS_OPTIONS } phase;
    bool fixed_newstyle, no_zeroes;     /* the client's flags */
    bool watched_read, watched_write;   /* handlers in force */
    NBDSessionParams params;
    char *meta_export;                  /* for which export the context was selected */
    NBDExport *chosen;
    uint32_t discard_option;            /* its payload is too long for us ... */
    uint32_t discard_left_bytes;        /* ... and this much is still to come */
    QEMUTimer deadline;
    GByteArray *out;                    /* not yet sent: from OUT_POS on */
    size_t out_pos;
    uint8_t *in;
    size_t in_pos, in_end;              /* received and not yet parsed */
    QLIST_ENTRY(NBDHandshake) next;     /* nbd-server.c */
};

/* Longest option payload that is looked at. */
#define NBD_OPTION_MAX_SIZE (32u * 1024)

/*
 * Take over FD, a new connection. MAX_SECS 0: no deadline. Events do the rest; none comes
 * before this returns.
 */
NBDHandshake *nbd_handshake_begin(int fd, uint32_t max_secs);
/* Close the connection, and tell the server. */
void nbd_handshake_abort(NBDHandshake *hs);
/* Answer an option. */
NBDOptionResult nbd_option_handle(NBDHandshake *hs, uint32_t option, const uint8_t *data,
                                  uint32_t len);
/* Queue a reply; TYPE is NBD_REP_ERR_*, and the client gets the text. */
void nbd_option_reply_error(NBDHandshake *hs, uint32_t option, uint32_t type,
                            const char *fmt, ...) G_GNUC_PRINTF(4, 5);

/* ---- clients: calls for the main thread ------------------------------------------- */

/*
 * Serve EXP on FD, an accepted connection; it takes a reference on EXP. IN has come from the
 * client already; OUT must go to it first.
 */
void nbd_client_begin(NBDExport *exp, int fd, const NBDSessionParams *params,
                      const uint8_t *in, size_t in_len,
                      const uint8_t *out, size_t out_len);
/* Stop / restart all activity: for the drained sections of the export. */
void nbd_client_park(NBDClient *client);
void nbd_client_unpark(NBDClient *client);
/* Hang up; requests that are in flight finish first. */
void nbd_client_hang_up(NBDClient *client);

/* ---- clients: inner parts (home thread) ------------------------------------------- */

/* Bounds per connection; past them nothing is read until half is answered and sent. */
#define NBD_CLIENT_MAX_REQUESTS         128
#define NBD_CLIENT_MAX_PAYLOAD_BYTES    (64u * 1024 * 1024)
#define NBD_CLIENT_RX_SIZE              (64u * 1024)

typedef struct NBDRequest NBDRequest;
typedef QSIMPLEQ_HEAD(, NBDRequest) NBDRequestQueue;

/* One request, from its header until the last byte of its reply has been sent. */
struct NBDRequest {
    NBDClient *client;
    uint64_t cookie, offset_bytes;
    uint32_t len_bytes;
    uint16_t type, flags;
    uint8_t reply_header_len;
    uint8_t reply_header[32];
    size_t reply_data_len;      /* in BUF, behind the header */
    void *buf;                  /* page aligned, or NULL; kept from use to use */
    size_t buf_size;
    QSIMPLEQ_ENTRY(NBDRequest) next;
};

struct NBDClient {
    /* fixed */
    NBDExport *exp;
    BlockBackend *blk;
    int fd;
    NBDSessionParams params;

    /* main thread */
    QLIST_ENTRY(NBDClient) next;
    BlkExpDeferred reap;

    unsigned refs;              /* atomic; the list's and one per bottom half under way */

    /* home thread: the one that runs the export's context */
    AioContext *ctx;            /* valid while not parked, or in a token's shadow */
    AioBatchHook hook;          /* sends the replies that an iteration has made */
    bool parked;                /* in a drained section: no handlers, nothing starts */
    bool closing;               /* no more requests; goes when all are answered */
    bool dead;                  /* handed to the main thread for good */
    bool token;                 /* holds BLK in flight: requests, or HOOK is armed */
    bool flushing;              /* in HOOK */
    bool stalled;               /* over a bound; see NBD_CLIENT_MAX_* */
    bool tx_blocked;            /* the socket takes no more */
    bool watched_read, watched_write;   /* handlers in force */
    unsigned in_flight;         /* requests in the block layer */
    unsigned held;              /* requests that are not free; >= in_flight */
    size_t held_bytes;          /* of their buffers */

    uint8_t *rx;                /* received, not parsed: [rx_pos, rx_end) */
    size_t rx_pos, rx_end;
    NBDRequest *rx_req;         /* the WRITE whose payload comes now; no BUF: discard it */
    uint32_t rx_left_bytes;     /* of that payload */
    int rx_error;               /* what to answer to rx_req when it is discarded */

    NBDRequestQueue tx;         /* replies to send, oldest first */
    size_t tx_sent_bytes;       /* of the first */

    NBDRequestQueue free;       /* most recently used first */
    size_t free_bytes;          /* of their buffers */
};

/* A request with no buffer guaranteed; never fails. */
NBDRequest *nbd_request_get(NBDClient *client);
/* Give REQ a buffer of SIZE bytes; false when there is no memory. */
bool nbd_request_reserve(NBDRequest *req, size_t size_bytes);
void nbd_request_put(NBDRequest *req);
/* Free all requests of a client that nobody else uses any more. */
void nbd_requests_free(NBDClient *client);
/* What is wrong with REQ, as an NBD_E* value, or NBD_SUCCESS. */
int nbd_request_check(const NBDRequest *req);
/* Start REQ, which is checked and complete. Always leads to nbd_reply_queue(). */
void nbd_request_start(NBDRequest *req);

/* Put the reply to REQ in the queue: data in its buffer, or ERROR (NBD_E*). */
void nbd_reply_queue(NBDRequest *req, int error);
/* Send what the socket takes. False when the connection is broken. */
bool nbd_reply_send(NBDClient *client);

/* Have the queued replies sent at the end of this iteration. */
void nbd_client_kick(NBDClient *client);

#endif
