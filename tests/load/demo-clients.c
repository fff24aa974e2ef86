/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include "demo.h"

#define CLIENTS_MAX 32
#define RUN_S_MAX "3600"         /* they are told when to stop */

static void init_client(Demo *demo, DemoClient *c, unsigned node, unsigned part)
{
    c->node = &demo->nodes[node];
    c->id = node * demo->clients_per_node + part + 1;
    c->output = -1;
    c->input = g_byte_array_new();
    c->name = g_strdup_printf("%s/%u", c->node->name, part);
    c->slice = g_strdup_printf("%u/%d", part, demo->clients_per_node);
    c->state_file = g_strdup_printf("%s/state-%s-%u", demo->dir, c->node->name, part);
    c->log_file = g_strdup_printf("%s/latency-%s-%u", demo->dir, c->node->name, part);
}

void demo_clients_init(Demo *demo)
{
    demo->client_count = DEMO_NODES * demo->clients_per_node;
    demo->clients = g_new0(DemoClient, demo->client_count);
    for (unsigned i = 0; i < demo->client_count; i++) {
        init_client(demo, &demo->clients[i], i / demo->clients_per_node,
                    i % demo->clients_per_node);
    }
}

bool demo_client_start(Demo *demo, DemoClient *c)
{
    g_autofree char *uri = g_strdup_printf("nbd+unix:///%s?socket=%s", c->node->name,
                                           demo->nbd_path);
    g_autofree char *id = g_strdup_printf("%u", c->id);
    g_autofree char *depth = g_strdup_printf("%d", demo->depth);
    /* A restarted client must not repeat its predecessor's choices. */
    g_autofree char *seed = g_strdup_printf("%" PRId64,
                                            demo->seed + (int64_t)demo->totals.kills * 977);
    const char *argv[] = {
        demo->load_program, "--uri", uri, "--blocks", demo->blocks, "--reference",
        demo->reference, "--state", c->state_file, "--latency-log", c->log_file, "--slice",
        c->slice, "--id", id, "--name", c->name, "--depth", depth, "--seconds", RUN_S_MAX,
        "--seed", seed, "--reconnect", "0.5", "--interval", "0.25", NULL };
    g_autoptr(GError) err = NULL;
    GPid pid;

    if (!g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                                  NULL, &pid, NULL, &c->output, NULL, &err)) {
        fprintf(stderr, "%s\n", err->message);
        c->failed = true;
        return false;
    }
    c->pid = pid;
    c->killed = c->finished = c->ready = false;
    g_byte_array_set_size(c->input, 0);
    return true;
}

static uint64_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* Of a killed client only the intervals are known, so everything is added up from these. */
static void take_line(Demo *demo, DemoClient *c, const char *text, size_t length)
{
    json_t *line = json_loadb(text, length, 0, NULL);
    DemoTotals *t = &demo->totals;

    if (!line) {
        fprintf(stderr, "%s: not JSON: %.*s\n", c->name, (int)length, text);
        c->failed = true;
        return;
    }
    c->ready = true;
    if (json_is_true(json_object_get(line, "final"))) {
        c->finished = true;
        t->io_errors += number(line, "io_errors");
        t->verify_errors += number(line, "verify_errors");
        t->connect_errors += number(line, "connect_errors");
        t->flushes += number(line, "flushes");
        t->abrupt += number(line, "abrupt_disconnects");
        t->checked_blocks += number(line, "checked_blocks");
    } else {
        c->node->table_requests += number(line, "requests");
        demo_note_latency(demo, c->node, number(line, "latency_end_us"),
                          number(line, "latency_us_max"));
        t->requests += number(line, "requests");
        t->bytes += number(line, "bytes");
        t->connects += number(line, "connects");
        t->client_errors += number(line, "errors");
    }
    json_decref(line);
}

static void take_lines(Demo *demo, DemoClient *c)
{
    uint8_t *end;

    while (c->input->len && (end = memchr(c->input->data, '\n', c->input->len))) {
        size_t n = end - c->input->data + 1;

        take_line(demo, c, (char *)c->input->data, n);
        g_byte_array_remove_range(c->input, 0, n);
    }
}

static void reap(DemoClient *c)
{
    int status;

    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
        continue;
    }
    if (!c->killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !c->finished)) {
        fprintf(stderr, "%s: %s %d\n", c->name,
                WIFEXITED(status) ? "exit status" : "ended by signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        c->failed = true;
    }
    c->pid = 0;
}

static void on_output(Demo *demo, DemoClient *c)
{
    uint8_t buf[16384];
    ssize_t n = read(c->output, buf, sizeof(buf));

    if (n > 0) {
        g_byte_array_append(c->input, buf, n);
        take_lines(demo, c);
    } else if (n == 0 || errno != EINTR) {
        close(c->output);
        c->output = -1;
        reap(c);
    }
}

void demo_clients_listen(Demo *demo, int64_t until_us)
{
    struct pollfd pfds[CLIENTS_MAX];
    int64_t left_us;

    assert(demo->client_count <= CLIENTS_MAX);
    do {
        left_us = until_us - g_get_monotonic_time();
        for (unsigned i = 0; i < demo->client_count; i++) {
            /* A negative descriptor is skipped by poll(). */
            pfds[i] = (struct pollfd){ .fd = demo->clients[i].output, .events = POLLIN };
        }
        if (poll(pfds, demo->client_count, left_us > 0 ? (left_us + 999) / 1000 : 0) > 0) {
            for (unsigned i = 0; i < demo->client_count; i++) {
                if (pfds[i].fd >= 0 && pfds[i].revents) {
                    on_output(demo, &demo->clients[i]);
                }
            }
        }
    } while (left_us > 0 && demo_clients_running(demo));
}

unsigned demo_clients_running(const Demo *demo)
{
    unsigned n = 0;

    for (unsigned i = 0; i < demo->client_count; i++) {
        n += demo->clients[i].output >= 0;
    }
    return n;
}

static void drain_output(Demo *demo, DemoClient *c)
{
    while (c->output >= 0) {
        on_output(demo, c);
    }
}

bool demo_client_kill_and_restart(Demo *demo, DemoClient *c)
{
    if (c->output < 0) {
        return true;            /* it has just ended by itself */
    }
    c->killed = true;
    kill(c->pid, SIGKILL);
    drain_output(demo, c);
    demo->totals.kills++;
    return demo_client_start(demo, c);
}

bool demo_clients_ready(const Demo *demo)
{
    for (unsigned i = 0; i < demo->client_count; i++) {
        if (demo->clients[i].output >= 0 && !demo->clients[i].ready) {
            return false;
        }
    }
    return true;
}

void demo_clients_stop(Demo *demo)
{
    for (unsigned i = 0; i < demo->client_count; i++) {
        if (demo->clients[i].output >= 0) {
            kill(demo->clients[i].pid, SIGTERM);
        }
    }
}

void demo_clients_end(Demo *demo)
{
    for (unsigned i = 0; i < demo->client_count; i++) {
        DemoClient *c = &demo->clients[i];

        if (c->output >= 0) {
            c->killed = c->failed = true;
            kill(c->pid, SIGKILL);
            drain_output(demo, c);
        }
        g_byte_array_unref(c->input);
        g_free(c->name);
        g_free(c->slice);
        g_free(c->state_file);
        g_free(c->log_file);
    }
    g_free(demo->clients);
}
