/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A counter-less signal that an event loop can wait for (an eventfd). Any thread. */
#ifndef MINIBLK_EVENT_NOTIFIER_H
#define MINIBLK_EVENT_NOTIFIER_H

#include <stdbool.h>

typedef struct EventNotifier { int fd; } EventNotifier;
typedef void EventNotifierHandler(EventNotifier *);

/* Open; ACTIVE != 0 starts it signalled. 0 or -errno (EMFILE, ENFILE, ENOMEM). */
int event_notifier_init(EventNotifier *e, int active);
/* Close. The notifier must not be registered with any loop any more. */
void event_notifier_cleanup(EventNotifier *e);
/* Signal it; idempotent until consumed. 0 or -errno. */
int event_notifier_set(EventNotifier *e);
/* Consume the signal; true if there was one. */
int event_notifier_test_and_clear(EventNotifier *e);
int event_notifier_get_fd(const EventNotifier *e);

#endif
