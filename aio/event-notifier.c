/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/event_notifier.h"
#include "aio/port.h"

int event_notifier_init(EventNotifier *e, int active)
{
    int fd = port_eventfd(active ? 1 : 0);
    if (fd < 0) {
        return fd;
    }
    e->fd = fd;
    return 0;
}

void event_notifier_cleanup(EventNotifier *e)
{
    if (e->fd >= 0) {
        close(e->fd);
        e->fd = -1;
    }
}

int event_notifier_set(EventNotifier *e)
{
    return port_eventfd_signal(e->fd);
}

int event_notifier_test_and_clear(EventNotifier *e)
{
    return port_eventfd_clear(e->fd);
}

int event_notifier_get_fd(const EventNotifier *e)
{
    return e->fd;
}
