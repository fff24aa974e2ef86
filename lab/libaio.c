/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux AIO on the lab's files: see aio/port.h. A request that was submitted is an agent of
 * its own; its data moves when it completes, so both the order of completions and that of
 * effects on the disk are the strategy's to choose.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/event.h"
#include "lab/files.h"
#include "lab/port-lab.h"
#include "lab/real.h"
#include "lab/trouble.h"
#include "lab/world.h"

/* io_set_eventfd(): the kernel calls it IOCB_FLAG_RESFD. */
enum { COUNTS_IN_EVENTFD = 1 << 0 };

typedef struct Request Request;
struct Request {
    Request *next;
    struct Context *context;
    LabOpenFile *file;
    struct iocb *iocb;          /* the program's, only to be handed back */
    struct iocb copy;
    uint32_t number;
    int niov;
    struct iovec iov[];
};

typedef struct Context {
    unsigned max, busy;         /* in flight, or complete and not taken */
    GQueue complete;            /* of struct io_event */
} Context;

unsigned lab_disk_generation;
/* In flight, all contexts, oldest first. */
static Request *first, **last = &first;
static uint16_t submitted[LAB_THREADS_MAX];

static Context *context_of(io_context_t ctx)
{
    return (Context *)ctx;
}

int lab_io_setup(int max_events, io_context_t *ctx)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)ctx, true);
    if (max_events <= 0 || *ctx) {
        return -EINVAL;
    }
    Context *c = g_new0(Context, 1);
    c->max = max_events;
    *ctx = (io_context_t)c;
    return 0;
}

/* ---- submission ------------------------------------------------------------------------ */

/* The buffers of IOCB in IOV, which has room for as many as there are; -EINVAL. */
static int vector_of(const struct iocb *iocb, struct iovec *iov)
{
    switch (iocb->aio_lio_opcode) {
    case IO_CMD_PREAD:
    case IO_CMD_PWRITE:
        iov[0] = (struct iovec){ iocb->u.c.buf, iocb->u.c.nbytes };
        return 1;
    case IO_CMD_PREADV:
    case IO_CMD_PWRITEV:
        memcpy(iov, iocb->u.c.buf, iocb->u.c.nbytes * sizeof(*iov));
        return iocb->u.c.nbytes;
    case IO_CMD_FSYNC:
    case IO_CMD_FDSYNC:
        return 0;
    default:
        return -EINVAL;
    }
}

static int submit_one(Context *c, struct iocb *iocb)
{
    bool vectored = iocb->aio_lio_opcode == IO_CMD_PREADV ||
                    iocb->aio_lio_opcode == IO_CMD_PWRITEV;
    unsigned room = vectored ? iocb->u.c.nbytes : 1;
    LabOpenFile *file = lab_file_of(iocb->aio_fildes);

    if (!file) {
        if (fcntl(iocb->aio_fildes, F_GETFD) >= 0) {
            lab_unsupported("AIO on what is not a regular file");
        }
        return -EBADF;
    }
    if (c->busy == c->max || lab_trouble(LAB_TROUBLE_AGAIN) == LAB_TROUBLE_AGAIN) {
        return -EAGAIN;
    }
    if (room > IOV_MAX) {
        return -EINVAL;
    }
    Request *r = g_malloc0(sizeof(*r) + room * sizeof(struct iovec));
    r->niov = vector_of(iocb, r->iov);
    if (r->niov < 0) {
        g_free(r);
        return -EINVAL;
    }
    r->context = c;
    r->file = file;
    file->users++;
    r->iocb = iocb;
    r->copy = *iocb;
    r->number = lab_self() << 16 | submitted[lab_self()]++;
    *last = r;
    last = &r->next;
    c->busy++;
    lab_disk_generation++;
    return 0;
}

int lab_io_submit(io_context_t ctx, long n, struct iocb **iocbs)
{
    lab_syscall_point(LAB_OP_SUBMIT, (uintptr_t)ctx, true);
    for (long i = 0; i < n; i++) {
        int ret = submit_one(context_of(ctx), iocbs[i]);
        if (ret < 0) {
            return i ? i : ret;
        }
    }
    lab_changed();
    return n;
}

/* ---- completion ------------------------------------------------------------------------ */

unsigned lab_disk_agents(LabAgent *agents, LabOp *ops, unsigned max)
{
    unsigned n = 0;

    for (Request *r = first; r && n < max; r = r->next) {
        agents[n] = (LabAgent){ LAB_AGENT_DISK, r->number };
        ops[n++] = (LabOp){ LAB_OP_COMPLETE, true, (uintptr_t)r->context, "disk" };
    }
    return n;
}

static long perform(Request *r)
{
    int opcode = r->copy.aio_lio_opcode;

    if (opcode == IO_CMD_FSYNC || opcode == IO_CMD_FDSYNC) {
        return lab_file_flush(r->file);
    }
    if (lab_trouble(LAB_TROUBLE_AGAIN) == LAB_TROUBLE_AGAIN) {
        return -EAGAIN;
    }
    return lab_file_transfer(r->file, r->iov, r->niov, r->copy.u.c.offset,
                             opcode == IO_CMD_PWRITE || opcode == IO_CMD_PWRITEV,
                             r->copy.aio_rw_flags);
}

static void complete(Request **at)
{
    Request *r = *at;

    *at = r->next;
    if (last == &r->next) {
        last = at;
    }
    struct io_event event = { .data = r->copy.data, .obj = r->iocb, .res = perform(r) };
    g_queue_push_tail(&r->context->complete, g_memdup2(&event, sizeof(event)));
    if (r->copy.u.c.flags & COUNTS_IN_EVENTFD) {
        lab_eventfd_post(r->copy.u.c.resfd);
    }
    lab_file_unref(r->file);
    g_free(r);
    lab_disk_generation++;
    lab_changed();
}

void lab_disk_complete(uint32_t number)
{
    for (Request **at = &first; *at; at = &(*at)->next) {
        if ((*at)->number == number) {
            complete(at);
            return;
        }
    }
    lab_fail(LAB_DIVERGED, "disk request %" PRIu32 " is not in flight", number);
}

bool lab_io_ready(io_context_t ctx)
{
    lab_point(LAB_OP_LOAD, (uintptr_t)ctx, false);
    return !g_queue_is_empty(&context_of(ctx)->complete);
}

bool lab_io_take(io_context_t ctx, struct io_event *event)
{
    Context *c = context_of(ctx);

    if (!lab_io_ready(ctx)) {
        return false;
    }
    struct io_event *e = g_queue_pop_head(&c->complete);
    *event = *e;
    g_free(e);
    c->busy--;
    return true;
}

int lab_io_destroy(io_context_t ctx)
{
    Context *c = context_of(ctx);

    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)ctx, true);
    /* The kernel waits for what is in flight. */
    for (Request **at = &first; *at;) {
        if ((*at)->context == c) {
            complete(at);
        } else {
            at = &(*at)->next;
        }
    }
    g_queue_clear_full(&c->complete, g_free);
    g_free(c);
    return 0;
}
