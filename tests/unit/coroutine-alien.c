/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coroutine core alone, for a machine that is emulated: compiled and run by
 * test-coroutine-aarch64.sh together with the core's sources, and with what these need of
 * the rest of the library and of GLib put in here.
 */
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "aio/coroutine-internal.h"

#define CHECK(x)                                                                \
    do {                                                                        \
        if (!(x)) {                                                             \
            printf("not true in line %d: %s\n", __LINE__, #x);                  \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

/* There is no event loop. */
AioContext *qemu_get_current_aio_context(void) { return NULL; }
void aio_context_acquire(AioContext *ctx) { abort(); }
void aio_context_release(AioContext *ctx) { abort(); }
void aio_message_post(AioContext *ctx, AioMessage *msg) { abort(); }
void aio_bh_schedule_oneshot_full(AioContext *ctx, QEMUBHFunc *cb, void *opaque,
                                  const char *name) { abort(); }
void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        AioPollFn *io_poll, IOHandler *io_poll_ready, void *opaque)
{
    abort();
}

/* ---- what a switch must preserve ----------------------------------------------------- */

/* Enough variables that all call-saved registers, also of the vector unit, are in use. */
static void coroutine_fn compute(void *opaque)
{
    double *result = opaque;
    double f0 = result[0], f1 = f0 + 1, f2 = f0 + 2, f3 = f0 + 3, f4 = f0 + 4, f5 = f0 + 5,
           f6 = f0 + 6, f7 = f0 + 7;
    uint64_t i0 = f0, i1 = i0 + 1, i2 = i0 + 2, i3 = i0 + 3, i4 = i0 + 4, i5 = i0 + 5,
             i6 = i0 + 6, i7 = i0 + 7, i8 = i0 + 8, i9 = i0 + 9;

    for (int round = 0; round < 1000; round++) {
        f0 += f1; f1 -= f2; f2 += f3; f3 -= f4; f4 += f5; f5 -= f6; f6 += f7; f7 = -f7;
        i0 += i1; i1 ^= i2; i2 += i3; i3 ^= i4; i4 += i5; i5 ^= i6; i6 += i7; i7 ^= i8;
        i8 += i9; i9 ^= i0;
        if (qemu_in_coroutine()) {
            qemu_coroutine_yield();
        }
    }
    result[0] = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7;
    result[1] = (double)((i0 + i1 + i2 + i3 + i4 + i5 + i6 + i7 + i8 + i9) >> 16);
}

static void check_registers(void)
{
    enum { N = 3 };
    double want[N][2], got[N][2];
    Coroutine *co[N];

    for (int i = 0; i < N; i++) {
        want[i][0] = got[i][0] = 10 * i;
        compute(want[i]);
        co[i] = qemu_coroutine_create(compute, got[i]);
    }
    for (int round = 0; round < 1001; round++) {
        for (int i = 0; i < N; i++) {
            qemu_coroutine_enter(co[i]);
        }
    }
    for (int i = 0; i < N; i++) {
        CHECK(want[i][0] == got[i][0]);
        CHECK(want[i][1] == got[i][1]);
    }
}

/* ---- nesting, waking, locking -------------------------------------------------------- */

static void coroutine_fn nest(void *opaque)
{
    int *depth = opaque;
    if (++*depth < 100) {
        qemu_coroutine_enter(qemu_coroutine_create(nest, depth));
    }
    /* the stack is aligned as the ABI wants it */
    CHECK((uintptr_t)__builtin_frame_address(0) % 16 == 0);
}

static Coroutine *hopper[2];
static int hops;

static void coroutine_fn hop(void *opaque)
{
    int me = (int)(intptr_t)opaque;
    while (hops < 20000) {
        hops++;
        aio_co_wake(hopper[!me]);
        qemu_coroutine_yield();
    }
    if (hops++ == 20000) {
        aio_co_wake(hopper[!me]);
    }
}

static CoMutex mutex;
static int locked;

static void coroutine_fn lock(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    locked++;
    qemu_coroutine_yield();
    qemu_co_mutex_unlock(&mutex);
}

int main(void)
{
    check_registers();
    int depth = 0;
    qemu_coroutine_enter(qemu_coroutine_create(nest, &depth));
    CHECK(depth == 100);
    for (intptr_t i = 0; i < 2; i++) {
        hopper[i] = qemu_coroutine_create(hop, (void *)i);
    }
    qemu_coroutine_enter(hopper[0]);
    CHECK(hops == 20002);
    Coroutine *a = qemu_coroutine_create(lock, NULL), *b = qemu_coroutine_create(lock, NULL);
    qemu_coroutine_enter(a);
    qemu_coroutine_enter(b);
    CHECK(locked == 1);
    qemu_coroutine_enter(a);
    CHECK(locked == 2);
    qemu_coroutine_enter(b);
    printf("all is well\n");
    return 0;
}
