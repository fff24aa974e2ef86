/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A failing schedule made small: the fewest deviations from the default policy that still end
 * in the same failure.
 *
 * First delta debugging (Zeller, Hildebrandt: Simplifying and isolating failure-inducing
 * input, 2002): leave out halves of the list, quarters, ..., single deviations. Then the
 * short lists from the other side: all schedules with 0, 1, 2... deviations, as long as that
 * is fewer than we have. When such a level has run without the failure, nothing that short
 * exists.
 *
 * Between the two, a step aside: leave out any two deviations and put one in anywhere. What a
 * random strategy did by several small turns is often one turn at a better place.
 */
#include "miniblk/osdep.h"
#include "lab/explore.h"
#include "lab/world.h"

enum { MERGE_MAX = 24 };        /* longer lists have too many pairs */

typedef struct Shrinker {
    const LabConfig *config;
    LabLimits limits;
    unsigned number;
    const LabOutcome *wanted;
    LabChooser *chooser;
    LabDeviations *best;        /* the caller's list: the shortest that fails */
    LabDeviations *attempt, *record;
    uint64_t schedules, budget;
    int64_t deadline_ns;        /* real; INT64_MAX: none */
} Shrinker;

/* The schedule that the chooser has been made ready for. True, and it is the best one now,
 * when it fails as wanted. */
static bool fails(Shrinker *s)
{
    LabOutcome outcome;

    s->schedules++;
    lab_execute_in_time(s->config, s->number, &s->chooser->strategy, &s->limits, &outcome);
    if (g_get_monotonic_time() * 1000 >= s->deadline_ns) {
        s->budget = MIN(s->budget, s->schedules);
    }
    if (!lab_same_failure(s->wanted, &outcome) || s->record->overflow) {
        return false;
    }
    /* As it was recorded: without those that were not met, with the options of this run. */
    memcpy(s->best, s->record, offsetof(LabDeviations, items[s->record->count]));
    return true;
}

static bool list_fails(Shrinker *s, const LabDeviations *list)
{
    lab_chooser_begin_replay(s->chooser, list, false, s->record);
    return fails(s);
}

/* BEST without [FROM, FROM + COUNT) as the attempt. */
static void leave_out(Shrinker *s, uint32_t from, uint32_t count)
{
    s->attempt->count = 0;
    for (uint32_t i = 0; i < s->best->count; i++) {
        if (i < from || i >= from + count) {
            s->attempt->items[s->attempt->count++] = s->best->items[i];
        }
    }
}

/* One pass with pieces of COUNT deviations, latest first: what comes late depends on what
 * comes early. True: something could be left out. */
static bool pass(Shrinker *s, uint32_t count)
{
    uint32_t end = s->best->count;
    bool shorter = false;

    while (end > 0 && s->schedules < s->budget) {
        uint32_t from = end > count ? end - count : 0;
        uint32_t before = s->best->count;

        leave_out(s, from, end - from);
        if (list_fails(s, s->attempt) && s->best->count < before) {
            shorter = true;
        }
        end = MIN(from, s->best->count);
    }
    return shorter;
}

static void delta_debug(Shrinker *s)
{
    uint32_t piece = s->best->count / 2;

    while (piece > 1 && s->schedules < s->budget) {
        pass(s, piece);
        piece = MIN(piece / 2, MAX(s->best->count / 2, 1));
    }
    while (s->best->count > 0 && s->schedules < s->budget && pass(s, 1)) {
    }
}

/* BEST without deviations I and J as the attempt. */
static void leave_out_two(Shrinker *s, uint32_t i, uint32_t j)
{
    s->attempt->count = 0;
    for (uint32_t k = 0; k < s->best->count; k++) {
        if (k != i && k != j) {
            s->attempt->items[s->attempt->count++] = s->best->items[k];
        }
    }
}

/* Whether the attempt fails as it is or with one deviation more. */
static bool fails_with_one_more(Shrinker *s)
{
    uint64_t places;

    if (list_fails(s, s->attempt)) {
        return true;
    }
    places = s->chooser->alternatives;
    for (uint64_t i = 0; i < places && s->schedules < s->budget; i++) {
        lab_chooser_begin_replay(s->chooser, s->attempt, false, s->record);
        lab_chooser_add_deviation(s->chooser, i);
        if (fails(s)) {
            return true;
        }
    }
    return false;
}

/* True: the list has become shorter. */
static bool merge_two(Shrinker *s)
{
    for (uint32_t i = 0; i < s->best->count; i++) {
        for (uint32_t j = i + 1; j < s->best->count && s->schedules < s->budget; j++) {
            leave_out_two(s, i, j);
            if (fails_with_one_more(s)) {
                return true;
            }
        }
    }
    return false;
}

/* With half of the budget: the search from below has a claim to make. */
static void merge(Shrinker *s)
{
    uint64_t budget = s->budget;

    s->budget = s->schedules + (budget - MIN(s->schedules, budget)) / 2;
    while (s->best->count >= 3 && s->best->count <= MERGE_MAX && merge_two(s)) {
        delta_debug(s);
    }
    s->budget = budget;
}

/*
 * Every schedule of the present level. True: one of them failed, and is the best now. SPENT:
 * the budget ended first.
 */
static bool level_fails(Shrinker *s, LabLevels *levels, bool *spent)
{
    uint64_t count = lab_levels_count(levels);
    uint32_t *children = lab_levels_children(levels);

    for (uint64_t i = 0; i < count; i++) {
        LabPlan plan;

        if (s->schedules >= s->budget) {
            *spent = true;
            return false;
        }
        lab_levels_plan(levels, i, &plan);
        lab_chooser_begin(s->chooser, &plan, s->record);
        if (fails(s)) {
            return true;
        }
        children[i] = MIN(s->chooser->alternatives_after, UINT32_MAX);
    }
    return false;
}

/* How many deviations a schedule must have at least. A level that the budget cannot finish is
 * not begun. */
static unsigned search_levels(Shrinker *s)
{
    LabLevels *levels = lab_levels_new();
    unsigned complete = 0;
    bool spent = false;

    while (complete < s->best->count) {
        if (level_fails(s, levels, &spent) || spent) {
            break;
        }
        complete++;
        if (s->schedules + lab_levels_next_count(levels) > s->budget
            || !lab_levels_next(levels)) {
            break;
        }
    }
    lab_levels_free(levels);
    return MIN(complete, s->best->count);
}

void lab_shrink(const LabConfig *config, unsigned number, const LabOutcome *wanted,
                uint64_t budget, int64_t time_ns, LabDeviations *list, LabShrunk *shrunk)
{
    Shrinker s = {
        .config = config, .limits = config->limits, .number = number, .wanted = wanted,
        .best = list, .budget = budget, .chooser = lab_chooser_new(),
        .deadline_ns = time_ns ? g_get_monotonic_time() * 1000 + time_ns : INT64_MAX,
        .attempt = g_new0(LabDeviations, 1), .record = lab_keep_alloc(sizeof(LabDeviations)),
    };

    s.limits.quiet = true;
    memcpy(s.attempt, list, sizeof(*list));
    *shrunk = (LabShrunk) { .reproduced = list_fails(&s, s.attempt) };
    if (shrunk->reproduced) {
        delta_debug(&s);
        merge(&s);
        shrunk->complete = search_levels(&s);
    }
    shrunk->schedules = s.schedules;
    lab_chooser_free(s.chooser);
    g_free(s.attempt);
    lab_keep_free(s.record);
}
