/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program of the lab starts itself a second time: at fixed addresses, as order by address
 * must be the same in each run; with its calls into libraries bound, as that writes data; and
 * without GLib's own allocator.
 */
#include "miniblk/osdep.h"
#include <sys/personality.h>
#include "lab/world.h"
#include "lab/lab-config.h"

static LAB_KEEP char **start_argv;
static LAB_KEEP int start_argc;

char **lab_arguments(int *argc)
{
    *argc = start_argc;
    return start_argv;
}

static void __attribute__((constructor(101))) start(int argc, char **argv, char **envp)
{
    int persona = personality(0xffffffff);

    start_argc = argc;
    start_argv = argv;
    if (getenv("LAB_STARTED")) {
        unsetenv("LAB_STARTED");        /* not for those that the program starts */
        return;
    }
    setenv("LAB_STARTED", "1", 1);
    setenv("LD_BIND_NOW", "1", 1);
    setenv("G_SLICE", "always-malloc", 1);
    if (persona != -1) {
        /* May be forbidden, in a container: then runs differ a little from each other. */
        personality(persona | ADDR_NO_RANDOMIZE);
    }
    execv("/proc/self/exe", argv);
    unsetenv("LAB_STARTED");            /* no /proc: as we are */
}
