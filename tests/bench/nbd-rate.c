/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rate of random 4 KiB requests that an NBD server answers, and what each costs it.
 *
 *   nbd-rate --uri URI [--depth N] [--seconds S] [--write] [--server-pid PID]
 *
 * Nothing is looked at in the answers: nbd-load does that.
 */
#include "miniblk/osdep.h"
#include <libnbd.h>
#include "bench.h"

#define REQUEST_BYTES 4096

typedef struct Rate {
    char *uri;
    gint depth, server_pid;
    gdouble seconds;
    gboolean write;
    struct nbd_handle *nbd;
    uint64_t blocks, random, answered, failed;
    int64_t end_ns, answer_ns, gap_ns;  /* the end; the last answer; longest time without */
    unsigned in_flight;
} Rate;

typedef struct Lane {
    Rate *rate;
    bool active;
    uint8_t *data;
} Lane;

static int lane_done(void *opaque, int *error)
{
    Lane *lane = opaque;
    Rate *r = lane->rate;
    int64_t now_ns = bench_now_ns();

    r->gap_ns = MAX(r->gap_ns, now_ns - r->answer_ns);
    r->answer_ns = now_ns;
    lane->active = false;
    r->in_flight--;
    r->answered++;
    r->failed += *error != 0;
    return 1;
}

static bool lane_start(Lane *lane)
{
    Rate *r = lane->rate;
    nbd_completion_callback done = { .callback = lane_done, .user_data = lane };
    uint64_t offset;
    int64_t cookie;

    r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
    offset = (r->random >> 20) % r->blocks * REQUEST_BYTES;
    lane->active = true;
    r->in_flight++;
    cookie = r->write ? nbd_aio_pwrite(r->nbd, lane->data, REQUEST_BYTES, offset, done, 0)
        : nbd_aio_pread(r->nbd, lane->data, REQUEST_BYTES, offset, done, 0);
    return cookie >= 0;
}

/* User and system time of the server so far; 0 when it cannot be told. */
static double server_cpu_s(int pid)
{
    g_autofree char *file = g_strdup_printf("/proc/%d/stat", pid);
    g_autofree char *text = NULL;
    unsigned long user, kernel;
    const char *after_name;

    if (!pid || !g_file_get_contents(file, &text, NULL, NULL)) {
        return 0;
    }
    /* The name may hold anything, so count fields from its closing bracket. */
    after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u"
                              " %lu %lu", &user, &kernel) != 2) {
        return 0;
    }
    return (double)(user + kernel) / sysconf(_SC_CLK_TCK);
}

static bool run(Rate *r)
{
    Lane *lanes = g_new0(Lane, r->depth);
    bool alive = true;

    for (int i = 0; i < r->depth; i++) {
        lanes[i] = (Lane){ .rate = r, .data = g_malloc0(REQUEST_BYTES) };
    }
    while (alive) {
        bool more = bench_now_ns() < r->end_ns;

        for (int i = 0; more && alive && i < r->depth; i++) {
            alive = lanes[i].active || lane_start(&lanes[i]);
        }
        if (!r->in_flight) {
            break;
        }
        alive = alive && nbd_poll(r->nbd, 10000) > 0;
    }
    if (!alive) {
        fprintf(stderr, "nbd-rate: %s\n", nbd_get_error());
    }
    for (int i = 0; i < r->depth; i++) {
        g_free(lanes[i].data);
    }
    g_free(lanes);
    return alive;
}

int main(int argc, char **argv)
{
    Rate r = { .depth = 32, .seconds = 2, .random = 1 };
    const GOptionEntry entries[] = {
        { "uri", 'u', 0, G_OPTION_ARG_STRING, &r.uri, "server (NBD URI)", "URI" },
        { "depth", 'd', 0, G_OPTION_ARG_INT, &r.depth, "requests in flight (32)", "N" },
        { "seconds", 's', 0, G_OPTION_ARG_DOUBLE, &r.seconds, "how long (2)", "S" },
        { "write", 'w', 0, G_OPTION_ARG_NONE, &r.write, "write instead of reading", NULL },
        { "server-pid", 'p', 0, G_OPTION_ARG_INT, &r.server_pid, "whose CPU time", "PID" },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- NBD request rate");
    g_autoptr(GError) err = NULL;
    int64_t begin_ns;
    double cpu_s, seconds;
    bool ok;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err) || !r.uri || r.depth < 1) {
        fprintf(stderr, "nbd-rate: %s\n", err ? err->message : "--uri is needed");
        return 2;
    }
    r.nbd = nbd_create();
    if (!r.nbd || nbd_connect_uri(r.nbd, r.uri) < 0) {
        fprintf(stderr, "nbd-rate: %s\n", nbd_get_error());
        return 1;
    }
    r.blocks = MAX(nbd_get_size(r.nbd) / REQUEST_BYTES, 1);
    cpu_s = server_cpu_s(r.server_pid);
    begin_ns = r.answer_ns = bench_now_ns();
    r.end_ns = begin_ns + r.seconds * 1e9;
    ok = run(&r);
    seconds = (bench_now_ns() - begin_ns) / 1e9;
    cpu_s = server_cpu_s(r.server_pid) - cpu_s;
    nbd_shutdown(r.nbd, 0);
    nbd_close(r.nbd);
    if (!ok || r.failed || !r.answered) {
        fprintf(stderr, "nbd-rate: %" PRIu64 " of %" PRIu64 " requests failed\n", r.failed,
                r.answered);
        return 1;
    }
    bench_figure("requests", r.answered / seconds / 1000, "k/s");
    bench_figure("longest gap", r.gap_ns / 1e6, "ms");
    if (cpu_s > 0) {
        bench_figure("server CPU per request", cpu_s * 1e6 / r.answered, "us");
    }
    return 0;
}
