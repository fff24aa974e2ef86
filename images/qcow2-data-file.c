/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * External data files: guest data lies in a file of its own, at the offset that it has on the
 * guest disk. Clusters there are not reference counted, so there is nothing to allocate and
 * nothing that could be shared.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

int qcow2_data_file_open(Qcow2State *s, QDict *options, int flags, Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs = s->bs;
    bool wanted = s->header.incompat & QCOW2_INCOMPAT_DATA_FILE;

    if (!wanted && qdict_haskey(options, "data-file")) {
        error_setg(errp, "'data-file' can only be set for images with an external data file");
        return -EINVAL;
    }
    if (!wanted) {
        return 0;
    }
    if (flags & BDRV_O_NO_IO) {
        /* Nobody will read it, and a name in an image is no reason to open a file. */
        qdict_del(options, "data-file");
        return 0;
    }
    s->data_file = bdrv_open_child(NULL, options, "data-file", bs, &child_of_bds,
                                   BDRV_CHILD_DATA, true, errp);
    if (!s->data_file && !*errp && s->data_file_name) {
        s->data_file = bdrv_open_child(s->data_file_name, options, "data-file", bs,
                                       &child_of_bds, BDRV_CHILD_DATA, false, errp);
    }
    if (!s->data_file) {
        if (!*errp) {
            error_setg(errp, "'data-file' is required for this image");
        }
        return -EINVAL;
    }
    bs->file->role &= ~BDRV_CHILD_DATA;
    return bdrv_child_refresh_perms(bs, bs->file, errp);
}

int coroutine_fn qcow2_data_file_resize(Qcow2State *s, uint64_t old, uint64_t size,
                                        PreallocMode prealloc, Error **errp)
{
    BlockDriverState *data = s->data_file->bs;
    BdrvRequestFlags flags = data->supported_truncate_flags & BDRV_REQ_ZERO_WRITE;
    int64_t len = bdrv_getlength(data);
    int ret = 0;

    if (len < 0) {
        error_setg_errno(errp, -len, "Could not inquire the length of the data file");
        return len;
    }
    s->data_file_bytes = 0;
    if (size > old && (uint64_t)len > old) {
        /* What somebody has put behind the disk's end must not show. */
        ret = bdrv_co_truncate(s->data_file, old, false, PREALLOC_MODE_OFF, 0, errp);
    }
    if (ret >= 0) {
        ret = bdrv_co_truncate(s->data_file, size, false, prealloc, flags, errp);
    }
    if (ret >= 0 && size > old && !flags && qcow2_data_raw(s)) {
        ret = bdrv_co_pwrite_zeroes(s->data_file, old, size - old, 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not clear the data file");
        }
    }
    return ret;
}
