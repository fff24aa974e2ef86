/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A monitor's two halves and what they share; see monitor.c for the picture. */
#ifndef QMP_SESSION_H
#define QMP_SESSION_H

#include "miniblk/aio.h"
#include "miniblk/thread.h"
#include "qmp/chardev.h"
#include "qmp/dispatch.h"
#include "qmp/json.h"

/* See monitor.c. */
#define MONITOR_REQUESTS_MAX      8
#define MONITOR_REQUEST_BYTES_MAX (1 << 20)
#define MONITOR_OUT_BYTES_MAX     (1 << 20)
#define MONITOR_EVENT_BYTES_MAX   (4 << 20)
/* How long the end waits for a client to read its last replies. */
#define MONITOR_END_TIMEOUT_MS    1000
#define MONITOR_ACCEPT_RETRY_MS   200

typedef struct MonitorRequest {
    JsonMessage msg;
    unsigned session;
} MonitorRequest;

typedef struct Monitor {
    /* fixed */
    Chardev *chr;
    bool pretty;
    AioContext *ctx;            /* of the monitor thread */
    QEMUBH *update_bh;          /* monitor thread: look at everything again */
    QEMUBH *dispatch_bh;        /* main loop, control context */

    /* monitor thread only */
    int in_fd, out_fd;          /* -1: no client */
    bool eof;                   /* the client sends no more */
    bool accepting, reading, writing;   /* which handlers are set */
    JsonStream stream;
    char *input;                /* received; [INPUT_POS, INPUT_LEN) is not parsed yet */
    size_t input_pos, input_len;
    bool accept_pause;          /* until ACCEPT_TIMER fires */
    QEMUTimer *accept_timer;
    QEMUTimer *end_timer;       /* armed when the end has begun */
    bool ended;

    /* LOCK protects the rest; it is a leaf. */
    QemuMutex lock;
    unsigned session;           /* number of the present client */
    bool open;                  /* there is a client */
    bool ending;                /* take no more commands, send what is left, then close */
    QmpCaps caps;
    GQueue requests;            /* of MonitorRequest */
    size_t request_bytes;
    bool executing;             /* the main loop is at work on a request of SESSION */
    bool out_paused;            /* a request waits for OUT to shrink */
    GString *out;               /* [OUT_POS, end) is not sent yet */
    size_t out_pos;
    QemuEvent end_event;        /* set when the end has come */
} Monitor;

/* ---- all monitors; monitor.c, main thread ------------------------------------------- */

void monitor__init(void);
void monitor__cleanup(void);

/* ---- one monitor; session.c, main thread -------------------------------------------- */

Monitor *monitor__new(Chardev *chr, bool pretty, AioContext *ctx, QEMUBHFunc *dispatch);
/* The next request that is to be carried out now; NULL: none. */
MonitorRequest *monitor__take_request(Monitor *mon, QmpCaps *caps);
/* REQ (freed) was answered with REPLY; true when there is another one. */
bool monitor__finish_request(Monitor *mon, MonitorRequest *req, const QmpCaps *caps,
                             const GString *reply);
void monitor__send_event(Monitor *mon, const GString *line);
void monitor__begin_end(Monitor *mon);
void monitor__wait_end(Monitor *mon);
/* The monitor thread has ended. */
void monitor__free(Monitor *mon);

#endif
