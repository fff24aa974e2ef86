/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a long command has come, for people who watch or send a signal. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#include <signal.h>

static struct {
    bool enabled;
    double step;
    double percent;             /* now */
    double printed;             /* last one shown */
    bool any;                   /* PRINTED is one that was shown */
} progress;

/* A person asks; answered at the next step, where printing is safe. */
static volatile sig_atomic_t asked;

static void on_signal(int signal)
{
    asked = 1;
}

void img_progress_start(bool enabled, double step_percent)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigset_t usr1;

    progress.enabled = enabled;
    progress.step = step_percent;
    progress.percent = 0;
    progress.any = false;
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
#ifdef SIGINFO
    sigaction(SIGINFO, &action, NULL);
#endif
    /* Whoever must not signal too early starts us with it blocked: now it may come. */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
}

void img_progress_set(double percent)
{
    progress.percent = MIN(percent, 100.0);
    if (!progress.enabled) {
        if (asked) {
            asked = 0;
            fprintf(stderr, "    (%3.2f/100%%)\n", progress.percent);
        }
        return;
    }
    if (!progress.any || progress.percent >= progress.printed + progress.step ||
        progress.percent <= 0 || progress.percent >= 100) {
        progress.any = true;
        progress.printed = progress.percent;
        printf("    (%3.2f/100%%)\r", progress.percent);
        fflush(stdout);
    }
}

void img_progress_add(double percent)
{
    img_progress_set(progress.percent + percent);
}

void img_progress_end(void)
{
    if (progress.enabled) {
        printf("\n");
        fflush(stdout);
    }
}
