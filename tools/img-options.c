/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Command-line parts that the subcommands of miniblk-img share. */
#include "miniblk/osdep.h"
#include "qmp/qmp.h"
#include "tools/img.h"

void img_usage_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("%s", text);
    g_free(text);
    fprintf(stderr, "Try '%s --help' for more information\n", error_get_progname());
    exit(EXIT_FAILURE);
}

/* How the user spelt the option that getopt has just stumbled over. */
static const char *bad_option(char **argv)
{
    static char letter[] = "-x";
    const char *word = argv[optind - 1];

    /* A long one has no letter, or the letter that it would have had. */
    if (optopt <= 0 || optopt > 255 || g_str_has_prefix(word, "--")) {
        return word;
    }
    letter[1] = (char)optopt;
    return letter;
}

int img_getopt(int argc, char **argv, const char *shortopts, const struct option *longopts)
{
    /* Complaints are ours: ':' first tells getopt, and tells apart the missing argument. */
    g_autofree char *letters = g_strconcat(":h", shortopts, NULL);
    int c;

    while ((c = getopt_long(argc, argv, letters, longopts, NULL)) == IMG_OPT_OBJECT) {
        if (!img_add_object(optarg)) {
            exit(EXIT_FAILURE);
        }
    }
    switch (c) {
    case ':':
        img_usage_error("missing argument for option '%s'", bad_option(argv));
    case '?':
        img_usage_error("unrecognized option '%s'", bad_option(argv));
    case 'h':
        img_print_help();
        exit(EXIT_SUCCESS);
    default:
        return c;
    }
}

bool img_add_object(const char *definition)
{
    Error *err = NULL;

    if (!qmp_command_line_option("object", definition, &err)) {
        error_report_err(err);
        return false;
    }
    return true;
}

bool img_parse_output(const char *arg, ImgOutput *output)
{
    if (!strcmp(arg, "human")) {
        *output = IMG_OUTPUT_HUMAN;
    } else if (!strcmp(arg, "json")) {
        *output = IMG_OUTPUT_JSON;
    } else {
        error_report("--output must be used with human or json as argument.");
        return false;
    }
    return true;
}

int64_t img_parse_size(const char *name, const char *value, int64_t min, int64_t max)
{
    uint64_t size = 0;
    int ret = bdrv_parse_size(value, &size);

    if (ret == -EINVAL) {
        error_report("Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
                     name);
        error_report("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        return -1;
    }
    if (ret == -ERANGE || size > (uint64_t)max || size < (uint64_t)min) {
        error_report("Invalid %s specified. Must be between %" PRId64 " and %" PRId64 ".",
                     name, min, max);
        return -1;
    }
    return (int64_t)size;
}

void img_printf(bool quiet, const char *fmt, ...)
{
    if (!quiet) {
        va_list ap;
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
    }
}
