/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cases that break, each in its own way: see test-broken-world.sh. */
#include "miniblk/osdep.h"
#include <sys/random.h>
#include "miniblk/compiler.h"
#include "miniblk/lab-test.h"

/* The compiler must not know what happens. */
static void *volatile pointer;

static void double_free(void)
{
    pointer = malloc(10);
    free(pointer);
    free(pointer);
}

static void write_after_free(void)
{
    char *p = pointer = malloc(100);
    free(pointer);
    p = pointer;
    p[50] = 1;
}

static void overrun(void)
{
    char *p;

    pointer = malloc(10);
    p = pointer;
    p[10] = 1;
    free(pointer);
}

static void overrun_not_freed(void)
{
    char *p;

    pointer = malloc(10);
    p = pointer;
    p[10] = 1;
}

static void free_of_nothing(void)
{
    static char buffer[64];
    pointer = buffer + 16;
    free(pointer);
}

static void use_after_free(void)
{
    char **p = pointer = calloc(4, sizeof(char *));
    free(pointer);
    p = pointer;
    p[2][0] = 1;
}

static void null(void)
{
    pointer = NULL;
    *(char *)pointer = 1;
}

static QEMU_NOINLINE int deep(volatile char *outer)
{
    volatile char frame[1000];
    frame[0] = outer[0];
    return pointer ? deep(frame) + frame[0] : 0;
}

static void stack_overflow(void)
{
    volatile char outer[1] = { 0 };

    pointer = (void *)&pointer;
    g_assert_cmpint(deep(outer), ==, 0);
}

static void division(void)
{
    volatile int zero = 0;
    g_assert_cmpint(10 / zero, ==, 1);
}

static void assertion(void)
{
    g_assert_cmpint(1, ==, 2);
}

static void libc_assertion(void)
{
    assert(pointer == &pointer);
}

static void critical(void)
{
    g_critical("this is critical");
}

static void aborts(void)
{
    fprintf(stderr, "miniblk: some_call: wrong\n");
    abort();
}

static void exits(void)
{
    exit(3);
}

static void fails(void)
{
    g_test_fail();
}

static void subprocess(void)
{
    g_test_trap_subprocess(NULL, 0, 0);
}

static void directory(void)
{
    g_assert_cmpint(chdir("/"), ==, 0);
}

/* Of these the strategy must first find the schedule. */

static void unflushed(void)
{
    int fd = open("/tmp/broken-world", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char byte = 0;

    g_assert_cmpint(pwrite(fd, "a", 1, 0), ==, 1);
    lab_power_cut();
    lab_power_on();
    g_assert_cmpint(pread(fd, &byte, 1, 0), ==, 1);
}

static void fua_of_others(void)
{
    int fd = open("/tmp/broken-world", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char sector[512] = "a";
    struct iovec iov = { sector, sizeof(sector) };

    g_assert_cmpint(pwrite(fd, sector, sizeof(sector), 0), ==, sizeof(sector));
    g_assert_cmpint(pwritev2(fd, &iov, 1, 512, RWF_DSYNC), ==, sizeof(sector));
    lab_power_cut();
    lab_power_on();
    g_assert_cmpint(pread(fd, sector, sizeof(sector), 0), ==, sizeof(sector));
    g_assert_cmpint(sector[0], ==, 'a');
}

static void fault(void)
{
    int fd = open("/tmp/broken-world", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    lab_faults(true);
    g_assert_cmpint(pwrite(fd, "a", 1, 0), ==, 1);
}

/* A write of two sectors is not one. */
static void torn_write(void)
{
    int fd = open("/tmp/broken-world", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char sectors[1024] = "";

    g_assert_cmpint(pwrite(fd, sectors, sizeof(sectors), 0), ==, sizeof(sectors));
    g_assert_cmpint(fdatasync(fd), ==, 0);
    memset(sectors, 'a', sizeof(sectors));
    g_assert_cmpint(pwrite(fd, sectors, sizeof(sectors), 0), ==, sizeof(sectors));
    lab_power_cut();
    lab_power_on();
    g_assert_cmpint(pread(fd, sectors, sizeof(sectors), 0), ==, sizeof(sectors));
    g_assert_cmpint(sectors[0], ==, sectors[512]);
}

/* A flush that failed has lost what the next one does not write. */
static void lost_by_a_flush(void)
{
    int fd = open("/tmp/broken-world", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char c = 'a';

    g_assert_cmpint(pwrite(fd, &c, 1, 0), ==, 1);
    lab_faults(true);
    bool failed = fdatasync(fd) < 0;
    lab_faults(false);
    if (failed && fdatasync(fd) == 0) {
        lab_power_cut();
        lab_power_on();
        g_assert_cmpint(pread(fd, &c, 1, 0), ==, 1);
        g_assert_cmpint(c, ==, 'a');
    }
}

/* What the lab does not control: it must notice. */
static void diverges(void)
{
    uint8_t chance;

    g_assert_cmpint(getrandom(&chance, 1, 0), ==, 1);
    for (int i = 0; i < chance; i++) {
        g_get_monotonic_time();
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/broken/double-free", double_free);
    g_test_add_func("/broken/write-after-free", write_after_free);
    g_test_add_func("/broken/overrun", overrun);
    g_test_add_func("/broken/overrun-not-freed", overrun_not_freed);
    g_test_add_func("/broken/free-of-nothing", free_of_nothing);
    g_test_add_func("/broken/use-after-free", use_after_free);
    g_test_add_func("/broken/null", null);
    g_test_add_func("/broken/stack-overflow", stack_overflow);
    g_test_add_func("/broken/division", division);
    g_test_add_func("/broken/assertion", assertion);
    g_test_add_func("/broken/libc-assertion", libc_assertion);
    g_test_add_func("/broken/critical", critical);
    g_test_add_func("/broken/aborts", aborts);
    g_test_add_func("/broken/exits", exits);
    g_test_add_func("/broken/fails", fails);
    g_test_add_func("/broken/subprocess", subprocess);
    g_test_add_func("/broken/directory", directory);
    g_test_add_func("/broken/unflushed", unflushed);
    g_test_add_func("/broken/fua-of-others", fua_of_others);
    g_test_add_func("/broken/fault", fault);
    g_test_add_func("/broken/torn-write", torn_write);
    g_test_add_func("/broken/lost-by-a-flush", lost_by_a_flush);
    g_test_add_func("/broken/diverges", diverges);
    return g_test_run();
}
