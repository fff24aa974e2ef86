/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A schedule in a process of its own: how it begins with what g_test_run() found where a
 * sanitizer owns malloc(), and memory cannot be put back.
 *
 * What the explorer wants to know of the schedule comes back through shared memory: its
 * outcome, the LAB_SHARED and LAB_LAST variables when it ends in the regular way, and what the
 * strategy has written into lab_keep_alloc() memory in any case.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/explore.h"
#include "lab/world.h"

#if LAB_OWNS_MEMORY

void lab_isolate(void (*run)(LabOutcome *outcome), LabOutcome *outcome)
{
    run(outcome);
}

#else
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

extern char __start_lab_shared[], __stop_lab_shared[];
extern char __start_lab_last[], __stop_lab_last[];

typedef struct Exchange {
    pid_t owner;                /* who makes the schedules' processes */
    LabOutcome outcome;
    char variables[];           /* the shared ones, then the last ones */
} Exchange;

static Exchange *exchange;
static char *initially;         /* the last ones */

static size_t shared_size(void)
{
    return __stop_lab_shared - __start_lab_shared;
}

static size_t last_size(void)
{
    return __stop_lab_last - __start_lab_last;
}

/* A process must not share it with those that the explorer has started beside it. */
static void exchange_prepare(void)
{
    if (!initially) {
        initially = g_memdup2(__start_lab_last, last_size());
    }
    if (!exchange || exchange->owner != getpid()) {
        exchange = lab_keep_alloc(sizeof(*exchange) + shared_size() + last_size());
        exchange->owner = getpid();
    }
}

static void variables_send(void)
{
    memcpy(exchange->variables, __start_lab_shared, shared_size());
    memcpy(exchange->variables + shared_size(), __start_lab_last, last_size());
}

static void variables_receive(void)
{
    memcpy(__start_lab_shared, exchange->variables, shared_size());
    memcpy(__start_lab_last, exchange->variables + shared_size(), last_size());
}

void lab_isolate(void (*run)(LabOutcome *outcome), LabOutcome *outcome)
{
    int status;

    exchange_prepare();
    memcpy(__start_lab_last, initially, last_size());
    exchange->outcome = (LabOutcome) { .verdict = LAB_OK };
    pid_t pid = fork();
    if (pid < 0) {
        g_error("miniblk-lab: no process for a schedule: %s", strerror(errno));
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        lab_sanitizer_begin();
        run(&exchange->outcome);
        variables_send();
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    *outcome = exchange->outcome;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        variables_receive();
    } else {
        lab_process_ended(status, outcome);
    }
}

void *lab_keep_alloc(size_t size)
{
    size_t *p = mmap(NULL, size + sizeof(max_align_t), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        g_error("miniblk-lab: no %zu bytes of memory: %s", size, strerror(errno));
    }
    *p = size + sizeof(max_align_t);
    return (char *)p + sizeof(max_align_t);
}

void lab_keep_free(void *p)
{
    if (p) {
        size_t *start = (size_t *)((char *)p - sizeof(max_align_t));
        munmap(start, *start);
    }
}
#endif
