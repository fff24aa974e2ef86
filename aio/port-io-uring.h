/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The part of the port seam that is about io_uring; see aio/port.h. */
#ifndef AIO_PORT_IO_URING_H
#define AIO_PORT_IO_URING_H

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

static inline int port_ring_init(struct io_uring *ring, unsigned entries, unsigned flags)
{
    return io_uring_queue_init(entries, ring, flags);
}
static inline void port_ring_exit(struct io_uring *ring)
{
    io_uring_queue_exit(ring);
}
/* Hand over what was prepared. The number of entries or -errno. */
static inline int port_ring_submit(struct io_uring *ring)
{
    return io_uring_submit(ring);
}
/*
 * Hand over what was prepared and wait until there is a completion, for TIMEOUT_NS at most
 * (-1: for ever, 0: do not wait, but let the kernel post what it has). May end early.
 */
static inline void port_ring_submit_and_wait(struct io_uring *ring, int64_t timeout_ns)
{
    if (timeout_ns == 0) {
        io_uring_submit_and_get_events(ring);
    } else if (timeout_ns < 0) {
        io_uring_submit_and_wait(ring, 1);
    } else {
        struct __kernel_timespec ts = { .tv_sec = timeout_ns / 1000000000,
                                        .tv_nsec = timeout_ns % 1000000000 };
        struct io_uring_cqe *cqe;
        io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
    }
}

/* ---- the engine of aio/io-uring.c -------------------------------------------------------- */

static inline int port_ring_init_params(struct io_uring *ring, unsigned entries,
                                        struct io_uring_params *params)
{
    return io_uring_queue_init_params(entries, ring, params);
}
/* A table of N files that requests can name by their index; empty. */
static inline int port_ring_make_files(struct io_uring *ring, unsigned n)
{
    return io_uring_register_files_sparse(ring, n);
}
/* Put the file of FD (-1: none) into place INDEX. The number of places set, or -errno. */
static inline int port_ring_set_file(struct io_uring *ring, unsigned index, int fd)
{
    return io_uring_register_files_update(ring, index, &fd, 1);
}
/*
 * Hand over what was prepared: how much of it the kernel has taken, or -errno. The rest is
 * forgotten, so that the queue is empty afterwards. Only for rings that no kernel thread
 * polls: there the kernel looks at the queue within this call only, and what it has left may
 * be taken back.
 */
static inline int port_ring_submit_some(struct io_uring *ring)
{
    int ret = io_uring_submit(ring);
    unsigned head = __atomic_load_n(ring->sq.khead, __ATOMIC_ACQUIRE);
    if (__builtin_expect(head != ring->sq.sqe_tail, 0)) {
        ring->sq.sqe_head = ring->sq.sqe_tail = head;
        __atomic_store_n(ring->sq.ktail, head, __ATOMIC_RELEASE);
    }
    return ret;
}
/*
 * Whether port_ring_peek() would find something: a completion, or one that the kernel has
 * kept back and wants to be called for. Makes no system call.
 */
static inline bool port_ring_ready(const struct io_uring *ring)
{
    return io_uring_cq_ready(ring) ||
           (__atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED) &
            (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN));
}
/* The oldest completion, to be dropped with io_uring_cqe_seen(); NULL when there is none. */
static inline struct io_uring_cqe *port_ring_peek(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    return io_uring_peek_cqe(ring, &cqe) ? NULL : cqe;
}

#endif
