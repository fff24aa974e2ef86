/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's disk: what is in flight may land in any order, what is not flushed may be lost,
 * and requests may fail. Natively the same tests run on a disk that does none of this.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/thread.h"
#include "../unit/image-test.h"
#include "disk-options.h"

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

/*
 * After a cut SECTOR has bytes NEW or OLD, as a whole, unless the lab has been told to tear
 * sectors: then it begins with NEW ones. True when all are NEW.
 */
static bool landed(int fd, int sector, uint8_t old, uint8_t new)
{
    uint8_t bytes[SECTOR] = { 0 };
    int n = 0;

    g_assert_cmpint(pread(fd, bytes, SECTOR, sector * SECTOR), >=, 0);
    while (n < SECTOR && bytes[n] == new) {
        n++;
    }
    assert_bytes(bytes + n, SECTOR - n, old);
    g_assert_true(n == SECTOR || lab_in_lab());
    g_assert_true(n == SECTOR || n == 0 || lab_disk_tears());
    return n == SECTOR;
}

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
        g_assert_true(landed(fd, i, 0, i + 1) || i > 0 || !flushed);
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
        bool with_fua = i == 1 || i == 2;
        g_assert_true(landed(fd, i, 0, with_fua ? 'b' : 'a') || !with_fua);
    }
    close(fd);
    unlink(path);
}

/*
 * A write of several sectors is cut between any two of them; not inside a physical sector,
 * of which this one has a whole number.
 */
static void test_cut_one_write(void)
{
    enum { SECTORS = 16 };
    g_autofree char *path = scratch_path("one-write");
    uint8_t bytes[SECTORS * SECTOR];
    int fd = open_rw_fd(path), step = lab_disk_sector_bytes() / SECTOR;

    memset(bytes, 'a', sizeof(bytes));
    g_assert_cmpint(pwrite(fd, bytes, sizeof(bytes), 0), ==, sizeof(bytes));
    g_assert_cmpint(fdatasync(fd), ==, 0);
    memset(bytes, 'b', sizeof(bytes));
    g_assert_cmpint(pwrite(fd, bytes, sizeof(bytes), 0), ==, sizeof(bytes));
    lab_power_cut();
    lab_power_on();
    for (int i = 0; i < SECTORS; i++) {
        bool first = landed(fd, i / step * step, 'a', 'b');
        g_assert_true(landed(fd, i, 'a', 'b') == first || lab_disk_tears());
    }
    close(fd);
    unlink(path);
}

/* ---- a node over a failing disk --------------------------------------------------------- */

enum { BLOCK = 4096, REQUESTS = 3 };

static const char *const node_options[] = { "", ",aio=native,cache.direct=on" };
static const char *const node_names[] = { "threads", "native" };

typedef struct Io {
    QEMUIOVector qiov;
    uint8_t *buf;
    int ret;
    bool done;                  /* atomic */
} Io;

static void io_done(void *opaque, int ret)
{
    Io *io = opaque;

    io->ret = ret;
    qatomic_store_release(&io->done, true);
}

static void io_write(Io *io, BlockBackend *blk, int block)
{
    io->buf = qemu_memalign(BLOCK, BLOCK);
    memset(io->buf, block + 1, BLOCK);
    qemu_iovec_init_buf(&io->qiov, io->buf, BLOCK);
    blk_aio_pwritev(blk, block * BLOCK, &io->qiov, 0, io_done, io);
}

/* Every request gets its answer, and those that said so have done what they said. */
static void check_io(BlockBackend *blk, Io *ios, int n)
{
    uint8_t buf[BLOCK];

    for (int i = 0; i < n; i++) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&ios[i].done));
        g_assert_true(ios[i].ret == 0 || lab_in_lab());
        g_assert_cmpint(ios[i].ret, !=, -EAGAIN);       /* that is for the engine to retry */
        g_assert_cmpint(blk_pread(blk, i * BLOCK, BLOCK, buf, 0), ==, 0);
        for (int s = 0; s < BLOCK; s += SECTOR) {
            assert_bytes(buf + s, SECTOR, ios[i].ret == 0 || buf[s] ? i + 1 : 0);
        }
        qemu_vfree(ios[i].buf);
    }
}

/*
 *      main    requests   drain   requests   the disk heals   drain
 *      disk    ------- refuses, stops half way, fails ------->
 *
 * Both sections begin, whatever happens to the requests. (Some may be parked until they end.)
 */
static void test_faults_and_drains(gconstpointer data)
{
    g_autofree char *path = scratch_file("drains", 2 * REQUESTS * BLOCK);
    IOThread *iothread = iothread_create("io", &error_abort);
    Io ios[2 * REQUESTS] = { { .done = false } };
    BlockBackend *blk = open_file(path, data);

    blk_set_allow_aio_context_change(blk, true);
    g_assert_cmpint(blk_set_aio_context(blk, iothread_get_aio_context(iothread), &error_abort),
                    ==, 0);
    lab_faults(true);
    for (int i = 0; i < REQUESTS; i++) {
        io_write(&ios[i], blk, i);
    }
    blk_drain(blk);
    for (int i = 0; i < REQUESTS; i++) {
        io_write(&ios[REQUESTS + i], blk, REQUESTS + i);
    }
    lab_faults(false);
    bdrv_drain_all();
    check_io(blk, ios, 2 * REQUESTS);
    blk_unref(blk);
    iothread_destroy(iothread);
    unlink(path);
}

/*
 * A flush that fails may have lost what it was to write, and the next one succeeds: so a flush
 * of the node must not, once one has failed, unless the page cache is out of it.
 */
static void test_faults_in_flush(gconstpointer data)
{
    g_autofree char *path = scratch_file("flush", BLOCK);
    BlockBackend *blk = open_file(path, data);
    uint8_t *buf = qemu_memalign(BLOCK, BLOCK);
    int ret[3];

    memset(buf, 'x', BLOCK);
    g_assert_cmpint(blk_pwrite(blk, 0, BLOCK, buf, 0), ==, 0);
    lab_faults(true);
    ret[0] = blk_flush(blk);
    ret[1] = blk_flush(blk);
    lab_faults(false);
    ret[2] = blk_flush(blk);
    g_assert_true((!ret[0] && !ret[1] && !ret[2]) || lab_in_lab());
    lab_power_cut();
    lab_power_on();
    g_assert_cmpint(blk_pread(blk, 0, BLOCK, buf, 0), ==, 0);
    if (!ret[0] || !ret[1] || !ret[2]) {
        assert_bytes(buf, BLOCK, 'x');
    }
    qemu_vfree(buf);
    blk_unref(blk);
    unlink(path);
}

static void add_node_cases(const char *name, GTestDataFunc fn)
{
    for (unsigned i = 0; i < ARRAY_SIZE(node_options); i++) {
        g_autofree char *path = g_strdup_printf("/disk/faults/%s/%s", name, node_names[i]);
        g_test_add_data_func(path, node_options[i], fn);
    }
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
    g_test_add_func("/disk/cut/one-write", test_cut_one_write);
    add_node_cases("drains", test_faults_and_drains);
    add_node_cases("flush", test_faults_in_flush);
    return image_test_run();
}
