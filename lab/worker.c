/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that run schedules.
 *
 * Numbers are handed out in ascending ranges. A process that meets a failure publishes its
 * number and ends; the others go on with the numbers below it only. When all have ended, every
 * number below the lowest failing one has run: it is the same one for any number of processes.
 *
 * A process writes into shared memory what it does: so a schedule that takes its process with
 * it, or never comes back, is known with its deviations up to there.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"
#include "lab/world.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum {
    RANGE_MAX = 64,             /* numbers that a process takes at once */
    TICK_MS = 200,              /* between looks at progress, time and hangs */
    COVERAGE_FIRST = 1000,      /* pairs are collected in the first schedules ... */
    COVERAGE_EVERY = 16,        /* ... and then in every so many */
};

/* One process's part of the shared memory. It alone writes it while it lives. */
typedef struct Worker {
    _Atomic uint64_t current;   /* schedule number */
    _Atomic uint64_t beats;     /* counts finished schedules */
    bool failed;
    LabFailure failure;         /* of CURRENT while it runs */

    /* the parent's */
    pid_t pid;
    uint64_t seen_beats;
    int64_t seen_ns;
    bool hung;
} Worker;

typedef struct Shared {
    _Atomic uint64_t next;
    _Atomic uint64_t lowest_failed;
    _Atomic bool stop;
    _Atomic uint64_t done, given_up, cut_short, steps, choices_max, alternatives_max;
    unsigned jobs;
    Worker workers[];
} Shared;

static int64_t real_now_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

static void atomic_max(_Atomic uint64_t *max, uint64_t value)
{
    uint64_t old = atomic_load(max);

    while (old < value && !atomic_compare_exchange_weak(max, &old, value)) {
    }
}

static void atomic_min(_Atomic uint64_t *min, uint64_t value)
{
    uint64_t old = atomic_load(min);

    while (old > value && !atomic_compare_exchange_weak(min, &old, value)) {
    }
}

/* Two assertions at different lines or of different values are the same failure. */
bool lab_same_failure(const LabOutcome *a, const LabOutcome *b)
{
    const char *x = a->message, *y = b->message;

    if (a->verdict != b->verdict) {
        return false;
    }
    while (*x && *x != '\n' && *y && *y != '\n') {
        if (isdigit((unsigned char)*x) && isdigit((unsigned char)*y)) {
            x += strspn(x, "0123456789");
            y += strspn(y, "0123456789");
        } else if (*x++ != *y++) {
            return false;
        }
    }
    return (!*x || *x == '\n') && (!*y || *y == '\n');
}

/* ---- in a worker ----------------------------------------------------------------------- */

typedef struct Run {
    const LabPhase *phase;
    const LabTally *tally;
    Shared *shared;
    Worker *worker;
    LabChooser *chooser;
    LabCoverage *coverage;
} Run;

static void execute(Run *run, LabOutcome *outcome, LabDeviations *record, bool events)
{
    LabLimits limits = run->phase->config->limits;

    limits.record = events;
    limits.quiet = !record;     /* it has run before */
    lab_chooser_begin(run->chooser, &run->worker->failure.plan, record);
    lab_execute(run->phase->case_number, &run->chooser->strategy, &limits, outcome);
}

/* Where two runs of the same choices part, from their recorded events. */
static void explain_divergence(Run *run, LabOutcome *outcome)
{
    LabOutcome again;
    LabTrace first;
    const LabEvent *second;
    size_t count, i = 0;

    execute(run, &again, NULL, true);
    lab_trace_take(&first);
    execute(run, &again, NULL, true);
    second = lab_events(&count);
    while (i < MIN(first.count, count) && first.events[i].kind == second[i].kind
           && first.events[i].op.kind == second[i].op.kind
           && first.events[i].op_number == second[i].op_number
           && lab_agent_equal(first.events[i].agent, second[i].agent)) {
        i++;
    }
    if (i < MIN(first.count, count)) {
        char one[LAB_AGENT_NAME_MAX], other[LAB_AGENT_NAME_MAX];

        snprintf(outcome->message, sizeof(outcome->message),
                 "the same choices did not give the same schedule: event %zu was "
                 "'%s' of %s (operation %u), then '%s' of %s (operation %u)", i,
                 lab_op_name(first.events[i].op.kind),
                 lab_agent_format(first.events[i].agent, one), first.events[i].op_number,
                 lab_op_name(second[i].op.kind), lab_agent_format(second[i].agent, other),
                 second[i].op_number);
    } else {
        snprintf(outcome->message, sizeof(outcome->message),
                 "the same choices did not give the same schedule: another hash of its "
                 "steps; the events are the same");
    }
    lab_trace_clear(&first);
}

/* The same plan must give the same schedule: what the lab does not control, it reports. */
static void check_again(Run *run, LabOutcome *outcome)
{
    LabOutcome again;

    run->chooser->coverage = NULL;
    execute(run, &again, NULL, false);
    if (again.trace_hash != outcome->trace_hash || again.verdict != outcome->verdict) {
        outcome->verdict = LAB_DIVERGED;
        explain_divergence(run, outcome);
    }
}

static bool is_failure(const LabPhase *phase, uint64_t number, const LabOutcome *outcome)
{
    switch (outcome->verdict) {
    case LAB_OK:
        return false;
    case LAB_SKIP:              /* of the very first schedule: the case does not want to run */
        return number == 0 && !phase->wanted;
    case LAB_DIVERGED:
        return true;
    default:
        return !phase->wanted || lab_same_failure(phase->wanted, outcome);
    }
}

/* False: it failed. */
static bool run_schedule(Run *run, uint64_t number)
{
    const LabPhase *phase = run->phase;
    const LabConfig *config = phase->config;
    LabFailure *failure = &run->worker->failure;
    LabOutcome *outcome = &failure->outcome;
    LabChooser *chooser = run->chooser;
    bool covered = number < COVERAGE_FIRST || number % COVERAGE_EVERY == 0;

    failure->number = number;
    phase->plan(phase->opaque, number, &failure->plan);
    chooser->coverage = covered ? run->coverage : NULL;
    lab_coverage_begin(run->coverage);
    execute(run, outcome, &failure->deviations, false);
    lab_set_add(run->tally->traces, outcome->trace_hash);
    atomic_fetch_add(&run->shared->steps, outcome->steps);
    atomic_fetch_add(&run->shared->given_up,
                     outcome->verdict == LAB_SKIP || outcome->cut_short);
    atomic_fetch_add(&run->shared->cut_short, outcome->cut_short);
    atomic_max(&run->shared->choices_max, chooser->choices);
    atomic_max(&run->shared->alternatives_max, chooser->alternatives);
    if (phase->children) {
        phase->children[number - phase->first] = MIN(chooser->alternatives_after, UINT32_MAX);
    }
    if (!lab_chooser_complete(chooser)) {
        outcome->verdict = LAB_DIVERGED;
        snprintf(outcome->message, sizeof(outcome->message),
                 "a schedule ended before its deviation %u, which must exist",
                 chooser->deviated + 1);
    } else if (config->check_every
               && number % config->check_every == config->check_every - 1) {
        check_again(run, outcome);
    }
    return !is_failure(phase, number, outcome);
}

static void work(Run *run, uint64_t range)
{
    const LabPhase *phase = run->phase;
    Shared *shared = run->shared;

    for (;;) {
        uint64_t from = atomic_fetch_add(&shared->next, range);

        for (uint64_t i = from; i < MIN(from + range, phase->end); i++) {
            if (atomic_load(&shared->stop) || i > atomic_load(&shared->lowest_failed)) {
                return;
            }
            atomic_store(&run->worker->current, i);
            if (!run_schedule(run, i)) {
                run->worker->failed = true;
                atomic_min(&shared->lowest_failed, i);
                atomic_fetch_add(&shared->done, 1);
                return;
            }
            atomic_fetch_add(&run->worker->beats, 1);
            atomic_fetch_add(&shared->done, 1);
        }
        if (from >= phase->end) {
            return;
        }
    }
}

/* ---- in the parent --------------------------------------------------------------------- */

static void start_worker(Run *run, Worker *worker, uint64_t range, int pipe_fd[2])
{
    pid_t parent = getpid(), pid;

    worker->current = UINT64_MAX;
    worker->seen_ns = real_now_ns();
    pid = fork();
    if (pid < 0) {
        g_error("miniblk-lab: cannot start a process: %s", strerror(errno));
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        close(pipe_fd[0]);
        run->worker = worker;
        run->chooser = lab_chooser_new();
        work(run, range);
        _exit(0);
    }
    worker->pid = pid;
}

static void print_progress(const LabPhase *phase, const LabTally *tally, const Shared *shared)
{
    uint64_t done = tally->done + atomic_load(&shared->done);
    double seconds = (real_now_ns() - tally->started_ns) / 1e9;
    double rate = seconds > 0 ? done / seconds : 0;
    g_autofree char *path = lab_quote(lab_case_path(phase->case_number));
    uint64_t planned = MAX(tally->planned, phase->end);
    double left = rate > 0 && planned > done ? (planned - done) / rate : 0;

    if (tally->deadline_ns != INT64_MAX) {
        left = MIN(left, (tally->deadline_ns - real_now_ns()) / 1e9);
    }
    dprintf(STDERR_FILENO, "\r%s: %" PRIu64 " schedules, %.0f/s, %u distinct, %u pairs, "
            "%.0f s left \033[K", path, done, rate,
            atomic_load(&tally->traces->count), atomic_load(&tally->pairs->count),
            MAX(left, 0));
}

/* A loop of the program without a single point can only be ended from outside. */
static void end_hung_workers(const LabPhase *phase, Shared *shared)
{
    for (unsigned i = 0; i < shared->jobs; i++) {
        Worker *worker = &shared->workers[i];
        uint64_t beats = atomic_load(&worker->beats);

        if (beats != worker->seen_beats) {
            worker->seen_beats = beats;
            worker->seen_ns = real_now_ns();
        } else if (real_now_ns() - worker->seen_ns > phase->config->hang_ns) {
            worker->hung = true;
            kill(worker->pid, SIGKILL);         /* nothing, when it has ended */
        }
    }
}

static void wait_for_workers(const LabPhase *phase, LabTally *tally, Shared *shared, int fd)
{
    struct pollfd end = { .fd = fd, .events = POLLIN };

    while (poll(&end, 1, TICK_MS) <= 0) {
        if (real_now_ns() >= tally->deadline_ns) {
            tally->out_of_time = true;
            atomic_store(&shared->stop, true);
        }
        end_hung_workers(phase, shared);
        if (phase->config->progress) {
            print_progress(phase, tally, shared);
        }
    }
}

void lab_process_ended(int status, LabOutcome *outcome)
{
    if (WIFSIGNALED(status)) {
        outcome->verdict = LAB_SIGNAL;
        snprintf(outcome->message, sizeof(outcome->message),
                 "signal %d (%s) ended the process", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        outcome->verdict = LAB_ASSERT;
        snprintf(outcome->message, sizeof(outcome->message),
                 "the process exited with status %d", WEXITSTATUS(status));
    }
}

/* A process that ended in another way than work() does: its schedule has failed. */
static void reap(const LabPhase *phase, Worker *worker)
{
    LabOutcome *outcome = &worker->failure.outcome;
    int status;

    while (waitpid(worker->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return;
    }
    if (worker->current == UINT64_MAX) {
        g_error("miniblk-lab: a process ended before its first schedule (status %#x)", status);
    }
    worker->failed = true;
    if (worker->hung && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        outcome->verdict = LAB_LIVELOCK;
        snprintf(outcome->message, sizeof(outcome->message),
                 "no end of the schedule in %.0f s of real time: the program loops without "
                 "a scheduling point", phase->config->hang_ns / 1e9);
    } else {
        lab_process_ended(status, outcome);
    }
}

static bool collect(const LabPhase *phase, Shared *shared, LabTally *tally,
                    LabFailure *failure)
{
    const Worker *lowest = NULL;

    for (unsigned i = 0; i < shared->jobs; i++) {
        Worker *worker = &shared->workers[i];

        reap(phase, worker);
        if (worker->failed
            && (!lowest || worker->failure.number < lowest->failure.number)) {
            lowest = worker;
        }
    }
    tally->done += shared->done;
    tally->steps += shared->steps;
    tally->given_up += shared->given_up;
    tally->cut_short += shared->cut_short;
    tally->choices_max = MAX(tally->choices_max, shared->choices_max);
    tally->alternatives_max = MAX(tally->alternatives_max, shared->alternatives_max);
    if (lowest) {
        *failure = lowest->failure;
        tally->skipped = failure->outcome.verdict == LAB_SKIP;
    }
    return lowest;
}

bool lab_phase_run(const LabPhase *phase, LabTally *tally, LabFailure *failure)
{
    uint64_t count = phase->end - phase->first;
    unsigned jobs = MIN(phase->config->jobs, count);
    size_t size = sizeof(Shared) + jobs * sizeof(Worker);
    uint64_t range = CLAMP(count / (jobs * 8u + 1), 1, RANGE_MAX);
    Run run = { .phase = phase, .tally = tally };
    int pipe_fd[2];
    bool failed;

    if (count == 0) {
        return false;
    }
    run.shared = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (run.shared == MAP_FAILED || pipe2(pipe_fd, O_CLOEXEC) < 0) {
        g_error("miniblk-lab: cannot start processes: %s", strerror(errno));
    }
    run.shared->next = phase->first;
    run.shared->lowest_failed = UINT64_MAX;
    run.shared->jobs = jobs;
    run.coverage = lab_coverage_new(tally->pairs);
    for (unsigned i = 0; i < jobs; i++) {
        start_worker(&run, &run.shared->workers[i], range, pipe_fd);
    }
    close(pipe_fd[1]);          /* the last worker to end closes the last copy */
    wait_for_workers(phase, tally, run.shared, pipe_fd[0]);
    close(pipe_fd[0]);
    failed = collect(phase, run.shared, tally, failure);
    lab_coverage_free(run.coverage);
    munmap(run.shared, size);
    return failed;
}
