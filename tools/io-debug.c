/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands for tests: breakpoints of blkdebug, waiting, crashes and signals. */
#include "miniblk/osdep.h"
#include <signal.h>
#include "miniblk/aio-wait.h"
#include "miniblk/block-debug.h"
#include "miniblk/cutils.h"
#include "tools/io.h"

/* ---- breakpoints ------------------------------------------------------------------ */

/* Tags of breakpoints, each with whether a request waits there, as far as has been told. */
static GHashTable *tags;

void io_tell_suspended(void)
{
    GHashTableIter iter;
    gpointer tag, told;

    if (!tags || !io.blk) {
        return;
    }
    g_hash_table_iter_init(&iter, tags);
    while (g_hash_table_iter_next(&iter, &tag, &told)) {
        bool suspended = bdrv_debug_is_suspended(blk_bs(io.blk), tag);
        if (suspended && !told) {
            printf("blkdebug: Suspended request '%s'\n", (const char *)tag);
        }
        g_hash_table_iter_replace(&iter, GINT_TO_POINTER(suspended));
    }
}

/* A request that waits at TAG is about to go on. */
static void tell_resuming(const char *tag)
{
    if (tags && bdrv_debug_is_suspended(blk_bs(io.blk), tag)) {
        printf("blkdebug: Resuming request '%s'\n", tag);
        g_hash_table_insert(tags, g_strdup(tag), GINT_TO_POINTER(false));
    }
}

static bool run_break(int argc, char **argv)
{
    int ret = bdrv_debug_breakpoint(blk_bs(io.blk), argv[1], argv[2]);

    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", strerror(-ret));
        return false;
    }
    if (!tags) {
        tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    if (!g_hash_table_contains(tags, argv[2])) {
        g_hash_table_insert(tags, g_strdup(argv[2]), GINT_TO_POINTER(false));
    }
    return true;
}

static bool run_remove_break(int argc, char **argv)
{
    tell_resuming(argv[1]);
    int ret = bdrv_debug_remove_breakpoint(blk_bs(io.blk), argv[1]);

    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1], strerror(-ret));
    }
    return ret >= 0;
}

static bool run_resume(int argc, char **argv)
{
    tell_resuming(argv[1]);
    int ret = bdrv_debug_resume(blk_bs(io.blk), argv[1]);

    if (ret < 0) {
        printf("Could not resume request: %s\n", strerror(-ret));
    }
    return ret >= 0;
}

static bool run_wait_break(int argc, char **argv)
{
    BlockDriverState *bs = blk_bs(io.blk);

    AIO_WAIT_WHILE(NULL, !bdrv_debug_is_suspended(bs, argv[1]) && io.aio_pending > 0);
    if (!bdrv_debug_is_suspended(bs, argv[1])) {
        printf("No request is left that could stop at breakpoint '%s'\n", argv[1]);
        return false;
    }
    return true;
}

/* ---- time and signals ------------------------------------------------------------- */

static void set_true(void *opaque)
{
    *(bool *)opaque = true;
}

static bool run_sleep(int argc, char **argv)
{
    bool over = false;
    int64_t ms;

    if (qemu_strtoi64(argv[1], NULL, 0, &ms) < 0 || ms < 0 || ms > INT64_MAX / SCALE_MS / 2) {
        printf("%s is not a valid number\n", argv[1]);
        return false;
    }
    QEMUTimer *timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, SCALE_NS,
                                     set_true, &over);
    timer_mod(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + ms * SCALE_MS);
    while (!over) {
        main_loop_wait(false);
    }
    timer_free(timer);
    return true;
}

static bool run_abort(int argc, char **argv)
{
    fflush(stdout);
    abort();
}

static bool run_sigraise(int argc, char **argv)
{
    int64_t number;

    if (!io_parse_size(argv[1], &number)) {
        return false;
    }
    if (number > SIGRTMAX) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return false;
    }
    fflush(stdout);
    raise((int)number);
    return true;
}

const IoCommand io_debug_commands[] = {
    { "abort", NULL, run_abort, .without_image = true, .syntax = "",
      .summary = "simulate a program crash using abort(3)" },
    { "break", NULL, run_break, 2, 2, .syntax = "event tag",
      .summary = "sets a breakpoint on event and tags the stopped request as tag" },
    { "remove_break", NULL, run_remove_break, 1, 1, .syntax = "tag",
      .summary = "remove a breakpoint by tag" },
    { "resume", NULL, run_resume, 1, 1, .syntax = "tag",
      .summary = "resumes the request tagged as tag" },
    { "sigraise", NULL, run_sigraise, 1, 1, .without_image = true, .syntax = "signal",
      .summary = "raises a signal",
      .help = "'sigraise 15' sends SIGTERM to the program itself.\n" },
    { "sleep", NULL, run_sleep, 1, 1, .without_image = true, .syntax = "",
      .summary = "waits for the given value in milliseconds" },
    { "wait_break", NULL, run_wait_break, 1, 1, .syntax = "tag",
      .summary = "waits for the suspension of a request" },
    { NULL },
};
