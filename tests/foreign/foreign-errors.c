/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Error objects: who gets one, and what the magic destinations do. */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

static void fail_a_little(int n, Error **errp)
{
    error_setg(errp, "cannot do %d", n);
}

static void test_set_and_free(void)
{
    Error *err = NULL;
    fail_a_little(3, NULL);             /* nobody wants to know */
    fail_a_little(3, &err);
    g_assert_cmpstr(error_get_pretty(err), ==, "cannot do 3");
    error_prepend(&err, "%s: ", "disk");
    g_assert_cmpstr(error_get_pretty(err), ==, "disk: cannot do 3");
    Error *copy = error_copy(err);
    error_free_or_abort(&err);
    g_assert_null(err);
    g_assert_cmpstr(error_get_pretty(copy), ==, "disk: cannot do 3");
    error_free(copy);
    error_free(NULL);
    error_setg_errno(&err, ENOENT, "no '%s'", "x");
    g_assert_cmpstr(error_get_pretty(err), ==, "no 'x': No such file or directory");
    error_free(err);
}

static void test_propagation(void)
{
    Error *dst = NULL, *local = NULL;
    error_propagate(&dst, NULL);
    g_assert_null(dst);
    fail_a_little(1, &local);
    error_propagate(&dst, local);
    g_assert_true(dst == local);
    local = NULL;
    fail_a_little(2, &local);
    error_propagate(&dst, local);       /* the first one stays, this one is freed */
    g_assert_cmpstr(error_get_pretty(dst), ==, "cannot do 1");
    local = NULL;
    fail_a_little(4, &local);
    error_propagate(NULL, local);
    error_free(dst);
}

static bool guarded(bool *failed, Error **errp)
{
    ERRP_GUARD();
    fail_a_little(5, errp);
    *failed = *errp != NULL;            /* can be looked at, whatever the caller passed */
    return false;
}

static void test_guard(void)
{
    bool failed = false;
    Error *err = NULL;
    guarded(&failed, NULL);
    g_assert_true(failed);
    guarded(&failed, &err);
    error_free_or_abort(&err);
}

/* ---- endings ------------------------------------------------------------------------------- */

static void set_abort(void) { fail_a_little(6, &error_abort); }
static void set_fatal(void) { fail_a_little(7, &error_fatal); }
static void propagate_abort(void)
{
    Error *local = NULL;
    fail_a_little(8, &local);
    error_propagate(&error_abort, local);
}
static void propagate_fatal(void)
{
    Error *local = NULL;
    fail_a_little(9, &local);
    error_propagate(&error_fatal, local);
}
static void free_nothing(void)
{
    Error *err = NULL;
    error_free_or_abort(&err);
}
static void report_and_exit(void)
{
    Error *err = NULL;
    fail_a_little(10, &err);
    error_append_hint(&err, "Try less.\n");
    warn_report("it is %s", "late");
    error_reportf_err(err, "sorry, ");
    exit(0);
}

typedef struct Ending {
    const char *name;
    void (*fn)(void);
    bool passes;
    const char *stderr_glob;
} Ending;

static const Ending endings[] = {
    { "abort", set_abort, false, "*cannot do 6*" },
    { "fatal", set_fatal, false, "*cannot do 7*" },
    { "propagate-abort", propagate_abort, false, "*fail_a_little*cannot do 8*" },
    { "propagate-fatal", propagate_fatal, false, "*cannot do 9*" },
    { "free-nothing", free_nothing, false, "*" },
    { "report", report_and_exit, true,
      "*warning: it is late\n*sorry, cannot do 10\nTry less.\n" },
};

static void test_ending(gconstpointer opaque)
{
    const Ending *e = opaque;
    if (g_test_subprocess()) {
        e->fn();
        return;                 /* must not come here */
    }
    g_test_trap_subprocess(NULL, 0, 0);
    if (e->passes) {
        g_test_trap_assert_passed();
    } else {
        g_test_trap_assert_failed();
    }
    g_test_trap_assert_stderr(e->stderr_glob);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/errors/set", test_set_and_free);
    g_test_add_func("/foreign/errors/propagate", test_propagation);
    g_test_add_func("/foreign/errors/guard", test_guard);
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        g_autofree char *path = g_strconcat("/foreign/errors/", endings[i].name, NULL);
        g_test_add_data_func(path, &endings[i], test_ending);
    }
    return g_test_run();
}
