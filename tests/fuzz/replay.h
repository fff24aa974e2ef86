/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fuzz target without libFuzzer: inputs come from files. */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <glib.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feed the files NAMES (ends with NULL) to the target; the exit status of the program. */
static inline int fuzz_replay(char **names)
{
    for (; *names; names++) {
        g_autofree char *data = NULL;
        g_autoptr(GError) err = NULL;
        gsize len;

        if (!g_file_get_contents(*names, &data, &len, &err)) {
            g_error("%s", err->message);
        }
        LLVMFuzzerTestOneInput((const uint8_t *)data, len);
    }
    return 0;
}

#endif
