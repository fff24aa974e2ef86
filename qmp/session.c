/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The monitor's side of a connection. Every handler does one thing and then calls update(),
 * which derives from the state what may go on: parse, read, write, accept, close.
 */
#include "miniblk/osdep.h"
#include <sys/socket.h>
#include "miniblk/main-loop.h"
#include "miniblk/timer.h"
#include "qmp/session.h"

#define INPUT_BYTES 65536

static void update(Monitor *mon);

static void request_free(MonitorRequest *req)
{
    json_message_clear(&req->msg);
    g_free(req);
}

/* ---- LOCK held -------------------------------------------------------------------- */

static size_t out_backlog(const Monitor *mon)
{
    return mon->out->len - mon->out_pos;
}

static bool may_take_input(const Monitor *mon)
{
    return !mon->ending && mon->requests.length < MONITOR_REQUESTS_MAX &&
           mon->request_bytes < MONITOR_REQUEST_BYTES_MAX &&
           out_backlog(mon) <= MONITOR_OUT_BYTES_MAX;
}

static void append_out(Monitor *mon, const GString *text)
{
    g_string_append_len(mon->out, text->str, text->len);
}

static void drop_requests(Monitor *mon)
{
    MonitorRequest *req;

    while ((req = g_queue_pop_head(&mon->requests))) {
        request_free(req);
    }
    mon->request_bytes = 0;
}

/* ---- main thread ------------------------------------------------------------------ */

MonitorRequest *monitor__take_request(Monitor *mon, QmpCaps *caps)
{
    MonitorRequest *req;

    QEMU_MUTEX_GUARD(&mon->lock);
    if (!mon->open || mon->ending || !mon->requests.length) {
        return NULL;
    }
    if (out_backlog(mon) > MONITOR_OUT_BYTES_MAX) {
        mon->out_paused = true;
        return NULL;
    }
    req = g_queue_pop_head(&mon->requests);
    mon->request_bytes -= req->msg.text_bytes;
    mon->executing = true;
    *caps = mon->caps;
    return req;
}

bool monitor__finish_request(Monitor *mon, MonitorRequest *req, const QmpCaps *caps,
                             const GString *reply)
{
    bool more;

    qemu_mutex_lock(&mon->lock);
    if (req->session == mon->session) {
        mon->executing = false;
        mon->caps = *caps;
        append_out(mon, reply);
    }
    more = mon->requests.length > 0;
    qemu_mutex_unlock(&mon->lock);
    qemu_bh_schedule(mon->update_bh);
    request_free(req);
    return more;
}

void monitor__send_event(Monitor *mon, const GString *line)
{
    bool sent;

    qemu_mutex_lock(&mon->lock);
    sent = mon->open && mon->caps.negotiated &&
           out_backlog(mon) + line->len <= MONITOR_EVENT_BYTES_MAX;
    if (sent) {
        append_out(mon, line);
    }
    qemu_mutex_unlock(&mon->lock);
    if (sent) {
        qemu_bh_schedule(mon->update_bh);
    }
}

/* ---- monitor thread: the connection ----------------------------------------------- */

static void open_session(Monitor *mon, int in_fd, int out_fd)
{
    g_autoptr(GString) greeting = g_string_new(NULL);

    qmp_write_greeting(greeting, mon->pretty);
    mon->in_fd = in_fd;
    mon->out_fd = out_fd;
    mon->eof = false;
    QEMU_MUTEX_GUARD(&mon->lock);
    mon->session++;
    mon->open = true;
    mon->caps = (QmpCaps){ false, false };
    append_out(mon, greeting);
}

static void set_handlers(Monitor *mon, bool reading, bool writing);

static void close_session(Monitor *mon)
{
    set_handlers(mon, false, false);
    if (mon->chr->listen_fd >= 0) {
        close(mon->in_fd);
    } else {
        /* The peer must see the end now, not when the program ends. */
        shutdown(mon->out_fd, SHUT_RDWR);
    }
    mon->in_fd = mon->out_fd = -1;
    mon->input_pos = mon->input_len = 0;
    json_stream_reset(&mon->stream);

    QEMU_MUTEX_GUARD(&mon->lock);
    mon->open = false;
    mon->session++;
    mon->executing = false;
    mon->out_paused = false;
    drop_requests(mon);
    g_string_free(mon->out, true);
    mon->out = g_string_new(NULL);
    mon->out_pos = 0;
}

static void accept_handler(void *opaque)
{
    Monitor *mon = opaque;
    int fd;

    /* A removed handler may still be called once. */
    if (!mon->accepting) {
        return;
    }
    fd = accept4(mon->chr->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        open_session(mon, fd, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        /* Out of descriptors, say: the client stays in the queue, do not spin on it. */
        mon->accept_pause = true;
        timer_mod(mon->accept_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  MONITOR_ACCEPT_RETRY_MS);
    }
    update(mon);
}

static void accept_again(void *opaque)
{
    Monitor *mon = opaque;

    mon->accept_pause = false;
    update(mon);
}

/* ---- monitor thread: input -------------------------------------------------------- */

static void push_request(Monitor *mon, const JsonMessage *msg)
{
    MonitorRequest *req = g_new(MonitorRequest, 1);

    req->msg = *msg;
    qemu_mutex_lock(&mon->lock);
    req->session = mon->session;
    g_queue_push_tail(&mon->requests, req);
    mon->request_bytes += msg->text_bytes;
    qemu_mutex_unlock(&mon->lock);
    qemu_bh_schedule(mon->dispatch_bh);
}

static bool may_take_input_locked(Monitor *mon)
{
    QEMU_MUTEX_GUARD(&mon->lock);
    return may_take_input(mon);
}

static void parse_input(Monitor *mon)
{
    while (mon->input_pos < mon->input_len && may_take_input_locked(mon)) {
        JsonMessage msg;
        size_t used;
        bool have = json_stream_feed(&mon->stream, mon->input + mon->input_pos,
                                     mon->input_len - mon->input_pos, &used, &msg);

        mon->input_pos += used;
        if (have) {
            push_request(mon, &msg);
        }
    }
}

static void read_handler(void *opaque)
{
    Monitor *mon = opaque;
    ssize_t n;

    /* A removed handler may still be called once. */
    if (!mon->reading) {
        return;
    }
    n = read(mon->in_fd, mon->input, INPUT_BYTES);
    if (n > 0) {
        mon->input_pos = 0;
        mon->input_len = n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        mon->eof = true;
    }
    update(mon);
}

/* ---- monitor thread: output ------------------------------------------------------- */

/*
 * Send what the client takes now; false when it is gone. The lock is not held across the
 * system call: OUT only grows at its end meanwhile, but may be moved, hence the copy.
 */
static bool write_output(Monitor *mon)
{
    for (;;) {
        char buf[16384];
        size_t len;
        ssize_t n;

        qemu_mutex_lock(&mon->lock);
        len = MIN(out_backlog(mon), sizeof(buf));
        memcpy(buf, mon->out->str + mon->out_pos, len);
        qemu_mutex_unlock(&mon->lock);
        if (!len) {
            return true;
        }
        n = write(mon->out_fd, buf, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN;
        }
        QEMU_MUTEX_GUARD(&mon->lock);
        mon->out_pos += n;
        if (mon->out_pos == mon->out->len) {
            /* Give back what a burst needed. */
            if (mon->out->allocated_len > 65536) {
                g_string_free(mon->out, true);
                mon->out = g_string_new(NULL);
            }
            g_string_truncate(mon->out, 0);
            mon->out_pos = 0;
        } else if (mon->out_pos > MONITOR_OUT_BYTES_MAX) {
            g_string_erase(mon->out, 0, mon->out_pos);
            mon->out_pos = 0;
        }
    }
}

static void write_handler(void *opaque)
{
    update(opaque);
}

/* ---- monitor thread: what next ---------------------------------------------------- */

static void set_handlers(Monitor *mon, bool reading, bool writing)
{
    if (mon->reading == reading && mon->writing == writing) {
        return;
    }
    if (mon->in_fd == mon->out_fd) {
        aio_set_fd_handler(mon->ctx, mon->in_fd, reading ? read_handler : NULL,
                           writing ? write_handler : NULL, NULL, NULL, mon);
    } else {
        aio_set_fd_handler(mon->ctx, mon->in_fd, reading ? read_handler : NULL, NULL, NULL,
                           NULL, mon);
        aio_set_fd_handler(mon->ctx, mon->out_fd, NULL, writing ? write_handler : NULL,
                           NULL, NULL, mon);
    }
    mon->reading = reading;
    mon->writing = writing;
}

static void set_accepting(Monitor *mon, bool accepting)
{
    if (mon->accepting != accepting) {
        aio_set_fd_handler(mon->ctx, mon->chr->listen_fd, accepting ? accept_handler : NULL,
                           NULL, NULL, NULL, mon);
        mon->accepting = accepting;
    }
}

typedef struct Next {
    bool read, write, close, resume_commands;
} Next;

static Next what_next(Monitor *mon)
{
    QEMU_MUTEX_GUARD(&mon->lock);
    bool backlog = out_backlog(mon) > 0;
    bool busy = mon->executing || mon->requests.length > 0 ||
                mon->input_pos < mon->input_len;
    Next next = {
        .read = !mon->eof && mon->input_pos == mon->input_len && may_take_input(mon),
        .write = backlog,
        .close = !backlog && (mon->ending || (mon->eof && !busy)),
        .resume_commands = mon->out_paused && out_backlog(mon) <= MONITOR_OUT_BYTES_MAX,
    };

    if (next.resume_commands) {
        mon->out_paused = false;
    }
    return next;
}

static bool is_ending(Monitor *mon)
{
    QEMU_MUTEX_GUARD(&mon->lock);
    return mon->ending;
}

static void update_connection(Monitor *mon)
{
    Next next;

    if (!write_output(mon)) {
        close_session(mon);
        return;
    }
    parse_input(mon);
    next = what_next(mon);
    if (next.close) {
        close_session(mon);
        return;
    }
    set_handlers(mon, next.read, next.write);
    if (next.resume_commands) {
        qemu_bh_schedule(mon->dispatch_bh);
    }
}

static void end_now(Monitor *mon)
{
    if (mon->ended) {
        return;
    }
    if (mon->in_fd >= 0) {
        close_session(mon);
    }
    mon->ended = true;
    timer_del(mon->end_timer);
    timer_del(mon->accept_timer);
    qemu_bh_delete(mon->update_bh);
    qemu_event_set(&mon->end_event);
}

static void update(Monitor *mon)
{
    bool ending = is_ending(mon);

    if (mon->ended) {
        return;
    }
    if (mon->in_fd >= 0) {
        update_connection(mon);
    }
    if (mon->chr->listen_fd >= 0) {
        set_accepting(mon, mon->in_fd < 0 && !ending && !mon->accept_pause);
    }
    if (ending && mon->in_fd < 0) {
        end_now(mon);
    }
}

static void update_bh(void *opaque)
{
    update(opaque);
}

/* ---- life ------------------------------------------------------------------------- */

static void start_bh(void *opaque)
{
    Monitor *mon = opaque;

    if (mon->chr->in_fd >= 0) {
        open_session(mon, mon->chr->in_fd, mon->chr->out_fd);
        if (mon->chr->listen_fd >= 0) {
            /* A connection like those that come later: the session closes it. */
            mon->chr->in_fd = mon->chr->out_fd = -1;
        }
    }
    update(mon);
}

static void end_timeout(void *opaque)
{
    end_now(opaque);
}

Monitor *monitor__new(Chardev *chr, bool pretty, AioContext *ctx, QEMUBHFunc *dispatch)
{
    Monitor *mon = g_new0(Monitor, 1);

    mon->chr = chr;
    mon->pretty = pretty;
    mon->ctx = ctx;
    mon->in_fd = mon->out_fd = -1;
    mon->input = g_malloc(INPUT_BYTES);
    mon->out = g_string_new(NULL);
    g_queue_init(&mon->requests);
    json_stream_init(&mon->stream);
    qemu_mutex_init(&mon->lock);
    qemu_event_init(&mon->end_event, false);
    mon->end_timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS, end_timeout, mon);
    mon->accept_timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS, accept_again, mon);
    mon->update_bh = aio_bh_new(ctx, update_bh, mon);
    mon->dispatch_bh = aio_bh_new(iohandler_get_aio_context(), dispatch, mon);
    aio_bh_schedule_oneshot(ctx, start_bh, mon);
    return mon;
}

static void begin_end_bh(void *opaque)
{
    Monitor *mon = opaque;

    if (!mon->ended) {
        timer_mod(mon->end_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  MONITOR_END_TIMEOUT_MS);
        update(mon);
    }
}

void monitor__begin_end(Monitor *mon)
{
    qemu_mutex_lock(&mon->lock);
    mon->ending = true;
    qemu_mutex_unlock(&mon->lock);
    aio_bh_schedule_oneshot(mon->ctx, begin_end_bh, mon);
}

void monitor__wait_end(Monitor *mon)
{
    qemu_event_wait(&mon->end_event);
}

void monitor__free(Monitor *mon)
{
    /* Only now: the monitor thread scheduled it. */
    qemu_bh_delete(mon->dispatch_bh);
    drop_requests(mon);
    timer_free(mon->end_timer);
    timer_free(mon->accept_timer);
    qemu_event_destroy(&mon->end_event);
    qemu_mutex_destroy(&mon->lock);
    json_stream_destroy(&mon->stream);
    g_string_free(mon->out, true);
    g_free(mon->input);
    g_free(mon);
}
