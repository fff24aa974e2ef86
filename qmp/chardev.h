/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a monitor's bytes come from and go to. */
#ifndef QMP_CHARDEV_H
#define QMP_CHARDEV_H

#include <stdbool.h>
#include "miniblk/error.h"

typedef struct Chardev {
    char *id;
    int listen_fd;              /* accepts one client after the other; -1: none */
    int in_fd, out_fd;          /* the connection that is there from the start; -1: none */
    char *unlink_path;          /* socket file to remove at the end; may be NULL */
    bool in_use;                /* by a monitor */
    bool restore_flags;         /* stdio: other programs share the file descriptions */
    int in_flags, out_flags;
} Chardev;

Chardev *chardev_find(const char *id);
/* Close everything; no monitor uses any of it any more. */
void chardev_cleanup_all(void);
bool chardev_set_nonblocking(int fd, Error **errp);

#endif
