/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The words of a command: options, sizes, patterns. */
#include "miniblk/osdep.h"
#include <getopt.h>
#include "miniblk/cutils.h"
#include "tools/img.h"
#include "tools/io.h"

static bool parse_pattern(const char *word, int *pattern)
{
    int value;

    if (qemu_strtoi(word, NULL, 0, &value) < 0 || value < 0 || value > 0xff) {
        printf("%s is not a valid pattern byte\n", word);
        return false;
    }
    *pattern = value;
    return true;
}

bool io_parse_options(int argc, char **argv, const char *letters, IoOptions *opts)
{
    *opts = (IoOptions){ .pattern = -1 };
    optind = 0;                 /* getopt starts afresh */
    for (int c; (c = getopt(argc, argv, letters)) != -1;) {
        if (c == '?') {
            return io_usage(argv);
        }
        opts->on[c] = true;
        opts->arg[c] = optarg;
        if (c == 'P' && !parse_pattern(optarg, &opts->pattern)) {
            return false;
        }
    }
    return true;
}

bool io_parse_size(const char *word, int64_t *bytes)
{
    uint64_t value = 0;
    int ret = bdrv_parse_size(word, &value);

    if (ret == -ERANGE || value > INT64_MAX) {
        printf("Parsing error: argument too large -- %s\n", word);
        return false;
    }
    if (ret < 0) {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- "
               "%s\n", word);
        return false;
    }
    *bytes = (int64_t)value;
    return true;
}
