/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that must abort, tried in a child process. */
#ifndef TESTS_TRAP_H
#define TESTS_TRAP_H

#include <glib.h>
#include <stdlib.h>

/*
 * FN must abort with a message on stderr that matches PATTERN (a glob). For a test function:
 * the child runs the test that calls this from its beginning, and ends here.
 */
static inline void trap(void (*fn)(void), const char *pattern)
{
    if (g_test_subprocess()) {
        fn();
        exit(0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(pattern);
}

#endif
