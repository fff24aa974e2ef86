/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_GLIB_COMPAT_H
#define QEMU_COMPAT_GLIB_COMPAT_H

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#if !GLIB_CHECK_VERSION(2, 68, 0)
/* GLib has it since 2.68. */
static inline gpointer miniblk_memdup2(gconstpointer m, gsize s)
{
    return m && s ? memcpy(g_malloc(s), m, s) : NULL;
}
#define g_memdup2(m, s) miniblk_memdup2(m, s)
#endif

/* Tests are quick unless -m slow, or G_TEST_SLOW in the environment, says otherwise. */
static inline gboolean miniblk_test_slow(void)
{
    return !g_test_config_vars->test_quick || g_getenv("G_TEST_SLOW");
}
#undef g_test_slow
#undef g_test_thorough
#undef g_test_quick
#define g_test_slow()     miniblk_test_slow()
#define g_test_thorough() miniblk_test_slow()
#define g_test_quick()    (!miniblk_test_slow())

#endif
