/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading, writing and flushing a host file. A request takes the first of these that fits:
 *
 *      bounced     O_DIRECT, and the buffers are not aligned: in pieces, through our own
 *      engine      Linux AIO or io_uring, as asked for
 *      inline      small, and a copy within memory: a tmpfs file, or a read that the page
 *                  cache answers at once; handing it to a worker would cost far more
 *      worker      a blocking call in the context's worker pool
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/raw-aio.h"
#include "miniblk/thread-pool.h"
#include "images/file-internal.h"

enum {
    INLINE_BYTES_MAX = 64 * 1024,       /* what the loop may copy itself */
    BOUNCE_BYTES_MAX = 1024 * 1024,
};

typedef struct FileRw {
    FileState *s;
    int64_t offset;
    QEMUIOVector *qiov;         /* all of it is wanted */
    size_t done;                /* bytes so far */
    bool write;
    bool fua;                   /* on stable storage before completion */
} FileRw;

static bool refused_as_unsupported(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS;
}

/* ---- blocking calls --------------------------------------------------------------------- */

static ssize_t transfer(FileRw *rw, const struct iovec *iov, int niov, int rwf_flags)
{
    int fd = rw->s->fd;
    off_t offset = rw->offset + rw->done;
    ssize_t n;

    niov = MIN(niov, IOV_MAX);
    do {
        if (rwf_flags) {
            n = rw->write ? pwritev2(fd, iov, niov, offset, rwf_flags)
                          : preadv2(fd, iov, niov, offset, rwf_flags);
        } else if (niov == 1) {
            n = rw->write ? pwrite(fd, iov->iov_base, iov->iov_len, offset)
                          : pread(fd, iov->iov_base, iov->iov_len, offset);
        } else {
            n = rw->write ? pwritev(fd, iov, niov, offset) : preadv(fd, iov, niov, offset);
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* One call for all that is left. */
static ssize_t transfer_rest(FileRw *rw, int rwf_flags)
{
    if (rw->done == 0) {
        return transfer(rw, rw->qiov->iov, rw->qiov->niov, rwf_flags);
    }
    QEMUIOVector rest;
    qemu_iovec_init_slice(&rest, rw->qiov, rw->done, rw->qiov->size - rw->done);
    ssize_t n = transfer(rw, rest.iov, rest.niov, rwf_flags);
    qemu_iovec_destroy(&rest);
    return n;
}

static int sync_data(FileState *s)
{
    int ret;

    do {
        ret = fdatasync(s->fd);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/*
 * A flush that failed leaves dirty pages marked clean: the next one would succeed without
 * having written them. What is not in the page cache (O_DIRECT) is not concerned.
 */
static void remember_flush_error(FileState *s, int ret)
{
    if (ret < 0 && !s->direct) {
        qatomic_set(&s->flush_error, ret);
    }
}

/* Under O_DIRECT a read that stopped at an unaligned end of file cannot be continued. */
static bool at_end_of_file(FileRw *rw)
{
    int64_t length = file_length(rw->s->fd);
    return length >= 0 && rw->offset + (int64_t)rw->done >= length;
}

static int rw_blocking(void *opaque)
{
    FileRw *rw = opaque;
    FileState *s = rw->s;
    bool dsync = rw->fua && !(qatomic_read(&s->unsupported) & FILE_NO_DSYNC);

    while (rw->done < rw->qiov->size) {
        ssize_t n = transfer_rest(rw, dsync ? RWF_DSYNC : 0);
        if (n < 0 && dsync && refused_as_unsupported(-n)) {
            qatomic_or(&s->unsupported, FILE_NO_DSYNC);
            dsync = false;
            continue;
        }
        if (n < 0) {
            if (dsync && n == -EIO) {
                remember_flush_error(s, n);
            }
            /* -EINVAL: it stopped where O_DIRECT cannot go on */
            return n == -EINVAL && rw->done ? (rw->write ? -ENOSPC : -EIO) : (int)n;
        }
        if (n == 0 && rw->write) {
            return -ENOSPC;
        }
        rw->done += n;
        if (!rw->write && rw->done < rw->qiov->size &&
            (n == 0 || (s->direct && at_end_of_file(rw)))) {
            /* The node's length is rounded up to sectors; the rest reads as zeroes. */
            qemu_iovec_memset(rw->qiov, rw->done, 0, rw->qiov->size - rw->done);
            return 0;
        }
    }
    if (rw->fua && !dsync) {
        int ret = sync_data(s);
        remember_flush_error(s, ret);
        return ret;
    }
    return 0;
}

/* Serve what can be served without waiting. True when that was all, with *RET set. */
static bool rw_inline(FileRw *rw, int *ret)
{
    FileState *s = rw->s;

    if (rw->qiov->size > INLINE_BYTES_MAX || s->direct) {
        return false;
    }
    if (s->in_memory) {
        *ret = rw_blocking(rw);
        return true;
    }
    if (rw->write || !s->is_regular || (qatomic_read(&s->unsupported) & FILE_NO_NOWAIT)) {
        return false;
    }
    ssize_t n = transfer_rest(rw, RWF_NOWAIT);
    if (n < 0) {
        if (refused_as_unsupported(-n)) {
            qatomic_or(&s->unsupported, FILE_NO_NOWAIT);
        }
        return false;           /* a worker will find out what is really wrong */
    }
    rw->done = n;
    *ret = 0;
    return rw->done == rw->qiov->size;
}

/* ---- requests -------------------------------------------------------------------------- */

/*
 * The engine of the loop that we run in. A request may come in another thread than the node's
 * own, whose loop then gets an engine as well, or does without.
 */
static FileEngine coroutine_fn engine_here(FileState *s)
{
    AioContext *here = qemu_get_current_aio_context();

    if ((s->engine == FILE_NATIVE && !aio_setup_linux_aio(here, NULL)) ||
        (s->engine == FILE_IO_URING && !aio_setup_linux_io_uring(here, NULL))) {
        return FILE_THREADS;
    }
    return s->engine;
}

static int flush_blocking(void *opaque)
{
    return sync_data(opaque);
}

static int coroutine_fn flush(FileState *s)
{
    int ret;

    if (engine_here(s) == FILE_IO_URING) {
        ret = luring_co_submit(s->fd, 0, NULL, QEMU_AIO_FLUSH, s->max_batch);
    } else if (s->in_memory) {
        ret = sync_data(s);     /* nothing to wait for where nothing is stored */
    } else {
        ret = thread_pool_submit_co(flush_blocking, s);
    }
    remember_flush_error(s, ret);
    return ret;
}

static int coroutine_fn submit(FileState *s, int64_t offset, QEMUIOVector *qiov, int type)
{
    return s->engine == FILE_NATIVE
        ? laio_co_submit(s->fd, offset, qiov, type, s->max_batch)
        : luring_co_submit(s->fd, offset, qiov, type, s->max_batch);
}

/* By the node's engine. */
static int coroutine_fn rw_engine(FileState *s, int64_t offset, QEMUIOVector *qiov,
                                  bool write, bool fua)
{
    int type = write ? QEMU_AIO_WRITE : QEMU_AIO_READ;

    if (likely(!fua)) {
        return submit(s, offset, qiov, type);
    }
    if (!(qatomic_read(&s->unsupported) & FILE_NO_DSYNC)) {
        int ret = submit(s, offset, qiov, type | QEMU_AIO_FUA);
        if (!refused_as_unsupported(-ret)) {
            if (ret == -EIO) {
                remember_flush_error(s, ret);
            }
            return ret;
        }
        qatomic_or(&s->unsupported, FILE_NO_DSYNC);
    }
    int ret = submit(s, offset, qiov, type);
    return ret < 0 ? ret : flush(s);
}

static int coroutine_fn rw_aligned(FileState *s, int64_t offset, QEMUIOVector *qiov,
                                   bool write, bool fua)
{
    FileRw rw = { .s = s, .offset = offset, .qiov = qiov, .write = write, .fua = fua };
    int ret;

    if (engine_here(s) != FILE_THREADS) {
        return rw_engine(s, offset, qiov, write, fua);
    }
    if (rw_inline(&rw, &ret)) {
        return ret;
    }
    return thread_pool_submit_co(rw_blocking, &rw);
}

static bool qiov_is_aligned(FileState *s, const QEMUIOVector *qiov)
{
    for (int i = 0; i < qiov->niov; i++) {
        if ((uintptr_t)qiov->iov[i].iov_base % s->mem_alignment ||
            qiov->iov[i].iov_len % s->request_alignment) {
            return false;
        }
    }
    return true;
}

static int coroutine_fn QEMU_NOINLINE rw_bounced(FileState *s, int64_t offset,
                                                 QEMUIOVector *qiov, bool write, bool fua)
{
    size_t piece_max = MIN(qiov->size, BOUNCE_BYTES_MAX);
    void *buf = qemu_try_memalign(MAX(s->mem_alignment, 4096), piece_max);
    int ret = 0;

    if (!buf) {
        return -ENOMEM;
    }
    for (size_t done = 0; done < qiov->size && ret == 0; done += piece_max) {
        size_t piece = MIN(piece_max, qiov->size - done);
        QEMUIOVector local = QEMU_IOVEC_INIT_BUF(local, buf, piece);
        if (write) {
            qemu_iovec_to_buf(qiov, done, buf, piece);
        }
        ret = rw_aligned(s, offset + done, &local, write, fua);
        if (!write && ret == 0) {
            qemu_iovec_from_buf(qiov, done, buf, piece);
        }
    }
    qemu_vfree(buf);
    return ret;
}

static inline int coroutine_fn rw(BlockDriverState *bs, int64_t offset, QEMUIOVector *qiov,
                                  bool write, bool fua)
{
    FileState *s = bs->opaque;

    if (s->direct && unlikely(!qiov_is_aligned(s, qiov))) {
        return rw_bounced(s, offset, qiov, write, fua);
    }
    return rw_aligned(s, offset, qiov, write, fua);
}

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    g_assert((size_t)bytes == qiov->size);
    return rw(bs, offset, qiov, false, false);
}

int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;

    g_assert((size_t)bytes == qiov->size);
    return rw(bs, offset, qiov, true, (flags & BDRV_REQ_FUA) && !s->no_flush);
}

int coroutine_fn file_co_flush(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    int error = qatomic_read(&s->flush_error);

    if (unlikely(error)) {
        return error;
    }
    if (s->no_flush) {
        return 0;
    }
    return flush(s);
}
