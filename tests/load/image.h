/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of the verifying load that work on files while no daemon runs. */
#ifndef TESTS_LOAD_IMAGE_H
#define TESTS_LOAD_IMAGE_H

#include <stdio.h>
#include "state.h"

/* Write BYTES (a multiple of 4096) of marked blocks: the future home of the load. */
bool image_fill(const char *filename, uint64_t bytes);
/*
 * Check that every block of LIST holds a mark in IMAGE (that the list of extents is right
 * is proved, not believed), then punch holes into every other mebibyte of it, so that the
 * load meets both allocated and unallocated clusters.
 */
bool image_prepare(const char *image, const BlockList *list);
/*
 * Compare all of IMAGE: blocks of LIST with the states of the clients (files STATES, each
 * for its slice), everything else with REFERENCE. Prints one JSON line to OUT. True when all
 * is right.
 */
bool image_verify(const char *image, const char *reference, const BlockList *list,
                  char **states, FILE *out);

#endif
