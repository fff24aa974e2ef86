/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export and what is done to its node: drained sections, moves, its removal, the server's
 * end; while clients talk, leave in the middle, or are cut off. Few requests each, so that the
 * lab can try many interleavings. The node of the fixture checks that requests come in its
 * context and never in a section.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"

enum { BLOCK = 512, ROUNDS = 2, CLIENTS_MAX = 2 };

static IOThread *io[2];
static AioContext *main_ctx, *io_ctx[2];
static BlockDriverState *node;
static BlockExport *export;
static unsigned connected;          /* atomic: clients that are being served */

/* ---- clients --------------------------------------------------------------------------- */

static int come(void)
{
    int fd = raw_connect(fx_socket());

    /* the server may be gone already */
    if (raw_go(fd, "disk", false) < 0) {
        close(fd);
        fd = -1;
    }
    qatomic_inc(&connected);
    fx_wake();
    return fd;
}

/* Whatever happens to the node, this client sees nothing of it. */
static void client_talks(void *opaque)
{
    uint64_t offset = *(unsigned *)opaque * BLOCK;
    uint8_t out[BLOCK], in[BLOCK];
    int fd = come();

    for (int i = 1; i <= ROUNDS; i++) {
        memset(out, i, BLOCK);
        g_assert_cmpint(raw_pwrite(fd, out, offset, BLOCK, 0), ==, 0);
        g_assert_cmpint(raw_pread(fd, in, offset, BLOCK), ==, 0);
        g_assert_cmpmem(in, BLOCK, out, BLOCK);
    }
    close(fd);
}

/* Asks, and goes away before the answer. */
static void client_leaves(void *opaque)
{
    int fd = come();

    for (uint64_t i = 0; i < ROUNDS; i++) {
        g_assert_true(raw_request(fd, 0, NBD_CMD_READ, i, i * BLOCK, BLOCK));
    }
    close(fd);
}

/* Several requests at a time, as long as the server answers. */
static void client_is_cut_off(void *opaque)
{
    uint8_t in[BLOCK];
    uint64_t cookie;
    uint32_t error;
    int fd = come();

    for (uint64_t i = 0; fd >= 0 && i < ROUNDS; i++) {
        raw_request(fd, 0, NBD_CMD_READ, i, i * BLOCK, BLOCK);
    }
    for (int i = 0; fd >= 0 && i < ROUNDS && raw_reply(fd, &error, &cookie); i++) {
        g_assert_cmpuint(error, ==, 0);
        if (!raw_recv(fd, in, BLOCK)) {
            break;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- what happens to the node ----------------------------------------------------------- */

static void move(AioContext *to)
{
    g_assert_cmpint(fx_move(node, to, &error_abort), ==, 0);
    g_assert_true(!export || export->ctx == to);
}

static void section(void)
{
    fx_drained_begin(node);
    fx_drained_end(node);
}

/*
 *      main                                io0                     io1
 *                                          a request is due
 *      park, wait, switch, unpark
 *                                                                  takes the clients over
 *      the next move, at once
 */
static void act_moves(void)
{
    move(io_ctx[1]);
    move(main_ctx);
    move(io_ctx[0]);
}

static void act_moves_inside_a_section(void)
{
    fx_drained_begin(node);
    move(io_ctx[1]);
    fx_drained_end(node);
}

/*
 *      main                                IOThread
 *      end of a section: have clients served again
 *      begin of the next                   (has not come to it yet)
 *      end
 *                                          serves, once
 */
static void act_sections(void)
{
    section();
    section();
}

static void act_nested_sections(void)
{
    fx_drained_begin(node);
    section();
    fx_forbid(node, true);
    main_loop_wait(true);
    fx_drained_end(node);
}

static void act_all_nodes(void)
{
    bdrv_drain_all_begin();
    fx_forbid(node, true);
    fx_forbid(node, false);
    bdrv_drain_all_end();
    bdrv_drain_all();
}

static void release_bh(void *opaque)
{
    fx_release(node);
}

/* Requests that the driver holds go on while a section waits for them. */
static void act_section_with_held_requests(void)
{
    fx_hold(node);
    main_loop_wait(true);
    aio_bh_schedule_oneshot(main_ctx, release_bh, NULL);
    section();
    fx_release(node);
}

/* ---- the export goes -------------------------------------------------------------------- */

static void remove_export(void)
{
    blk_exp_request_shutdown(export);
    export = NULL;
}

static void wait_removed(void)
{
    FX_WAIT_WHILE(blk_exp_find("e0"));
}

static void act_removed(void)
{
    remove_export();
    wait_removed();
}

/* "safe": only when nobody uses it. */
static void act_removed_when_unused(void)
{
    section();
    fx_wait_no_clients(export);
    remove_export();
    g_assert_null(blk_exp_find("e0"));
}

static void act_removed_inside_a_section(void)
{
    fx_drained_begin(node);
    remove_export();
    fx_drained_end(node);
    wait_removed();
}

static void act_gone_inside_a_section(void)
{
    fx_drained_begin(node);
    remove_export();
    wait_removed();
    fx_drained_end(node);
}

/* The clients' thread learns that they shall hang up when the node has moved on. */
static void act_removed_and_moved(void)
{
    remove_export();
    move(io_ctx[1]);
    section();
    wait_removed();
}

/*
 *      main                                io0                     io1
 *      begin: clients are parked
 *      hang up on them                     (has not come to it)
 *      move: must wait for that
 *                                          hangs up
 *      switch, end
 */
static void act_removed_then_moved_inside_a_section(void)
{
    fx_drained_begin(node);
    remove_export();
    move(io_ctx[1]);
    fx_drained_end(node);
    wait_removed();
}

/* Clients that were parked in one thread are hung up on in another. */
static void act_moved_then_removed_inside_a_section(void)
{
    fx_drained_begin(node);
    move(io_ctx[1]);
    remove_export();
    wait_removed();
    fx_drained_end(node);
}

static void act_stop(void)
{
    export = NULL;
    nbd_server_stop(&error_abort);
    g_assert_null(blk_exp_next(NULL));
}

static void act_stop_inside_a_section(void)
{
    fx_drained_begin(node);
    act_stop();
    fx_drained_end(node);
}

static void act_stop_with_held_requests(void)
{
    fx_hold(node);
    main_loop_wait(true);
    aio_bh_schedule_oneshot(main_ctx, release_bh, NULL);
    act_stop();
}

/* ---- cases ------------------------------------------------------------------------------ */

typedef struct Case {
    const char *path;
    void (*client)(void *opaque);
    unsigned clients;
    void (*act)(void);
} Case;

static const Case cases[] = {
    { "moved/talking", client_talks, 2, act_moves },
    { "moved/leaving", client_leaves, 1, act_moves },
    { "moved/inside-a-section", client_talks, 1, act_moves_inside_a_section },
    { "drained/talking", client_talks, 2, act_sections },
    { "drained/leaving", client_leaves, 2, act_sections },
    { "drained/nested", client_talks, 1, act_nested_sections },
    { "drained/all-nodes", client_talks, 1, act_all_nodes },
    { "drained/held-requests", client_talks, 1, act_section_with_held_requests },
    { "drained/held-requests/leaving", client_leaves, 1, act_section_with_held_requests },
    { "removed", client_is_cut_off, 2, act_removed },
    { "removed/unused", client_leaves, 1, act_removed_when_unused },
    { "removed/inside-a-section", client_is_cut_off, 1, act_removed_inside_a_section },
    { "removed/gone-inside-a-section", client_is_cut_off, 1, act_gone_inside_a_section },
    { "removed/and-moved", client_is_cut_off, 1, act_removed_and_moved },
    { "removed/and-moved-inside-a-section", client_is_cut_off, 1,
      act_removed_then_moved_inside_a_section },
    { "removed/when-moved-inside-a-section", client_is_cut_off, 1,
      act_moved_then_removed_inside_a_section },
    { "stopped", client_is_cut_off, 2, act_stop },
    { "stopped/inside-a-section", client_is_cut_off, 1, act_stop_inside_a_section },
    { "stopped/held-requests", client_is_cut_off, 1, act_stop_with_held_requests },
};

static void setup(void)
{
    fx_server_start(0, 0);
    main_ctx = qemu_get_aio_context();
    for (int i = 0; i < 2; i++) {
        io[i] = iothread_create(i ? "io1" : "io0", &error_abort);
        io_ctx[i] = iothread_get_aio_context(io[i]);
    }
    node = fx_node("disk", 1 << 20);
    export = fx_export("e0", "disk", "'writable': true, 'iothread': 'io0'");
    qatomic_set(&connected, 0);
}

static void teardown(void)
{
    if (export) {
        fx_wait_no_clients(export);
    }
    if (nbd_server_is_running()) {
        nbd_server_stop(&error_abort);
    }
    export = NULL;
    move(main_ctx);
    bdrv_unref(node);
    iothread_destroy(io[0]);
    iothread_destroy(io[1]);
}

static void test_case(gconstpointer opaque)
{
    static const unsigned index[CLIENTS_MAX] = { 0, 1 };
    FxThread *threads[CLIENTS_MAX];
    const Case *c = opaque;

    setup();
    for (unsigned i = 0; i < c->clients; i++) {
        threads[i] = fx_thread_start(c->client, (void *)&index[i]);
    }
    FX_WAIT_WHILE(qatomic_read(&connected) < c->clients);
    c->act();
    for (unsigned i = 0; i < c->clients; i++) {
        fx_thread_join(threads[i]);
    }
    teardown();
}

/* ---- who comes inside a section --------------------------------------------------------- */

/* He is let in, and served when it ends. */
static void test_connects_inside_a_section(void)
{
    static const unsigned index;

    setup();
    fx_drained_begin(node);
    FxThread *thread = fx_thread_start(client_talks, (void *)&index);
    FX_WAIT_WHILE(qatomic_read(&connected) == 0);
    g_assert_cmpuint(export->drv->requests(export), ==, 0);
    fx_drained_end(node);
    section();
    fx_thread_join(thread);
    teardown();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fx_init();
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/export-drain/%s", cases[i].path);
        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/export-drain/drained/connecting", test_connects_inside_a_section);
    int ret = g_test_run();
    fx_cleanup();
    return ret;
}
