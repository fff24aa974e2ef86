/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks of open files, and the rest of fcntl(). See files.h. */
#include "miniblk/osdep.h"
#include "lab/event.h"
#include "lab/inode.h"
#include "lab/real.h"

void lab_file_unlock(LabOpenFile *f, int64_t start, int64_t end)
{
    GArray *locks = f->inode->locks;

    for (unsigned i = locks->len; i-- > 0;) {
        LabLock l = g_array_index(locks, LabLock, i);
        if (l.owner != f || l.end <= start || l.start >= end) {
            continue;
        }
        g_array_remove_index(locks, i);
        LabLock before = { l.owner, l.type, l.start, start };
        LabLock after = { l.owner, l.type, end, l.end };
        if (before.start < before.end) {
            g_array_append_val(locks, before);
        }
        if (after.start < after.end) {
            g_array_append_val(locks, after);
        }
    }
}

static const LabLock *conflicting(LabOpenFile *f, short type, int64_t start, int64_t end)
{
    for (unsigned i = 0; i < f->inode->locks->len; i++) {
        const LabLock *l = &g_array_index(f->inode->locks, LabLock, i);
        if (l->owner != f && l->start < end && start < l->end &&
            (type == F_WRLCK || l->type == F_WRLCK)) {
            return l;
        }
    }
    return NULL;
}

static int set_lock(LabOpenFile *f, int cmd, struct flock *fl)
{
    int64_t origin = fl->l_whence == SEEK_CUR ? f->position
                     : fl->l_whence == SEEK_END ? f->inode->disk.size : 0;
    int64_t start = fl->l_start + origin;
    int64_t end = fl->l_len ? start + fl->l_len : INT64_MAX;

    if (start < 0 || fl->l_len < 0) {
        return lab_errno(EINVAL);
    }
    const LabLock *other = fl->l_type == F_UNLCK ? NULL
                           : conflicting(f, fl->l_type, start, end);
    if (cmd == F_OFD_GETLK) {
        fl->l_type = other ? other->type : F_UNLCK;
        if (other) {
            fl->l_whence = SEEK_SET;
            fl->l_start = other->start;
            fl->l_len = other->end == INT64_MAX ? 0 : other->end - other->start;
            fl->l_pid = -1;
        }
        return 0;
    }
    if (other) {
        if (cmd == F_OFD_SETLKW) {
            lab_unsupported("fcntl(F_OFD_SETLKW) that waits");
        }
        return lab_errno(EAGAIN);
    }
    lab_file_unlock(f, start, end);
    if (fl->l_type != F_UNLCK) {
        LabLock new = { f, fl->l_type, start, end };
        g_array_append_val(f->inode->locks, new);
    }
    return 0;
}

int lab_file_fcntl(LabOpenFile *f, int cmd, long arg)
{
    enum { CHANGEABLE = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME };

    switch (cmd) {
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return set_lock(f, cmd, (struct flock *)arg);
    case F_GETLK:               /* of one process: never in its own way */
        ((struct flock *)arg)->l_type = F_UNLCK;
        return 0;
    case F_SETLK:
    case F_SETLKW:
        return 0;
    case F_GETFL:
        return f->flags;
    case F_SETFL:
        f->flags = (f->flags & ~CHANGEABLE) | (arg & CHANGEABLE);
        return 0;
    default:
        return lab_errno(EINVAL);
    }
}
