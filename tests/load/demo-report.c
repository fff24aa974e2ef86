/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "demo.h"

const char *const demo_thread_name[DEMO_THREADS] = { "io0", "io1", "main" };

/* ---- the live table --------------------------------------------------------------- */

void demo_note_residence(DemoNode *node, int64_t now_us)
{
    node->residence_us[node->thread] += now_us - node->since_us;
    node->since_us = now_us;
}

/* A node's requests are shared out by the time that it spent in each thread. */
static double requests_in(Demo *demo, unsigned thread)
{
    double sum = 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        const DemoNode *n = &demo->nodes[i];
        int64_t all_us = 0;

        for (unsigned t = 0; t < DEMO_THREADS; t++) {
            all_us += n->residence_us[t];
        }
        if (all_us) {
            sum += (double)n->table_requests * n->residence_us[thread] / all_us;
        }
    }
    return sum;
}

static char *nodes_in(const Demo *demo, unsigned thread)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        if (demo->nodes[i].thread == thread) {
            g_string_append_printf(s, "%s%s", s->len ? " " : "", demo->nodes[i].name);
        }
    }
    return g_string_free(s, FALSE);
}

void demo_note_latency(Demo *demo, const DemoNode *node, int64_t end_us,
                       uint64_t latency_us)
{
    unsigned thread = node->first_thread;

    for (unsigned i = demo->moves->len; i > 0; i--) {
        const DemoMove *m = &g_array_index(demo->moves, DemoMove, i - 1);

        if (&demo->nodes[m->node] == node && m->begin_us <= end_us) {
            thread = m->thread;
            break;
        }
    }
    demo->thread_latency_us_max[thread] = MAX(demo->thread_latency_us_max[thread],
                                              latency_us);
}

void demo_table(Demo *demo, int64_t now_us)
{
    double elapsed_s = MAX(now_us - demo->last_table_us, 1) / 1e6;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        demo_note_residence(&demo->nodes[i], now_us);
    }
    if (demo->terminal && demo->table_lines) {
        printf("\033[%uA", demo->table_lines);
    }
    demo->table_lines = 0;
    printf("%5.1f s   thread  nodes        requests/s  moves into  longest stall\n",
           (now_us - demo->begin_us) / 1e6);
    demo->table_lines++;
    for (unsigned t = 0; t < DEMO_THREADS; t++) {
        g_autofree char *nodes = nodes_in(demo, t);

        printf("          %-6s  %-11s  %10.0f  %10u  %10.2f ms\n", demo_thread_name[t],
               nodes[0] ? nodes : "-", requests_in(demo, t) / elapsed_s, demo->moves_into[t],
               demo->thread_latency_us_max[t] / 1e3);
        demo->table_lines++;
    }
    fflush(stdout);
    for (unsigned i = 0; i < DEMO_NODES; i++) {
        DemoNode *n = &demo->nodes[i];

        n->table_requests = 0;
        memset(n->residence_us, 0, sizeof(n->residence_us));
    }
    demo->last_table_us = now_us;
}

/* ---- stalls ----------------------------------------------------------------------- */

static GArray *load_log(const char *filename)
{
    GArray *array = g_array_new(FALSE, FALSE, sizeof(LatencyRecord));
    g_autofree char *data = NULL;
    gsize length = 0;

    if (g_file_get_contents(filename, &data, &length, NULL)) {
        /* A client that was killed may have left a part of a record at the end. */
        g_array_append_vals(array, data, length / sizeof(LatencyRecord));
    }
    return array;
}

static size_t first_ending_after(const GArray *log, uint64_t time_us)
{
    size_t low = 0, high = log->len;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (g_array_index(log, LatencyRecord, mid).end_us + LATENCY_LOG_SLOT_US <= time_us) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static uint64_t longest_in_log(const GArray *log)
{
    uint64_t max = 0;

    for (size_t i = 0; i < log->len; i++) {
        max = MAX(max, g_array_index(log, LatencyRecord, i).latency_us_max);
    }
    return max;
}

/* The longest request that was in flight at some time in [BEGIN, END]. */
static uint64_t longest_overlapping(const GArray *log, uint64_t longest_us, int64_t begin_us,
                                    int64_t end_us)
{
    uint64_t max = 0;

    for (size_t i = first_ending_after(log, begin_us); i < log->len; i++) {
        const LatencyRecord *r = &g_array_index(log, LatencyRecord, i);

        if (r->end_us > (uint64_t)end_us + longest_us) {
            break;
        }
        if (r->end_us <= (uint64_t)end_us + r->latency_us_max) {
            max = MAX(max, r->latency_us_max);
        }
    }
    return max;
}

static void find_stalls(Demo *demo)
{
    g_autofree uint64_t *stall = g_new0(uint64_t, demo->moves->len + 1);
    g_autofree uint64_t *control = g_new0(uint64_t, demo->moves->len + 1);

    for (unsigned k = 0; k < demo->client_count; k++) {
        const DemoClient *c = &demo->clients[k];
        GArray *log = load_log(c->log_file);
        uint64_t longest_us = longest_in_log(log);

        for (unsigned i = 0; i < demo->moves->len; i++) {
            const DemoMove *m = &g_array_index(demo->moves, DemoMove, i);
            int64_t length_us = m->end_us - m->begin_us;

            if (&demo->nodes[m->node] == c->node) {
                uint64_t s = longest_overlapping(log, longest_us, m->begin_us, m->end_us);
                uint64_t o = longest_overlapping(log, longest_us, m->control_us,
                                                 m->control_us + length_us);

                stall[i] = MAX(stall[i], s);
                control[i] = MAX(control[i], o);
            }
        }
        g_array_free(log, TRUE);
    }
    for (unsigned i = 0; i < demo->moves->len; i++) {
        histogram_add(&demo->stall_us, stall[i]);
        histogram_add(&demo->control_us, control[i]);
    }
}

/* ---- the summary ------------------------------------------------------------------ */

static void print_quantiles(const char *what, const Histogram *h)
{
    printf("  %-34s p50 %7.2f   p99 %7.2f   max %7.2f ms\n", what,
           histogram_quantile(h, 0.5) / 1e3, histogram_quantile(h, 0.99) / 1e3, h->max / 1e3);
}

static json_t *quantiles(const Histogram *h)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "count", (json_int_t)h->total,
                     "p50", (json_int_t)histogram_quantile(h, 0.5),
                     "p99", (json_int_t)histogram_quantile(h, 0.99),
                     "max", (json_int_t)h->max);
}

static uint64_t all_errors(const Demo *demo)
{
    return demo->totals.client_errors + demo->totals.command_errors;
}

static bool clients_good(const Demo *demo)
{
    for (unsigned i = 0; i < demo->client_count; i++) {
        if (demo->clients[i].failed) {
            return false;
        }
    }
    return true;
}

static bool write_summary(const Demo *demo, bool good)
{
    const DemoTotals *t = &demo->totals;
    json_t *s = json_pack(
        "{s:b, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}",
        "good", good, "moves", (int)demo->moves->len,
        "moves_first_node", demo->nodes[0].moves, "moves_second_node", demo->nodes[1].moves,
        "drained_sections", (json_int_t)t->drains, "requests", (json_int_t)t->requests,
        "bytes", (json_int_t)t->bytes, "errors", (json_int_t)all_errors(demo),
        "connects", (json_int_t)t->connects, "kills", (json_int_t)t->kills,
        "checked_blocks", (json_int_t)t->checked_blocks,
        "move_command_us", quantiles(&demo->command_us),
        "drain_command_us", quantiles(&demo->drain_us),
        "move_stall_us", quantiles(&demo->stall_us),
        "between_moves_us", quantiles(&demo->control_us));
    bool ok = !demo->summary_file
        || json_dump_file(s, demo->summary_file, JSON_INDENT(2)) == 0;

    if (!ok) {
        perror(demo->summary_file);
    }
    json_decref(s);
    return ok;
}

bool demo_summary(Demo *demo)
{
    const DemoTotals *t = &demo->totals;
    double seconds = (g_get_monotonic_time() - demo->begin_us) / 1e6;
    bool good = clients_good(demo) && all_errors(demo) == 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        if (demo->nodes[i].moves < demo->moves_wanted) {
            fprintf(stderr, "%s was moved %u times only\n", demo->nodes[i].name,
                    demo->nodes[i].moves);
            good = false;
        }
    }
    find_stalls(demo);
    printf("\nMoves        %u (%s %u, %s %u), and %" PRIu64 " plain drained sections\n",
           demo->moves->len, demo->nodes[0].name, demo->nodes[0].moves, demo->nodes[1].name,
           demo->nodes[1].moves, t->drains);
    printf("Requests     %" PRIu64 " in %.1f s, %.1f MiB, %" PRIu64 " blocks checked\n",
           t->requests, seconds, t->bytes / 1048576.0, t->checked_blocks);
    printf("Connections  %" PRIu64 " (%" PRIu64 " dropped with requests in flight, %" PRIu64
           " clients killed)\n", t->connects, t->abrupt, t->kills);
    printf("Errors       %" PRIu64 " (I/O %" PRIu64 ", contents %" PRIu64 ", connections %"
           PRIu64 ", commands %" PRIu64 ")\n", all_errors(demo), t->io_errors,
           t->verify_errors, t->connect_errors, t->command_errors);
    print_quantiles("move answered over QMP", &demo->command_us);
    print_quantiles("drained section answered over QMP", &demo->drain_us);
    print_quantiles("stall: longest request per move", &demo->stall_us);
    print_quantiles("the same between moves", &demo->control_us);
    fflush(stdout);
    return write_summary(demo, good) && good;
}
