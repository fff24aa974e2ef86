/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verifying load itself: requests over libnbd, each answer checked. */
#ifndef TESTS_LOAD_CLIENT_H
#define TESTS_LOAD_CLIENT_H

#include "latency.h"
#include "state.h"

typedef struct LoadOptions {
    const char *uri;
    const char *name;                   /* for the output */
    unsigned depth;
    double duration_s;
    double interval_s;
    double reconnect_s;                 /* mean time between disconnects; 0: never */
    double hang_s;                      /* a request that takes longer is an error */
    uint64_t seed;
    bool read_back;                     /* read all own blocks again at the end */
    bool zeroes;                        /* also send write-zeroes requests */
} LoadOptions;

/*
 * Run until the time is over or *STOP is set. True when not a single error was seen. Prints
 * one JSON line per interval on stdout, errors on stderr.
 */
bool load_client_run(const LoadOptions *options, LoadState *state, const BlockList *all,
                     const Reference *ref, LatencyLog *log, const volatile int *stop);

#endif
