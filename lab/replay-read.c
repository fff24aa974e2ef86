/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of a replay file: also for the command, which only looks for the program's name. */
#include "miniblk/osdep.h"
#include "lab/replay.h"

enum { FILE_SIZE_MAX = 16 << 20 };

char *lab_replay_read(const char *filename, char **problem)
{
    g_autoptr(GError) error = NULL;
    struct stat st;
    char *text;

    /* A device has no end, and a pipe would be read twice. */
    if (stat(filename, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > FILE_SIZE_MAX)) {
        *problem = g_strdup_printf(S_ISREG(st.st_mode) ? "'%s' is too large for a replay file"
                                                       : "'%s' is not a regular file",
                                   filename);
        return NULL;
    }
    if (!g_file_get_contents(filename, &text, NULL, &error)) {
        *problem = g_strdup(error->message);
        return NULL;
    }
    return text;
}
