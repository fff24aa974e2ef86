/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scatter lists: plain iovec arrays and the growable QEMUIOVector. Any thread. */
#ifndef MINIBLK_IOV_H
#define MINIBLK_IOV_H

#include <glib.h>
#include <string.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "compiler.h"

/* A vector of buffers; with one element it may live in LOCAL_IOV. */
typedef struct QEMUIOVector {
    struct iovec *iov;
    int niov;
    int nalloc;                 /* -1: IOV is not ours to free or grow */
    size_t size;                /* total bytes */
    struct iovec local_iov;     /* used when nalloc == -1 and there is one element */
} QEMUIOVector;

#define QEMU_IOVEC_INIT_BUF(self, buf, len) {                                   \
        .iov = &(self).local_iov, .niov = 1, .nalloc = -1, .size = (len),       \
        .local_iov = { .iov_base = (void *)(buf), .iov_len = (len) } }

size_t iov_size(const struct iovec *iov, const unsigned int iov_cnt);
/*
 * Copy between a flat buffer and the vector's bytes from OFFSET on. OFFSET must not lie
 * beyond the end; the bytes copied are returned (fewer than BYTES at the vector's end).
 */
size_t iov_from_buf_full(const struct iovec *iov, unsigned int iov_cnt, size_t offset,
                         const void *buf, size_t bytes);
size_t iov_to_buf_full(const struct iovec *iov, unsigned int iov_cnt, size_t offset,
                       void *buf, size_t bytes);
static inline size_t iov_from_buf(const struct iovec *iov, unsigned int iov_cnt,
                                  size_t offset, const void *buf, size_t bytes)
{
    if (iov_cnt == 1 && offset <= iov[0].iov_len && bytes <= iov[0].iov_len - offset) {
        memcpy((char *)iov[0].iov_base + offset, buf, bytes);
        return bytes;
    }
    return iov_from_buf_full(iov, iov_cnt, offset, buf, bytes);
}
static inline size_t iov_to_buf(const struct iovec *iov, const unsigned int iov_cnt,
                                size_t offset, void *buf, size_t bytes)
{
    if (iov_cnt == 1 && offset <= iov[0].iov_len && bytes <= iov[0].iov_len - offset) {
        memcpy(buf, (char *)iov[0].iov_base + offset, bytes);
        return bytes;
    }
    return iov_to_buf_full(iov, iov_cnt, offset, buf, bytes);
}
size_t iov_memset(const struct iovec *iov, const unsigned int iov_cnt, size_t offset,
                  int fillc, size_t bytes);
/*
 * Describe BYTES of the source from OFFSET on in at most DST_CNT elements of DST, which share
 * its buffers; as many elements as were needed, or fitted.
 */
unsigned iov_copy(struct iovec *dst, unsigned int dst_cnt, const struct iovec *iov,
                  unsigned int iov_cnt, size_t offset, size_t bytes);

/*
 * Take BYTES off the front (*IOV and *IOV_CNT skip elements that are used up) or off the back
 * (*IOV_CNT only). The element that is cut is changed in place. How many bytes were taken:
 * fewer than BYTES when the vector is shorter.
 */
size_t iov_discard_front(struct iovec **iov, unsigned int *iov_cnt, size_t bytes);
size_t iov_discard_back(struct iovec *iov, unsigned int *iov_cnt, size_t bytes);

/* The element that a discard has changed, as it was. */
typedef struct IOVDiscardUndo {
    struct iovec *modified_iov; /* NULL: none was */
    struct iovec orig;
} IOVDiscardUndo;
/* The same, noting in *UNDO how to restore the array; several are undone in reverse. */
size_t iov_discard_front_undoable(struct iovec **iov, unsigned int *iov_cnt, size_t bytes,
                                  IOVDiscardUndo *undo);
size_t iov_discard_back_undoable(struct iovec *iov, unsigned int *iov_cnt, size_t bytes,
                                 IOVDiscardUndo *undo);
void iov_discard_undo(IOVDiscardUndo *undo);

/*
 * Send, or receive into, BYTES of the vector from OFFSET on. How many bytes went through:
 * fewer when the socket would block or its other end is closed. -1 with errno set when there
 * were none: EAGAIN, or another cause of sendmsg()'s or recvmsg()'s.
 */
ssize_t iov_send_recv(int sockfd, const struct iovec *iov, unsigned int iov_cnt,
                      size_t offset, size_t bytes, bool do_send);
#define iov_send(sockfd, iov, iov_cnt, offset, bytes)                           \
        iov_send_recv(sockfd, iov, iov_cnt, offset, bytes, true)
#define iov_recv(sockfd, iov, iov_cnt, offset, bytes)                           \
        iov_send_recv(sockfd, iov, iov_cnt, offset, bytes, false)

void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint);
void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov);
static inline void qemu_iovec_init_buf(QEMUIOVector *qiov, void *buf, size_t len)
{
    *qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(*qiov, buf, len);
}
static inline void *qemu_iovec_buf(QEMUIOVector *qiov)
{
    g_assert(qiov->nalloc == -1 && qiov->iov == &qiov->local_iov);
    return qiov->local_iov.iov_base;
}
/* A view of BYTES of SOURCE from OFFSET on; shares the buffers; destroy it afterwards. */
void qemu_iovec_init_slice(QEMUIOVector *qiov, QEMUIOVector *source, size_t offset,
                           size_t bytes);
void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len);
void qemu_iovec_concat(QEMUIOVector *dst, QEMUIOVector *src, size_t soffset, size_t sbytes);
/* The same from an array; how many bytes there were. */
size_t qemu_iovec_concat_iov(QEMUIOVector *dst, struct iovec *src_iov, unsigned int src_cnt,
                             size_t soffset, size_t sbytes);
/* Take BYTES (at most all) off the back. */
void qemu_iovec_discard_back(QEMUIOVector *qiov, size_t bytes);
/* Where A and B, of the same shape, first differ, in bytes; -1: nowhere. */
ssize_t qemu_iovec_compare(QEMUIOVector *a, QEMUIOVector *b);
/* Fill the empty DEST with elements of SRC's shape, one after the other in BUF. */
void qemu_iovec_clone(QEMUIOVector *dest, const QEMUIOVector *src, void *buf);
void qemu_iovec_destroy(QEMUIOVector *qiov);
void qemu_iovec_reset(QEMUIOVector *qiov);
size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf, size_t bytes);
size_t qemu_iovec_to_buf(QEMUIOVector *qiov, size_t offset, void *buf, size_t bytes);
size_t qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int fillc, size_t bytes);
bool qemu_iovec_is_zero(QEMUIOVector *qiov, size_t qiov_offset, size_t bytes);
/* Whether LEN bytes at BUF are all zero. */
bool buffer_is_zero(const void *buf, size_t len);

#endif
