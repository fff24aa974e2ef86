/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handshake phase of a connection: fixed newstyle negotiation.
 *
 * An event-driven state machine in the control context, not a coroutine, so that the
 * deadline or the end of the server can simply free it. Memory is bounded: one option is
 * looked at in a fixed buffer, and nothing is read while more than OUT_MAX_SIZE bytes wait to
 * be sent.
 */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include "miniblk/main-loop.h"
#include <sys/socket.h>

#define IN_SIZE         (NBD_OPTION_HEADER_SIZE + NBD_OPTION_MAX_SIZE)
#define OUT_MAX_SIZE    (64u * 1024)
/* An option beyond this is not an option but an attack, or another protocol. */
#define DISCARD_MAX_SIZE (32u * 1024 * 1024)

typedef enum Step {
    STEP_MORE,          /* something was done; look again */
    STEP_WAIT,          /* for input, or for output to drain */
    STEP_TRANSMIT,
    STEP_CLOSE,         /* when the output is on its way */
} Step;

static void handshake_event_read(void *opaque);
static void handshake_event_write(void *opaque);

static size_t unsent(const NBDHandshake *hs)
{
    return hs->out->len - hs->out_pos;
}

static void update_handlers(NBDHandshake *hs, bool want_read, bool want_write)
{
    if (want_read != hs->watched_read || want_write != hs->watched_write) {
        hs->watched_read = want_read;
        hs->watched_write = want_write;
        aio_set_fd_handler(iohandler_get_aio_context(), hs->fd,
                           want_read ? handshake_event_read : NULL,
                           want_write ? handshake_event_write : NULL, NULL, NULL, hs);
    }
}

/* Free all but the socket. */
static void handshake_free(NBDHandshake *hs)
{
    update_handlers(hs, false, false);
    timer_deinit(&hs->deadline);
    nbd_server_handshake_ended(hs);
    g_byte_array_unref(hs->out);
    g_free(hs->meta_export);
    g_free(hs->in);
    g_free(hs);
}

void nbd_handshake_abort(NBDHandshake *hs)
{
    int fd = hs->fd;

    handshake_free(hs);
    close(fd);
    nbd_server_connection_closed();
}

static void handshake_deadline(void *opaque)
{
    nbd_handshake_abort(opaque);
}

/* False when the connection is broken. */
static bool send_output(NBDHandshake *hs)
{
    while (unsent(hs)) {
        ssize_t n = send(hs->fd, hs->out->data + hs->out_pos, unsent(hs),
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN;
        }
        hs->out_pos += n;
    }
    g_byte_array_set_size(hs->out, 0);
    hs->out_pos = 0;
    return true;
}

static const uint8_t *input(const NBDHandshake *hs)
{
    return hs->in + hs->in_pos;
}

static size_t input_len(const NBDHandshake *hs)
{
    return hs->in_end - hs->in_pos;
}

static Step step_client_flags(NBDHandshake *hs)
{
    uint32_t flags;

    if (input_len(hs) < 4) {
        return STEP_WAIT;
    }
    flags = nbd_get32(input(hs));
    if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        return STEP_CLOSE;
    }
    hs->fixed_newstyle = flags & NBD_FLAG_FIXED_NEWSTYLE;
    hs->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    hs->phase = NBD_HS_OPTIONS;
    hs->in_pos += 4;
    return STEP_MORE;
}

static Step step_discard(NBDHandshake *hs)
{
    size_t n = MIN(input_len(hs), (size_t)hs->discard_left_bytes);

    if (!n) {
        return STEP_WAIT;
    }
    hs->in_pos += n;
    hs->discard_left_bytes -= n;
    if (!hs->discard_left_bytes) {
        nbd_option_reply_error(hs, hs->discard_option, NBD_REP_ERR_TOO_BIG,
                               "option payload is too big");
    }
    return STEP_MORE;
}

static Step step_option(NBDHandshake *hs)
{
    uint32_t option, len;
    NBDOptionResult result;

    if (input_len(hs) < NBD_OPTION_HEADER_SIZE) {
        return STEP_WAIT;
    }
    option = nbd_get32(input(hs) + 8);
    len = nbd_get32(input(hs) + 12);
    if (nbd_get64(input(hs)) != NBD_OPTS_MAGIC) {
        return STEP_CLOSE;
    }
    if (!hs->fixed_newstyle && option != NBD_OPT_EXPORT_NAME) {
        return STEP_CLOSE;      /* such a client could not read the answer */
    }
    if (len > NBD_OPTION_MAX_SIZE) {
        if (len > DISCARD_MAX_SIZE || option == NBD_OPT_EXPORT_NAME) {
            return STEP_CLOSE;
        }
        hs->in_pos += NBD_OPTION_HEADER_SIZE;
        hs->discard_option = option;
        hs->discard_left_bytes = len;
        return STEP_MORE;
    }
    if (input_len(hs) < NBD_OPTION_HEADER_SIZE + len) {
        return STEP_WAIT;
    }
    result = nbd_option_handle(hs, option, input(hs) + NBD_OPTION_HEADER_SIZE, len);
    hs->in_pos += NBD_OPTION_HEADER_SIZE + len;
    switch (result) {
    case NBD_OPTION_TRANSMIT:
        return STEP_TRANSMIT;
    case NBD_OPTION_CLOSE:
        return STEP_CLOSE;
    default:
        return STEP_MORE;
    }
}

static Step handshake_step(NBDHandshake *hs)
{
    if (unsent(hs) > OUT_MAX_SIZE) {
        return STEP_WAIT;
    }
    if (hs->phase == NBD_HS_CLIENT_FLAGS) {
        return step_client_flags(hs);
    }
    return hs->discard_left_bytes ? step_discard(hs) : step_option(hs);
}

/* Parse what there is, send what can be sent. HS may be gone afterwards. */
static void handshake_run(NBDHandshake *hs)
{
    Step step;

    do {
        step = handshake_step(hs);
        if (step == STEP_WAIT && unsent(hs)) {
            size_t before = unsent(hs);
            if (!send_output(hs)) {
                step = STEP_CLOSE;
            } else if (before > OUT_MAX_SIZE && unsent(hs) <= OUT_MAX_SIZE) {
                step = STEP_MORE;
            }
        }
    } while (step == STEP_MORE);

    switch (step) {
    case STEP_TRANSMIT:
        update_handlers(hs, false, false);
        send_output(hs);    /* what stays, or an error, is for the client to find */
        nbd_client_begin(hs->chosen, hs->fd, &hs->params, input(hs), input_len(hs),
                         hs->out->data + hs->out_pos, unsent(hs));
        handshake_free(hs);
        break;
    case STEP_CLOSE:
        send_output(hs);
        nbd_handshake_abort(hs);
        break;
    default:
        update_handlers(hs, unsent(hs) <= OUT_MAX_SIZE, unsent(hs) > 0);
        break;
    }
}

static void handshake_event_read(void *opaque)
{
    NBDHandshake *hs = opaque;
    ssize_t n;

    /* What is left is less than one option, so there is room behind it. */
    memmove(hs->in, input(hs), input_len(hs));
    hs->in_end = input_len(hs);
    hs->in_pos = 0;
    n = recv(hs->fd, hs->in + hs->in_end, IN_SIZE - hs->in_end, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        nbd_handshake_abort(hs);
        return;
    }
    hs->in_end += n;
    handshake_run(hs);
}

static void handshake_event_write(void *opaque)
{
    NBDHandshake *hs = opaque;

    if (send_output(hs)) {
        handshake_run(hs);
    } else {
        nbd_handshake_abort(hs);
    }
}

NBDHandshake *nbd_handshake_begin(int fd, uint32_t max_secs)
{
    NBDHandshake *hs = g_new0(NBDHandshake, 1);
    uint8_t greeting[NBD_GREETING_SIZE];

    hs->fd = fd;
    hs->in = g_malloc(IN_SIZE);
    hs->out = g_byte_array_new();
    aio_timer_init(iohandler_get_aio_context(), &hs->deadline, QEMU_CLOCK_REALTIME, SCALE_MS,
                   handshake_deadline, hs);
    if (max_secs) {
        timer_mod(&hs->deadline, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                 (int64_t)max_secs * 1000);
    }
    nbd_put16(nbd_put64(nbd_put64(greeting, NBD_INIT_MAGIC), NBD_OPTS_MAGIC),
              NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    g_byte_array_append(hs->out, greeting, sizeof(greeting));
    send_output(hs);
    update_handlers(hs, true, unsent(hs) > 0);
    return hs;
}
