/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write threshold: news when a node is first written to beyond an offset, so that whoever
 * feeds it with storage knows in time.
 */
#ifndef MINIBLK_WRITE_THRESHOLD_H
#define MINIBLK_WRITE_THRESHOLD_H

#include "block-common.h"

/* Offset in bytes; 0 switches it off. Any thread. */
void bdrv_write_threshold_set(BlockDriverState *bs, uint64_t threshold_bytes);
uint64_t bdrv_write_threshold_get(const BlockDriverState *bs);
/*
 * A write to the range is about to begin: if it ends beyond the threshold, tell the listener
 * and switch the threshold off. Any thread.
 */
void bdrv_write_threshold_check_write(BlockDriverState *bs, int64_t offset, int64_t bytes);

/*
 * LISTENER(node name, bytes beyond the threshold, threshold) is called in the main thread,
 * some time later; the node may have gone by then. NULL: nobody. GS. It may not poll.
 */
void bdrv_write_threshold_set_listener(void (*listener)(const char *node_name,
                                                        uint64_t amount_exceeded_bytes,
                                                        uint64_t threshold_bytes));

#endif
