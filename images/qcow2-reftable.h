/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making refcount blocks and growing the refcount table; between the two files about it. */
#ifndef IMAGES_QCOW2_REFTABLE_H
#define IMAGES_QCOW2_REFTABLE_H

#include "images/qcow2.h"

/*
 * Make sure that each of the N clusters has a refcount block. *MADE is set when a block was
 * made (which takes free clusters); NULL: the caller does not care. Lock held.
 */
int coroutine_fn qcow2_reftable_cover(Qcow2State *s, uint64_t cluster, uint64_t n,
                                      bool *made);
/*
 * Write a table, CLUSTERS from cluster START on, with ENTRIES (host order) and then zeroes;
 * flush, and have the header point there, durably. The caller changes what is in memory.
 */
int coroutine_fn qcow2_reftable_replace(Qcow2State *s, uint64_t start, uint64_t clusters,
                                        const uint64_t *entries, uint64_t nb_entries);
/*
 * Give up the blocks that count nothing but themselves, if anything. All pointers to clusters
 * that they have counted are durably gone. Lock held.
 */
int coroutine_fn qcow2_reftable_trim(Qcow2State *s);
/* First run of MIN to MAX free clusters at or after FROM. Lock held. */
int coroutine_fn qcow2_find_free(Qcow2State *s, uint64_t from, uint64_t min, uint64_t max,
                                 uint64_t *start, uint64_t *n);

#endif
