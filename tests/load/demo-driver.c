/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <signal.h>
#include "demo.h"
#include "demo-qmp.h"
#include "pattern.h"

#define TABLE_PERIOD_US (1 * G_USEC_PER_SEC)
#define TABLE_PERIOD_PLAIN_US (5 * G_USEC_PER_SEC)      /* where nothing can be overwritten */
#define KILLS 4
/* On a slow machine the load goes on until the nodes were moved often enough. */
#define SECONDS_FACTOR_MAX 4
/* Clients need time after the load to read everything back. */
#define READ_BACK_US_MAX (60 * G_USEC_PER_SEC)

static json_t *thread_as_json(unsigned thread)
{
    bool main_loop = thread == DEMO_THREADS - 1;

    return main_loop ? json_null() : json_string(demo_thread_name[thread]);
}

static void move_node(Demo *demo, DemoQmp *qmp, unsigned index, unsigned thread)
{
    DemoNode *node = &demo->nodes[index];
    DemoMove move = { .node = index, .thread = thread, .begin_us = g_get_monotonic_time() };
    uint64_t latency_us;
    json_t *answer;

    answer = demo_qmp_command(qmp, "blockdev-set-iothread",
                              json_pack("{s:s, s:o}", "node-name", node->name, "iothread",
                                        thread_as_json(thread)), &latency_us);
    move.end_us = g_get_monotonic_time();
    if (!answer) {
        demo->totals.command_errors++;
        return;
    }
    json_decref(answer);
    histogram_add(&demo->command_us, latency_us);
    demo_note_residence(node, move.end_us);
    node->thread = thread;
    node->moves++;
    demo->moves_into[thread]++;
    g_array_append_val(demo->moves, move);
}

static void drained_section(Demo *demo, DemoQmp *qmp, unsigned index)
{
    uint64_t latency_us;
    json_t *answer;

    answer = demo_qmp_command(qmp, "x-blockdev-drain",
                              json_pack("{s:s}", "node-name", demo->nodes[index].name),
                              &latency_us);
    if (!answer) {
        demo->totals.command_errors++;
        return;
    }
    json_decref(answer);
    histogram_add(&demo->drain_us, latency_us);
    demo->totals.drains++;
}

/* What the daemon says about the threads must be what we asked for. */
static void check_placement(Demo *demo, DemoQmp *qmp)
{
    json_t *exports = demo_qmp_command(qmp, "query-block-exports", NULL, NULL);
    json_t *export;
    size_t i;

    if (!exports) {
        demo->totals.command_errors++;
        return;
    }
    json_array_foreach(exports, i, export) {
        const char *node_name = json_string_value(json_object_get(export, "node-name"));
        const char *iothread = json_string_value(json_object_get(export, "iothread"));
        const char *name = iothread ? iothread : "main";

        for (unsigned k = 0; node_name && k < DEMO_NODES; k++) {
            const DemoNode *n = &demo->nodes[k];

            if (strcmp(node_name, n->name) == 0
                && strcmp(name, demo_thread_name[n->thread]) != 0) {
                fprintf(stderr, "%s should be in %s but is in %s\n", n->name,
                        demo_thread_name[n->thread], name);
                demo->totals.command_errors++;
            }
        }
    }
    json_decref(exports);
}

static bool start_clients(Demo *demo)
{
    demo_clients_init(demo);
    for (unsigned i = 0; i < demo->client_count; i++) {
        if (!demo_client_start(demo, &demo->clients[i])) {
            return false;
        }
    }
    return true;
}

/* One turn: move a node, wait, take a drained section, wait. */
static void take_turn(Demo *demo, DemoQmp *qmp, uint64_t *random, int64_t period_us)
{
    unsigned turn = demo->moves->len;
    unsigned index = turn % DEMO_NODES;
    unsigned thread = (demo->nodes[index].thread + 1 + load_random(random) % 2)
        % DEMO_THREADS;
    int64_t begin_us = g_get_monotonic_time();

    move_node(demo, qmp, index, thread);
    if (demo->moves->len > turn) {
        g_array_index(demo->moves, DemoMove, turn).control_us =
            g_get_monotonic_time() + period_us / 4;
    }
    demo_clients_listen(demo, begin_us + period_us / 2);
    if (!qmp->dead) {
        drained_section(demo, qmp, load_random(random) % DEMO_NODES);
    }
    if (turn % 16 == 0 && !qmp->dead) {
        check_placement(demo, qmp);
    }
    demo_clients_listen(demo, begin_us + period_us);
}

static bool moved_enough(const Demo *demo)
{
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        if (demo->nodes[i].moves < demo->moves_wanted) {
            return false;
        }
    }
    return true;
}

/* Kill one of the clients each time another part of the load is over. */
static void kill_now_and_then(Demo *demo, uint64_t *random, int64_t now_us)
{
    int64_t part_us = demo->seconds * 1e6 / (KILLS + 1);
    DemoClient *c;

    if (demo->totals.kills < KILLS
        && now_us >= demo->begin_us + part_us * (int64_t)(demo->totals.kills + 1)) {
        c = &demo->clients[load_random(random) % demo->client_count];
        demo_client_kill_and_restart(demo, c);
    }
}

static void run(Demo *demo, DemoQmp *qmp)
{
    uint64_t random = demo->seed;
    /* More moves than needed, even when each takes a little longer than it should. */
    int64_t period_us = demo->seconds * 1e6 / (demo->moves_wanted * DEMO_NODES) * 0.8;
    int64_t end_us = demo->begin_us + demo->seconds * 1e6;
    int64_t end_us_max = demo->begin_us + demo->seconds * 1e6 * SECONDS_FACTOR_MAX;
    int64_t table_us = demo->terminal ? TABLE_PERIOD_US : TABLE_PERIOD_PLAIN_US;
    bool stopping = false;

    while (!qmp->dead && demo_clients_running(demo)) {
        int64_t now_us;

        take_turn(demo, qmp, &random, period_us);
        now_us = g_get_monotonic_time();
        if (now_us > end_us_max + READ_BACK_US_MAX) {
            fprintf(stderr, "The clients do not come to an end\n");
            demo->totals.command_errors++;
            return;
        }
        if (!stopping && now_us >= end_us && demo_clients_ready(demo)
            && (moved_enough(demo) || now_us > end_us_max)) {
            stopping = true;
            demo_clients_stop(demo);
        }
        if (!stopping) {
            kill_now_and_then(demo, &random, now_us);
        }
        if (now_us >= demo->last_table_us + table_us) {
            demo_table(demo, now_us);
        }
    }
    if (qmp->dead) {
        demo->totals.command_errors++;
    }
}

static bool parse_arguments(Demo *demo, int argc, char **argv)
{
    const GOptionEntry entries[] = {
        { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &demo->qmp_path, "monitor socket", "PATH" },
        { "nbd", 0, 0, G_OPTION_ARG_FILENAME, &demo->nbd_path, "NBD socket", "PATH" },
        { "load", 0, 0, G_OPTION_ARG_FILENAME, &demo->load_program, "the program nbd-load",
          "PATH" },
        { "blocks", 0, 0, G_OPTION_ARG_FILENAME, &demo->blocks, "extents to write to",
          "FILE" },
        { "reference", 0, 0, G_OPTION_ARG_FILENAME, &demo->reference, "pristine raw image",
          "FILE" },
        { "dir", 0, 0, G_OPTION_ARG_FILENAME, &demo->dir, "for states and logs", "DIR" },
        { "summary", 0, 0, G_OPTION_ARG_FILENAME, &demo->summary_file, "write JSON here",
          "FILE" },
        { "clients", 0, 0, G_OPTION_ARG_INT, &demo->clients_per_node, "per node (2)", "N" },
        { "moves", 0, 0, G_OPTION_ARG_INT, &demo->moves_wanted, "per node (100)", "N" },
        { "depth", 0, 0, G_OPTION_ARG_INT, &demo->depth, "requests in flight (32)", "N" },
        { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &demo->seconds, "of load (20)", "S" },
        { "quit", 0, 0, G_OPTION_ARG_NONE, &demo->quit, "end the daemon afterwards", NULL },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &demo->seed, "for the random choices (1)", "N" },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- load and move two exports");
    g_autoptr(GError) err = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err)) {
        fprintf(stderr, "demo-driver: %s\n", err->message);
        return false;
    }
    if (!demo->qmp_path || !demo->nbd_path || !demo->load_program || !demo->blocks
        || !demo->reference || !demo->dir || demo->clients_per_node < 1
        || demo->clients_per_node > 16 || demo->moves_wanted < 1 || demo->seconds <= 0) {
        fprintf(stderr, "demo-driver: an option is missing or out of range; see --help\n");
        return false;
    }
    return true;
}

static void free_arguments(Demo *demo)
{
    char *strings[] = { demo->qmp_path, demo->nbd_path, demo->load_program, demo->blocks,
                        demo->reference, demo->dir, demo->summary_file };

    for (unsigned i = 0; i < ARRAY_SIZE(strings); i++) {
        g_free(strings[i]);
    }
}

int main(int argc, char **argv)
{
    Demo demo = {
        .clients_per_node = 2, .moves_wanted = 100, .depth = 32, .seconds = 20, .seed = 1,
        .nodes = { { .name = "raw0" }, { .name = "q0", .first_thread = 1, .thread = 1 } } };
    DemoQmp qmp;
    bool good;

    if (!parse_arguments(&demo, argc, argv)) {
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    demo.terminal = isatty(STDOUT_FILENO);
    demo.moves = g_array_new(FALSE, FALSE, sizeof(DemoMove));
    if (!demo_qmp_open(&qmp, demo.qmp_path)) {
        return 1;
    }
    demo.begin_us = demo.last_table_us = g_get_monotonic_time();
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        demo.nodes[i].since_us = demo.begin_us;
    }
    if (start_clients(&demo)) {
        run(&demo, &qmp);
        demo_table(&demo, g_get_monotonic_time());
    }
    good = demo_summary(&demo);
    if (demo.quit && !qmp.dead) {
        json_t *answer = demo_qmp_command(&qmp, "quit", NULL, NULL);

        good = good && answer;
        json_decref(answer);
    }
    demo_clients_end(&demo);
    demo_qmp_close(&qmp);
    g_array_free(demo.moves, TRUE);
    free_arguments(&demo);
    return good ? 0 : 1;
}
