/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests in flight: coroutines that know what they must read. */
#include "graph-fuzz.h"

typedef struct Worker {
    Load *load;
    int first;                  /* of its blocks */
    unsigned random;
} Worker;

struct Load {
    BlockBackend *blk;
    bool mobile;                /* moves take the backend along */
    Shadow *shadow;             /* each block is its worker's */
    bool may_write;             /* atomic */
    int writing;                /* atomic */
    bool stop;                  /* atomic */
    int running;                /* atomic */
    int64_t requests;           /* atomic */
    Worker worker[WORKERS];
};

static unsigned next_random(Worker *w)
{
    w->random = w->random * 1103515245 + 12345;
    return w->random >> 16;
}

static void coroutine_fn read_block(Worker *w, int block)
{
    uint8_t buf[BLOCK_BYTES], want[BLOCK_BYTES];
    int ret = blk_co_pread(w->load->blk, block * BLOCK_BYTES, sizeof(buf), buf, 0);

    if (ret == -ENOMEDIUM) {
        return;
    }
    g_assert_cmpint(ret, ==, 0);
    memset(want, w->load->shadow->now[block], sizeof(want));
    g_assert_cmpmem(buf, sizeof(buf), want, sizeof(want));
}

static void coroutine_fn write_block(Worker *w, int block)
{
    uint8_t buf[BLOCK_BYTES];
    Load *l = w->load;

    qatomic_inc(&l->writing);
    if (qatomic_read_sc(&l->may_write)) {
        memset(buf, next_random(w), sizeof(buf));
        qatomic_set(&l->shadow->coming[block], buf[0]);
        int ret = blk_co_pwrite(l->blk, block * BLOCK_BYTES, sizeof(buf), buf, 0);
        g_assert_true(ret == 0 || ret == -ENOMEDIUM);
        if (ret == 0) {
            qatomic_set(&l->shadow->now[block], buf[0]);
        }
    }
    qatomic_dec(&l->writing);
    aio_wait_kick();
}

static void coroutine_fn request(Worker *w)
{
    int block = w->first + next_random(w) % BLOCKS_PER_WORKER;

    if (next_random(w) % 2) {
        write_block(w, block);
    } else {
        read_block(w, block);
    }
}

/*
 * Requests start where the backend lives. Our token keeps it there; with it we would hold up
 * a section that parks us, so we look for ourselves and the backend does not park.
 */
static void coroutine_fn mobile_request(Worker *w)
{
    BlockBackend *blk = w->load->blk;

    aio_co_reschedule_self(blk_get_aio_context(blk));
    blk_inc_in_flight(blk);
    if (!blk_in_drain(blk) &&
        blk_get_aio_context(blk) == qemu_get_current_aio_context()) {
        request(w);
    }
    blk_dec_in_flight(blk);
}

static void coroutine_fn work(void *opaque)
{
    Worker *w = opaque;
    Load *l = w->load;

    while (!qatomic_read(&l->stop)) {
        if (l->mobile) {
            mobile_request(w);
        } else {
            request(w);         /* parked by the backend while that is drained */
        }
        qatomic_inc(&l->requests);
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    qatomic_dec(&l->running);
    aio_wait_kick();
}

Load *load_start(BlockBackend *blk, Shadow *shadow, int first, bool may_write, bool mobile)
{
    Load *l = g_new0(Load, 1);

    *l = (Load) { .blk = blk, .mobile = mobile, .shadow = shadow, .may_write = may_write,
                  .running = WORKERS };
    blk_set_allow_aio_context_change(blk, mobile);
    blk_set_disable_request_queuing(blk, mobile);
    for (int i = 0; i < WORKERS; i++) {
        l->worker[i] = (Worker) { l, first + i * BLOCKS_PER_WORKER, first * 7 + i };
        aio_co_enter(blk_get_aio_context(blk), qemu_coroutine_create(work, &l->worker[i]));
    }
    return l;
}

BlockBackend *load_backend(Load *l)
{
    return l->blk;
}

void load_allow_writes(Load *l, bool allow)
{
    qatomic_set_mb(&l->may_write, allow);
    if (!allow) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&l->writing) > 0);
    }
}

bool load_writes(Load *l)
{
    return qatomic_read(&l->may_write);
}

int64_t load_requests(Load *l)
{
    return qatomic_read(&l->requests);
}

void load_stop(Load *l)
{
    qatomic_set(&l->stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&l->running) > 0);
    blk_unref(l->blk);
    g_free(l);
}
