/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests of what the lab says: two IOThreads, and disks whose reads do what the case wants. */
#ifndef HOOK_DISK_H
#define HOOK_DISK_H

#include "../drain/drain-driver.h"
#include "miniblk/aio-wait.h"
#include "miniblk/coroutine.h"
#include "miniblk/thread.h"

enum { LONG = 1000000 };        /* ns: until all others have gone as far as they can */

extern AioContext *io_ctx[2];
extern QemuMutex mutex;
extern bool flag, other_flag;   /* atomic */
extern int reads;               /* atomic; started and not ended */

/* At the beginning of main(). */
void hook_disk_init(int *argc, char ***argv);

void set_flag(bool *f);
void wait_for_flag(bool *f);
/* io_ctx[1] is busy until other_flag is set. */
void start_bystander(void);

/* A disk of 1 MiB in CTX. HOOK, which is that of all disks from now on, is its reads and writes. */
BlockBackend *disk(const char *name, AioContext *ctx,
                   void coroutine_fn (*hook)(BlockDriverState *bs));
void free_disk(BlockBackend *blk);
/* Of 512 bytes at 4096, in a coroutine of its own. */
void start_read(BlockBackend *blk);
/* The same; OPAQUE: the backend, and it has been counted in READS. */
void coroutine_fn read_once(void *opaque);

/* A hook: sets FLAG and sleeps LONG. */
void coroutine_fn sleep_in_loop(BlockDriverState *bs);
/* A bottom half that takes MUTEX and gives it back. */
void take_mutex(void *opaque);

#endif
