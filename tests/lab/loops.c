/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A case that never comes to a point, and so never ends. */
#include "miniblk/osdep.h"

static void test_loops(void)
{
    for (volatile bool go_on = true; go_on;) {
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loops", test_loops);
    return g_test_run();
}
