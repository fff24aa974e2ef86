/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A case whose name no format has a place for as it is. It fails, so that all are written. */
#include "miniblk/osdep.h"

static void test_fails(void)
{
    g_test_message("<said> & \x1b[31m \xfe");
    g_assert_cmpstr("<a&b>\x02", ==, "\xff");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/odd/<i>&amp;\"'\\:\t\r\n\x01\x7f\xff\xef\xbf\xbe\xc3\xbc\\", test_fails);
    return g_test_run();
}
