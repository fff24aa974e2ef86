/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "lab/rng.h"
#include "lab/world.h"
#include "lab-cases.h"

enum { STEPS = 20000 };         /* a case that goes on for so long will not end */

static const LabCase *cases;
static unsigned n_cases;

void lab_cases_add(const LabCase *list, unsigned count)
{
    cases = list;
    n_cases = count;
    for (unsigned i = 0; i < count; i++) {
        g_test_add_func(cases[i].path, cases[i].test);
    }
}

typedef struct Chooser {
    bool random;
    LabRng rng;
} Chooser;

/* Goes on with the same agent, but now and then with any. */
static unsigned choose(void *opaque, const LabChoice *choice)
{
    Chooser *c = opaque;

    return c->random && lab_rng_once_in(&c->rng, 8) ? lab_rng_below(&c->rng, choice->n) : 0;
}

static bool is_right(const LabCase *c, const LabOutcome *outcome)
{
    bool right = outcome->verdict == c->verdict;

    for (unsigned w = 0; w < LAB_CASE_WORDS && c->words[w]; w++) {
        if (!strstr(outcome->message, c->words[w])) {
            printf("# not said: %s\n", c->words[w]);
            right = false;
        }
    }
    return right;
}

static bool run(unsigned number)
{
    static LabOutcome outcome LAB_KEEP;
    static Chooser chooser LAB_KEEP;
    LabStrategy strategy = { .choose = choose, .opaque = &chooser };
    LabLimits limits = { .tso = true, .steps = STEPS };
    const LabCase *c = &cases[number];
    /* with a sanitizer each has a process of its own */
    unsigned n = lab_world_restores() ? c->schedules : c->schedules / 100;

    for (unsigned i = 0; i <= n; i++) {
        chooser = (Chooser) { i > 0, { i } };
        lab_execute(number, &strategy, &limits, &outcome);
        bool right = is_right(c, &outcome);
        if (!right || (i == 0 && g_getenv("V"))) {
            g_auto(GStrv) lines = g_strsplit(outcome.message, "\n", -1);
            printf("# schedule %u: %s\n", i, lab_verdict_name(outcome.verdict));
            for (unsigned l = 0; lines[l]; l++) {
                printf("# %s\n", lines[l]);
            }
        }
        if (!right) {
            return false;
        }
    }
    return true;
}

int lab_main(void)
{
    int failures = 0;

    printf("1..%u\n", n_cases);
    for (unsigned i = 0; i < n_cases; i++) {
        bool right = run(i);
        printf("%s %u %s\n", right ? "ok" : "not ok", i + 1, cases[i].path);
        fflush(stdout);
        failures += !right;
    }
    return failures ? 1 : 0;
}
