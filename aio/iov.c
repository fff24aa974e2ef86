/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <sys/socket.h>
#include "miniblk/iov.h"

size_t iov_size(const struct iovec *iov, const unsigned int iov_cnt)
{
    size_t len = 0;
    for (unsigned i = 0; i < iov_cnt; i++) {
        len += iov[i].iov_len;
    }
    return len;
}

/* Walks the bytes [OFFSET, OFFSET + BYTES) of a vector, one contiguous piece at a time. */
typedef struct IovWalk {
    const struct iovec *iov;
    unsigned left;              /* elements from IOV on */
    size_t skip;                /* bytes to skip in *IOV */
    size_t bytes;
} IovWalk;

static bool walk_next(IovWalk *w, char **piece, size_t *len)
{
    while (w->left && w->skip >= w->iov->iov_len) {
        w->skip -= w->iov->iov_len;
        w->iov++;
        w->left--;
    }
    if (!w->left) {
        g_assert(w->skip == 0);         /* the offset lay within the vector */
        return false;
    }
    if (!w->bytes) {
        return false;
    }
    *piece = (char *)w->iov->iov_base + w->skip;
    *len = MIN(w->iov->iov_len - w->skip, w->bytes);
    w->skip += *len;
    w->bytes -= *len;
    return true;
}

size_t iov_from_buf_full(const struct iovec *iov, unsigned int iov_cnt, size_t offset,
                         const void *buf, size_t bytes)
{
    IovWalk w = { iov, iov_cnt, offset, bytes };
    char *piece;
    size_t len, done = 0;
    while (walk_next(&w, &piece, &len)) {
        memcpy(piece, (const char *)buf + done, len);
        done += len;
    }
    return done;
}

size_t iov_to_buf_full(const struct iovec *iov, unsigned int iov_cnt, size_t offset,
                       void *buf, size_t bytes)
{
    IovWalk w = { iov, iov_cnt, offset, bytes };
    char *piece;
    size_t len, done = 0;
    while (walk_next(&w, &piece, &len)) {
        memcpy((char *)buf + done, piece, len);
        done += len;
    }
    return done;
}

size_t iov_memset(const struct iovec *iov, const unsigned int iov_cnt, size_t offset,
                  int fillc, size_t bytes)
{
    IovWalk w = { iov, iov_cnt, offset, bytes };
    char *piece;
    size_t len, done = 0;
    while (walk_next(&w, &piece, &len)) {
        memset(piece, fillc, len);
        done += len;
    }
    return done;
}

unsigned iov_copy(struct iovec *dst, unsigned int dst_cnt, const struct iovec *iov,
                  unsigned int iov_cnt, size_t offset, size_t bytes)
{
    IovWalk w = { iov, iov_cnt, offset, bytes };
    char *piece;
    size_t len;
    unsigned n = 0;
    while (n < dst_cnt && walk_next(&w, &piece, &len)) {
        dst[n++] = (struct iovec) { .iov_base = piece, .iov_len = len };
    }
    return n;
}

/* ---- discarding ------------------------------------------------------------------------ */

static void note(IOVDiscardUndo *undo, struct iovec *element)
{
    *undo = (IOVDiscardUndo) { .modified_iov = element, .orig = *element };
}

size_t iov_discard_front_undoable(struct iovec **iov, unsigned int *iov_cnt, size_t bytes,
                                  IOVDiscardUndo *undo)
{
    size_t left = bytes;

    *undo = (IOVDiscardUndo) { NULL };
    while (*iov_cnt && left >= (*iov)->iov_len) {
        left -= (*iov)->iov_len;
        ++*iov;
        --*iov_cnt;
    }
    if (*iov_cnt && left) {
        note(undo, *iov);
        (*iov)->iov_base = (char *)(*iov)->iov_base + left;
        (*iov)->iov_len -= left;
        left = 0;
    }
    return bytes - left;
}

size_t iov_discard_back_undoable(struct iovec *iov, unsigned int *iov_cnt, size_t bytes,
                                 IOVDiscardUndo *undo)
{
    size_t left = bytes;

    *undo = (IOVDiscardUndo) { NULL };
    while (*iov_cnt && left >= iov[*iov_cnt - 1].iov_len) {
        left -= iov[--*iov_cnt].iov_len;
    }
    if (*iov_cnt && left) {
        note(undo, &iov[*iov_cnt - 1]);
        iov[*iov_cnt - 1].iov_len -= left;
        left = 0;
    }
    return bytes - left;
}

void iov_discard_undo(IOVDiscardUndo *undo)
{
    if (undo->modified_iov) {
        *undo->modified_iov = undo->orig;
    }
}

size_t iov_discard_front(struct iovec **iov, unsigned int *iov_cnt, size_t bytes)
{
    IOVDiscardUndo unused;
    return iov_discard_front_undoable(iov, iov_cnt, bytes, &unused);
}

size_t iov_discard_back(struct iovec *iov, unsigned int *iov_cnt, size_t bytes)
{
    IOVDiscardUndo unused;
    return iov_discard_back_undoable(iov, iov_cnt, bytes, &unused);
}

/* ---- sockets --------------------------------------------------------------------------- */

enum { ELEMENTS_PER_CALL = 64 };

ssize_t iov_send_recv(int sockfd, const struct iovec *iov, unsigned int iov_cnt,
                      size_t offset, size_t bytes, bool do_send)
{
    size_t done = 0;

    while (done < bytes) {
        struct iovec part[ELEMENTS_PER_CALL];
        struct msghdr msg = { .msg_iov = part };
        msg.msg_iovlen = iov_copy(part, G_N_ELEMENTS(part), iov, iov_cnt, offset + done,
                                  bytes - done);
        if (!msg.msg_iovlen) {
            break;              /* the end of the vector */
        }
        ssize_t n = do_send ? sendmsg(sockfd, &msg, 0) : recvmsg(sockfd, &msg, 0);
        if (n > 0) {
            done += n;
        } else if (n == 0) {
            break;
        } else if (errno != EINTR) {
            return done ? (ssize_t)done : -1;
        }
    }
    return done;
}

/* ---- QEMUIOVector ---------------------------------------------------------------------- */

void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint)
{
    *qiov = (QEMUIOVector) { .iov = g_new(struct iovec, MAX(alloc_hint, 1)),
                             .nalloc = MAX(alloc_hint, 1) };
}

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov)
{
    *qiov = (QEMUIOVector) { .iov = iov, .niov = niov, .nalloc = -1,
                             .size = iov_size(iov, niov) };
}

void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len)
{
    g_assert(qiov->nalloc != -1);
    if (qiov->niov == qiov->nalloc) {
        qiov->nalloc = 2 * qiov->nalloc + 1;
        qiov->iov = g_renew(struct iovec, qiov->iov, qiov->nalloc);
    }
    qiov->iov[qiov->niov++] = (struct iovec) { .iov_base = base, .iov_len = len };
    qiov->size += len;
}

size_t qemu_iovec_concat_iov(QEMUIOVector *dst, struct iovec *src_iov, unsigned int src_cnt,
                             size_t soffset, size_t sbytes)
{
    IovWalk w = { src_iov, src_cnt, soffset, sbytes };
    char *piece;
    size_t len, done = 0;
    while (walk_next(&w, &piece, &len)) {
        qemu_iovec_add(dst, piece, len);
        done += len;
    }
    return done;
}

void qemu_iovec_concat(QEMUIOVector *dst, QEMUIOVector *src, size_t soffset, size_t sbytes)
{
    qemu_iovec_concat_iov(dst, src->iov, src->niov, soffset, sbytes);
}

void qemu_iovec_discard_back(QEMUIOVector *qiov, size_t bytes)
{
    unsigned niov = qiov->niov;

    g_assert(bytes <= qiov->size);
    iov_discard_back(qiov->iov, &niov, bytes);
    qiov->niov = niov;
    qiov->size -= bytes;
}

ssize_t qemu_iovec_compare(QEMUIOVector *a, QEMUIOVector *b)
{
    size_t base = 0;

    g_assert(a->niov == b->niov);
    for (int i = 0; i < a->niov; i++) {
        const char *pa = a->iov[i].iov_base, *pb = b->iov[i].iov_base;
        size_t len = a->iov[i].iov_len;
        g_assert(len == b->iov[i].iov_len);
        for (size_t k = 0; k < len; k++) {
            if (pa[k] != pb[k]) {
                return base + k;
            }
        }
        base += len;
    }
    return -1;
}

void qemu_iovec_clone(QEMUIOVector *dest, const QEMUIOVector *src, void *buf)
{
    for (int i = 0; i < src->niov; i++) {
        qemu_iovec_add(dest, buf, src->iov[i].iov_len);
        buf = (char *)buf + src->iov[i].iov_len;
    }
}

void qemu_iovec_init_slice(QEMUIOVector *qiov, QEMUIOVector *source, size_t offset,
                           size_t bytes)
{
    g_assert(offset <= source->size && bytes <= source->size - offset);
    if (source->niov == 1) {
        qemu_iovec_init_buf(qiov, (char *)source->iov[0].iov_base + offset, bytes);
        return;
    }
    qemu_iovec_init(qiov, source->niov);
    qemu_iovec_concat(qiov, source, offset, bytes);
}

void qemu_iovec_destroy(QEMUIOVector *qiov)
{
    if (qiov->nalloc != -1) {
        g_free(qiov->iov);
    }
    memset(qiov, 0, sizeof(*qiov));
}

void qemu_iovec_reset(QEMUIOVector *qiov)
{
    g_assert(qiov->nalloc != -1);
    qiov->niov = 0;
    qiov->size = 0;
}

size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf, size_t bytes)
{
    return iov_from_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

size_t qemu_iovec_to_buf(QEMUIOVector *qiov, size_t offset, void *buf, size_t bytes)
{
    return iov_to_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

size_t qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int fillc, size_t bytes)
{
    return iov_memset(qiov->iov, qiov->niov, offset, fillc, bytes);
}

bool qemu_iovec_is_zero(QEMUIOVector *qiov, size_t qiov_offset, size_t bytes)
{
    IovWalk w = { qiov->iov, qiov->niov, qiov_offset, bytes };
    char *piece;
    size_t len;
    while (walk_next(&w, &piece, &len)) {
        if (!buffer_is_zero(piece, len)) {
            return false;
        }
    }
    return true;
}

bool buffer_is_zero(const void *buf, size_t len)
{
    const unsigned char *p = buf;
    /* The first bytes by hand, then each byte equals the one 16 before it. */
    size_t head = MIN(len, (size_t)16);
    for (size_t i = 0; i < head; i++) {
        if (p[i]) {
            return false;
        }
    }
    return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}
