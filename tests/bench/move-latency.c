/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a move of a node takes over QMP, and what of it is the move.
 *
 *   move-latency --qmp SOCKET --node NODE --iothreads A,B --seconds S [--name WORK]
 *
 * NODE goes to A, to B, to the main loop and round again, 100 moves a second. After each move
 * query-version is asked, which does nothing: its time is that of the machine under the same
 * load, to wake the monitor and to answer.
 */
#include <glib.h>
#include "bench.h"
#include "../load/demo-qmp.h"
#include "../load/latency.h"

enum { REST_US = 5000 };                /* after each command: the load is somebody else's */

typedef struct Mover {
    char *socket, *node, *iothreads, *name;
    gdouble seconds;
    DemoQmp qmp;
    Histogram move, floor;
} Mover;

static bool timed(Mover *m, Histogram *h, const char *command, json_t *arguments)
{
    uint64_t latency_us;
    json_t *answer = demo_qmp_command(&m->qmp, command, arguments, &latency_us);

    if (!answer) {
        return false;
    }
    json_decref(answer);
    histogram_add(h, latency_us);
    g_usleep(REST_US);
    return true;
}

static bool run(Mover *m)
{
    g_auto(GStrv) homes = g_strsplit(m->iothreads, ",", -1);
    unsigned n = g_strv_length(homes) + 1;          /* the last one: no IOThread */
    int64_t end_ns = bench_now_ns() + m->seconds * 1e9;

    for (unsigned i = 0; bench_now_ns() < end_ns; i++) {
        const char *home = homes[i % n];
        json_t *arguments = json_pack("{s:s, s:o, s:b}", "node-name", m->node, "iothread",
                                      home ? json_string(home) : json_null(), "force", 1);

        if (!timed(m, &m->move, "x-blockdev-set-iothread", arguments) ||
            !timed(m, &m->floor, "query-version", NULL)) {
            return false;
        }
    }
    return true;
}

/* As bench_pair() prints them: the move beside the command that does nothing. */
static void report(const Mover *m, const char *name, double fraction)
{
    printf("{\"work\": \"%s: move, %s\", \"value\": %.3f, \"unit\": \"ms\", "
           "\"peer\": \"query-version\", \"peer_value\": %.3f}\n",
           m->name ? m->name : "busy node", name,
           histogram_quantile(&m->move, fraction) / 1e3,
           histogram_quantile(&m->floor, fraction) / 1e3);
}

int main(int argc, char **argv)
{
    Mover m = { .seconds = 4 };
    const GOptionEntry entries[] = {
        { "qmp", 'q', 0, G_OPTION_ARG_FILENAME, &m.socket, "the monitor", "SOCKET" },
        { "node", 'n', 0, G_OPTION_ARG_STRING, &m.node, "what is moved", "NODE" },
        { "iothreads", 'i', 0, G_OPTION_ARG_STRING, &m.iothreads, "where to", "A,B" },
        { "seconds", 's', 0, G_OPTION_ARG_DOUBLE, &m.seconds, "how long (4)", "S" },
        { "name", 0, 0, G_OPTION_ARG_STRING, &m.name, "of the work, in the figures", "WORK" },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- latency of moves over QMP");
    g_autoptr(GError) err = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err) ||
        !m.socket || !m.node || !m.iothreads) {
        fprintf(stderr, "move-latency: %s\n",
                err ? err->message : "--qmp, --node and --iothreads are needed");
        return 2;
    }
    if (!demo_qmp_open(&m.qmp, m.socket) || !run(&m)) {
        return 1;
    }
    report(&m, "p50", 0.5);
    report(&m, "p99", 0.99);
    demo_qmp_close(&m.qmp);
    return 0;
}
