/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Command-line parts that the subcommands of miniblk-img share. */
#include "miniblk/osdep.h"
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
    int c = getopt_long(argc, argv, letters, longopts, NULL);

    switch (c) {
    case ':':
        img_usage_error("missing argument for option '%s'", bad_option(argv));
    case '?':
        img_usage_error("unrecognized option '%s'", bad_option(argv));
    case 'h':
        img_print_help();
        exit(EXIT_SUCCESS);
    case IMG_OPT_OBJECT:
        img_reject_object(optarg);
        exit(EXIT_FAILURE);
    default:
        return c;
    }
}

void img_reject_object(const char *definition)
{
    g_autofree char *type = g_strndup(definition, strcspn(definition, ","));

    error_report("Parameter 'qom-type' does not accept value '%s'",
                 g_str_has_prefix(type, "qom-type=") ? type + strlen("qom-type=") : type);
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

/* The power of 1024 that C stands for, -1 if none. */
static int suffix_power(char c)
{
    static const char suffixes[] = "BKMGTPE";
    const char *at = c ? strchr(suffixes, g_ascii_toupper(c)) : NULL;

    return at ? (int)(at - suffixes) : -1;
}

int img_parse_size_quiet(const char *value, uint64_t *size)
{
    const char *p = value;
    char *end;
    double fraction = 0;

    while (g_ascii_isspace(*p)) {
        p++;
    }
    if (*p == '+') {
        p++;
    }
    if (!g_ascii_isdigit(*p)) {
        return -EINVAL;
    }

    bool hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
    if (hex && !g_ascii_isxdigit(p[2])) {
        return -EINVAL;
    }
    errno = 0;
    uint64_t whole = g_ascii_strtoull(p, &end, hex ? 16 : 10);
    if (errno == ERANGE) {
        return -ERANGE;
    }
    if (*end == '.' && !hex) {
        double scale = 0.1;
        for (end++; g_ascii_isdigit(*end); end++, scale /= 10) {
            fraction += (*end - '0') * scale;
        }
    }

    int power = 0;
    if (*end) {
        power = suffix_power(*end);
        if (power < 0 || end[1]) {
            return -EINVAL;
        }
        if (hex) {
            warn_report("Using a multiplier suffix on hex numbers is deprecated: %s", value);
        }
    }
    if (fraction > 0 && power == 0) {
        return -EINVAL;         /* there is no part of a byte */
    }
    uint64_t unit = 1ULL << (10 * power);
    uint64_t part = (uint64_t)(fraction * (double)unit + 0.5);
    if (whole > (UINT64_MAX - part) / unit) {
        return -ERANGE;
    }
    *size = whole * unit + part;
    return 0;
}

int64_t img_parse_size(const char *name, const char *value, int64_t min, int64_t max)
{
    uint64_t size = 0;
    int ret = img_parse_size_quiet(value, &size);

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

bool img_parse_cache(const char *mode, int *flags, bool *writethrough)
{
    static const struct {
        const char *name;
        int flags;
        bool writethrough;
    } modes[] = {
        { "none", BDRV_O_NOCACHE, false },
        { "off", BDRV_O_NOCACHE, false },
        { "directsync", BDRV_O_NOCACHE, true },
        { "writeback", 0, false },
        { "writethrough", 0, true },
        { "unsafe", BDRV_O_NO_FLUSH, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            *flags = (*flags & ~BDRV_O_CACHE_MASK) | modes[i].flags;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
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
