/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's disk: what is in flight may land in any order, what is not flushed may be lost,
 * and requests may fail. Natively the same tests run on a disk that does none of this.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/thread.h"
#include "miniblk/lab-test.h"
#include "../unit/qcow2-test.h"

enum { SECTOR = 512 };

static int open_rw_fd(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void put(int fd, int sector, uint8_t value)
{
    uint8_t bytes[SECTOR];
    memset(bytes, value, SECTOR);
    g_assert_cmpint(pwrite(fd, bytes, SECTOR, sector * SECTOR), ==, SECTOR);
}

/* The byte that all of SECTOR consists of: sectors are not torn. */
static uint8_t get(int fd, int sector)
{
    uint8_t bytes[SECTOR] = { 0 };
    ssize_t n = pread(fd, bytes, SECTOR, sector * SECTOR);

    g_assert_true(n == SECTOR || n == 0);
    assert_bytes(bytes, SECTOR, bytes[0]);
    return bytes[0];
}

/* ---- files ----------------------------------------------------------------------------- */

static void test_names(void)
{
    g_autofree char *a = scratch_path("a"), *b = scratch_path("b");
    struct stat st;

    int fd = open_rw_fd(a);
    g_assert_cmpint(open(a, O_RDWR | O_CREAT | O_EXCL, 0644), ==, -1);
    g_assert_cmpint(errno, ==, EEXIST);
    put(fd, 0, 1);
    g_assert_cmpint(rename(a, b), ==, 0);
    g_assert_cmpint(stat(a, &st), ==, -1);
    g_assert_cmpint(errno, ==, ENOENT);
    g_assert_cmpint(stat(b, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, SECTOR);
    g_assert_cmpint(unlink(b), ==, 0);
    g_assert_cmpint(open(b, O_RDONLY), ==, -1);
    g_assert_cmpint(get(fd, 0), ==, 1);     /* open files outlive their names */
    close(fd);
}

static void test_contents(void)
{
    g_autofree char *path = scratch_path("contents");
    g_autofree char *back = NULL;
    gsize length;

    g_assert_true(g_file_set_contents(path, "some text", -1, NULL));
    g_assert_true(g_file_get_contents(path, &back, &length, NULL));
    g_assert_cmpstr(back, ==, "some text");
    FILE *f = fopen(path, "r+");
    char line[20];
    g_assert_nonnull(f);
    g_assert_nonnull(fgets(line, sizeof(line), f));
    g_assert_cmpstr(line, ==, "some text");
    fclose(f);
    unlink(path);
}

static void test_holes(void)
{
    g_autofree char *path = scratch_path("holes");
    int fd = open_rw_fd(path);

    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    put(fd, 128, 7);                        /* at 64 KiB */
    g_assert_cmpint(lseek(fd, 0, SEEK_DATA), ==, 64 << 10);
    g_assert_cmpint(lseek(fd, 0, SEEK_HOLE), ==, 0);
    g_assert_cmpint(lseek(fd, 64 << 10, SEEK_HOLE), ==, 68 << 10);
    g_assert_cmpint(lseek(fd, 68 << 10, SEEK_DATA), ==, -1);
    g_assert_cmpint(errno, ==, ENXIO);
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 1 << 20);
    g_assert_cmpint(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 << 10,
                              4096), ==, 0);
    g_assert_cmpint(get(fd, 128), ==, 0);
    g_assert_cmpint(lseek(fd, 0, SEEK_DATA), ==, -1);
    close(fd);
    unlink(path);
}

static void test_locks(void)
{
    g_autofree char *path = scratch_path("locks");
    int a = open_rw_fd(path), b = open_rw_fd(path), c = dup(a);

    g_assert_cmpint(qemu_lock_fd(a, 100, 2, false), ==, 0);
    g_assert_cmpint(qemu_lock_fd(b, 101, 1, false), ==, 0);
    g_assert_cmpint(qemu_lock_fd_test(b, 100, 1, true), ==, -EAGAIN);
    g_assert_cmpint(qemu_lock_fd(a, 101, 1, true), ==, -EAGAIN);
    g_assert_cmpint(qemu_unlock_fd(b, 101, 1), ==, 0);
    g_assert_cmpint(qemu_lock_fd(a, 101, 1, true), ==, 0);
    g_assert_cmpint(qemu_lock_fd(b, 101, 1, false), ==, -EAGAIN);
    close(a);                               /* the description is still open */
    g_assert_cmpint(qemu_lock_fd(b, 101, 1, false), ==, -EAGAIN);
    close(c);
    g_assert_cmpint(qemu_lock_fd(b, 100, 2, true), ==, 0);
    close(b);
    unlink(path);
}

/* Real files can be read; what is written to them is gone in the next schedule. */
static void test_real_file(void)
{
    g_autofree char *path = scratch_path("real");
    int fd = open_rw_fd(path);

    if (lab_in_lab()) {
        g_assert_cmpint(get(fd, 0), ==, 'r');
        g_assert_cmpint(get(fd, 1), ==, 0);
        put(fd, 0, 'w');
        put(fd, 1, 'w');
        g_assert_cmpint(get(fd, 0), ==, 'w');
    }
    close(fd);
}

/* ---- power ----------------------------------------------------------------------------- */

static void *cut_thread(void *opaque)
{
    lab_power_cut();
    return NULL;
}

/*
 *      main    write 0   flush   write 1   write 2
 *      cutter                                ^------ anywhere
 */
static void test_cut(void)
{
    enum { SECTORS = 3 };
    g_autofree char *path = scratch_path("cut");
    int fd = open_rw_fd(path), flushed = 0;
    QemuThread cutter;

    g_assert_cmpint(ftruncate(fd, SECTORS * SECTOR), ==, 0);
    g_assert_cmpint(fdatasync(fd), ==, 0);
    qemu_thread_create(&cutter, "cutter", cut_thread, NULL, QEMU_THREAD_JOINABLE);
    uint8_t bytes[SECTOR];
    for (int i = 0; i < SECTORS; i++) {
        memset(bytes, i + 1, SECTOR);
        if (pwrite(fd, bytes, SECTOR, i * SECTOR) == SECTOR && i == 0) {
            flushed = fdatasync(fd) == 0;
        }
    }
    qemu_thread_join(&cutter);
    lab_power_on();
    for (int i = 0; i < SECTORS; i++) {
        int value = get(fd, i);
        if (value == 0) {
            g_assert_false(i == 0 && flushed);
            g_assert_true(lab_in_lab());
        } else {
            g_assert_cmpint(value, ==, i + 1);
        }
    }
    close(fd);
    unlink(path);
}

/* FUA makes its own data durable, above what was written there before, and nothing else. */
static void test_cut_fua(void)
{
    g_autofree char *path = scratch_path("fua");
    uint8_t bytes[2 * SECTOR];
    struct iovec iov = { bytes, sizeof(bytes) };
    int fd = open_rw_fd(path);

    for (int i = 0; i < 4; i++) {
        put(fd, i, 'a');
    }
    memset(bytes, 'b', sizeof(bytes));
    g_assert_cmpint(pwritev2(fd, &iov, 1, SECTOR, RWF_DSYNC), ==, sizeof(bytes));
    lab_power_cut();
    lab_power_on();
    for (int i = 0; i < 4; i++) {
        uint8_t value = get(fd, i);
        if (i == 1 || i == 2) {
            g_assert_cmpint(value, ==, 'b');
        } else {
            g_assert_true(value == 'a' || (value == 0 && lab_in_lab()));
        }
    }
    close(fd);
    unlink(path);
}

/* ---- an image under power cuts ---------------------------------------------------------- */

enum { CLUSTER = 4096, WRITES = 3 };

typedef struct Guest {
    BlockBackend *blk;
    bool durable[WRITES];       /* a flush that began after the write has succeeded */
    bool done;
} Guest;

static void coroutine_fn guest_entry(void *opaque)
{
    Guest *g = opaque;
    bool written[WRITES] = { false };
    uint8_t buf[CLUSTER];

    for (int i = 0; i < WRITES; i++) {
        memset(buf, i + 1, sizeof(buf));
        written[i] = blk_co_pwrite(g->blk, i * 5 * CLUSTER, CLUSTER, buf, 0) == 0;
        if (i % 2 == 1 && blk_co_flush(g->blk) == 0) {
            memcpy(g->durable, written, sizeof(written));
        }
    }
    g->done = true;
}

/* All that was flushed is there; of the rest each sector is old or new; the image is sound. */
static void check_image(const char *path, const Guest *g)
{
    BlockBackend *blk = qcow2_open_file(path, "");
    uint8_t buf[CLUSTER];

    qcow2_assert_consistent(blk, true);
    for (int i = 0; i < WRITES; i++) {
        g_assert_cmpint(blk_pread(blk, i * 5 * CLUSTER, CLUSTER, buf, 0), ==, 0);
        for (int s = 0; s < CLUSTER; s += SECTOR) {
            assert_bytes(buf + s, SECTOR, g->durable[i] || buf[s] ? i + 1 : 0);
        }
    }
    blk_unref(blk);
}

static void test_qcow2_cut(gconstpointer more)
{
    g_autofree char *path = scratch_path("cut.qcow2");
    Guest g = { NULL };
    QemuThread cutter;

    qcow2_create(path, "size=1M,cluster_size=4k");
    g.blk = qcow2_open_file(path, more);
    g_assert_cmpint(blk_flush(g.blk), ==, 0);
    qemu_thread_create(&cutter, "cutter", cut_thread, NULL, QEMU_THREAD_JOINABLE);
    qemu_coroutine_enter(qemu_coroutine_create(guest_entry, &g));
    while (!g.done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qemu_thread_join(&cutter);
    blk_unref(g.blk);           /* cannot write its caches back, where the power is off */
    lab_power_on();
    check_image(path, &g);
    unlink(path);
}

/* ---- faults ---------------------------------------------------------------------------- */

/* Requests fail; when the disk has healed all is as if they had not, or had never been. */
static void test_qcow2_faults(gconstpointer more)
{
    g_autofree char *path = scratch_path("faults.qcow2");
    uint8_t buf[CLUSTER];

    qcow2_create(path, "size=1M,cluster_size=4k");
    BlockBackend *blk = qcow2_open_file(path, more);
    int ret[WRITES];
    lab_faults(true);
    for (int i = 0; i < WRITES; i++) {
        memset(buf, i + 1, sizeof(buf));
        ret[i] = blk_pwrite(blk, i * 5 * CLUSTER, CLUSTER, buf, 0);
        g_assert_true(ret[i] == 0 || lab_in_lab());
    }
    lab_faults(false);
    for (int i = 0; i < WRITES; i++) {
        g_assert_cmpint(blk_pread(blk, i * 5 * CLUSTER, CLUSTER, buf, 0), ==, 0);
        for (int s = 0; s < CLUSTER; s += SECTOR) {
            assert_bytes(buf + s, SECTOR, ret[i] == 0 || buf[s] ? i + 1 : 0);
        }
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);
    qcow2_assert_consistent(blk, true);
    blk_unref(blk);
    unlink(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_autofree char *real = scratch_path("real");
    char text[SECTOR];
    memset(text, 'r', sizeof(text));
    g_assert_true(g_file_set_contents(real, text, sizeof(text), NULL));
    g_test_add_func("/disk/file/names", test_names);
    g_test_add_func("/disk/file/contents", test_contents);
    g_test_add_func("/disk/file/holes", test_holes);
    g_test_add_func("/disk/file/locks", test_locks);
    g_test_add_func("/disk/file/real", test_real_file);
    g_test_add_func("/disk/cut/sectors", test_cut);
    g_test_add_func("/disk/cut/fua", test_cut_fua);
    g_test_add_data_func("/disk/cut/qcow2/threads", "", test_qcow2_cut);
    g_test_add_data_func("/disk/cut/qcow2/native", ",file.aio=native,file.cache.direct=on",
                         test_qcow2_cut);
    g_test_add_data_func("/disk/faults/qcow2/threads", "", test_qcow2_faults);
    g_test_add_data_func("/disk/faults/qcow2/native", ",file.aio=native,file.cache.direct=on",
                         test_qcow2_faults);
    return image_test_run();
}
