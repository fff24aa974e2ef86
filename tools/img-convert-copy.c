/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying images: a few coroutines share one cursor over the joined sources. Each takes the
 * next extent, reads it, and writes it. Reads overlap freely; writes start in the order of
 * the extents unless the user waives that, so that the target is laid out in order:
 *
 *     A  take 0 | read 0 ........ | turn 0: write 0 ............ | take 3 ...
 *     B  take 1 | read 1 ... | wait  | turn 1: write 1 ............
 *     C  take 2 | read 2 .............. | wait | turn 2: write 2 ...
 *
 * All of them run in the main loop, so that only a yield lets another one look.
 */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

/* No extent is longer than what one request can write. */
#define EXTENT_BYTES_MAX (1LL << 30)
/* Suits direct I/O on any device; what wants more bounces. */
#define BUFFER_ALIGN_BYTES 4096
#define SALVAGE_BYTES ((int64_t)BDRV_SECTOR_SIZE)
#define NS_PER_SECOND 1000000000LL

typedef enum ExtentKind {
    EXTENT_DATA,
    EXTENT_ZERO,
    EXTENT_BACKING,             /* what is behind the target shows the same */
} ExtentKind;

typedef struct Extent {
    ExtentKind kind;
    int64_t offset, bytes;
    uint64_t ticket;            /* its place in the order of writes */
} Extent;

typedef struct ConvertJob ConvertJob;

typedef struct Worker {
    ConvertJob *job;
    Coroutine *waiting;         /* until the turn is that of TICKET */
    uint64_t ticket;
} Worker;

struct ConvertJob {
    const ConvertPlan *plan;
    int64_t buffer_bytes;       /* longest data extent; a multiple of the cluster */
    int ret;                    /* the first failure */
    int running;                /* coroutines that have not ended */

    bool offload;               /* the host has not refused to copy so far */

    CoMutex cursor_lock;        /* held across the block status queries below */
    Extent ahead;               /* the extent at the cursor, not yet given out */
    int64_t cursor;
    uint64_t tickets;           /* given out so far */

    uint64_t turn;              /* the ticket that may write */
    Worker workers[CONVERT_COROUTINES_MAX];

    int64_t data_bytes;         /* in all data extents; 0: not counted */
    int64_t data_done_bytes;
    int64_t done_bytes;         /* of all extents, those included that need no work */
    int64_t next_write_ns;      /* rate limit: when the budget is even again */
};

static void fail(ConvertJob *job, int ret)
{
    if (job->ret == 0) {
        job->ret = ret;
    }
}

/* ---- what the sources hold -------------------------------------------------------- */

static const ConvertSource *source_at(const ConvertPlan *plan, int64_t offset)
{
    const ConvertSource *src = plan->sources;

    while (offset >= src->start + src->bytes) {
        src++;
    }
    return src;
}

/*
 * Whether *BYTES (shortened to what is alike) of BS from OFFSET on are left to its backing
 * file. > 0 yes, 0 no, -errno.
 */
static int coroutine_fn left_to_backing(BlockDriverState *bs, int64_t offset, int64_t *bytes)
{
    BlockDriverState *top = bdrv_skip_filters(bs);
    BlockDriverState *backing = bdrv_cow_bs(top);
    int64_t alike;

    if (!backing) {
        return 0;
    }
    int64_t backing_bytes = bdrv_getlength(backing);
    if (backing_bytes < 0) {
        return (int)backing_bytes;
    }
    if (offset >= backing_bytes) {
        return 0;
    }
    int ret = bdrv_is_allocated(top, offset, *bytes, &alike);
    if (ret < 0) {
        return ret;
    }
    *bytes = MIN(*bytes, alike);
    if (ret) {
        return 0;
    }
    *bytes = MIN(*bytes, backing_bytes - offset);
    return 1;
}

/* The extent that begins at OFFSET of the joined sources. 0 or -errno after a message. */
static int coroutine_fn extent_at(const ConvertPlan *plan, int64_t offset, Extent *ext)
{
    const ConvertSource *src = source_at(plan, offset);
    int64_t pos = src->origin + offset - src->start;
    int64_t bytes = MIN(src->origin + src->bytes - pos, EXTENT_BYTES_MAX);
    int64_t alike, map;
    BlockDriverState *file;
    int ret = 0;

    *ext = (Extent){ .kind = EXTENT_DATA, .offset = offset };
    if (plan->target_has_backing) {
        ret = left_to_backing(blk_bs(src->blk), pos, &bytes);
        if (ret > 0) {
            ext->kind = EXTENT_BACKING;
        }
    }
    if (ret == 0) {
        ret = blk_co_block_status(src->blk, pos, bytes, &alike, &map, &file);
        if (ret >= 0) {
            /* A source may have shrunk under us: what is gone fails to read. */
            bytes = alike > 0 ? MIN(bytes, alike) : bytes;
            ext->kind = ret & BDRV_BLOCK_ZERO ? EXTENT_ZERO : EXTENT_DATA;
        }
    }
    if (ret < 0 && plan->salvage) {
        if (!plan->quiet) {
            warn_report("error while reading block status at offset %" PRId64 ": %s",
                        offset, strerror(-ret));
        }
        bytes = MIN(bytes, CONVERT_BUFFER_BYTES);
        ret = 0;
    }
    if (ret < 0) {
        error_report("error while reading block status at offset %" PRId64 ": %s", offset,
                     strerror(-ret));
        return ret;
    }
    if (ext->kind == EXTENT_ZERO && plan->sparse_bytes == 0) {
        ext->kind = EXTENT_DATA;        /* every byte is to be written */
    }
    ext->bytes = bytes;

    if (plan->compressed) {
        /* A compressed cluster is written in one go, whatever it is made of. */
        int64_t whole = QEMU_ALIGN_DOWN(bytes, plan->target_cluster_bytes);
        bool at_end = offset + bytes == plan->total_bytes;
        if (ext->kind != EXTENT_DATA && (whole > 0 || at_end)) {
            ext->bytes = at_end ? bytes : whole;
        } else {
            ext->kind = EXTENT_DATA;
            ext->bytes = MIN(QEMU_ALIGN_UP(bytes, plan->target_cluster_bytes),
                             plan->total_bytes - offset);
        }
    }
    return 0;
}

/* Whether the target shows zeroes at OFFSET and beyond without being written. */
static bool reads_zero_already(const ConvertPlan *plan, int64_t offset)
{
    return plan->target_is_zero && offset >= plan->target_backing_bytes;
}

/*
 * Take the next extent that needs work, at most a buffer of data. False at the end or when
 * the job has failed.
 */
static bool coroutine_fn take_extent(ConvertJob *job, Extent *ext)
{
    const ConvertPlan *plan = job->plan;
    bool found = false;

    qemu_co_mutex_lock(&job->cursor_lock);
    while (!found && job->ret == 0 && job->cursor < plan->total_bytes) {
        if (job->ahead.bytes == 0) {
            int ret = extent_at(plan, job->cursor, &job->ahead);
            if (ret < 0) {
                fail(job, ret);
                break;
            }
        }
        *ext = job->ahead;
        if (ext->kind == EXTENT_DATA) {
            /* Ends at a multiple of the buffer, so that later ones are aligned. */
            int64_t end = QEMU_ALIGN_DOWN(ext->offset + job->buffer_bytes,
                                          job->buffer_bytes);
            ext->bytes = MIN(ext->bytes, end - ext->offset);
        }
        job->ahead.offset += ext->bytes;
        job->ahead.bytes -= ext->bytes;
        job->cursor += ext->bytes;
        found = ext->kind == EXTENT_DATA ||
                (ext->kind == EXTENT_ZERO && !reads_zero_already(plan, ext->offset));
        if (!found) {
            job->done_bytes += ext->bytes;
        }
    }
    if (found) {
        ext->ticket = job->tickets++;
    }
    qemu_co_mutex_unlock(&job->cursor_lock);
    return found;
}

/* ---- reading ---------------------------------------------------------------------- */

/* Read what can be read sector by sector, and put zeroes for the rest. */
static void coroutine_fn salvage_read(const ConvertPlan *plan, const ConvertSource *src,
                                      int64_t pos, int64_t bytes, uint8_t *buf)
{
    for (int64_t done = 0; done < bytes; done += SALVAGE_BYTES) {
        int64_t len = MIN(SALVAGE_BYTES, bytes - done);
        int ret = blk_co_pread(src->blk, pos + done, len, buf + done, 0);
        if (ret < 0) {
            if (!plan->quiet) {
                warn_report("error while reading offset %" PRId64 ": %s",
                            src->start - src->origin + pos + done, strerror(-ret));
            }
            memset(buf + done, 0, len);
        }
    }
}

static int coroutine_fn read_extent(const ConvertPlan *plan, const Extent *ext, uint8_t *buf)
{
    for (int64_t done = 0; done < ext->bytes;) {
        const ConvertSource *src = source_at(plan, ext->offset + done);
        int64_t pos = src->origin + ext->offset + done - src->start;
        int64_t len = MIN(ext->bytes - done, src->origin + src->bytes - pos);
        int ret = blk_co_pread(src->blk, pos, len, buf + done, 0);
        if (ret < 0 && plan->salvage) {
            salvage_read(plan, src, pos, len, buf + done);
        } else if (ret < 0) {
            error_report("error while reading at byte %" PRId64 ": %s", ext->offset + done,
                         strerror(-ret));
            return ret;
        }
        done += len;
    }
    return 0;
}

/* ---- writing ---------------------------------------------------------------------- */

static void coroutine_fn wait_for_turn(Worker *worker, uint64_t ticket)
{
    ConvertJob *job = worker->job;

    if (job->plan->in_order && job->turn != ticket) {
        worker->ticket = ticket;
        worker->waiting = qemu_coroutine_self();
        qemu_coroutine_yield();
        g_assert(job->turn == ticket);
    }
}

/*
 * Let the next extent be written. Its coroutine runs when the caller yields, so calling
 * this just before a request starts the two in order.
 */
static void coroutine_fn pass_turn(ConvertJob *job)
{
    if (!job->plan->in_order) {
        return;
    }
    job->turn++;
    for (int i = 0; i < job->plan->coroutine_count; i++) {
        Worker *worker = &job->workers[i];
        if (worker->waiting && worker->ticket == job->turn) {
            Coroutine *co = worker->waiting;
            worker->waiting = NULL;
            aio_co_wake(co);
            return;
        }
    }
}

/* Sleep as long as earlier writes have overdrawn the budget, then take BYTES out of it. */
static void coroutine_fn wait_for_budget(ConvertJob *job, int64_t bytes)
{
    int64_t rate = job->plan->rate_bytes;

    if (rate == 0) {
        return;
    }
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t start_ns = MAX(now_ns, job->next_write_ns);
    job->next_write_ns = start_ns + (int64_t)((double)bytes / rate * NS_PER_SECOND);
    if (start_ns > now_ns) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, start_ns - now_ns);
    }
}

/* Write BYTES at OFFSET; BUF is NULL for zeroes. */
static int coroutine_fn write_run(const ConvertPlan *plan, int64_t offset, int64_t bytes,
                                  const uint8_t *buf)
{
    BdrvRequestFlags flags = plan->write_through ? BDRV_REQ_FUA : 0;

    if (!buf) {
        return reads_zero_already(plan, offset) ? 0 :
               blk_co_pwrite_zeroes(plan->target, offset, bytes, flags | BDRV_REQ_MAY_UNMAP);
    }
    if (plan->compressed) {
        flags |= BDRV_REQ_WRITE_COMPRESSED;
    }
    return blk_co_pwrite(plan->target, offset, bytes, buf, flags);
}

/* A compressed cluster without data is left out, however long a hole is to be otherwise. */
static int64_t shortest_hole(const ConvertPlan *plan)
{
    return plan->compressed ? MIN(plan->sparse_bytes, plan->target_cluster_bytes)
                            : plan->sparse_bytes;
}

/* Write EXT, whose turn it is; passes the turn on, whatever happens. */
static void coroutine_fn write_extent(ConvertJob *job, const Extent *ext, const uint8_t *buf)
{
    const ConvertPlan *plan = job->plan;
    bool passed = false;

    wait_for_budget(job, ext->bytes);
    for (int64_t done = 0, len; done < ext->bytes && job->ret == 0; done += len) {
        const uint8_t *run = ext->kind == EXTENT_DATA ? buf + done : NULL;
        bool zero = false;
        len = ext->bytes - done;
        if (run && plan->sparse_bytes > 0) {
            len = convert_run_length(run, len, ext->offset + done, shortest_hole(plan),
                                     plan->target_cluster_bytes, &zero);
        }
        if (done + len == ext->bytes) {
            passed = true;
            pass_turn(job);
        }
        int ret = write_run(plan, ext->offset + done, len, zero ? NULL : run);
        if (ret < 0 && job->ret == 0) {
            error_report("error while writing at byte %" PRId64 ": %s", ext->offset + done,
                         strerror(-ret));
            fail(job, ret);
        }
    }
    if (!passed) {
        pass_turn(job);
    }
}

/* ---- the coroutines --------------------------------------------------------------- */

static void show_progress(const ConvertJob *job)
{
    double fraction = job->data_bytes ? (double)job->data_done_bytes / job->data_bytes
                                      : (double)job->done_bytes / job->plan->total_bytes;

    img_progress_set(100.0 * fraction);
}

/* Have the host copy EXT, whose turn it is. False: it cannot; the turn is still ours then. */
static bool coroutine_fn offload_extent(ConvertJob *job, const Extent *ext)
{
    const ConvertPlan *plan = job->plan;

    wait_for_budget(job, ext->bytes);
    for (int64_t done = 0, len; done < ext->bytes && job->ret == 0; done += len) {
        const ConvertSource *src = source_at(plan, ext->offset + done);
        int64_t pos = ext->offset + done - src->start;
        len = MIN(ext->bytes - done, src->bytes - pos);
        int ret = blk_co_copy_range(src->blk, src->origin + pos, plan->target,
                                    ext->offset + done, len, 0, 0);
        if (ret == -ENOTSUP) {
            job->offload = false;
            return false;
        }
        if (ret < 0) {
            error_report("error while copying at byte %" PRId64 ": %s", ext->offset + done,
                         strerror(-ret));
            fail(job, ret);
        }
    }
    pass_turn(job);
    return true;
}

static void coroutine_fn copy_extent(Worker *worker, const Extent *ext, uint8_t *buf)
{
    ConvertJob *job = worker->job;
    bool my_turn = false;

    if (job->offload && ext->kind == EXTENT_DATA) {
        wait_for_turn(worker, ext->ticket);
        if (offload_extent(job, ext)) {
            return;
        }
        my_turn = true;
    }
    int ret = ext->kind == EXTENT_DATA ? read_extent(job->plan, ext, buf) : 0;
    if (ret < 0) {
        fail(job, ret);
    }
    if (!my_turn) {
        wait_for_turn(worker, ext->ticket);
    }
    write_extent(job, ext, buf);
}

static void coroutine_fn copy_worker(void *opaque)
{
    Worker *worker = opaque;
    ConvertJob *job = worker->job;
    uint8_t *buf = qemu_memalign(BUFFER_ALIGN_BYTES, job->buffer_bytes);
    Extent ext;

    while (take_extent(job, &ext)) {
        copy_extent(worker, &ext, buf);
        job->done_bytes += ext.bytes;
        if (ext.kind == EXTENT_DATA && job->ret == 0) {
            job->data_done_bytes += ext.bytes;
            show_progress(job);
        }
    }
    qemu_vfree(buf);
    job->running--;
}

/* How much there is to copy: progress shown all the time is to move evenly. */
static void coroutine_fn count_worker(void *opaque)
{
    ConvertJob *job = opaque;
    Extent ext;

    for (int64_t offset = 0; offset < job->plan->total_bytes; offset += ext.bytes) {
        int ret = extent_at(job->plan, offset, &ext);
        if (ret < 0) {
            fail(job, ret);
            break;
        }
        if (ext.kind == EXTENT_DATA) {
            job->data_bytes += ext.bytes;
        }
    }
    job->running--;
}

int convert_copy(const ConvertPlan *plan)
{
    g_autofree ConvertJob *job = g_new0(ConvertJob, 1);
    AioContext *ctx = qemu_get_aio_context();

    g_assert(plan->coroutine_count >= 1 && plan->coroutine_count <= CONVERT_COROUTINES_MAX);
    job->plan = plan;
    job->offload = plan->copy_offload && !plan->write_through;
    /* many clusters in one request: their compression is spread over worker threads */
    job->buffer_bytes = MAX(CONVERT_BUFFER_BYTES, plan->target_cluster_bytes);
    qemu_co_mutex_init(&job->cursor_lock);

    if (plan->show_progress) {
        job->running = 1;
        aio_co_enter(ctx, qemu_coroutine_create(count_worker, job));
        img_wait(&job->running);
    }
    if (job->ret == 0) {
        job->running = plan->coroutine_count;
        for (int i = 0; i < plan->coroutine_count; i++) {
            job->workers[i].job = job;
            aio_co_enter(ctx, qemu_coroutine_create(copy_worker, &job->workers[i]));
        }
        img_wait(&job->running);
    }
    return job->ret;
}
