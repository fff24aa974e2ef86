/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Monitors: QMP sessions on character devices.
 *
 *      monitor thread                            main loop
 *      bytes -> messages -> REQUESTS  ---------> one at a time, under the big lock,
 *      bytes <----------------- OUT  <---------- in the control context
 *
 * The monitor thread never waits for the main loop, so a client is read from and written to
 * while a command runs. It runs one AioContext for all monitors.
 *
 * A client cannot make the process grow: it is not read from while REQUESTS_MAX messages or
 * REQUEST_BYTES_MAX of them wait, nor while more than OUT_BYTES_MAX are on their way to it;
 * commands that already wait are not begun then either. Events are dropped for a client
 * that lets EVENT_BYTES_MAX pile up. A message itself is bounded by the parser.
 *
 * When a client closes its sending side, what it has sent is still carried out and answered
 * before the connection ends. Sessions are numbered; what belongs to an earlier one is
 * thrown away.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"
#include "qmp/session.h"

static AioContext *monitor_ctx;
static QemuThread monitor_thread;
static bool thread_running;             /* main thread */
static GPtrArray *monitors;             /* main thread */
static bool quit_requested;             /* main thread */

bool qmp_quit_requested(void)
{
    return quit_requested;
}

void qmp_request_quit(void)
{
    g_assert(qemu_in_main_thread());
    quit_requested = true;
    /* The main loop may be asleep in another iteration of its caller. */
    aio_notify(qemu_get_aio_context());
}

/* ---- the monitor thread ----------------------------------------------------------- */

static bool thread_end_wanted;          /* monitor thread */

static void *monitor_run(void *opaque)
{
    qemu_set_current_aio_context(monitor_ctx);
    while (!thread_end_wanted) {
        aio_poll(monitor_ctx, true);
    }
    while (aio_poll(monitor_ctx, false)) {
        /* until nothing is left */
    }
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void end_thread_bh(void *opaque)
{
    thread_end_wanted = true;
}

static bool start_thread(Error **errp)
{
    if (thread_running) {
        return true;
    }
    monitor_ctx = aio_context_new(errp);
    if (!monitor_ctx) {
        return false;
    }
    thread_running = true;
    qemu_thread_create(&monitor_thread, "monitor", monitor_run, NULL, QEMU_THREAD_JOINABLE);
    return true;
}

/* ---- commands (main thread) ------------------------------------------------------- */

static void dispatch_bh(void *opaque)
{
    Monitor *mon = opaque;
    MonitorRequest *req;
    QmpCaps caps;
    g_autoptr(GString) out = NULL;

    if (quit_requested) {
        return;
    }
    req = monitor__take_request(mon, &caps);
    if (!req) {
        return;
    }
    out = g_string_new(NULL);
    qmp_dispatch(&req->msg, &caps, mon->pretty, out);
    if (monitor__finish_request(mon, req, &caps, out)) {
        qemu_bh_schedule(mon->dispatch_bh);
    }
}

/* ---- events (main thread) --------------------------------------------------------- */

void qmp_send_event(const char *name, json_t *data)
{
    g_assert(qemu_in_main_thread());
    for (guint i = 0; monitors && i < monitors->len; i++) {
        Monitor *mon = g_ptr_array_index(monitors, i);
        g_autoptr(GString) out = g_string_new(NULL);

        qmp_write_event(out, name, data, mon->pretty);
        monitor__send_event(mon, out);
    }
    json_decref(data);
}

/* ---- life (main thread) ----------------------------------------------------------- */

void monitor__init(void)
{
    monitors = g_ptr_array_new();
}

bool monitor_add(QDict *const_options, Error **errp)
{
    g_autoptr(json_t) options = json_copy(const_options);
    static const char *const modes[] = { "control", NULL };
    g_autofree char *id = NULL;
    const char *key;
    json_t *value;
    bool pretty = false;
    int mode = 0;
    Chardev *chr;

    if (!bdrv_opt_str(options, "chardev", &id, errp) ||
        !bdrv_opt_enum(options, "mode", modes, &mode, errp) ||
        !bdrv_opt_bool(options, "pretty", &pretty, errp)) {
        return false;
    }
    json_object_foreach(options, key, value) {
        error_setg(errp, "Parameter '%s' is unexpected", key);
        return false;
    }
    if (!id) {
        error_setg(errp, "Parameter 'chardev' is missing");
        return false;
    }
    chr = chardev_find(id);
    if (!chr) {
        error_setg(errp, "chardev \"%s\" not found", id);
        return false;
    }
    if (chr->in_use) {
        error_setg(errp, "Device '%s' is in use", id);
        return false;
    }
    if (!start_thread(errp)) {
        return false;
    }
    chr->in_use = true;
    g_ptr_array_add(monitors, monitor__new(chr, pretty, monitor_ctx, dispatch_bh));
    return true;
}

void monitor__cleanup(void)
{
    for (guint i = 0; i < monitors->len; i++) {
        monitor__begin_end(g_ptr_array_index(monitors, i));
    }
    for (guint i = 0; i < monitors->len; i++) {
        monitor__wait_end(g_ptr_array_index(monitors, i));
    }
    if (thread_running) {
        aio_bh_schedule_oneshot(monitor_ctx, end_thread_bh, NULL);
        qemu_thread_join(&monitor_thread);
        thread_running = false;
    }
    for (guint i = 0; i < monitors->len; i++) {
        monitor__free(g_ptr_array_index(monitors, i));
    }
    g_ptr_array_free(monitors, true);
    monitors = NULL;
    g_clear_pointer(&monitor_ctx, aio_context_unref);
}
