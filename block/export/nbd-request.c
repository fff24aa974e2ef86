/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests: their memory, their checks, and what they do to the backend. */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include "miniblk/atomic.h"

#define BUF_ALIGNMENT       4096
/* Buffers up to this size are kept for the next request, ... */
#define BUF_KEEP_SIZE       (256u * 1024)
/* ... and so many bytes of them per connection. */
#define BUFS_KEEP_BYTES     (2u * 1024 * 1024)
/* The block layer's requests are shorter than the longest TRIM, so it goes in parts. */
#define PART_MAX_BYTES      (INT64_C(1) << 30)
/* Longest answer to BLOCK_STATUS, and how hard to try to fill it. */
#define EXTENTS_MAX         1024
#define EXTENT_QUERIES_MAX  4096

/* ---- memory ----------------------------------------------------------------------- */

NBDRequest *nbd_request_get(NBDClient *c)
{
    NBDRequest *req = QSIMPLEQ_FIRST(&c->free);

    if (req) {
        QSIMPLEQ_REMOVE_HEAD(&c->free, next);
        c->free_bytes -= req->buf_size;
        req->reply_data_len = 0;
    } else {
        req = g_new0(NBDRequest, 1);
        req->client = c;
    }
    c->held++;
    c->held_bytes += req->buf_size;
    return req;
}

static void drop_buf(NBDRequest *req)
{
    qemu_vfree(req->buf);
    req->buf = NULL;
    req->buf_size = 0;
}

bool nbd_request_reserve(NBDRequest *req, size_t size)
{
    NBDClient *c = req->client;

    size = MAX(size, (size_t)1);      /* an empty request has an address, too */
    if (req->buf_size >= size) {
        return true;
    }
    c->held_bytes -= req->buf_size;
    drop_buf(req);
    size = QEMU_ALIGN_UP(size, BUF_ALIGNMENT);
    req->buf = qemu_try_memalign(BUF_ALIGNMENT, size);
    if (!req->buf) {
        return false;
    }
    /* A driver may leave parts of what it reads untouched; other people's data is not in it. */
    memset(req->buf, 0, size);
    req->buf_size = size;
    c->held_bytes += size;
    return true;
}

void nbd_request_put(NBDRequest *req)
{
    NBDClient *c = req->client;

    c->held--;
    c->held_bytes -= req->buf_size;
    if (req->buf_size > BUF_KEEP_SIZE || c->free_bytes + req->buf_size > BUFS_KEEP_BYTES) {
        drop_buf(req);
    }
    c->free_bytes += req->buf_size;
    QSIMPLEQ_INSERT_HEAD(&c->free, req, next);
}

static void free_queue(NBDRequestQueue *queue)
{
    NBDRequest *req;

    while ((req = QSIMPLEQ_FIRST(queue))) {
        QSIMPLEQ_REMOVE_HEAD(queue, next);
        drop_buf(req);
        g_free(req);
    }
}

void nbd_requests_free(NBDClient *c)
{
    if (c->rx_req) {
        drop_buf(c->rx_req);
        g_free(c->rx_req);
        c->rx_req = NULL;
    }
    free_queue(&c->tx);
    free_queue(&c->free);
}

/* ---- checks ----------------------------------------------------------------------- */

static unsigned flags_allowed(const NBDRequest *req)
{
    bool structured = req->client->params.structured_replies;

    switch (req->type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;    /* without effect where nothing is written */
    }
}

static bool beyond_end(const NBDRequest *req)
{
    uint64_t size = req->client->exp->size_bytes;

    return req->offset_bytes > size || req->len_bytes > size - req->offset_bytes;
}

int nbd_request_check(const NBDRequest *req)
{
    bool writable = req->client->exp->common.writable;
    bool payload_ok = req->len_bytes <= NBD_MAX_PAYLOAD_SIZE;

    if (req->flags & ~flags_allowed(req)) {
        return NBD_EINVAL;
    }
    switch (req->type) {
    case NBD_CMD_READ:
        return !payload_ok || beyond_end(req) ? NBD_EINVAL : NBD_SUCCESS;
    case NBD_CMD_WRITE:
        return !writable ? NBD_EPERM : !payload_ok ? NBD_EINVAL :
               beyond_end(req) ? NBD_ENOSPC : NBD_SUCCESS;
    case NBD_CMD_WRITE_ZEROES:
        return !writable ? NBD_EPERM : beyond_end(req) ? NBD_ENOSPC : NBD_SUCCESS;
    case NBD_CMD_TRIM:
        return !writable ? NBD_EPERM : beyond_end(req) ? NBD_EINVAL : NBD_SUCCESS;
    case NBD_CMD_FLUSH:
        return NBD_SUCCESS;
    case NBD_CMD_BLOCK_STATUS:
        return !req->client->params.base_allocation || !req->len_bytes || beyond_end(req) ?
               NBD_EINVAL : NBD_SUCCESS;
    default:
        return NBD_EINVAL;
    }
}

/* The protocol has few error values; what does not fit is an I/O error. */
static int wire_error(int ret)
{
    switch (ret < 0 ? -ret : 0) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

/* ---- doing ------------------------------------------------------------------------ */

static bool wants_fua(const NBDRequest *req)
{
    return (req->flags & NBD_CMD_FLAG_FUA) || req->client->exp->common.writethrough;
}

static int coroutine_fn do_read(NBDRequest *req)
{
    req->reply_data_len = req->len_bytes;
    return blk_co_pread(req->client->blk, req->offset_bytes, req->len_bytes, req->buf, 0);
}

static int coroutine_fn do_write(NBDRequest *req)
{
    return blk_co_pwrite(req->client->blk, req->offset_bytes, req->len_bytes, req->buf,
                         wants_fua(req) ? BDRV_REQ_FUA : 0);
}

static int coroutine_fn do_write_zeroes(NBDRequest *req)
{
    BdrvRequestFlags flags = (wants_fua(req) ? BDRV_REQ_FUA : 0) |
                             (req->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BDRV_REQ_MAY_UNMAP);
    int64_t offset = req->offset_bytes, left = req->len_bytes;
    int ret = 0;

    while (left && ret >= 0) {
        int64_t n = MIN(left, PART_MAX_BYTES);
        ret = blk_co_pwrite_zeroes(req->client->blk, offset, n, flags);
        offset += n;
        left -= n;
    }
    return ret;
}

static int coroutine_fn do_trim(NBDRequest *req)
{
    int64_t offset = req->offset_bytes, left = req->len_bytes;
    int ret = 0;

    while (left && ret >= 0) {
        int64_t n = MIN(left, PART_MAX_BYTES);
        ret = blk_co_pdiscard(req->client->blk, offset, n);
        offset += n;
        left -= n;
    }
    if (ret == -ENOTSUP) {
        ret = 0;    /* a hint that nobody takes */
    }
    if (ret >= 0 && wants_fua(req)) {
        ret = blk_co_flush(req->client->blk);
    }
    return ret;
}

static uint32_t extent_flags(int status)
{
    return (status & BDRV_BLOCK_DATA ? 0 : NBD_STATE_HOLE) |
           (status & BDRV_BLOCK_ZERO ? NBD_STATE_ZERO : 0);
}

/* Context id, then (length, flags) per extent; neighbours alike are merged. */
static int coroutine_fn do_block_status(NBDRequest *req)
{
    unsigned max = req->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
    int64_t offset = req->offset_bytes, left = req->len_bytes;
    uint32_t len = 0, flags = 0;
    uint8_t *p = nbd_put32(req->buf, 0);
    unsigned count = 0;

    for (unsigned i = 0; left && i < EXTENT_QUERIES_MAX; i++) {
        int64_t n = 0, map;
        BlockDriverState *file;
        int ret = blk_co_block_status(req->client->blk, offset, left, &n, &map, &file);
        if (ret < 0) {
            return ret;
        }
        if (n <= 0) {
            break;
        }
        n = MIN(n, left);
        if (len && extent_flags(ret) != flags) {
            p = nbd_put32(nbd_put32(p, len), flags);
            len = 0;
            if (++count == max) {
                break;
            }
        }
        flags = extent_flags(ret);
        len += n;
        offset += n;
        left -= n;
    }
    if (len) {
        p = nbd_put32(nbd_put32(p, len), flags);
        count++;
    }
    req->reply_data_len = p - (uint8_t *)req->buf;
    return count ? 0 : -EIO;
}

static int coroutine_fn request_do(NBDRequest *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
        return do_read(req);
    case NBD_CMD_WRITE:
        return do_write(req);
    case NBD_CMD_WRITE_ZEROES:
        return do_write_zeroes(req);
    case NBD_CMD_TRIM:
        return do_trim(req);
    case NBD_CMD_FLUSH:
        return blk_co_flush(req->client->blk);
    case NBD_CMD_BLOCK_STATUS:
        return do_block_status(req);
    default:
        g_assert_not_reached();
    }
}

static void coroutine_fn request_entry(void *opaque)
{
    NBDRequest *req = opaque;
    NBDClient *c = req->client;
    int ret = request_do(req);

    /* The token stays until the reply has been tried to send: see nbd_client_kick(). */
    c->in_flight--;
    qatomic_set(&c->exp->requests, c->exp->requests + 1);
    nbd_reply_queue(req, wire_error(ret));
}

static size_t buffer_needed(const NBDRequest *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
        return MAX(req->len_bytes, 1u);
    case NBD_CMD_BLOCK_STATUS:
        return 4 + 8 * (EXTENTS_MAX + 1);
    default:
        return 0;       /* a WRITE has its buffer, with the payload */
    }
}

void nbd_request_start(NBDRequest *req)
{
    NBDClient *c = req->client;

    size_t need = buffer_needed(req);

    if (need && !nbd_request_reserve(req, need)) {
        nbd_reply_queue(req, NBD_ENOMEM);
        return;
    }
    /*
     * Counted before the coroutine exists, so that there is no moment in which a drain could
     * overlook it.
     */
    if (!c->token) {
        blk_inc_in_flight(c->blk);
        c->token = true;
    }
    c->in_flight++;
    aio_co_enter(c->ctx, qemu_coroutine_create(request_entry, req));
}
