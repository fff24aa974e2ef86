/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a run of one case came to, as TAP; and a failing schedule as a file and in words.
 *
 * Goes to stdout by write(2): the buffers of stdio belong to the program, whose memory is put
 * back between schedules.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"
#include "lab/world.h"

#include <sys/wait.h>

void lab_print(const char *words)
{
    g_autofree char *copy = g_strdup(words);
    const char *text = copy;
    size_t left = strlen(copy);

    for (char *c = copy; *c; c++) {
        if (g_ascii_iscntrl(*c) && *c != '\n' && *c != '\t') {
            *c = '?';           /* what a program says may be anything; terminals obey */
        }
    }
    while (left > 0) {
        ssize_t written = write(STDOUT_FILENO, text, left);

        if (written < 0 && errno != EINTR) {
            /* a result that nobody sees would look like success */
            dprintf(STDERR_FILENO, "miniblk-lab: cannot write the results: %s\n",
                    strerror(errno));
            _exit(LAB_STATUS_USAGE);
        }
        if (written > 0) {
            text += written;
            left -= written;
        }
    }
}

void lab_printf(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    lab_print(text);
}

void lab_print_comment(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GString) out = g_string_new(NULL);

    for (unsigned i = 0; lines[i]; i++) {
        if (*lines[i] || lines[i + 1]) {
            g_string_append_printf(out, "#%s%s\n", *lines[i] ? " " : "", lines[i]);
        }
    }
    lab_print(out->str);
}

/* ---- one line per case ----------------------------------------------------------------- */

static void append_levels(GString *out, const LabResult *result)
{
    if (result->exhausted) {
        g_string_append(out, ", all schedules complete");
    } else if (result->complete >= 0) {
        g_string_append_printf(out, ", D<=%d complete", result->complete);
    }
    if (result->level_count && !result->exhausted) {
        g_string_append_printf(out, ", D=%d: %" PRIu64 " of %" PRIu64, result->complete + 1,
                               result->level_done, result->level_count);
    }
}

static void append_given_up(GString *out, const LabResult *result)
{
    g_string_append(out, " given up");
    if (result->cut_short) {
        g_string_append_printf(out, " (%" PRIu64 " passed the step bound)", result->cut_short);
    }
}

bool lab_nothing_tried(const LabResult *result)
{
    return !result->failed && !result->skipped && result->given_up == result->schedules;
}

void lab_report_line(unsigned number, const char *path, const LabResult *result)
{
    const LabFailure *failure = result->failure;
    g_autoptr(GString) line = g_string_new(NULL);
    g_autofree char *name = lab_quote(path);

    if (result->skipped) {
        g_string_printf(line, "ok %u %s # SKIP %.*s", number, name,
                        (int)strcspn(failure->outcome.message, "\n"),
                        failure->outcome.message);
    } else if (result->failed) {
        g_string_printf(line, "not ok %u %s # lab %s in schedule %" PRIu64, number, name,
                        lab_verdict_name(failure->outcome.verdict), failure->number);
    } else if (lab_nothing_tried(result) && !result->unfinished) {
        g_string_printf(line, "ok %u %s # SKIP lab: all %" PRIu64 " schedules", number, name,
                        result->schedules);
        append_given_up(line, result);
    } else {
        g_string_printf(line, "%s %u %s # lab %" PRIu64 " schedules, %s%" PRIu64 " distinct",
                        result->unfinished ? "not ok" : "ok", number, name,
                        result->schedules, result->distinct_at_least ? ">=" : "",
                        result->distinct);
        if (result->given_up) {
            g_string_append_printf(line, ", %" PRIu64, result->given_up);
            append_given_up(line, result);
        } else {
            append_levels(line, result);
        }
    }
    g_string_append_c(line, '\n');
    lab_print(line->str);
}

/* ---- a failing schedule ---------------------------------------------------------------- */

static char *replay_filename(const LabConfig *config, const char *path)
{
    const char *slash = strrchr(config->program, '/');
    g_autofree char *name = g_strdup_printf("%s%s.lab", slash ? slash + 1 : config->program,
                                            path);

    for (char *c = name; *c; c++) {
        if (!g_ascii_isalnum(*c) && !strchr("-_.", *c)) {
            *c = '-';
        }
    }
    return g_build_filename(config->directory, name, NULL);
}

/* One more run of LIST, with its events. */
static void record(const LabConfig *config, unsigned number, LabChooser *chooser,
                   const LabDeviations *list, LabOutcome *outcome, LabTrace *trace)
{
    LabLimits limits = config->limits;

    limits.record = limits.quiet = true;
    lab_chooser_begin_replay(chooser, list, false, NULL);
    lab_execute_in_time(config, number, &chooser->strategy, &limits, outcome);
    lab_trace_take(trace);
}

static void append_new_lines(GString *out, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (unsigned i = 0; lines[i]; i++) {
        if (*lines[i] && !strstr(out->str, lines[i])) {
            g_string_append_printf(out, "%s\n", lines[i]);
        }
    }
}

/* For each deviation, what the schedule without it has the other way round. */
static void explain_order(const LabConfig *config, unsigned number, LabChooser *chooser,
                          const LabDeviations *list, const LabOutcome *wanted, GString *out,
                          GHashTable *objects)
{
    enum { DEVIATIONS_MAX = 8, SENTENCES_MAX = 2 };
    LabDeviations *without = g_new0(LabDeviations, 1);
    LabTrace failing, passing;
    LabOutcome outcome;

    for (uint32_t i = 0; i < MIN(list->count, DEVIATIONS_MAX); i++) {
        without->count = 0;
        for (uint32_t j = 0; j < list->count; j++) {
            if (j != i) {
                without->items[without->count++] = list->items[j];
            }
        }
        record(config, number, chooser, without, &outcome, &passing);
        if (!lab_same_failure(wanted, &outcome)) {
            g_autoptr(GString) sentences = g_string_new(NULL);

            /* Last, so that objects are named as this schedule knows them. */
            record(config, number, chooser, list, &outcome, &failing);
            lab_order_in_words(&failing, &passing, config->limits.tso, SENTENCES_MAX,
                               sentences, objects);
            append_new_lines(out, sentences->str);
            lab_trace_clear(&failing);
        }
        lab_trace_clear(&passing);
    }
    g_free(without);
}

void lab_report_schedule(const LabConfig *config, unsigned number, const LabDeviations *list,
                         const LabOutcome *wanted)
{
    LabChooser *chooser;
    g_autoptr(GString) order = g_string_new(NULL);
    g_autoptr(GString) timeline = g_string_new(NULL);
    g_autoptr(GHashTable) objects = g_hash_table_new(NULL, NULL);
    bool whole = config->timeline == LAB_TIMELINE_WHOLE;
    LabOutcome outcome;
    LabTrace trace;

    if (config->timeline == LAB_TIMELINE_NONE) {
        return;
    }
    chooser = lab_chooser_new();
    if (wanted->verdict != LAB_OK) {
        explain_order(config, number, chooser, list, wanted, order, objects);
    }
    record(config, number, chooser, list, &outcome, &trace);
    lab_timeline(&trace, whole ? NULL : objects, timeline);
    if (order->len) {
        lab_print_comment("the order that matters:");
        lab_print_comment(order->str);
    }
    lab_print_comment("timeline:");
    lab_print_comment(timeline->str);
    lab_trace_clear(&trace);
    lab_chooser_free(chooser);
}

void lab_save_failure(const LabConfig *config, unsigned number, const char *filename,
                      const LabFailure *failure)
{
    g_autofree char *problem = NULL;
    LabReplayFile file = {
        .seed = { (char *)lab_case_path(number), failure->plan, config->limits,
                  (char *)lab_build_id() },
        .program = (char *)config->program,
        .verdict = failure->outcome.verdict,
        .message = (char *)failure->outcome.message,
        .list = (LabDeviations *)&failure->deviations,
    };
    g_autofree char *line = lab_seed_format(&file.seed);

    lab_printf("# seed %s\n", line);
    if (lab_replay_save(filename, &file, &problem) < 0) {
        lab_printf("# no replay file: %s\n", problem);
    } else {
        lab_printf("# replay file %s (%u deviation%s)\n", filename, failure->deviations.count,
                   failure->deviations.count == 1 ? "" : "s");
    }
}

static void save(const LabConfig *config, unsigned number, const LabFailure *failure)
{
    g_autofree char *filename = replay_filename(config, lab_case_path(number));

    lab_save_failure(config, number, filename, failure);
}

/*
 * What the report of a run may spend; "miniblk-lab shrink" takes more. A list that is longer than
 * anybody reads is worth as much as that again ten times.
 */
enum { SHRINK_SCHEDULES = 5000, READABLE = 8 };
static const int64_t shrink_time_ns = 60 * INT64_C(1000000000);

static void shrink_list(const LabConfig *config, unsigned number, LabFailure *failure,
                        LabShrunk *shrunk)
{
    int64_t start_us = g_get_monotonic_time();

    lab_shrink(config, number, &failure->outcome, SHRINK_SCHEDULES, shrink_time_ns,
               &failure->deviations, shrunk);
    int64_t left_ns = shrink_time_ns - (g_get_monotonic_time() - start_us) * 1000;
    if (shrunk->reproduced && failure->deviations.count > READABLE && left_ns > 0) {
        lab_shrink(config, number, &failure->outcome, 10 * SHRINK_SCHEDULES, left_ns,
                   &failure->deviations, shrunk);
    }
}

static bool still_fails(const LabConfig *config, unsigned number, const LabFailure *failure)
{
    LabChooser *chooser = lab_chooser_new();
    LabOutcome outcome;

    lab_chooser_begin_replay(chooser, &failure->deviations, false, NULL);
    lab_execute_in_time(config, number, &chooser->strategy, &config->limits, &outcome);
    lab_chooser_free(chooser);
    return lab_same_failure(&failure->outcome, &outcome);
}

/*
 * FAILURE made small. A livelock goes through millions of steps each time; one that shows in far
 * fewer, too, is made small and told about with these. QUICK is CONFIG with the bound for that.
 */
static void shrink(const LabConfig *config, LabConfig *quick, unsigned number,
                   LabFailure *failure, LabShrunk *shrunk)
{
    enum { QUICKER = 64 };

    *quick = *config;
    if (failure->outcome.verdict == LAB_LIVELOCK) {
        uint64_t steps = config->limits.steps ? config->limits.steps : LAB_STEPS_DEFAULT;
        LabFailure *attempt = g_memdup2(failure, sizeof(*failure));

        quick->limits.steps = steps / QUICKER + 1;
        shrink_list(quick, number, attempt, shrunk);
        if (shrunk->reproduced && still_fails(config, number, attempt)) {
            failure->deviations = attempt->deviations;
            g_free(attempt);
            return;
        }
        g_free(attempt);
        *quick = *config;
    }
    shrink_list(config, number, failure, shrunk);
}

/* In a process of its own: what kills a schedule may kill it, too. */
static void shrink_and_report(const LabConfig *config, unsigned number, LabFailure *failure)
{
    LabShrunk shrunk = { .reproduced = true };
    LabConfig quick = *config;

    if (config->shrink) {
        shrink(config, &quick, number, failure, &shrunk);
    }
    if (!shrunk.reproduced) {
        lab_print_comment("the list of deviations did not give this failure again");
    }
    save(config, number, failure);
    if (shrunk.complete > 0) {
        lab_printf("# no schedule with fewer than %u deviation%s fails so\n", shrunk.complete,
                   shrunk.complete == 1 ? "" : "s");
    }
    lab_report_schedule(&quick, number, &failure->deviations, &failure->outcome);
}

void lab_report_failure(const LabConfig *config, unsigned number, LabFailure *failure)
{
    pid_t pid;
    int status;

    lab_print_comment(failure->outcome.message);
    if (failure->outcome.verdict == LAB_DIVERGED || failure->deviations.overflow) {
        save(config, number, failure);
        return;
    }
    pid = fork();
    if (pid == 0) {
        shrink_and_report(config, number, failure);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status)
        || WEXITSTATUS(status) != 0) {
        save(config, number, failure);
        lab_print_comment("no timeline: the schedule takes its process with it, "
                          "or does not end");
    }
}
