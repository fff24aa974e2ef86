/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locking: permissions made visible to other processes.
 *
 * Bit I of BLK_PERM_* has two bytes in the file's lock space (the bytes need not exist):
 *
 *      100 + I     locked by everybody who holds permission I
 *      200 + I     locked by everybody who does not let others hold permission I
 *
 * Locks are shared ones, so that any number may hold them. Who wants permission I first
 * locks 100+I and then tests whether anybody has 200+I locked, and the other way round; of
 * two that come at once at least one sees the other. They are locks of the open file
 * description (F_OFD_*): another node of the same process is another user.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "images/file-internal.h"

enum { LOCK_HELD_BASE = 100, LOCK_UNSHARED_BASE = 200, PERM_BITS = 4 };

static const char *const perm_names[PERM_BITS] = {
    "consistent read", "write", "write unchanged", "resize",
};

/* ---- the primitive --------------------------------------------------------------------- */

static int ofd_lock(int fd, int cmd, short type, int64_t start, int64_t len,
                    struct flock *result)
{
    struct flock fl = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len,
    };
    int ret;

    do {
        ret = fcntl(fd, cmd, &fl);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0) {
        return errno == EACCES ? -EAGAIN : -errno;  /* POSIX lets it be either */
    }
    if (result) {
        *result = fl;
    }
    return 0;
}

int qemu_lock_fd_test(int fd, int64_t start, int64_t len, bool exclusive)
{
    struct flock fl;
    int ret = ofd_lock(fd, F_OFD_GETLK, exclusive ? F_WRLCK : F_RDLCK, start, len, &fl);

    if (ret < 0) {
        return ret;
    }
    return fl.l_type == F_UNLCK ? 0 : -EAGAIN;
}

int qemu_lock_fd(int fd, int64_t start, int64_t len, bool exclusive)
{
    return ofd_lock(fd, F_OFD_SETLK, exclusive ? F_WRLCK : F_RDLCK, start, len, NULL);
}

int qemu_unlock_fd(int fd, int64_t start, int64_t len)
{
    return ofd_lock(fd, F_OFD_SETLK, F_UNLCK, start, len, NULL);
}

bool qemu_has_ofd_lock(void)
{
    static int known;       /* 0: not yet; atomic, as two threads may find out at a time */

    if (qatomic_read(&known) == 0) {
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        bool has = fd >= 0 && qemu_lock_fd_test(fd, 0, 0, true) == 0;
        if (fd >= 0) {
            close(fd);
        }
        qatomic_set(&known, has ? 1 : 2);
    }
    return qatomic_read(&known) == 1;
}

/* ---- a node's locks -------------------------------------------------------------------- */

/* Have exactly the bits KEEP of *LOCKED locked; KEEP is a subset. */
static void unlock_down_to(int fd, int64_t base, uint64_t *locked, uint64_t keep)
{
    for (int i = 0; i < PERM_BITS; i++) {
        uint64_t bit = 1ULL << i;
        if ((*locked & bit) && !(keep & bit)) {
            /* Cannot fail in a way that could be mended: the lock ends with the file. */
            qemu_unlock_fd(fd, base + i, 1);
            *locked &= ~bit;
        }
    }
}

static int lock_up_to(int fd, int64_t base, uint64_t *locked, uint64_t want, Error **errp)
{
    for (int i = 0; i < PERM_BITS; i++) {
        uint64_t bit = 1ULL << i;
        if ((want & bit) && !(*locked & bit)) {
            int ret = qemu_lock_fd(fd, base + i, 1, false);
            if (ret < 0) {
                error_setg_errno(errp, -ret, "Failed to lock byte %d", (int)base + i);
                return ret;
            }
            *locked |= bit;
        }
    }
    return 0;
}

/* See that nobody has a byte of BASE locked whose bit is in BITS. */
static int test_others(int fd, int64_t base, uint64_t bits, const char *what,
                       const char *name, Error **errp)
{
    for (int i = 0; i < PERM_BITS; i++) {
        if (!(bits & (1ULL << i))) {
            continue;
        }
        int ret = qemu_lock_fd_test(fd, base + i, 1, true);
        if (ret < 0) {
            if (ret == -EAGAIN) {
                error_setg(errp, "Failed to get %s\"%s\" lock", what, perm_names[i]);
            } else {
                error_setg_errno(errp, -ret, "Failed to get %s\"%s\" lock", what,
                                 perm_names[i]);
            }
            g_autofree char *who = file_lock_holder(fd, base + i);
            error_append_hint(errp, "Is another process using the image [%s]?%s%s%s\n", name,
                              who ? " (" : "", who ? who : "", who ? ")" : "");
            return ret;
        }
    }
    return 0;
}

int file_locks_prepare(FileLocks *locks, int fd, const char *name, uint64_t perm,
                       uint64_t shared, Error **errp)
{
    ERRP_GUARD();
    uint64_t unshared = ~shared & BLK_PERM_ALL;
    uint64_t old_held = locks->locked_held, old_unshared = locks->locked_unshared;
    int ret;

    if (!locks->enabled) {
        return 0;
    }
    ret = lock_up_to(fd, LOCK_HELD_BASE, &locks->locked_held, perm, errp);
    if (ret == 0) {
        ret = lock_up_to(fd, LOCK_UNSHARED_BASE, &locks->locked_unshared, unshared, errp);
    }
    if (ret == 0) {
        ret = test_others(fd, LOCK_UNSHARED_BASE, perm, "", name, errp);
    }
    if (ret == 0) {
        ret = test_others(fd, LOCK_HELD_BASE, unshared, "shared ", name, errp);
    }
    if (ret < 0) {
        unlock_down_to(fd, LOCK_HELD_BASE, &locks->locked_held, old_held);
        unlock_down_to(fd, LOCK_UNSHARED_BASE, &locks->locked_unshared, old_unshared);
    }
    return ret;
}

void file_locks_commit(FileLocks *locks, int fd, uint64_t perm, uint64_t shared)
{
    uint64_t unshared = ~shared & BLK_PERM_ALL;

    if (!locks->enabled) {
        return;
    }
    /* All of it was locked when the change was prepared. */
    g_assert((perm & BLK_PERM_ALL & ~locks->locked_held) == 0);
    g_assert((unshared & ~locks->locked_unshared) == 0);
    unlock_down_to(fd, LOCK_HELD_BASE, &locks->locked_held, perm);
    unlock_down_to(fd, LOCK_UNSHARED_BASE, &locks->locked_unshared, unshared);
    locks->held = perm & BLK_PERM_ALL;
    locks->unshared = unshared;
}

void file_locks_abort(FileLocks *locks, int fd)
{
    unlock_down_to(fd, LOCK_HELD_BASE, &locks->locked_held, locks->held);
    unlock_down_to(fd, LOCK_UNSHARED_BASE, &locks->locked_unshared, locks->unshared);
}

int file_locks_copy(const FileLocks *locks, int new_fd)
{
    uint64_t held = 0, unshared = 0;
    int ret = lock_up_to(new_fd, LOCK_HELD_BASE, &held, locks->locked_held, NULL);

    return ret < 0 ? ret : lock_up_to(new_fd, LOCK_UNSHARED_BASE, &unshared,
                                      locks->locked_unshared, NULL);
}
