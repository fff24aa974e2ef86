/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every source file may take for granted: libc's usual headers, GLib, the markers.
 * Included first in every .c file.
 */
#ifndef MINIBLK_OSDEP_H
#define MINIBLK_OSDEP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <glib.h>
#include <glib/gstdio.h>

#include "compiler.h"

#ifdef NDEBUG
#error "miniblk relies on assert(); its build switches the expensive checks off, never these"
#endif

#define CONFIG_LINUX
#define CONFIG_COROUTINE_POOL

/*
 * Whether a byte-range OFD lock of [START, START+LEN) on FD would conflict with somebody
 * else's. 0: it would not; -EAGAIN: it would; other -errno: from fcntl().
 * Any thread.
 */
int qemu_lock_fd_test(int fd, int64_t start, int64_t len, bool exclusive);
/* Take (0 or -EAGAIN when somebody else holds it, other -errno) and drop such a lock. */
int qemu_lock_fd(int fd, int64_t start, int64_t len, bool exclusive);
int qemu_unlock_fd(int fd, int64_t start, int64_t len);
/* Whether F_OFD_* locks work on this system. Any thread. */
bool qemu_has_ofd_lock(void);

/*
 * Memory of SIZE bytes at an address that is a multiple of ALIGNMENT (a power of two).
 * qemu_memalign aborts, qemu_try_memalign returns NULL when there is none; SIZE 0 gives a
 * pointer that may be freed. Release with qemu_vfree(). Any thread.
 */
void *qemu_memalign(size_t alignment, size_t size);
void *qemu_try_memalign(size_t alignment, size_t size);
void qemu_vfree(void *ptr);

#endif
