/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Standard streams: that they are there, and that what was printed arrives. */
#include "miniblk/osdep.h"
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include "miniblk/error.h"
#include "tools/streams.h"

void streams_guard(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

bool streams_flush(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return true;
    }
    int err = errno;
    if (poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP | POLLNVAL))) {
        return true;
    }
    error_report("Could not write output: %s", strerror(err));
    return false;
}
