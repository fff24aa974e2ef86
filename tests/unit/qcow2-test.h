/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the qcow2 tests share: making images, checking them, running requests at once. */
#ifndef QCOW2_TEST_H
#define QCOW2_TEST_H

#include "image-test.h"

/* An image with create options OPTS ("size=1M,cluster_size=4k"). */
static inline void qcow2_create(const char *path, const char *opts)
{
    BlockDriver *drv = bdrv_find_format("qcow2");
    QDict *dict = keyval_parse(opts, NULL, &error_abort);

    g_assert_cmpint(bdrv_create(drv, path, dict, &error_abort), ==, 0);
    json_decref(dict);
}

static inline BlockBackend *qcow2_open_file(const char *path, const char *more)
{
    return open_rw(options_of("driver=qcow2,discard=unmap,file.driver=file,file.filename=%s%s",
                              path, more));
}

static inline BlockBackend *qcow2_open_ro(const char *path)
{
    return open_with_perms(options_of("driver=qcow2,read-only=on,file.driver=file,"
                                      "file.filename=%s", path), 0,
                           BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
}

/* The image must have neither corruptions nor (unless LEAKS_OK) leaks. */
static inline void qcow2_assert_consistent(BlockBackend *blk, bool leaks_ok)
{
    BdrvCheckResult res;

    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.check_errors, ==, 0);
    g_assert_cmpint(res.corruptions, ==, 0);
    if (!leaks_ok) {
        g_assert_cmpint(res.leaks, ==, 0);
    }
}

/* Run "qemu-img ARGS", where it is installed: it must succeed. */
static inline void qcow2_assert_peer(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static inline void qcow2_assert_peer(const char *fmt, ...)
{
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    va_list ap;
    int status;

    va_start(ap, fmt);
    g_autofree char *args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (peer) {
        g_autofree char *command = g_strdup_printf("%s %s", peer, args);
        g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status, NULL));
        g_assert_cmpint(status, ==, 0);
    }
}

/* The peer must find neither corruptions nor leaks. */
static inline void qcow2_assert_peer_finds_no_fault(const char *path)
{
    qcow2_assert_peer("check -q -f qcow2 %s", path);
}

/* Checks tell of each leak on stderr: not until qcow2_end_silence() is given what this returns. */
static inline int qcow2_silence(void)
{
    int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    g_assert_true(saved >= 0 && dup2(null, STDERR_FILENO) >= 0);
    close(null);
    return saved;
}

static inline void qcow2_end_silence(int saved_stderr)
{
    g_assert_cmpint(dup2(saved_stderr, STDERR_FILENO), >=, 0);
    close(saved_stderr);
}

/* ---- requests at the same time ----------------------------------------------------- */

typedef enum OpType {
    OP_WRITE, OP_COMPRESSED, OP_ZERO, OP_UNMAP, OP_DISCARD, OP_READ, OP_FLUSH
} OpType;

typedef struct Op {
    BlockBackend *blk;
    OpType type;
    int64_t offset, bytes;
    uint8_t *buf;               /* of writes and reads */
    int ret;
    int *pending;
} Op;

static void coroutine_fn op_entry(void *opaque)
{
    Op *op = opaque;

    switch (op->type) {
    case OP_WRITE:
        op->ret = blk_co_pwrite(op->blk, op->offset, op->bytes, op->buf, 0);
        break;
    case OP_COMPRESSED:
        op->ret = blk_co_pwrite(op->blk, op->offset, op->bytes, op->buf,
                                BDRV_REQ_WRITE_COMPRESSED);
        break;
    case OP_ZERO:
        op->ret = blk_co_pwrite_zeroes(op->blk, op->offset, op->bytes, 0);
        break;
    case OP_UNMAP:
        op->ret = blk_co_pwrite_zeroes(op->blk, op->offset, op->bytes, BDRV_REQ_MAY_UNMAP);
        break;
    case OP_DISCARD:
        op->ret = blk_co_pdiscard(op->blk, op->offset, op->bytes);
        break;
    case OP_READ:
        op->ret = blk_co_pread(op->blk, op->offset, op->bytes, op->buf, 0);
        break;
    case OP_FLUSH:
        op->ret = blk_co_flush(op->blk);
        break;
    }
    --*op->pending;
}

/* Make a write a compressed one, of the whole clusters in its range, if there are any. */
static inline void compress_op(Op *op, int64_t cluster_bytes, int64_t disk_bytes)
{
    int64_t start = QEMU_ALIGN_UP(op->offset, cluster_bytes), end = op->offset + op->bytes;

    if (end != disk_bytes) {
        end = QEMU_ALIGN_DOWN(end, cluster_bytes);
    }
    op->type = OP_WRITE;
    if (start < end) {
        op->type = OP_COMPRESSED;
        op->offset = start;
        op->bytes = end - start;
    }
}

/* Start N requests; *PENDING becomes 0 when all have ended. */
static inline void start_ops(Op *ops, int n, int *pending)
{
    *pending = n;
    for (int i = 0; i < n; i++) {
        ops[i].pending = pending;
        qemu_coroutine_enter(qemu_coroutine_create(op_entry, &ops[i]));
    }
}

static inline void wait_for_ops(int *pending)
{
    while (*pending) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static inline void run_ops(Op *ops, int n)
{
    int pending;

    start_ops(ops, n, &pending);
    wait_for_ops(&pending);
}

#endif
