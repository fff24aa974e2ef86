/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-driver.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"

static char *scratch_dir, *socket_path;

/* ---- the node --------------------------------------------------------------------- */

typedef struct MemState {
    uint8_t *data;
    uint64_t size;
    QemuMutex lock;         /* protects HOLD, HELD and WAITERS */
    CoQueue waiters;
    bool hold;
    unsigned held;
    bool forbidden;         /* atomic */
    unsigned flushes, fua_writes;   /* atomic */
} MemState;

static int mem_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    MemState *s = bs->opaque;

    if (!bdrv_opt_size(options, "size", &s->size, errp)) {
        return -EINVAL;
    }
    s->data = g_malloc0(s->size);
    qemu_mutex_init(&s->lock);
    qemu_co_queue_init(&s->waiters);
    bs->total_sectors = DIV_ROUND_UP(s->size, BDRV_SECTOR_SIZE);
    bs->supported_write_flags = BDRV_REQ_FUA;
    return 0;
}

static void mem_close(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    g_assert_cmpuint(s->held, ==, 0);
    qemu_mutex_destroy(&s->lock);
    g_free(s->data);
}

/* What every request goes through: the rules, then the gate. */
static void coroutine_fn mem_enter(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    g_assert_true(qemu_get_current_aio_context() == bdrv_get_aio_context(bs));
    g_assert_false(qatomic_read(&s->forbidden));
    qemu_mutex_lock(&s->lock);
    while (s->hold) {
        s->held++;
        fx_wake();
        qemu_co_queue_wait(&s->waiters, &s->lock);
        s->held--;
    }
    qemu_mutex_unlock(&s->lock);
    g_assert_true(qemu_get_current_aio_context() == bdrv_get_aio_context(bs));
}

static int coroutine_fn mem_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;

    mem_enter(bs);
    qemu_iovec_from_buf(qiov, 0, s->data + offset, bytes);
    return 0;
}

static int coroutine_fn mem_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;

    mem_enter(bs);
    if (flags & BDRV_REQ_FUA) {
        qatomic_inc(&s->fua_writes);
    }
    qemu_iovec_to_buf(qiov, 0, s->data + offset, bytes);
    return 0;
}

static int coroutine_fn mem_flush(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    mem_enter(bs);
    qatomic_inc(&s->flushes);
    return 0;
}

static int coroutine_fn mem_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    MemState *s = bs->opaque;

    mem_enter(bs);
    memset(s->data + offset, 0, bytes);
    return 0;
}

/* The first half is data, the second a hole. */
static int coroutine_fn mem_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                         int64_t bytes, int64_t *pnum, int64_t *map,
                                         BlockDriverState **file)
{
    MemState *s = bs->opaque;
    int64_t half = s->size / 2;

    *map = offset;
    *file = bs;
    if (offset < half) {
        *pnum = MIN(bytes, half - offset);
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    }
    *pnum = bytes;
    return BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
}

static int64_t coroutine_fn mem_getlength(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    return s->size;
}

static void mem_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = 1;
}

static BlockDriver bdrv_mem = {
    .format_name = "test-mem",
    .protocol_name = "test-mem",
    .instance_size = sizeof(MemState),
    .has_variable_length = true,        /* the length need not be a multiple of 512 */
    .bdrv_file_open = mem_open,
    .bdrv_close = mem_close,
    .bdrv_refresh_limits = mem_refresh_limits,
    .bdrv_co_preadv = mem_preadv,
    .bdrv_co_pwritev = mem_pwritev,
    .bdrv_co_flush_to_disk = mem_flush,
    .bdrv_co_pdiscard = mem_pdiscard,
    .bdrv_co_block_status = mem_block_status,
    .bdrv_co_getlength = mem_getlength,
};

uint8_t *fx_data(BlockDriverState *bs)
{
    return ((MemState *)bs->opaque)->data;
}

void fx_hold(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    QEMU_MUTEX_GUARD(&s->lock);
    s->hold = true;
}

void fx_release(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    QEMU_MUTEX_GUARD(&s->lock);
    s->hold = false;
    while (qemu_co_enter_next(&s->waiters, &s->lock)) {
        /* all of them */
    }
}

unsigned fx_held(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    QEMU_MUTEX_GUARD(&s->lock);
    return s->held;
}

void fx_forbid(BlockDriverState *bs, bool forbid)
{
    MemState *s = bs->opaque;

    qatomic_set(&s->forbidden, forbid);
}

unsigned fx_flushes(BlockDriverState *bs)
{
    return qatomic_read(&((MemState *)bs->opaque)->flushes);
}

unsigned fx_fua_writes(BlockDriverState *bs)
{
    return qatomic_read(&((MemState *)bs->opaque)->fua_writes);
}

/* ---- what is done to the node ------------------------------------------------------ */

void fx_drained_begin(BlockDriverState *node)
{
    AioContext *ctx = bdrv_get_aio_context(node);

    aio_context_acquire(ctx);
    bdrv_drained_begin(node);
    aio_context_release(ctx);
    fx_forbid(node, true);
}

void fx_drained_end(BlockDriverState *node)
{
    AioContext *ctx = bdrv_get_aio_context(node);

    fx_forbid(node, false);
    aio_context_acquire(ctx);
    bdrv_drained_end(node);
    aio_context_release(ctx);
}

int fx_move(BlockDriverState *node, AioContext *to, Error **errp)
{
    AioContext *from = bdrv_get_aio_context(node);

    aio_context_acquire(from);
    int ret = bdrv_try_change_aio_context(node, to, NULL, errp);
    aio_context_release(from);
    return ret;
}

/* ---- server ----------------------------------------------------------------------- */

void fx_init(void)
{
    g_autoptr(GError) err = NULL;

    qemu_init_main_loop(&error_abort);
    bdrv_init();
    bdrv_register(&bdrv_mem);
    scratch_dir = g_dir_make_tmp("miniblk-nbd-XXXXXX", &err);
    g_assert_no_error(err);
    socket_path = g_build_filename(scratch_dir, "s", NULL);
}

void fx_cleanup(void)
{
    g_assert_null(blk_exp_next(NULL));
    g_assert_cmpint(access(socket_path, F_OK), ==, -1);
    g_assert_cmpint(rmdir(scratch_dir), ==, 0);
    g_free(socket_path);
    g_free(scratch_dir);
}

const char *fx_socket(void)
{
    return socket_path;
}

void fx_server_start(uint32_t max_connections, uint32_t handshake_max_secs)
{
    g_autoptr(json_t) addr = fx_json("{'type': 'unix', 'path': '%s'}", socket_path);

    nbd_server_start(addr, max_connections, handshake_max_secs, &error_abort);
}

QDict *fx_json(const char *fmt, ...)
{
    g_autofree char *text = NULL;
    json_error_t err;
    json_t *json;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_strdelimit(text, "'", '"');
    json = json_loads(text, 0, &err);
    if (!json) {
        g_error("%s: %s", text, err.text);
    }
    return json;
}

BlockDriverState *fx_node(const char *name, uint64_t size)
{
    return bdrv_open(NULL, NULL, fx_json("{'driver': 'test-mem', 'node-name': '%s', "
                                         "'size': %" PRIu64 "}", name, size),
                     BDRV_O_RDWR, &error_abort);
}

BlockExport *fx_export(const char *id, const char *node, const char *extra)
{
    return blk_exp_add(fx_json("{'type': 'nbd', 'id': '%s', 'node-name': '%s'%s%s}", id,
                               node, *extra ? ", " : "", extra), &error_abort);
}

void fx_export_delete(const char *id)
{
    blk_exp_request_shutdown(blk_exp_find(id));
    FX_WAIT_WHILE(blk_exp_find(id));
}

/* ---- waiting ---------------------------------------------------------------------- */

static void wake_bh(void *opaque)
{
    /* Nothing: that it has run lets main_loop_wait() return. */
}

void fx_wake(void)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wake_bh, NULL);
}

void fx_wait_no_clients(BlockExport *exp)
{
    FX_WAIT_WHILE(exp->drv->clients(exp) > 0);
}

struct FxThread {
    GThread *thread;
    void (*run)(void *opaque);
    void *opaque;
    bool done;              /* atomic */
};

static gpointer thread_main(gpointer opaque)
{
    FxThread *t = opaque;

    t->run(t->opaque);
    qatomic_set_mb(&t->done, true);
    fx_wake();
    return NULL;
}

FxThread *fx_thread_start(void (*run)(void *opaque), void *opaque)
{
    FxThread *t = g_new0(FxThread, 1);

    t->run = run;
    t->opaque = opaque;
    t->thread = g_thread_new("client", thread_main, t);
    return t;
}

void fx_thread_join(FxThread *t)
{
    FX_WAIT_WHILE(!qatomic_read_sc(&t->done));
    g_thread_join(t->thread);
    g_free(t);
}

void fx_client(void (*run)(void *opaque), void *opaque)
{
    fx_thread_join(fx_thread_start(run, opaque));
}
