/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a long command has come, for people who watch or send a signal. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#include <signal.h>

static struct {
    ImgProgress kind;
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

bool img_parse_progress(const char *arg, ImgProgress *kind)
{
    if (!arg || !strcmp(arg, "human")) {
        *kind = IMG_PROGRESS_HUMAN;
    } else if (!strcmp(arg, "json")) {
        *kind = IMG_PROGRESS_JSON;
    } else {
        error_report("--progress must be used with human or json as argument.");
        return false;
    }
    return true;
}

void img_progress_start(ImgProgress kind, double step_percent)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigset_t usr1;

    progress.kind = kind;
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
    if (progress.kind == IMG_PROGRESS_OFF) {
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
        printf(progress.kind == IMG_PROGRESS_JSON ? "{\"percent\": %3.2f}\n"
                                                  : "    (%3.2f/100%%)\r", progress.percent);
        fflush(stdout);
    }
}

void img_progress_end(void)
{
    if (progress.kind == IMG_PROGRESS_HUMAN) {
        printf("\n");
        fflush(stdout);
    }
}
