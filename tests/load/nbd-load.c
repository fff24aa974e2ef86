/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A verifying NBD client: writes blocks that tell where they belong and how old they are,
 * reads them back, and notices lost, stale, torn and misplaced writes. It stands on libnbd,
 * so that a server is not judged by its own protocol code.
 */
#include "miniblk/osdep.h"
#include <signal.h>
#include "client.h"
#include "image.h"

static volatile int stop_requested;

static void on_signal(int signum)
{
    stop_requested = 1;
}

typedef struct Arguments {
    char *uri, *blocks, *region, *reference, *state, *log, *slice, *name;
    char *fill, *prepare, *verify;
    char **rest;
    gint id, depth;
    gint64 seed;
    gdouble seconds, interval, reconnect, hang;
    gboolean no_read_back, no_zeroes;
} Arguments;

static void free_arguments(Arguments *a)
{
    char *strings[] = { a->uri, a->blocks, a->region, a->reference, a->state, a->log, a->slice,
                        a->name, a->fill, a->prepare, a->verify };

    for (unsigned i = 0; i < ARRAY_SIZE(strings); i++) {
        g_free(strings[i]);
    }
    g_strfreev(a->rest);
}

static bool parse_pair(const char *text, const char *what, uint64_t *a, uint64_t *b, char sep)
{
    char *end;

    errno = 0;
    *a = g_ascii_strtoull(text, &end, 10);
    if (end != text && *end == sep && !errno) {
        const char *second = end + 1;

        *b = g_ascii_strtoull(second, &end, 10);
        if (end != second && !*end && !errno) {
            return true;
        }
    }
    fprintf(stderr, "%s must be two numbers with '%c' between them, not '%s'\n", what, sep,
            text);
    return false;
}

static bool load_blocks(const Arguments *a, BlockList *list)
{
    uint64_t offset, length;

    if (a->blocks) {
        return block_list_load(list, a->blocks);
    } else if (a->region) {
        return parse_pair(a->region, "--region", &offset, &length, ':')
            && block_list_from_region(list, offset, length);
    }
    fprintf(stderr, "One of --blocks and --region is needed\n");
    return false;
}

static bool run_client(const Arguments *a, const BlockList *all)
{
    LoadOptions options = {
        .uri = a->uri, .name = a->name ? a->name : a->uri, .depth = a->depth,
        .duration_s = a->seconds, .interval_s = a->interval, .reconnect_s = a->reconnect,
        .hang_s = a->hang, .seed = (uint64_t)a->seed + (uint64_t)a->id * 0x10001,
        .read_back = !a->no_read_back, .zeroes = !a->no_zeroes };
    uint64_t slice = 0, slices = 1;
    LoadState state;
    Reference reference = { 0 };
    LatencyLog log;
    bool ok;

    if (a->slice && (!parse_pair(a->slice, "--slice", &slice, &slices, '/')
                     || slice >= slices || slices > 1024)) {
        fprintf(stderr, "--slice: the first number must be less than the second\n");
        return false;
    }
    if (a->depth < 1 || a->depth > 4096) {
        fprintf(stderr, "--depth must be 1 to 4096\n");
        return false;
    }
    if (!load_state_open(&state, a->state, all, a->id, slice, slices)) {
        return false;
    }
    ok = state.blocks.count > 0 && (!a->reference || reference_open(&reference, a->reference))
        && latency_log_open(&log, a->log);
    if (ok) {
        ok = load_client_run(&options, &state, all, &reference, &log, &stop_requested);
        latency_log_close(&log);
    }
    reference_close(&reference);
    load_state_close(&state);
    return ok;
}

static void catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal };

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    Arguments a = {
        .id = 1, .depth = 32, .seconds = 10, .interval = 0.25, .hang = 20, .seed = 1 };
    const GOptionEntry entries[] = {
        { "uri", 'u', 0, G_OPTION_ARG_STRING, &a.uri, "server to load (NBD URI)", "URI" },
        { "blocks", 'b', 0, G_OPTION_ARG_FILENAME, &a.blocks,
          "extents to write to, lines \"OFFSET LENGTH\"", "FILE" },
        { "region", 'r', 0, G_OPTION_ARG_STRING, &a.region,
          "one extent instead of a file", "OFFSET:LENGTH" },
        { "reference", 'R', 0, G_OPTION_ARG_FILENAME, &a.reference,
          "raw image with the contents before the load", "FILE" },
        { "state", 'S', 0, G_OPTION_ARG_FILENAME, &a.state,
          "keep what is known of the blocks in FILE", "FILE" },
        { "latency-log", 'l', 0, G_OPTION_ARG_FILENAME, &a.log,
          "append the longest latency of each 100 us", "FILE" },
        { "slice", 0, 0, G_OPTION_ARG_STRING, &a.slice, "own part I of N of the blocks",
          "I/N" },
        { "id", 'i', 0, G_OPTION_ARG_INT, &a.id, "number of this client (1)", "N" },
        { "name", 'n', 0, G_OPTION_ARG_STRING, &a.name, "name in the output", "NAME" },
        { "depth", 'd', 0, G_OPTION_ARG_INT, &a.depth, "requests in flight (32)", "N" },
        { "seconds", 's', 0, G_OPTION_ARG_DOUBLE, &a.seconds, "how long (10)", "S" },
        { "interval", 0, 0, G_OPTION_ARG_DOUBLE, &a.interval,
          "seconds between output lines (0.25)", "S" },
        { "reconnect", 0, 0, G_OPTION_ARG_DOUBLE, &a.reconnect,
          "mean seconds between disconnects (0: never)", "S" },
        { "hang", 0, 0, G_OPTION_ARG_DOUBLE, &a.hang,
          "seconds without answer that count as a hang (20)", "S" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &a.seed, "for the random choices (1)", "N" },
        { "no-read-back", 0, 0, G_OPTION_ARG_NONE, &a.no_read_back,
          "do not read all blocks again at the end", NULL },
        { "no-zeroes", 0, 0, G_OPTION_ARG_NONE, &a.no_zeroes,
          "send no write-zeroes requests", NULL },
        { "fill", 0, 0, G_OPTION_ARG_FILENAME, &a.fill,
          "make a file of marked blocks, as long as --region", "FILE" },
        { "prepare", 0, 0, G_OPTION_ARG_FILENAME, &a.prepare,
          "check the marks in IMAGE, make half of the blocks holes", "IMAGE" },
        { "verify-image", 0, 0, G_OPTION_ARG_FILENAME, &a.verify,
          "compare a raw image with --reference and the STATE files given", "IMAGE" },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a.rest, NULL,
          "[STATE...]" },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- verifying NBD load");
    g_autoptr(GError) err = NULL;
    BlockList list = { 0 };
    bool ok;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err)) {
        fprintf(stderr, "nbd-load: %s\n", err->message);
        return 2;
    }
    if (!load_blocks(&a, &list)) {
        return 2;
    }
    catch_signals();
    if (a.fill) {
        ok = image_fill(a.fill, list.count * LOAD_BLOCK_BYTES);
    } else if (a.prepare) {
        ok = image_prepare(a.prepare, &list);
    } else if (a.verify && a.reference && a.rest) {
        ok = image_verify(a.verify, a.reference, &list, a.rest, stdout);
    } else if (a.verify) {
        fprintf(stderr, "--verify-image needs --reference and the STATE files\n");
        ok = false;
    } else if (a.uri) {
        ok = run_client(&a, &list);
    } else {
        fprintf(stderr, "One of --uri, --fill, --prepare and --verify-image is needed\n");
        ok = false;
    }
    block_list_free(&list);
    free_arguments(&a);
    return ok ? 0 : 1;
}
