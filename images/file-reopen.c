/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening a file: a new descriptor with other flags takes the place of the old one.
 *
 * Locks belong to a descriptor's open file. While permissions are negotiated they are tested
 * and taken with the old one, for which our own locks are no obstacle; what is locked by then
 * is locked through the new one, too, before the old one goes.
 */
#include "miniblk/osdep.h"
#include "images/file-internal.h"

/* What changes together with the descriptor. */
typedef struct FileReopen {
    FileState state;            /* a copy, in which FD and alignments are the new ones */
} FileReopen;

static bool same_file(int a, int b)
{
    struct stat x, y;

    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino && x.st_rdev == y.st_rdev;
}

/* A new descriptor in S; the name may lead somewhere else by now. */
static int open_again(BDRVReopenState *state, FileState *s, int old_fd, Error **errp)
{
    s->fd = file_open_fd(s->filename, &state->flags);
    if (s->fd < 0) {
        error_setg_errno(errp, -s->fd, "Could not reopen file");
        return s->fd;
    }
    if (!same_file(s->fd, old_fd)) {
        error_setg(errp, "Could not reopen '%s': it is another file now", s->filename);
        return -ESTALE;
    }
    return 0;
}

int file_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
    FileState *old = state->bs->opaque;
    FileReopen *r = g_new0(FileReopen, 1);

    r->state = *old;
    r->state.direct = state->flags & BDRV_O_NOCACHE;
    r->state.no_flush = state->flags & BDRV_O_NO_FLUSH;
    if (r->state.engine_wanted == FILE_NATIVE && !r->state.direct) {
        error_setg(errp, "aio=native was specified, but it requires cache.direct=on, "
                   "which was not specified.");
        g_free(r);
        return -EINVAL;
    }
    int ret = open_again(state, &r->state, old->fd, errp);
    if (ret == 0 && !file_probe_alignment(&r->state)) {
        error_setg(errp, "Could not find working O_DIRECT alignment");
        ret = -EINVAL;
    }
    if (ret < 0) {
        if (r->state.fd >= 0) {
            close(r->state.fd);
        }
        g_free(r);
        return ret;
    }
    state->opaque = r;
    return 0;
}

void file_reopen_commit(BDRVReopenState *state)
{
    FileState *s = state->bs->opaque;
    FileReopen *r = state->opaque;
    int old_fd = s->fd;

    int ret = file_locks_copy(&s->locks, r->state.fd);
    if (ret < 0) {
        error_report("Lost the lock of image '%s': %s", s->filename, strerror(-ret));
    }
    file_end_fd(s, bdrv_get_aio_context(state->bs));
    s->fd = r->state.fd;
    file_begin_fd(s, bdrv_get_aio_context(state->bs));
    s->direct = r->state.direct;
    s->no_flush = r->state.no_flush;
    s->request_alignment = r->state.request_alignment;
    s->mem_alignment = r->state.mem_alignment;
    close(old_fd);
    g_free(r);
    state->opaque = NULL;
}

void file_reopen_abort(BDRVReopenState *state)
{
    FileReopen *r = state->opaque;

    close(r->state.fd);
    g_free(r);
    state->opaque = NULL;
}
