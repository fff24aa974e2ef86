/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each schedule finds the world as main() left it. The same source runs natively, where each
 * case runs once; in the lab it runs as often as asked for, and a second time must be like the
 * first.
 */
#include "miniblk/osdep.h"

/* ---- what a case might leave behind ----------------------------------------------------- */

static int zero_static;
static int set_static = 7;
static char big_static[64 * 1024];
static __thread int zero_local;
static __thread int set_local = 9;
static int *from_main;          /* to a variable of main() */
static char *heap_from_main;
static GHashTable *table_from_main;

static void test_static(void)
{
    g_assert_cmpint(zero_static, ==, 0);
    g_assert_cmpint(set_static, ==, 7);
    for (size_t i = 0; i < sizeof(big_static); i += 1000) {
        g_assert_cmpint(big_static[i], ==, 0);
        big_static[i] = 1;
    }
    zero_static++;
    set_static++;
}

static void test_thread_local(void)
{
    g_assert_cmpint(zero_local, ==, 0);
    g_assert_cmpint(set_local, ==, 9);
    zero_local++;
    set_local++;
}

static void test_main_stack(void)
{
    g_assert_cmpint(*from_main, ==, 5);
    (*from_main)++;
}

static void test_heap(void)
{
    g_assert_cmpstr(heap_from_main, ==, "from main");
    heap_from_main[0] = 'F';
    g_free(heap_from_main);
    heap_from_main = g_strdup("by the case");
}

static gboolean never_called(gpointer data)
{
    g_assert_not_reached();
}

static void test_glib(void)
{
    static const char *const name = "lab-test-quark";

    g_assert_cmpint(g_quark_try_string(name), ==, 0);
    g_assert_cmpint(g_quark_from_string(name), >, 0);
    g_assert_cmpint(g_hash_table_size(table_from_main), ==, 1);
    g_hash_table_insert(table_from_main, g_strdup("b"), NULL);
    g_hash_table_remove(table_from_main, "a");
    g_assert_null(g_getenv("LAB_TEST_VARIABLE"));
    g_setenv("LAB_TEST_VARIABLE", "set", TRUE);
    g_assert_cmpint(g_source_remove(g_idle_add(never_called, NULL)), ==, TRUE);
    /* a leak is nothing to the next schedule */
    g_hash_table_insert(table_from_main, g_malloc(1000), g_malloc(100000));
}

static void test_large_memory(void)
{
    enum { SIZE = 1 << 20 };
    static char *kept;          /* natively it must not look lost */

    for (unsigned i = 0; i < 3; i++) {
        char *p = g_malloc0(SIZE);
        for (size_t at = 0; at < SIZE; at += 4096) {
            g_assert_cmpint(p[at], ==, 0);
        }
        p[5000 * i] = 1;
        p[SIZE - 1] = 1;
        if (i) {
            g_free(p);
        } else {
            kept = p;
        }
    }
    g_assert_nonnull(kept);
}

static void test_allocation(void)
{
    for (size_t size = 0; size < 70000; size = size * 3 / 2 + 1) {
        char *p = malloc(size), *q = calloc(1, size + 1);
        g_assert_cmpint((uintptr_t)p % 16, ==, 0);
        memset(p, 1, size);
        p = realloc(p, size + 100);
        for (size_t i = 0; i < size; i++) {
            g_assert_cmpint(p[i], ==, 1);
            g_assert_cmpint(q[i], ==, 0);
        }
        free(p);
        free(q);
    }
    for (size_t alignment = 16; alignment <= 65536; alignment *= 2) {
        void *p = NULL;
        g_assert_cmpint(posix_memalign(&p, alignment, 100), ==, 0);
        g_assert_cmpint((uintptr_t)p % alignment, ==, 0);
        memset(p, 2, 100);
        free(p);
    }
}

/* ---- GTest ----------------------------------------------------------------------------- */

typedef struct Fixture {
    int value;
    char name[20];
} Fixture;

static int teardowns;

static void setup(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(f->value, ==, 0);
    f->value = GPOINTER_TO_INT(data);
}

static void test_fixture(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(f->value, ==, 42);
    g_assert_cmpint(GPOINTER_TO_INT(data), ==, 42);
    g_assert_cmpint(teardowns, ==, 0);
}

static void teardown(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(f->value, ==, 42);
    teardowns++;
}

static void test_data(gconstpointer data)
{
    g_assert_cmpstr(data, ==, "data");
}

static void test_queue(void)
{
    g_test_queue_free(g_strdup("freed after the case"));
}

static void test_messages(void)
{
    g_test_message("a message");
    printf("a line on stdout\n");
    g_printerr("a line on stderr\n");
    g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*expected*");
    g_warning("this was expected");
    g_test_assert_expected_messages();
}

static void test_chance(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        int n = g_test_rand_int_range(-3, 5);
        double d = g_test_rand_double_range(1, 2);
        g_assert_cmpint(n, >=, -3);
        g_assert_cmpint(n, <, 5);
        g_assert_cmpfloat(d, >=, 1);
        g_assert_cmpfloat(d, <, 2);
    }
}

static void test_skip(void)
{
    g_test_skip("to see a skipped case");
}

int main(int argc, char **argv)
{
    int local = 5;

    g_test_init(&argc, &argv, NULL);
    from_main = &local;
    heap_from_main = g_strdup("from main");
    table_from_main = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(table_from_main, "a", NULL);
    g_test_add_func("/world/static", test_static);
    g_test_add_func("/world/thread-local", test_thread_local);
    g_test_add_func("/world/main-stack", test_main_stack);
    g_test_add_func("/world/heap", test_heap);
    g_test_add_func("/world/glib", test_glib);
    g_test_add_func("/world/large-memory", test_large_memory);
    g_test_add_func("/world/allocation", test_allocation);
    g_test_add("/world/gtest/fixture", Fixture, GINT_TO_POINTER(42), setup, test_fixture,
               teardown);
    g_test_add_data_func("/world/gtest/data", "data", test_data);
    g_test_add_data_func_full("/world/gtest/data-full", g_strdup("data"), test_data, g_free);
    g_test_add_func("/world/gtest/queue", test_queue);
    g_test_add_func("/world/gtest/messages", test_messages);
    g_test_add_func("/world/gtest/chance", test_chance);
    g_test_add_func("/world/gtest/skip", test_skip);
    return g_test_run();
}
