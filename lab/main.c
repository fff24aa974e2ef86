/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * g_test_run() in the lab: what the environment asks for, over the cases that are wanted.
 */
#include "miniblk/osdep.h"
#include "lab/draw.h"
#include "lab/report.h"
#include "lab/world.h"

#include <signal.h>
#include <sys/syscall.h>

static char *program_name(void)
{
    char *name = g_file_read_link("/proc/self/exe", NULL);

    return name ? name : g_strdup("unknown");
}

/* As the program was started: g_test_init() has taken its options out of argv. */
static char **command_line(void)
{
    GPtrArray *words = g_ptr_array_new();
    g_autofree char *text = NULL;
    gsize size = 0;

    if (g_file_get_contents("/proc/self/cmdline", &text, &size, NULL)) {
        for (gsize i = 0; i < size; i += strlen(text + i) + 1) {
            g_ptr_array_add(words, g_strdup(text + i));
        }
    }
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

static unsigned count_wanted(const LabConfig *config)
{
    unsigned count = 0;

    for (unsigned i = 0; i < lab_case_count(); i++) {
        count += lab_config_wants(config, lab_case_path(i));
    }
    return count;
}

static int list_cases(const LabConfig *config)
{
    for (unsigned i = 0; i < lab_case_count(); i++) {
        if (lab_config_wants(config, lab_case_path(i))) {
            g_autofree char *path = lab_quote(lab_case_path(i));

            lab_printf("%s\n", path);
        }
    }
    return LAB_STATUS_OK;
}

static int explore_cases(const LabConfig *config)
{
    unsigned number = 0, in_vain = 0, wanted = count_wanted(config);
    int status = LAB_STATUS_OK;

    lab_printf("1..%u\n", wanted);
    if (!wanted && config->paths[0] && !config->skipped[0]) {
        lab_printf("Bail out! this program has no case %s, nor below it\n", config->paths[0]);
        return LAB_STATUS_USAGE;            /* else a misspelt proof would hold */
    }
    LabFailure *failure = g_new0(LabFailure, 1);
    for (unsigned i = 0; i < lab_case_count(); i++) {
        LabResult result = { .failure = failure };

        if (!lab_config_wants(config, lab_case_path(i))) {
            continue;
        }
        lab_explore(config, i, &result);
        lab_report_line(++number, lab_case_path(i), &result);
        in_vain += lab_nothing_tried(&result);
        if (result.failed) {
            lab_report_failure(config, i, failure);
            status = LAB_STATUS_FAILED;
        } else if (result.unfinished && status == LAB_STATUS_OK) {
            status = LAB_STATUS_UNFINISHED;
        }
    }
    if (in_vain) {
        lab_printf("# %u of %u cases tell nothing: all of their schedules were given up\n",
                   in_vain, number);
    }
    g_free(failure);
    return status;
}

/* ---- one failing schedule -------------------------------------------------------------- */

/* The case called PATH; -1: there is none. */
static int find_case(const char *path)
{
    g_autofree char *quoted = lab_quote(path);

    for (unsigned i = 0; i < lab_case_count(); i++) {
        if (strcmp(lab_case_path(i), path) == 0) {
            return i;
        }
    }
    lab_printf("Bail out! this program has no case %s\n", quoted);
    return -1;
}

static bool is_of_this_build(const LabSeed *seed)
{
    return strcmp(seed->build_id, lab_build_id()) == 0;
}

/* What the file was made with, apart from what is asked for now. */
static void adopt(LabConfig *config, const LabSeed *seed)
{
    uint64_t steps = config->limits.steps;

    config->limits = seed->limits;
    config->limits.steps = steps;
    if (!is_of_this_build(seed)) {
        lab_print_comment("the program was built anew since the file was written");
    }
}

/*
 * A schedule that never comes to a point again can only be ended by a signal, and this process
 * with it. What is said then.
 */
static char hung[512] LAB_KEEP;

static void say_hung(int number)
{
    /* not write() and _exit(): those are the schedule's */
    syscall(SYS_write, STDOUT_FILENO, hung, strlen(hung));
    syscall(SYS_exit_group, LAB_STATUS_FAILED);
}

static void prepare_to_hang(const LabConfig *config, const char *path)
{
    struct sigaction sa = { .sa_handler = say_hung, .sa_flags = SA_ONSTACK };
    g_autofree char *quoted = lab_quote(path);

    snprintf(hung, sizeof(hung), "not ok 1 %.300s # lab livelock\n# no end of the schedule in "
             "%.0f s of real time: the program loops without a scheduling point\n", quoted,
             config->hang_ns / 1e9);
    sigaction(SIGALRM, &sa, NULL);
}

/* One recorded run of the file's list: whether it ends as the file says, and how. */
static bool replay_once(const LabConfig *config, unsigned number, LabChooser *chooser,
                        const LabReplayFile *file, LabOutcome *outcome)
{
    LabOutcome wanted = { .verdict = file->verdict };
    LabLimits limits = config->limits;

    limits.record = true;
    limits.quiet = chooser->replay.list;        /* not the first time */
    g_strlcpy(wanted.message, file->message, sizeof(wanted.message));
    lab_chooser_begin_replay(chooser, file->list, true, NULL);
    lab_execute_in_time(config, number, &chooser->strategy, &limits, outcome);
    return lab_same_failure(&wanted, outcome);
}

/* How the schedule of a replay was not that of the file, or of the run before; NULL: it was. */
static const char *divergence_of(const LabChooser *chooser, bool same_steps)
{
    if (chooser->replay.divergence[0]) {
        return chooser->replay.divergence;
    }
    if (!lab_chooser_complete(chooser)) {
        return "not every deviation was met";
    }
    return same_steps ? NULL : "not the same steps as in the first run";
}

/* True: it went as the file says, every time; else it did so until the last of *RUNS. */
static bool replay_times(const LabConfig *config, unsigned number, const LabReplayFile *file,
                         LabOutcome *outcome, unsigned *runs)
{
    LabChooser *chooser = lab_chooser_new();
    uint64_t hash = 0;
    bool same = true;

    for (*runs = 0; same && *runs < config->times; ++*runs) {
        const char *divergence;

        same = replay_once(config, number, chooser, file, outcome);
        divergence = divergence_of(chooser, *runs == 0 || outcome->trace_hash == hash);
        if (divergence) {
            lab_printf("# run %u diverged: %s\n", *runs + 1, divergence);
            same = false;
        }
        hash = outcome->trace_hash;
    }
    lab_chooser_free(chooser);
    return same;
}

/* The pictures that are asked for. False: one could not be written. */
static bool draw(const LabConfig *config, unsigned number, const LabReplayFile *file,
                 const LabOutcome *outcome)
{
    static int (*const functions[])(const char *, const LabPicture *) = {
        [LAB_PICTURE_SVG] = lab_draw_svg,
        [LAB_PICTURE_HTML] = lab_draw_html,
        [LAB_PICTURE_TRACE] = lab_draw_trace,
    };
    g_autofree char *line = lab_seed_format(&file->seed);
    LabPicture picture = {
        lab_case_path(number), lab_verdict_name(outcome->verdict), outcome->message, line,
    };

    for (unsigned i = 0; i < LAB_PICTURES; i++) {
        int ret = config->pictures[i] ? functions[i](config->pictures[i], &picture) : 0;

        if (ret < 0) {
            lab_printf("# cannot write '%s': %s\n", config->pictures[i], strerror(-ret));
            return false;
        }
    }
    return true;
}

/*
 * A schedule that now ends well is good news of a program that was built anew. Of the same
 * program, or after a run that went as the file says, it means that the lab is not in control.
 */
static int replay(LabConfig *config, unsigned number, const LabReplayFile *file)
{
    g_autofree char *path = lab_quote(file->seed.path);
    LabOutcome outcome;
    unsigned runs;
    bool same = replay_times(config, number, file, &outcome, &runs);
    bool excused = runs == 1 && !is_of_this_build(&file->seed);
    bool ends_well = outcome.verdict == LAB_OK;
    bool ok = ends_well && (same || excused);

    lab_printf("%s 1 %s # lab replayed %u time%s: %s\n", ok ? "ok" : "not ok", path, runs,
               runs == 1 ? "" : "s",
               lab_verdict_name(ends_well && !ok ? LAB_DIVERGED : outcome.verdict));
    if (!same) {
        lab_printf("# the file says: %s: %s\n", lab_verdict_name(file->verdict),
                   file->message);
    }
    lab_print_comment(outcome.message);
    if (!draw(config, number, file, &outcome)) {
        return LAB_STATUS_USAGE;
    }
    lab_report_schedule(config, number, file->list, &outcome);
    return ok ? LAB_STATUS_OK : LAB_STATUS_FAILED;
}

/* One schedule by its seed line: its list is what it does. */
static int with_line(LabConfig *config)
{
    LabReplayFile file = { .verdict = LAB_OK, .message = (char *)"" };
    LabChooser *chooser;
    LabOutcome outcome;
    const char *wrong = lab_seed_parse(config->line, &file.seed);
    int number, status = LAB_STATUS_USAGE;

    if (wrong || file.seed.plan.kind == LAB_STRATEGY_REPLAY) {
        lab_printf("Bail out! seed line: %s\n", wrong ? wrong : "it needs its file");
        lab_seed_clear(&file.seed);
        return LAB_STATUS_USAGE;
    }
    lab_printf("1..1\n");
    number = find_case(file.seed.path);
    if (number >= 0) {
        adopt(config, &file.seed);
        file.list = lab_keep_alloc(sizeof(*file.list));
        chooser = lab_chooser_new();
        lab_chooser_begin(chooser, &file.seed.plan, file.list);
        prepare_to_hang(config, file.seed.path);
        lab_execute_in_time(config, number, &chooser->strategy, &config->limits, &outcome);
        lab_chooser_free(chooser);
        file.verdict = outcome.verdict;
        file.message = outcome.message;
        g_free(file.seed.build_id);
        file.seed.build_id = g_strdup(lab_build_id());      /* it is of this program now */
        status = replay(config, number, &file);
        lab_keep_free(file.list);
    }
    lab_seed_clear(&file.seed);
    return status;
}

static int shrink(LabConfig *config, unsigned number, const LabReplayFile *file)
{
    g_autofree char *path = lab_quote(file->seed.path);
    LabFailure *failure = g_new0(LabFailure, 1);
    LabOutcome *wanted = &failure->outcome;
    unsigned before = file->list->count;
    LabShrunk shrunk;

    wanted->verdict = file->verdict;
    g_strlcpy(wanted->message, file->message, sizeof(wanted->message));
    failure->plan = file->seed.plan;
    memcpy(&failure->deviations, file->list, sizeof(*file->list));
    lab_shrink(config, number, wanted, config->schedules, config->time_ns,
               &failure->deviations, &shrunk);
    lab_printf("%s 1 %s # lab %u of %u deviations, %" PRIu64 " schedules\n",
               shrunk.reproduced ? "ok" : "not ok", path,
               failure->deviations.count, before, shrunk.schedules);
    if (shrunk.reproduced) {
        lab_save_failure(config, number, config->file, failure);
        lab_report_schedule(config, number, &failure->deviations, wanted);
        lab_print_comment(shrunk.complete >= failure->deviations.count
                          ? "no schedule with fewer deviations fails so"
                          : "a shorter schedule may exist: the budget ended first");
    } else {
        lab_print_comment("this program does not fail as the file says");
    }
    g_free(failure);
    return shrunk.reproduced ? LAB_STATUS_OK : LAB_STATUS_FAILED;
}

static int with_file(LabConfig *config)
{
    g_autofree char *problem = NULL;
    LabReplayFile file;
    int number, status;

    if (!lab_replay_load(config->file, &file, &problem)) {
        lab_printf("Bail out! %s\n", problem);
        return LAB_STATUS_USAGE;
    }
    lab_printf("1..1\n");
    number = find_case(file.seed.path);
    if (number < 0) {
        status = LAB_STATUS_USAGE;
    } else {
        adopt(config, &file.seed);
        prepare_to_hang(config, file.seed.path);
        status = (config->mode == LAB_MODE_REPLAY ? replay : shrink)(config, number, &file);
    }
    lab_replay_clear(&file);
    return status;
}

__attribute__((weak)) int lab_main(void)
{
    g_autofree char *problem = NULL;
    g_autofree char *program = program_name();
    g_auto(GStrv) arguments = command_line();
    LabConfig config;
    int status;

    if (!lab_config_read(&config, arguments, &problem)) {
        lab_printf("Bail out! %s\n", problem);
        lab_config_clear(&config);
        return LAB_STATUS_USAGE;
    }
    config.program = program;
    switch (config.mode) {
    case LAB_MODE_LIST:
        status = list_cases(&config);
        break;
    case LAB_MODE_REPLAY:
    case LAB_MODE_SHRINK:
        status = with_file(&config);
        break;
    default:
        status = config.line ? with_line(&config) : explore_cases(&config);
        break;
    }
    lab_config_clear(&config);
    return status;
}
