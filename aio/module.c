/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/module.h"

typedef void InitFunction(void);

/* Written by constructors, before there are threads, and by module_call_init(). */
static GPtrArray *waiting[MODULE_INIT_MAX];

void register_module_init(InitFunction *fn, module_init_type type)
{
    g_assert(type < MODULE_INIT_MAX);
    if (!waiting[type]) {
        waiting[type] = g_ptr_array_new();
    }
    g_ptr_array_add(waiting[type], (void *)fn);
}

void module_call_init(module_init_type type)
{
    g_assert(type < MODULE_INIT_MAX);
    g_autoptr(GPtrArray) functions = g_steal_pointer(&waiting[type]);
    for (unsigned i = 0; functions && i < functions->len; i++) {
        ((InitFunction *)g_ptr_array_index(functions, i))();
    }
}
