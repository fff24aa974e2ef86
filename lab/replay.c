/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The strategy that follows a list of deviations and otherwise the default policy.
 *
 * Deviations are found by their stable name, so that a part of a list (while it is made
 * smaller) or a list for a slightly different program still means something. A strict replay
 * expects the very same options at each; what differs first is put in words.
 */
#include "miniblk/osdep.h"
#include "lab/names.h"

/* Places have room for 2^16 threads, 2^32 operations, 2^16 turns; a list has no two equal. */
static uint64_t place_key(uint32_t thread, uint32_t op, uint32_t turn)
{
    return (uint64_t)(thread & 0xffff) << 48 | (uint64_t)op << 16 | (turn & 0xffff);
}

void lab_chooser_begin_replay(LabChooser *c, const LabDeviations *list, bool strict,
                              LabDeviations *record)
{
    static const LabPlan plan = { .kind = LAB_STRATEGY_REPLAY };
    LabReplay *replay = &c->replay;
    bool added;

    replay->list = list;
    replay->strict = strict;
    replay->extra = UINT64_MAX;
    replay->used_count = 0;
    replay->divergence[0] = '\0';
    lab_map_clear(&replay->names);
    for (uint32_t i = 0; i < list->count; i++) {
        const LabDeviation *d = &list->items[i];

        lab_map_add(&replay->names, place_key(d->thread, d->op, d->turn), &added);
        replay->used[i] = false;
    }
    lab_chooser_begin(c, &plan, record);
}

void lab_chooser_add_deviation(LabChooser *c, uint64_t number)
{
    c->replay.extra = number;
}

static void describe_options(const LabChoice *choice, char *text, size_t size)
{
    char name[LAB_AGENT_NAME_MAX];
    size_t used = 0;

    for (unsigned i = 0; i < choice->n && used < size; i++) {
        used += snprintf(text + used, size - used, "%s%s", i ? " " : "",
                         lab_agent_format(choice->agents[i], name));
    }
}

static void __attribute__((format(printf, 4, 5)))
diverge(LabReplay *replay, const LabDeviation *d, unsigned number, const char *format, ...)
{
    size_t size = sizeof(replay->divergence);
    int used;
    va_list args;

    if (replay->divergence[0]) {
        return;
    }
    used = snprintf(replay->divergence, size, "deviation %u (T%u, operation %u, turn %u): ",
                    number, d->thread, d->op, d->turn);
    va_start(args, format);
    vsnprintf(replay->divergence + used, size - used, format, args);
    va_end(args);
}

/* The option that D means at CHOICE; 0 when there is none. */
static unsigned find_option(LabReplay *replay, const LabDeviation *d, unsigned number,
                            const LabChoice *choice)
{
    char name[LAB_AGENT_NAME_MAX], options[300] = "";

    if (d->kind != choice->kind) {
        diverge(replay, d, number, "it is a choice of another kind now");
        return 0;
    }
    if (choice->kind != LAB_CHOICE_AGENT) {
        if (replay->strict && d->n != choice->n) {
            diverge(replay, d, number, "there are %u options now, not %u", choice->n, d->n);
        }
        return d->option < choice->n ? d->option : 0;
    }
    for (unsigned i = 0; i < choice->n; i++) {
        if (lab_agent_equal(choice->agents[i], d->agent)) {
            if (replay->strict && d->set != lab_choice_set(choice)) {
                describe_options(choice, options, sizeof(options));
                diverge(replay, d, number, "other agents can go on now: %s", options);
            }
            return i;
        }
    }
    describe_options(choice, options, sizeof(options));
    diverge(replay, d, number, "%s cannot go on now; these can: %s",
            lab_agent_format(d->agent, name), options);
    return 0;
}

static unsigned replay_choose(LabChooser *c, const LabChoice *choice)
{
    LabReplay *replay = &c->replay;
    uint32_t i = lab_map_find(&replay->names,
                              place_key(choice->thread, choice->op, choice->turn));
    unsigned option;

    if (i == LAB_MAP_NONE || replay->used[i]) {
        uint64_t ahead = replay->extra - c->alternatives;

        return ahead < choice->n - 1 ? 1 + ahead : 0;
    }
    option = find_option(replay, &replay->list->items[i], i + 1, choice);
    if (option != 0) {
        replay->used[i] = true;
        replay->used_count++;
        lab_deviation(i + 1);
    }
    return option;
}

/* Kept as a call of its own, with its argument, for debuggers. */
__attribute__((noinline)) void lab_deviation(unsigned number)
{
    __asm__ volatile("" : : "r"(number) : "memory");
}

const LabStrategyClass lab_strategy_replay = {
    .name = "replay",
    .choose = replay_choose,
};
