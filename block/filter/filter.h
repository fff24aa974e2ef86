/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What filters have in common: their one filtered child is bs->file, and what a filter has no
 * opinion about goes to it unchanged.
 */
#ifndef BLOCK_FILTER_H
#define BLOCK_FILTER_H

#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"

/*
 * Open the child "file" of a filter and take over the flags that it supports, for writes,
 * for zeroes and for truncation. 0 or -errno.
 */
int bdrv__filter_open_file(BlockDriverState *bs, QDict *options, Error **errp);
/*
 * "DRIVER:first:second" as options FIRST_KEY (unless it is empty) and "x-image"; a name
 * without the prefix is the second part alone. COMPLAINT: the error without a second.
 */
void bdrv__filter_parse_filename(const char *filename, const char *driver,
                                 const char *first_key, const char *complaint,
                                 QDict *options, Error **errp);
/*
 * For children given by a file's name: have OPTIONS[KEY], unless it is there, say which driver
 * the name is for, so that it is not probed. False with ERRP set: "Unknown protocol 'x'".
 */
bool bdrv__filter_name_file(QDict *options, const char *key, const char *filename,
                            Error **errp);
/* The flags alone, for filters whose child has another name. */
void bdrv__filter_inherit_flags(BlockDriverState *bs);

int64_t coroutine_fn bdrv__filter_co_getlength(BlockDriverState *bs);
int coroutine_fn bdrv__filter_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, QEMUIOVector *qiov,
                                             size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv__filter_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                              int64_t bytes, QEMUIOVector *qiov,
                                              size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv__filter_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                               int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn bdrv__filter_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes);
/* For drivers that handle compressed writes as a flag, or leave them to the child. */
int coroutine_fn bdrv__filter_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                    int64_t bytes, QEMUIOVector *qiov,
                                                    size_t qiov_offset);

#endif
