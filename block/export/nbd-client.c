/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The transmission phase of a connection: an event-driven state machine.
 *
 * A client is owned by its home thread, the one that runs the export's context; what the
 * main thread wants of it is sent as bottom halves. Each holds a reference, so that a client
 * that has gone meanwhile can still be asked to do nothing.
 *
 *                 main: begin                 home: EOF, DISC, error, violation, hang-up
 *                     |                                          |
 *        unpark       v        park                              v
 *     +----------- parked <-----------+                  closing (no more requests)
 *     |                               |                          |  none in flight,
 *     +---------> serving ------------+                          |  replies sent, or refused
 *                                                                v
 *                               main: reap <-- defer <------- dead
 *
 * Tokens. While `token` is set the backend counts one more request in flight, so a drain
 * waits and the client stays where it is. It is taken before a request starts or the batch
 * hook is armed, and dropped at the end of the hook, when the replies have been handed to
 * the socket and no request is in flight: the very last thing the home thread does to the
 * client. What the socket does not take stays queued; so a client that does not read holds
 * up nobody. One that is closing stays until it has read, has gone, or is hung up on.
 */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include "miniblk/atomic.h"
#include <sys/socket.h>

static void client_event_read(void *opaque);
static void client_event_write(void *opaque);

static void client_ref(NBDClient *c)
{
    qatomic_inc(&c->refs);
}

static void client_unref(NBDClient *c)
{
    if (qatomic_fetch_dec(&c->refs) == 1) {
        nbd_requests_free(c);
        g_free(c->rx);
        g_free(c);
    }
}

/* ---- state of the home thread ----------------------------------------------------- */

static void client_update_handlers(NBDClient *c)
{
    bool want_read = !c->parked && !c->closing && !c->stalled;
    bool want_write = !c->parked && c->tx_blocked;

    if (want_read != c->watched_read || want_write != c->watched_write) {
        c->watched_read = want_read;
        c->watched_write = want_write;
        aio_set_fd_handler(c->ctx, c->fd, want_read ? client_event_read : NULL,
                           want_write ? client_event_write : NULL, NULL, NULL, c);
    }
}

void nbd_client_kick(NBDClient *c)
{
    if (!c->token) {
        blk_inc_in_flight(c->blk);
        c->token = true;
    }
    if (!c->flushing) {
        aio_batch_arm(c->ctx, &c->hook);
    }
}

/* No more requests; the client goes when those in flight have been answered. */
static void client_close(NBDClient *c)
{
    c->closing = true;
    client_update_handlers(c);
    nbd_client_kick(c);
}

static bool over_limit(const NBDClient *c, unsigned part)
{
    /* One more request may add a whole payload. */
    return c->held >= NBD_CLIENT_MAX_REQUESTS / part ||
           c->held_bytes > (NBD_CLIENT_MAX_PAYLOAD_BYTES - NBD_MAX_PAYLOAD_SIZE) / part;
}

/* ---- receiving -------------------------------------------------------------------- */

/* The payload of a WRITE is complete. */
static void payload_done(NBDClient *c)
{
    NBDRequest *req = c->rx_req;

    c->rx_req = NULL;
    if (c->rx_error) {
        nbd_reply_queue(req, c->rx_error);
    } else {
        nbd_request_start(req);
    }
}

/* Where the next byte of the payload belongs. */
static uint8_t *payload_pos(const NBDClient *c)
{
    return (uint8_t *)c->rx_req->buf + (c->rx_req->len_bytes - c->rx_left_bytes);
}

/* Take what the receive buffer has of the payload. */
static void payload_take(NBDClient *c)
{
    size_t n = MIN((size_t)c->rx_left_bytes, c->rx_end - c->rx_pos);

    if (n && !c->rx_error) {
        memcpy(payload_pos(c), c->rx + c->rx_pos, n);
    }
    c->rx_pos += n;
    c->rx_left_bytes -= n;
}

static void begin_write(NBDClient *c, NBDRequest *req, int error)
{
    if (!error && !nbd_request_reserve(req, req->len_bytes)) {
        error = NBD_ENOMEM;
    }
    c->rx_req = req;
    c->rx_error = error;
    c->rx_left_bytes = req->len_bytes;
}

/* Parse the request header at P. False when the connection is over. */
static bool parse_request(NBDClient *c, const uint8_t *p)
{
    NBDRequest *req;
    int error;

    if (nbd_get32(p) != NBD_REQUEST_MAGIC || nbd_get16(p + 6) == NBD_CMD_DISC) {
        return false;
    }
    req = nbd_request_get(c);
    req->flags = nbd_get16(p + 4);
    req->type = nbd_get16(p + 6);
    req->cookie = nbd_get64(p + 8);
    req->offset_bytes = nbd_get64(p + 16);
    req->len_bytes = nbd_get32(p + 24);

    error = nbd_request_check(req);
    if (req->type == NBD_CMD_WRITE) {
        begin_write(c, req, error);     /* a payload follows, however wrong the request */
    } else if (error) {
        nbd_reply_queue(req, error);
    } else {
        nbd_request_start(req);
    }
    return true;
}

/* One step of parsing; false when there is nothing to do now. */
static bool parse_step(NBDClient *c)
{
    size_t avail = c->rx_end - c->rx_pos;

    if (c->rx_req) {
        payload_take(c);
        if (c->rx_left_bytes) {
            return false;
        }
        payload_done(c);
        return true;
    }
    if (over_limit(c, 1)) {
        c->stalled = true;
        return false;
    }
    if (avail < NBD_REQUEST_SIZE) {
        return false;
    }
    c->rx_pos += NBD_REQUEST_SIZE;
    if (!parse_request(c, c->rx + c->rx_pos - NBD_REQUEST_SIZE)) {
        client_close(c);
        return false;
    }
    return true;
}

/* Start the requests that have been received; the lock is held once for all of them. */
static void client_parse(NBDClient *c)
{
    AioContext *ctx = c->ctx;

    aio_context_acquire(ctx);
    while (!c->closing && parse_step(c)) {
        /* go on */
    }
    aio_context_release(ctx);
    client_update_handlers(c);
}

/*
 * Receive once: the rest of a payload directly into its request, and behind it whatever has
 * arrived into the receive buffer.
 */
static ssize_t client_recv(NBDClient *c)
{
    struct iovec iov[2];
    struct msghdr msg = { .msg_iov = iov };
    size_t direct = 0;
    ssize_t n;

    memmove(c->rx, c->rx + c->rx_pos, c->rx_end - c->rx_pos);
    c->rx_end -= c->rx_pos;
    c->rx_pos = 0;
    if (c->rx_req && !c->rx_error) {
        g_assert(c->rx_end == 0);
        direct = c->rx_left_bytes;
        iov[msg.msg_iovlen++] = (struct iovec) { payload_pos(c), direct };
    }
    iov[msg.msg_iovlen++] = (struct iovec) { c->rx + c->rx_end,
                                             NBD_CLIENT_RX_SIZE - c->rx_end };
    n = recvmsg(c->fd, &msg, MSG_DONTWAIT);
    if (n > 0) {
        direct = MIN(direct, (size_t)n);
        c->rx_left_bytes -= direct;
        c->rx_end += n - direct;
    }
    return n;
}

static void client_event_read(void *opaque)
{
    NBDClient *c = opaque;
    ssize_t n = client_recv(c);

    if (n > 0) {
        client_parse(c);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        client_close(c);
    }
}

/* ---- sending ---------------------------------------------------------------------- */

static void client_event_write(void *opaque)
{
    nbd_client_kick(opaque);
}

/* Go on parsing if that was stopped and there is room again. */
static bool client_resume(NBDClient *c)
{
    if (!c->stalled || c->parked || c->closing || over_limit(c, 2)) {
        return false;
    }
    c->stalled = false;
    client_parse(c);
    return true;
}

/* The batch hook: what this iteration has answered goes out. */
static void client_flush(AioBatchHook *hook)
{
    NBDClient *c = container_of(hook, NBDClient, hook);
    BlockBackend *blk = c->blk;

    c->flushing = true;
    do {
        if (!nbd_reply_send(c)) {
            c->closing = true;
        }
    } while (client_resume(c));
    c->flushing = false;
    client_update_handlers(c);

    if (c->in_flight) {
        return;         /* the next one to finish brings us here again */
    }
    c->token = false;
    if (c->closing && !c->tx_blocked) {
        c->dead = true;
        blk_exp_defer(&c->reap);
    }
    blk_dec_in_flight(blk);
}

/* ---- requests of the main thread -------------------------------------------------- */

static void client_park_bh(void *opaque)
{
    NBDClient *c = opaque;
    BlockBackend *blk = c->blk;

    if (!c->dead) {
        c->parked = true;
        client_update_handlers(c);
    }
    client_unref(c);
    blk_dec_in_flight(blk);
}

/* The token makes the drained section wait until the home thread has let go. */
void nbd_client_park(NBDClient *c)
{
    client_ref(c);
    blk_inc_in_flight(c->blk);
    aio_bh_schedule_oneshot(c->exp->common.ctx, client_park_bh, c);
}

static void client_unpark_bh(void *opaque)
{
    NBDClient *c = opaque;

    if (!c->dead) {
        c->ctx = c->exp->common.ctx;
        c->parked = false;
        client_parse(c);
        if (!QSIMPLEQ_EMPTY(&c->tx) || c->stalled || c->closing) {
            nbd_client_kick(c);
        }
    }
    client_unref(c);
}

/* No token: a section that begins before this has run sends its bottom half behind it. */
void nbd_client_unpark(NBDClient *c)
{
    client_ref(c);
    aio_bh_schedule_oneshot(c->exp->common.ctx, client_unpark_bh, c);
}

static void client_hang_up_bh(void *opaque)
{
    NBDClient *c = opaque;
    BlockBackend *blk = c->blk;

    if (!c->dead) {
        c->ctx = c->exp->common.ctx;
        shutdown(c->fd, SHUT_RDWR);
        client_close(c);
    }
    client_unref(c);
    blk_dec_in_flight(blk);
}

/* The token keeps a parked client from moving away under the bottom half. */
void nbd_client_hang_up(NBDClient *c)
{
    client_ref(c);
    blk_inc_in_flight(c->blk);
    aio_bh_schedule_oneshot(c->exp->common.ctx, client_hang_up_bh, c);
}

/* ---- life ------------------------------------------------------------------------- */

static void client_reap(BlkExpDeferred *work)
{
    NBDClient *c = container_of(work, NBDClient, reap);
    NBDExport *exp = c->exp;

    QLIST_REMOVE(c, next);
    exp->client_count--;
    close(c->fd);
    client_unref(c);
    nbd_server_connection_closed();
    blk_exp_unref(&exp->common);
}

/* Bytes that are older than any reply: the end of the handshake. */
static void queue_leftover(NBDClient *c, const uint8_t *out, size_t len)
{
    NBDRequest *req = nbd_request_get(c);

    if (nbd_request_reserve(req, len)) {
        memcpy(req->buf, out, len);
        req->reply_data_len = len;
        QSIMPLEQ_INSERT_TAIL(&c->tx, req, next);
    } else {
        nbd_request_put(req);
        c->closing = true;
    }
}

void nbd_client_begin(NBDExport *exp, int fd, const NBDSessionParams *params,
                      const uint8_t *in, size_t in_len,
                      const uint8_t *out, size_t out_len)
{
    NBDClient *c = g_new0(NBDClient, 1);

    GLOBAL_STATE_CODE();
    blk_exp_ref(&exp->common);
    c->exp = exp;
    c->blk = exp->common.blk;
    c->fd = fd;
    c->params = *params;
    c->refs = 1;
    c->reap.run = client_reap;
    c->hook.flush = client_flush;
    c->parked = true;
    QSIMPLEQ_INIT(&c->tx);
    QSIMPLEQ_INIT(&c->free);
    c->rx = g_malloc(NBD_CLIENT_RX_SIZE);
    g_assert(in_len <= NBD_CLIENT_RX_SIZE);
    memcpy(c->rx, in, in_len);
    c->rx_end = in_len;
    if (out_len) {
        queue_leftover(c, out, out_len);
    }
    QLIST_INSERT_HEAD(&exp->clients, c, next);
    exp->client_count++;
    /* Born parked; a drained section that is open will unpark it at its end. */
    if (!exp->quiesced) {
        nbd_client_unpark(c);
    }
}
