/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replies: their form on the wire, and sending as many as possible per system call. */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include <sys/socket.h>

/* A header and data for each of 64 replies. */
#define SEND_IOV_MAX 128

static void header_simple(NBDRequest *req, int error)
{
    uint8_t *p = req->reply_header;

    nbd_put64(nbd_put32(nbd_put32(p, NBD_SIMPLE_REPLY_MAGIC), error), req->cookie);
    req->reply_header_len = NBD_SIMPLE_REPLY_SIZE;
}

/* The only chunk of a structured reply; EXTRA of its payload bytes follow in the header. */
static uint8_t *header_chunk(NBDRequest *req, uint16_t type, uint32_t payload_len,
                             size_t extra)
{
    uint8_t *p = nbd_put32(req->reply_header, NBD_STRUCTURED_REPLY_MAGIC);

    p = nbd_put16(nbd_put16(p, NBD_REPLY_FLAG_DONE), type);
    p = nbd_put32(nbd_put64(p, req->cookie), payload_len);
    req->reply_header_len = NBD_STRUCTURED_REPLY_SIZE + extra;
    g_assert(req->reply_header_len <= sizeof(req->reply_header));
    return p;
}

static void header_structured(NBDRequest *req, int error)
{
    if (error) {
        /* error value, and a message of no length */
        nbd_put16(nbd_put32(header_chunk(req, NBD_REPLY_TYPE_ERROR, 6, 6), error), 0);
    } else if (req->type == NBD_CMD_BLOCK_STATUS) {
        header_chunk(req, NBD_REPLY_TYPE_BLOCK_STATUS, req->reply_data_len, 0);
    } else if (req->reply_data_len) {
        nbd_put64(header_chunk(req, NBD_REPLY_TYPE_OFFSET_DATA, 8 + req->reply_data_len, 8),
                  req->offset_bytes);
    } else {
        header_chunk(req, NBD_REPLY_TYPE_NONE, 0, 0);
    }
}

void nbd_reply_queue(NBDRequest *req, int error)
{
    NBDClient *c = req->client;

    if (error) {
        req->reply_data_len = 0;
    }
    /* Once negotiated, these two must have structured replies; the others need not. */
    if (c->params.structured_replies &&
        (req->type == NBD_CMD_READ || req->type == NBD_CMD_BLOCK_STATUS)) {
        header_structured(req, error);
    } else {
        header_simple(req, error);
    }
    QSIMPLEQ_INSERT_TAIL(&c->tx, req, next);
    nbd_client_kick(c);
}

/* Describe what is queued; SKIP bytes of the first have been sent already. */
static int gather(const NBDClient *c, struct iovec *iov)
{
    size_t skip = c->tx_sent_bytes;
    NBDRequest *req;
    int n = 0;

    QSIMPLEQ_FOREACH(req, &c->tx, next) {
        if (n + 2 > SEND_IOV_MAX) {
            break;
        }
        size_t header_skip = MIN(skip, (size_t)req->reply_header_len);
        skip -= header_skip;
        if (header_skip < req->reply_header_len) {
            iov[n++] = (struct iovec) { req->reply_header + header_skip,
                                        req->reply_header_len - header_skip };
        }
        if (skip < req->reply_data_len) {
            iov[n++] = (struct iovec) { (uint8_t *)req->buf + skip,
                                        req->reply_data_len - skip };
        }
        skip = 0;
    }
    return n;
}

/* N more bytes have been sent. */
static void advance(NBDClient *c, size_t n)
{
    NBDRequest *req;

    n += c->tx_sent_bytes;
    while ((req = QSIMPLEQ_FIRST(&c->tx)) &&
           n >= req->reply_header_len + req->reply_data_len) {
        n -= req->reply_header_len + req->reply_data_len;
        QSIMPLEQ_REMOVE_HEAD(&c->tx, next);
        nbd_request_put(req);
    }
    c->tx_sent_bytes = n;
}

bool nbd_reply_send(NBDClient *c)
{
    struct iovec iov[SEND_IOV_MAX];
    struct msghdr msg = { .msg_iov = iov };

    c->tx_blocked = false;
    while (!QSIMPLEQ_EMPTY(&c->tx)) {
        msg.msg_iovlen = gather(c, iov);
        ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            c->tx_blocked = errno == EAGAIN;
            return c->tx_blocked;
        }
        advance(c, n);
    }
    return true;
}
