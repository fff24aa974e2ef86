/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scatter lists: random vectors of random pieces, each call compared with what a flat copy of
 * the same bytes says. Pieces may be empty; no two touch, so an overrun hits a guard byte.
 */
#include "miniblk/osdep.h"
#include <sys/socket.h>
#include "miniblk/iov.h"
#include "miniblk/thread.h"
#include "trap.h"

enum { GUARD = 0xee, PIECES_MAX = 80, PIECE_BYTES_MAX = 50 };

typedef struct Vec {
    struct iovec *iov, *as_made;
    unsigned cnt;
    size_t size;
    uint8_t *flat;              /* the bytes that the vector should have */
} Vec;

static size_t random_below(size_t limit)
{
    return (uint32_t)g_test_rand_int() % limit;
}

static Vec *vec_new(void)
{
    Vec *v = g_new0(Vec, 1);
    v->cnt = 1 + random_below(PIECES_MAX);
    v->iov = g_new0(struct iovec, v->cnt);
    for (unsigned i = 0; i < v->cnt; i++) {
        size_t len = random_below(4) ? random_below(PIECE_BYTES_MAX) : 0;
        uint8_t *piece = g_malloc(len + 2);
        memset(piece, GUARD, len + 2);
        v->iov[i] = (struct iovec) { .iov_base = piece + 1, .iov_len = len };
        v->size += len;
    }
    v->as_made = g_memdup2(v->iov, v->cnt * sizeof(*v->iov));
    v->flat = g_malloc0(v->size + 1);
    g_assert_cmpuint(iov_memset(v->iov, v->cnt, 0, 0, (size_t)-1), ==, v->size);
    return v;
}

static void check_contents(const Vec *v)
{
    size_t at = 0;
    for (unsigned i = 0; i < v->cnt; i++) {
        const uint8_t *p = v->as_made[i].iov_base;
        size_t len = v->as_made[i].iov_len;
        g_assert_cmpmem(p, len, v->flat + at, len);
        g_assert_cmpint(p[-1], ==, GUARD);
        g_assert_cmpint(p[len], ==, GUARD);
        at += len;
    }
    g_assert_cmpuint(at, ==, v->size);
    g_assert_cmpmem(v->iov, v->cnt * sizeof(*v->iov), v->as_made, v->cnt * sizeof(*v->iov));
}

static void vec_free(Vec *v)
{
    check_contents(v);
    for (unsigned i = 0; i < v->cnt; i++) {
        g_free((uint8_t *)v->as_made[i].iov_base - 1);
    }
    g_free(v->as_made);
    g_free(v->iov);
    g_free(v->flat);
    g_free(v);
}

/* A range that may reach beyond the end, from anywhere up to the end. */
static void random_range(const Vec *v, size_t *offset, size_t *bytes, size_t *inside)
{
    *offset = random_below(v->size + 1);
    *bytes = random_below(8) ? random_below(v->size + 20) : (size_t)-1;
    *inside = MIN(*bytes, v->size - *offset);
}

static void random_fill(Vec *v)
{
    for (size_t i = 0; i < v->size; i++) {
        v->flat[i] = g_test_rand_int();
    }
    g_assert_cmpuint(iov_from_buf(v->iov, v->cnt, 0, v->flat, v->size), ==, v->size);
}

/* ---- copying ------------------------------------------------------------------------------- */

static void test_copies_and_fills_match_a_flat_buffer(void)
{
    for (int round = 0; round < 300; round++) {
        Vec *v = vec_new();
        random_fill(v);
        for (int i = 0; i < 20; i++) {
            size_t offset, bytes, inside;
            random_range(v, &offset, &bytes, &inside);
            g_autofree uint8_t *buf = g_malloc(inside + 1);
            memset(buf, GUARD, inside + 1);
            g_assert_cmpuint(iov_to_buf(v->iov, v->cnt, offset, buf, bytes), ==, inside);
            g_assert_cmpmem(buf, inside, v->flat + offset, inside);
            g_assert_cmpint(buf[inside], ==, GUARD);

            random_range(v, &offset, &bytes, &inside);
            int fill = g_test_rand_int() & 0xff;
            g_assert_cmpuint(iov_memset(v->iov, v->cnt, offset, fill, bytes), ==, inside);
            memset(v->flat + offset, fill, inside);

            random_range(v, &offset, &bytes, &inside);
            g_autofree uint8_t *from = g_malloc(inside + 1);
            memset(from, g_test_rand_int(), inside + 1);
            g_assert_cmpuint(iov_from_buf(v->iov, v->cnt, offset, from, inside), ==, inside);
            memcpy(v->flat + offset, from, inside);
            check_contents(v);
        }
        g_assert_cmpuint(iov_size(v->iov, v->cnt), ==, v->size);
        vec_free(v);
    }
}

static void test_copy_describes_a_range(void)
{
    for (int round = 0; round < 300; round++) {
        Vec *v = vec_new();
        random_fill(v);
        size_t offset, bytes, inside;
        random_range(v, &offset, &bytes, &inside);
        struct iovec dst[PIECES_MAX];
        unsigned limit = random_below(PIECES_MAX + 1);
        unsigned n = iov_copy(dst, limit, v->iov, v->cnt, offset, bytes);
        size_t size = iov_size(dst, n);
        g_assert_cmpuint(n, <=, limit);
        g_assert_cmpuint(size, <=, inside);
        g_assert_true(size == inside || n == limit);
        g_autofree uint8_t *buf = g_malloc(size + 1);
        iov_to_buf(dst, n, 0, buf, size);
        g_assert_cmpmem(buf, size, v->flat + offset, size);
        vec_free(v);
    }
}

/* ---- discarding ---------------------------------------------------------------------------- */

static void test_discards_and_their_undoing(void)
{
    for (int round = 0; round < 2000; round++) {
        Vec *v = vec_new();
        random_fill(v);
        struct iovec *iov = v->iov;
        unsigned cnt = v->cnt;
        size_t begin = 0, end = v->size;
        IOVDiscardUndo undo[6];
        int undos = random_below(ARRAY_SIZE(undo) + 1);

        for (int i = 0; i < undos; i++) {
            size_t want = random_below(8) ? random_below(v->size / 3 + 2) : v->size + 1;
            size_t expect = MIN(want, end - begin);
            if (g_test_rand_bit()) {
                g_assert_cmpuint(iov_discard_front_undoable(&iov, &cnt, want, &undo[i]), ==,
                                 expect);
                begin += expect;
            } else {
                g_assert_cmpuint(iov_discard_back_undoable(iov, &cnt, want, &undo[i]), ==,
                                 expect);
                end -= expect;
            }
            g_assert_cmpuint(iov_size(iov, cnt), ==, end - begin);
            g_autofree uint8_t *buf = g_malloc(end - begin + 1);
            iov_to_buf(iov, cnt, 0, buf, end - begin);
            g_assert_cmpmem(buf, end - begin, v->flat + begin, end - begin);
        }
        for (int i = undos; i-- > 0; ) {
            iov_discard_undo(&undo[i]);
        }
        vec_free(v);            /* the array is as it was */
    }
}

static void test_discard_without_undo(void)
{
    char a[4] = "abc", b[4] = "def";
    struct iovec array[] = { { a, 3 }, { NULL, 0 }, { b, 3 } }, *iov = array;
    unsigned cnt = 3;
    g_assert_cmpuint(iov_discard_front(&iov, &cnt, 0), ==, 0);
    g_assert_cmpuint(cnt, ==, 3);
    g_assert_cmpuint(iov_discard_front(&iov, &cnt, 4), ==, 4);
    g_assert_true(iov == &array[2] && cnt == 1 && array[2].iov_base == b + 1);
    g_assert_cmpuint(iov_discard_back(iov, &cnt, 1), ==, 1);
    g_assert_cmpuint(array[2].iov_len, ==, 1);
    g_assert_cmpuint(iov_discard_back(iov, &cnt, 9), ==, 1);
    g_assert_cmpuint(cnt, ==, 0);
    g_assert_cmpuint(iov_discard_front(&iov, &cnt, 9), ==, 0);
}

/* ---- sockets ------------------------------------------------------------------------------- */

typedef struct Receiver {
    int fd;
    Vec *to;
} Receiver;

static void *receive_all(void *opaque)
{
    Receiver *r = opaque;
    size_t at = 0;
    while (at < r->to->size) {
        ssize_t n = iov_recv(r->fd, r->to->iov, r->to->cnt, at, r->to->size - at);
        g_assert_cmpint(n, >, 0);
        at += n;
    }
    /* the other end is closed by then or later */
    g_assert_cmpint(iov_recv(r->fd, r->to->iov, r->to->cnt, 0, 1), ==, 0);
    return NULL;
}

static void test_what_is_sent_is_received(void)
{
    for (int round = 0; round < 50; round++) {
        Vec *from = vec_new(), *to = vec_new();
        while (from->size < to->size) {
            vec_free(from);
            from = vec_new();
        }
        random_fill(from);
        int sv[2];
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), ==, 0);
        QemuThread thread;
        Receiver r = { sv[1], to };
        qemu_thread_create(&thread, "receiver", receive_all, &r, QEMU_THREAD_JOINABLE);
        for (size_t at = 0; at < to->size; ) {
            size_t want = random_below(to->size - at + 1);
            g_assert_cmpint(iov_send(sv[0], from->iov, from->cnt, at, want), ==, want);
            at += want;
        }
        close(sv[0]);
        qemu_thread_join(&thread);
        close(sv[1]);
        memcpy(to->flat, from->flat, to->size);
        vec_free(from);
        vec_free(to);
    }
}

static void test_sockets_that_would_block(void)
{
    static uint8_t big[1 << 20];
    struct iovec iov[] = { { big, 7 }, { big + 7, sizeof(big) - 7 } };
    int sv[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
    g_assert_cmpint(iov_recv(sv[0], iov, 2, 0, 100), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpint(iov_recv(sv[0], iov, 2, 0, 0), ==, 0);
    ssize_t sent = iov_send(sv[0], iov, 2, 0, sizeof(big));
    g_assert_cmpint(sent, >, 7);        /* a part, which is no error */
    g_assert_cmpint(sent, <, sizeof(big));
    g_assert_cmpint(iov_send(sv[0], iov, 2, sent, sizeof(big) - sent), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpint(iov_recv(sv[1], iov, 2, 0, sizeof(big)), ==, sent);
    close(sv[0]);
    close(sv[1]);
}

/* ---- QEMUIOVector -------------------------------------------------------------------------- */

static void test_qiov_slices_and_concatenations(void)
{
    for (int round = 0; round < 300; round++) {
        Vec *v = vec_new();
        random_fill(v);
        QEMUIOVector all, slice, joined;
        qemu_iovec_init_external(&all, v->iov, v->cnt);
        g_assert_cmpuint(all.size, ==, v->size);
        size_t offset = random_below(v->size + 1);
        size_t bytes = random_below(v->size - offset + 1);
        qemu_iovec_init_slice(&slice, &all, offset, bytes);
        g_assert_cmpuint(slice.size, ==, bytes);

        /* twice the slice, from both ends of it */
        qemu_iovec_init(&joined, 1);
        qemu_iovec_concat(&joined, &slice, 0, bytes);
        g_assert_cmpuint(qemu_iovec_concat_iov(&joined, v->iov, v->cnt, offset, bytes), ==,
                         bytes);
        size_t cut = random_below(bytes + 1);
        qemu_iovec_discard_back(&joined, cut);
        g_assert_cmpuint(joined.size, ==, 2 * bytes - cut);
        g_assert_cmpuint(iov_size(joined.iov, joined.niov), ==, joined.size);
        g_autofree uint8_t *buf = g_malloc(joined.size + 1);
        g_assert_cmpuint(qemu_iovec_to_buf(&joined, 0, buf, joined.size), ==, joined.size);
        g_assert_cmpmem(buf, bytes, v->flat + offset, bytes);
        g_assert_cmpmem(buf + bytes, bytes - cut, v->flat + offset, bytes - cut);
        qemu_iovec_destroy(&joined);
        qemu_iovec_destroy(&slice);
        vec_free(v);
    }
}

static void test_qiov_clone_and_compare(void)
{
    for (int round = 0; round < 300; round++) {
        Vec *v = vec_new();
        random_fill(v);
        QEMUIOVector a, b;
        g_autofree uint8_t *buf = g_memdup2(v->flat, v->size + 1);
        qemu_iovec_init_external(&a, v->iov, v->cnt);
        qemu_iovec_init(&b, v->cnt);
        qemu_iovec_clone(&b, &a, buf);
        g_assert_cmpint(b.niov, ==, a.niov);
        g_assert_cmpint(qemu_iovec_compare(&a, &b), ==, -1);
        if (v->size) {
            size_t at = random_below(v->size);
            buf[at] ^= 1;
            g_assert_cmpint(qemu_iovec_compare(&a, &b), ==, at);
        }
        qemu_iovec_destroy(&b);
        vec_free(v);
    }
}

static void test_qiov_zero_detection(void)
{
    for (int round = 0; round < 300; round++) {
        Vec *v = vec_new();
        QEMUIOVector q;
        qemu_iovec_init_external(&q, v->iov, v->cnt);
        g_assert_true(qemu_iovec_is_zero(&q, 0, v->size));
        if (v->size) {
            size_t at = random_below(v->size);
            g_assert_cmpuint(qemu_iovec_memset(&q, at, 1, 1), ==, 1);
            v->flat[at] = 1;
            g_assert_false(qemu_iovec_is_zero(&q, 0, v->size));
            g_assert_false(qemu_iovec_is_zero(&q, at, 1));
            g_assert_true(qemu_iovec_is_zero(&q, 0, at));
            g_assert_true(qemu_iovec_is_zero(&q, at + 1, v->size - at - 1));
        }
        vec_free(v);
    }
}

static void test_qiov_of_one_buffer(void)
{
    char buf[10] = "012345678";
    QEMUIOVector q = QEMU_IOVEC_INIT_BUF(q, buf, sizeof(buf));
    g_assert_true(q.iov == &q.local_iov && q.niov == 1 && q.size == 10);
    g_assert_true(qemu_iovec_buf(&q) == buf);
    char out[3];
    g_assert_cmpuint(qemu_iovec_to_buf(&q, 4, out, 3), ==, 3);
    g_assert_cmpmem(out, 3, "456", 3);
}

static void offset_beyond(void)
{
    char buf[4];
    struct iovec iov = { buf, 4 };
    iov_memset(&iov, 1, 5, 0, 1);
}

static void test_offset_beyond_the_end_aborts(void)
{
    trap(offset_beyond, "*assertion failed*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/copy-and-fill", test_copies_and_fills_match_a_flat_buffer);
    g_test_add_func("/iov/describe", test_copy_describes_a_range);
    g_test_add_func("/iov/discard/random", test_discards_and_their_undoing);
    g_test_add_func("/iov/discard/plain", test_discard_without_undo);
    g_test_add_func("/iov/socket/all", test_what_is_sent_is_received);
    g_test_add_func("/iov/socket/would-block", test_sockets_that_would_block);
    g_test_add_func("/iov/qiov/slices", test_qiov_slices_and_concatenations);
    g_test_add_func("/iov/qiov/clone", test_qiov_clone_and_compare);
    g_test_add_func("/iov/qiov/zero", test_qiov_zero_detection);
    g_test_add_func("/iov/qiov/one-buffer", test_qiov_of_one_buffer);
    g_test_add_func("/iov/misuse/offset", test_offset_beyond_the_end_aborts);
    return g_test_run();
}
