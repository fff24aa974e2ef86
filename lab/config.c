/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the environment and GTest's options ask of a lab program. docs/lab.md lists the
 * variables; keep it so.
 */
#include "miniblk/osdep.h"
#include "lab/explore.h"

#define SCHEDULES_DEFAULT 2000
#define SCHEDULES_SHRINK_DEFAULT 200000
#define CHECK_EVERY_DEFAULT 64
#define HANG_DEFAULT_S 60

static char *problem_with(const char *name, const char *value, const char *expected)
{
    return g_strdup_printf("%s: '%s' is not %s", name, value, expected);
}

/* Variables that are not set leave *VALUE alone. */
static bool read_number(const char *name, uint64_t min, uint64_t max, uint64_t *value,
                        char **problem)
{
    const char *text = getenv(name);
    guint64 number;

    if (!text) {
        return true;
    }
    if (!g_ascii_string_to_unsigned(text, 10, min, max, &number, NULL)) {
        g_autofree char *expected = g_strdup_printf("a number from %" PRIu64 " to %" PRIu64,
                                                    min, max);

        *problem = problem_with(name, text, expected);
        return false;
    }
    *value = number;
    return true;
}

static bool read_unsigned(const char *name, unsigned min, unsigned max, unsigned *value,
                          char **problem)
{
    uint64_t number = *value;

    if (!read_number(name, min, max, &number, problem)) {
        return false;
    }
    *value = number;
    return true;
}

static bool read_switch(const char *name, bool *value, char **problem)
{
    const char *text = getenv(name);

    if (!text) {
        return true;
    }
    if (strcmp(text, "on") == 0 || strcmp(text, "1") == 0) {
        *value = true;
    } else if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
        *value = false;
    } else {
        *problem = problem_with(name, text, "on or off");
        return false;
    }
    return true;
}

/* Seconds, with a fraction; no more than a year. */
static bool read_seconds(const char *name, int64_t *value_ns, char **problem)
{
    const char *text = getenv(name);
    char *end;
    double seconds;

    if (!text) {
        return true;
    }
    seconds = g_ascii_strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds > 0 && seconds <= 366 * 86400.0)) {
        *problem = problem_with(name, text, "a number of seconds");
        return false;
    }
    *value_ns = seconds * 1e9;
    return true;
}

static bool read_strategy(LabConfig *config, char **problem)
{
    const char *text = getenv("LAB_STRATEGY");

    if (text && (!lab_strategy_parse(text, &config->strategy)
                 || config->strategy == LAB_STRATEGY_REPLAY)) {
        *problem = problem_with("LAB_STRATEGY", text,
                                "portfolio, random, pct, pos, few or bound");
        return false;
    }
    return read_unsigned("LAB_DEPTH", 0, LAB_DEPTH_MAX, &config->depth, problem);
}

static bool read_mode(LabConfig *config, char **problem)
{
    static const char *const names[] = { "run", "prove", "replay", "shrink", "list" };
    const char *text = getenv("LAB_MODE");

    config->file = getenv("LAB_FILE");
    config->line = getenv("LAB_LINE");
    if (!text) {
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(names[i], text) == 0) {
            config->mode = i;
            if ((i == LAB_MODE_REPLAY || i == LAB_MODE_SHRINK) && !config->file) {
                *problem = g_strdup_printf("LAB_MODE=%s needs LAB_FILE", text);
                return false;
            }
            return true;
        }
    }
    *problem = problem_with("LAB_MODE", text, "run, prove, replay, shrink or list");
    return false;
}

static bool read_sectors(LabLimits *limits, char **problem)
{
    const char *text = getenv("LAB_SECTOR");

    if (text && !lab_sectors_parse(text, limits)) {
        *problem = problem_with("LAB_SECTOR", text, "512, 4096 or 512/4096 or the like");
        return false;
    }
    return true;
}

static bool read_limits(LabLimits *limits, char **problem)
{
    return read_switch("LAB_TSO", &limits->tso, problem)
           && read_switch("LAB_CLOCK", &limits->clock, problem)
           && read_switch("LAB_SPURIOUS", &limits->spurious, problem)
           && read_switch("LAB_FAULTS", &limits->faults, problem)
           && read_switch("LAB_TORN", &limits->torn, problem)
           && read_sectors(limits, problem)
           && read_number("LAB_STEPS", 1, UINT32_MAX, &limits->steps, problem);
}

static bool read_budget(LabConfig *config, char **problem)
{
    bool unlimited = getenv("LAB_TIME") || config->mode == LAB_MODE_PROVE;

    config->schedules = unlimited ? UINT32_MAX
                        : config->mode == LAB_MODE_SHRINK ? SCHEDULES_SHRINK_DEFAULT
                        : SCHEDULES_DEFAULT;
    return read_number("LAB_SCHEDULES", 1, UINT32_MAX, &config->schedules, problem)
           && read_seconds("LAB_TIME", &config->time_ns, problem)
           && read_seconds("LAB_HANG", &config->hang_ns, problem)
           && read_unsigned("LAB_JOBS", 1, LAB_JOBS_MAX, &config->jobs, problem)
           && read_unsigned("LAB_BOUND", 0, LAB_BOUND_MAX, &config->bound, problem)
           && read_unsigned("LAB_CHECK", 0, UINT32_MAX, &config->check_every, problem)
           && read_unsigned("LAB_TIMES", 1, UINT32_MAX, &config->times, problem)
           && read_number("LAB_SEED", 0, UINT64_MAX, &config->seed, problem);
}

static bool read_outputs(LabConfig *config, char **problem)
{
    static const char *const names[] = { "short", "whole", "none" };
    const char *text = getenv("LAB_TIMELINE");

    config->pictures[LAB_PICTURE_SVG] = getenv("LAB_SVG");
    config->pictures[LAB_PICTURE_HTML] = getenv("LAB_HTML");
    config->pictures[LAB_PICTURE_TRACE] = getenv("LAB_TRACE");
    for (unsigned i = 0; text && i < G_N_ELEMENTS(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            config->timeline = i;
            return true;
        }
    }
    if (text) {
        *problem = problem_with("LAB_TIMELINE", text, "short, whole or none");
    }
    return !text;
}

/* GTest's options, in the forms that g_test_init() takes: "-p PATH" and "-p=PATH". */
static void read_arguments(LabConfig *config, char **argv)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new(), skipped = g_ptr_array_new();

    for (unsigned i = 1; argv[0] && argv[i]; i++) {
        GPtrArray *list = g_str_has_prefix(argv[i], "-p") ? paths
                          : g_str_has_prefix(argv[i], "-s") ? skipped : NULL;

        if (strcmp(argv[i], "-l") == 0) {
            config->mode = LAB_MODE_LIST;
        } else if (list && argv[i][2] == '=') {
            g_ptr_array_add(list, g_strdup(argv[i] + 3));
        } else if (list && argv[i][2] == '\0' && argv[i + 1]) {
            g_ptr_array_add(list, g_strdup(argv[++i]));
        }
    }
    g_ptr_array_add(paths, NULL);
    g_ptr_array_add(skipped, NULL);
    config->paths = (char **)g_ptr_array_steal(paths, NULL);
    config->skipped = (char **)g_ptr_array_steal(skipped, NULL);
}

bool lab_config_read(LabConfig *config, char **argv, char **problem)
{
    const char *directory = getenv("LAB_DIR");

    *config = (LabConfig) {
        .jobs = 1, .limits.tso = true, .bound = 1, .check_every = CHECK_EVERY_DEFAULT,
        .hang_ns = HANG_DEFAULT_S * INT64_C(1000000000), .shrink = true, .times = 1,
        .progress = isatty(STDERR_FILENO),
        .directory = directory ? directory : ".",
    };
    read_arguments(config, argv);
    return read_mode(config, problem) && read_budget(config, problem)
           && read_outputs(config, problem) && read_strategy(config, problem)
           && read_limits(&config->limits, problem)
           && read_switch("LAB_PROGRESS", &config->progress, problem)
           && read_switch("LAB_SHRINK", &config->shrink, problem);
}

void lab_config_clear(LabConfig *config)
{
    g_clear_pointer(&config->paths, g_strfreev);
    g_clear_pointer(&config->skipped, g_strfreev);
}

/* A path of the list means itself and everything below it, as for GTest. */
static bool contains(char **list, const char *path)
{
    for (; *list; list++) {
        size_t length = strlen(*list);

        while (length > 0 && (*list)[length - 1] == '/') {
            length--;
        }
        if (strncmp(path, *list, length) == 0
            && (path[length] == '\0' || path[length] == '/')) {
            return true;
        }
    }
    return false;
}

bool lab_config_wants(const LabConfig *config, const char *path)
{
    return (!config->paths[0] || contains(config->paths, path))
           && !contains(config->skipped, path);
}
