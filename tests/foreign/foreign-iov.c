/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scatter lists in a program that knows nothing else of the library. */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/sockets.h"

/* "abc" "" "defgh" in memory of our own. */
static char bytes[9];
static struct iovec vector[3];

static void reset(void)
{
    memcpy(bytes, "abcdefgh", 9);
    vector[0] = (struct iovec) { bytes, 3 };
    vector[1] = (struct iovec) { bytes + 3, 0 };
    vector[2] = (struct iovec) { bytes + 3, 5 };
}

static void test_copying(void)
{
    char out[16] = "";
    reset();
    g_assert_cmpuint(iov_size(vector, 3), ==, 8);
    g_assert_cmpuint(iov_to_buf(vector, 3, 2, out, 4), ==, 4);
    g_assert_cmpmem(out, 4, "cdef", 4);
    g_assert_cmpuint(iov_to_buf(vector, 3, 6, out, 100), ==, 2);
    g_assert_cmpuint(iov_to_buf(vector, 3, 8, out, 100), ==, 0);
    g_assert_cmpuint(iov_from_buf(vector, 3, 1, "12345", 5), ==, 5);
    g_assert_cmpstr(bytes, ==, "a12345gh");
    g_assert_cmpuint(iov_memset(vector, 3, 7, '-', 5), ==, 1);
    g_assert_cmpuint(iov_memset(vector, 3, 0, '+', -1), ==, 8);
    g_assert_cmpstr(bytes, ==, "++++++++");
    g_assert_cmpuint(iov_to_buf(vector, 1, 1, out, 1), ==, 1);      /* one element */
}

static void test_discarding(void)
{
    struct iovec *iov = vector;
    unsigned int cnt = 3;
    reset();
    g_assert_cmpuint(iov_discard_front(&iov, &cnt, 4), ==, 4);
    g_assert_true(iov == &vector[2] && cnt == 1 && iov->iov_base == bytes + 4);
    g_assert_cmpuint(iov_discard_back(iov, &cnt, 3), ==, 3);
    g_assert_cmpuint(iov_size(iov, cnt), ==, 1);
    g_assert_cmpuint(iov_discard_back(iov, &cnt, 3), ==, 1);
    g_assert_cmpuint(cnt, ==, 0);
}

static void test_undoing(void)
{
    IOVDiscardUndo front, back;
    struct iovec before[3], *iov = vector;
    unsigned int cnt = 3;
    reset();
    memcpy(before, vector, sizeof(before));
    g_assert_cmpuint(iov_discard_front_undoable(&iov, &cnt, 1, &front), ==, 1);
    g_assert_cmpuint(iov_discard_back_undoable(iov, &cnt, 6, &back), ==, 6);
    g_assert_cmpuint(iov_size(iov, cnt), ==, 1);
    iov_discard_undo(&back);
    iov_discard_undo(&front);
    g_assert_cmpmem(vector, sizeof(vector), before, sizeof(before));
    cnt = 3;
    iov = vector;
    g_assert_cmpuint(iov_discard_back_undoable(iov, &cnt, 5, &back), ==, 5);    /* an edge */
    iov_discard_undo(&back);
    g_assert_cmpmem(vector, sizeof(vector), before, sizeof(before));
}

static void test_sockets(void)
{
    int sv[2];
    char in[8] = "";
    struct iovec dst[2] = { { in, 2 }, { in + 2, 6 } };
    reset();
    g_assert_cmpint(socketpair(PF_UNIX, SOCK_STREAM, 0, sv), ==, 0);
    g_assert_cmpint(fcntl(sv[1], F_SETFL, O_RDWR | O_NONBLOCK), ==, 0);
    g_assert_cmpint(iov_recv(sv[1], dst, 2, 0, 8), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpint(iov_send(sv[0], vector, 3, 2, 4), ==, 4);
    g_assert_cmpint(iov_send(sv[0], vector, 3, 0, 0), ==, 0);
    g_assert_cmpint(iov_recv(sv[1], dst, 2, 1, 7), ==, 4);      /* what there is */
    g_assert_cmpmem(in + 1, 4, "cdef", 4);
    g_assert_cmpuint(dst[0].iov_len, ==, 2);
    close(sv[0]);
    g_assert_cmpint(iov_recv(sv[1], dst, 2, 0, 8), ==, 0);
    close(sv[1]);
}

static void test_qiov(void)
{
    QEMUIOVector one = QEMU_IOVEC_INIT_BUF(one, bytes, 8), many, slice;
    char out[8];
    reset();
    g_assert_true(one.niov == 1 && one.size == 8 && one.iov->iov_base == bytes);
    qemu_iovec_init(&many, 1);
    for (int i = 0; i < 8; i++) {
        qemu_iovec_add(&many, bytes + 7 - i, 1);
    }
    g_assert_cmpuint(qemu_iovec_to_buf(&many, 0, out, 8), ==, 8);
    g_assert_cmpmem(out, 8, "hgfedcba", 8);
    qemu_iovec_init_slice(&slice, &many, 2, 3);
    g_assert_cmpuint(qemu_iovec_to_buf(&slice, 0, out, 8), ==, 3);
    g_assert_cmpmem(out, 3, "fed", 3);
    qemu_iovec_destroy(&slice);
    g_assert_cmpuint(qemu_iovec_memset(&many, 0, 0, many.size), ==, 8);
    g_assert_true(buffer_is_zero(bytes, 8));
    qemu_iovec_reset(&many);
    g_assert_cmpuint(many.size, ==, 0);
    qemu_iovec_concat(&many, &one, 4, 4);
    g_assert_cmpuint(qemu_iovec_from_buf(&many, 0, "wxyz", 4), ==, 4);
    g_assert_cmpmem(bytes + 4, 4, "wxyz", 4);
    qemu_iovec_destroy(&many);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/iov/copy", test_copying);
    g_test_add_func("/foreign/iov/discard", test_discarding);
    g_test_add_func("/foreign/iov/undo", test_undoing);
    g_test_add_func("/foreign/iov/sockets", test_sockets);
    g_test_add_func("/foreign/iov/qiov", test_qiov);
    return g_test_run();
}
