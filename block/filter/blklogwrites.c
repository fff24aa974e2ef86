/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter "blklogwrites": what changes its child "file" is also written to "log", in the
 * order of completion, in the on-disk format of Linux' dm-log-writes, so that every state that
 * the disk could have been left in can be made again.
 *
 *      log:  | super | entry | data ... | entry | entry | data ... |
 *              one sector each           flushes and discards have no data
 *
 * Numbers are little-endian; offsets and lengths are in sectors of the log's sector size,
 * which is therefore our request alignment. A flush is logged in front of what completes
 * while it runs, because that need not be on the disk when it has ended.
 */
#include "block/filter/filter.h"

#define LOG_MAGIC   0x6a736677736872ULL
#define LOG_VERSION 1
enum {
    LOG_FLUSH = 1 << 0, LOG_FUA = 1 << 1, LOG_DISCARD = 1 << 2, LOG_MARK = 1 << 3,
    LOG_FLAGS_ALL = LOG_FLUSH | LOG_FUA | LOG_DISCARD | LOG_MARK,
};

typedef struct QEMU_PACKED LogSuper {
    uint64_t magic, version;
    uint64_t entries;
    uint32_t sector_bytes;
} LogSuper;

typedef struct QEMU_PACKED LogEntry {
    uint64_t sector, sectors;
    uint64_t flags;
    uint64_t data_bytes;        /* of a mark */
} LogEntry;

enum { SECTOR_BYTES_MIN = sizeof(LogEntry), SECTOR_BYTES_MAX = 1 << 23 };
/* So that the entry's sector and the data fit into one request to the log. */
enum { TRANSFER_BYTES_MAX = 1 << 30 };

typedef struct LogWrites {
    BdrvChild *log;
    uint64_t sector_bytes;
    uint64_t super_interval;    /* entries after which the super block is written */

    CoMutex lock;               /* one entry at a time; protects what follows */
    uint8_t *sector;            /* of the log, to write super block and entries from */
    uint64_t end;               /* of the log, in sectors */
    uint64_t entries;
    uint64_t super_entries;     /* as in the super block on disk */
    bool super_valid;           /* ... which is this log's */
} LogWrites;

/* ---- opening ---------------------------------------------------------------------- */

static bool valid_sector_bytes(uint64_t bytes)
{
    return bytes >= SECTOR_BYTES_MIN && bytes <= SECTOR_BYTES_MAX && !(bytes & (bytes - 1));
}

/* Find the end of the log that SUPER begins, which is LENGTH bytes long. */
static int find_end(LogWrites *s, int64_t length, Error **errp)
{
    uint64_t sectors = length / s->sector_bytes;

    s->end = 1;
    for (uint64_t i = 0; i < s->entries; i++) {
        LogEntry e;

        if (s->end >= sectors) {
            error_setg(errp, "The log ends before entry %" PRIu64, i);
            return -EINVAL;
        }
        int ret = bdrv_pread(s->log, s->end * s->sector_bytes, sizeof(e), &e, 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to read log entry %" PRIu64, i);
            return ret;
        }
        uint64_t flags = GUINT64_FROM_LE(e.flags), n = GUINT64_FROM_LE(e.sectors);
        if (flags & ~(uint64_t)LOG_FLAGS_ALL) {
            error_setg(errp, "Invalid flags 0x%" PRIx64 " in log entry %" PRIu64, flags, i);
            return -EINVAL;
        }
        if (flags & LOG_MARK) {
            uint64_t bytes = GUINT64_FROM_LE(e.data_bytes);
            n = bytes / s->sector_bytes + (bytes % s->sector_bytes != 0);
        } else if (flags & LOG_DISCARD) {
            n = 0;
        }
        if (n > sectors - s->end) {
            error_setg(errp, "Log entry %" PRIu64 " does not lie in the log", i);
            return -EINVAL;
        }
        s->end += 1 + n;
    }
    return 0;
}

/* Continue the log that is there; an empty one is begun. */
static int open_existing(LogWrites *s, Error **errp)
{
    int64_t length = bdrv_getlength(s->log->bs);
    LogSuper super;

    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the length of the log");
        return length;
    }
    if (length == 0) {
        return 0;
    }
    int ret = bdrv_pread(s->log, 0, sizeof(super), &super, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read log superblock");
        return ret;
    }
    if (GUINT64_FROM_LE(super.magic) != LOG_MAGIC) {
        error_setg(errp, "Invalid log superblock magic");
        return -EINVAL;
    }
    if (GUINT64_FROM_LE(super.version) != LOG_VERSION) {
        error_setg(errp, "Unsupported log version %" PRIu64, GUINT64_FROM_LE(super.version));
        return -EINVAL;
    }
    s->sector_bytes = GUINT32_FROM_LE(super.sector_bytes);
    if (!valid_sector_bytes(s->sector_bytes)) {
        error_setg(errp, "Invalid log sector size %" PRIu64, s->sector_bytes);
        return -EINVAL;
    }
    s->entries = s->super_entries = GUINT64_FROM_LE(super.entries);
    s->super_valid = true;
    return find_end(s, length, errp);
}

static int logwrites_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    LogWrites *s = bs->opaque;
    bool append = false, has_size = qdict_haskey(options, "log-sector-size");

    qemu_co_mutex_init(&s->lock);
    s->sector_bytes = BDRV_SECTOR_SIZE;
    s->super_interval = 4096;
    s->end = 1;
    if (!bdrv_opt_bool(options, "log-append", &append, errp) ||
        !bdrv_opt_size(options, "log-sector-size", &s->sector_bytes, errp) ||
        !bdrv_opt_size(options, "log-super-update-interval", &s->super_interval, errp)) {
        return -EINVAL;
    }
    if (append && has_size) {
        error_setg(errp, "log-append and log-sector-size are mutually exclusive");
        return -EINVAL;
    }
    if (!valid_sector_bytes(s->sector_bytes)) {
        error_setg(errp, "Invalid log sector size %" PRIu64, s->sector_bytes);
        return -EINVAL;
    }
    if (!s->super_interval) {
        error_setg(errp, "Invalid log superblock update interval %" PRIu64,
                   s->super_interval);
        return -EINVAL;
    }
    int ret = bdrv__filter_open_file(bs, options, errp);
    if (ret < 0) {
        return ret;
    }
    s->log = bdrv_open_child(NULL, options, "log", bs, &child_of_bds, BDRV_CHILD_METADATA,
                             false, errp);
    if (!s->log) {
        return -EINVAL;
    }
    ret = append ? open_existing(s, errp) : 0;
    if (ret < 0) {
        return ret;
    }
    s->sector = qemu_try_blockalign0(s->log->bs, s->sector_bytes);
    if (!s->sector) {
        error_setg(errp, "No memory for a sector of the log");
        return -ENOMEM;
    }
    return 0;
}

static void logwrites_refresh_limits(BlockDriverState *bs, Error **errp)
{
    LogWrites *s = bs->opaque;

    bs->bl.request_alignment = s->sector_bytes;
    bs->bl.max_transfer = bs->bl.max_transfer ? MIN(bs->bl.max_transfer, TRANSFER_BYTES_MAX)
                                              : TRANSFER_BYTES_MAX;
}

/* ---- the log ---------------------------------------------------------------------- */

static int coroutine_mixed_fn write_super(LogWrites *s, uint64_t entries)
{
    LogSuper super = {
        .magic = GUINT64_TO_LE(LOG_MAGIC),
        .version = GUINT64_TO_LE(LOG_VERSION),
        .entries = GUINT64_TO_LE(entries),
        .sector_bytes = GUINT32_TO_LE(s->sector_bytes),
    };

    memset(s->sector, 0, s->sector_bytes);
    memcpy(s->sector, &super, sizeof(super));
    int ret = bdrv_pwrite(s->log, 0, s->sector_bytes, s->sector, 0);
    if (ret == 0) {
        s->super_entries = entries;
        s->super_valid = true;
    }
    return ret;
}

/* A new log over an old one: nobody shall count entries that are not of this one. */
static int coroutine_fn begin_log(LogWrites *s)
{
    return s->super_valid ? 0 : write_super(s, 0);
}

/* What is logged of a request. */
typedef struct Record {
    int64_t offset, bytes;
    uint64_t flags;
    bool has_data;              /* QIOV, or zeroes when it is NULL */
    QEMUIOVector *qiov;
    size_t qiov_offset;
} Record;

/* The entry, and in the same request the data. */
static int coroutine_fn write_entry(LogWrites *s, const Record *r)
{
    LogEntry e = {
        .sector = GUINT64_TO_LE(r->offset / s->sector_bytes),
        .sectors = GUINT64_TO_LE(r->bytes / s->sector_bytes),
        .flags = GUINT64_TO_LE(r->flags),
    };
    int64_t at = s->end * s->sector_bytes;
    QEMUIOVector qiov;

    memset(s->sector, 0, s->sector_bytes);
    memcpy(s->sector, &e, sizeof(e));
    qemu_iovec_init(&qiov, (r->qiov ? r->qiov->niov : 0) + 1);
    qemu_iovec_add(&qiov, s->sector, s->sector_bytes);
    if (r->has_data && r->qiov) {
        qemu_iovec_concat(&qiov, r->qiov, r->qiov_offset, r->bytes);
    }
    int ret = bdrv_co_pwritev(s->log, at, qiov.size, &qiov, 0);
    qemu_iovec_destroy(&qiov);
    if (ret == 0 && r->has_data && !r->qiov) {
        ret = bdrv_co_pwrite_zeroes(s->log, at + s->sector_bytes, r->bytes, 0);
    }
    return ret;
}

/* Append a record. Lock held. An entry counts when it is there as a whole. */
static int coroutine_fn append(LogWrites *s, const Record *r)
{
    int ret = begin_log(s);

    ret = ret < 0 ? ret : write_entry(s, r);
    if (ret < 0) {
        return ret;
    }
    s->end += 1 + (r->has_data ? r->bytes / s->sector_bytes : 0);
    s->entries++;
    if ((r->flags & (LOG_FLUSH | LOG_FUA)) ||
        s->entries - s->super_entries >= s->super_interval) {
        ret = write_super(s, s->entries);
    }
    return ret;
}

/* REQUEST_RET: how the request to the file has ended. */
static int coroutine_fn log_completed(BlockDriverState *bs, int request_ret, const Record *r)
{
    LogWrites *s = bs->opaque;

    if (request_ret < 0) {
        return request_ret;
    }
    qemu_co_mutex_lock(&s->lock);
    int ret = append(s, r);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

static void logwrites_close(BlockDriverState *bs)
{
    LogWrites *s = bs->opaque;

    if (s->sector && s->entries != s->super_entries) {
        int ret = write_super(s, s->entries);
        if (ret < 0) {
            error_report("blklogwrites: could not write the log's super block: %s",
                         strerror(-ret));
        }
    }
    qemu_vfree(s->sector);
}

/* ---- requests --------------------------------------------------------------------- */

static int coroutine_fn logwrites_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset, BdrvRequestFlags flags)
{
    Record r = { .offset = offset, .bytes = bytes, .has_data = true, .qiov = qiov,
                 .qiov_offset = qiov_offset, .flags = flags & BDRV_REQ_FUA ? LOG_FUA : 0 };
    int ret = bdrv__filter_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset, flags);

    return log_completed(bs, ret, &r);
}

static int coroutine_fn logwrites_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, BdrvRequestFlags flags)
{
    Record r = { .offset = offset, .bytes = bytes, .has_data = true,
                 .flags = flags & BDRV_REQ_FUA ? LOG_FUA : 0 };
    int ret = bdrv__filter_co_pwrite_zeroes(bs, offset, bytes, flags);

    return log_completed(bs, ret, &r);
}

static int coroutine_fn logwrites_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                              int64_t bytes)
{
    Record r = { .offset = offset, .bytes = bytes, .flags = LOG_DISCARD };
    int ret = bdrv__filter_co_pdiscard(bs, offset, bytes);

    return log_completed(bs, ret, &r);
}

static int coroutine_fn logwrites_co_flush(BlockDriverState *bs)
{
    LogWrites *s = bs->opaque;
    Record r = { .flags = LOG_FLUSH };

    /* What completes meanwhile has to wait, and so comes after the flush in the log. */
    qemu_co_mutex_lock(&s->lock);
    int ret = bdrv_co_flush(bs->file->bs);
    ret = ret < 0 ? ret : append(s, &r);
    qemu_co_mutex_unlock(&s->lock);
    return ret < 0 ? ret : bdrv_co_flush(s->log->bs);
}

static BlockDriver bdrv_logwrites = {
    .format_name = "blklogwrites",
    .instance_size = sizeof(LogWrites),
    .is_filter = true,
    .has_variable_length = true,
    .bdrv_open = logwrites_open,
    .bdrv_close = logwrites_close,
    .bdrv_refresh_limits = logwrites_refresh_limits,
    .bdrv_co_getlength = bdrv__filter_co_getlength,
    .bdrv_co_preadv_part = bdrv__filter_co_preadv_part,
    .bdrv_co_pwritev_part = logwrites_co_pwritev_part,
    .bdrv_co_pwrite_zeroes = logwrites_co_pwrite_zeroes,
    .bdrv_co_pdiscard = logwrites_co_pdiscard,
    .bdrv_co_flush = logwrites_co_flush,
};

static void logwrites_driver_init(void)
{
    bdrv_register(&bdrv_logwrites);
}
block_init(logwrites_driver_init)
