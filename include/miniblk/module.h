/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Functions that sign up before main() to be called once the program names their kind. */
#ifndef MINIBLK_MODULE_H
#define MINIBLK_MODULE_H

typedef enum module_init_type {
    MODULE_INIT_MIGRATION = 0,
    MODULE_INIT_BLOCK,
    MODULE_INIT_OPTS,
    MODULE_INIT_QOM,
    MODULE_INIT_TRACE,
    MODULE_INIT_XEN_BACKEND,
    MODULE_INIT_LIBQOS,
    MODULE_INIT_FUZZ_TARGET,
    MODULE_INIT_MAX
} module_init_type;

/* Have module_call_init(TYPE) call FUNCTION (no parameters, no result). At file scope. */
#define module_init(function, type)                                             \
    static void __attribute__((constructor)) module_init_##function(void)       \
    {                                                                           \
        register_module_init(function, type);                                   \
    }
#define block_init(function) module_init(function, MODULE_INIT_BLOCK)

/* Constructors, or the main thread before it calls module_call_init(TYPE). */
void register_module_init(void (*fn)(void), module_init_type type);
/* Call those of TYPE that have not been called yet, in the order of signing up. GS. */
void module_call_init(module_init_type type);

#endif
