/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The enumeration of schedules by their deviations; see strategy-bound.c for what a list of
 * skips means.
 *
 * Level d + 1 consists of the lists of level d, each extended by one skip: 0, 1, ... up to the
 * number of alternatives that the parent offered after its last deviation. They are numbered
 * parent by parent. So the sums of these numbers over the parents in order tell which parent
 * number N belongs to, and which of its extensions it is.
 */
#include "miniblk/osdep.h"
#include "lab/explore.h"

#include <sys/mman.h>

/* More lists than this are not numbered (their parents' sums would need too much memory). */
#define LEVEL_COUNT_MAX (UINT64_C(1) << 28)

typedef struct Level {
    uint64_t count;
    uint32_t *children;         /* [count], shared memory */
    uint64_t *first_child;      /* [count + 1] sums of children; made when it has run */
} Level;

struct LabLevels {
    unsigned depth;
    Level level[LAB_DEPTH_MAX + 1];
};

static bool level_init(Level *level, uint64_t count)
{
    void *map;

    if (count > LEVEL_COUNT_MAX) {
        return false;
    }
    map = mmap(NULL, MAX(count, 1) * sizeof(uint32_t), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    level->count = count;
    level->children = map;
    return true;
}

LabLevels *lab_levels_new(void)
{
    LabLevels *levels = g_new0(LabLevels, 1);

    if (!level_init(&levels->level[0], 1)) {
        g_error("miniblk-lab: no memory to number schedules");
    }
    return levels;
}

void lab_levels_free(LabLevels *levels)
{
    for (unsigned i = 0; i <= levels->depth; i++) {
        Level *level = &levels->level[i];

        munmap(level->children, MAX(level->count, 1) * sizeof(uint32_t));
        g_free(level->first_child);
    }
    g_free(levels);
}

unsigned lab_levels_depth(const LabLevels *levels)
{
    return levels->depth;
}

uint64_t lab_levels_count(const LabLevels *levels)
{
    return levels->level[levels->depth].count;
}

uint32_t *lab_levels_children(LabLevels *levels)
{
    return levels->level[levels->depth].children;
}

uint64_t lab_levels_next_count(const LabLevels *levels)
{
    const Level *level = &levels->level[levels->depth];
    uint64_t sum = 0;

    for (uint64_t i = 0; i < level->count; i++) {
        sum += level->children[i];
    }
    return sum;
}

bool lab_levels_next(LabLevels *levels)
{
    Level *level = &levels->level[levels->depth];
    uint64_t sum = 0;

    if (levels->depth == LAB_DEPTH_MAX
        || !level_init(&levels->level[levels->depth + 1], lab_levels_next_count(levels))) {
        return false;
    }
    level->first_child = g_new(uint64_t, level->count + 1);
    for (uint64_t i = 0; i < level->count; i++) {
        level->first_child[i] = sum;
        sum += level->children[i];
    }
    level->first_child[level->count] = sum;
    levels->depth++;
    return true;
}

/* Which schedule of LEVEL is the parent of number CHILD: the last one whose first child is not
 * after it. */
static uint64_t parent_of(const Level *level, uint64_t child)
{
    uint64_t low = 0, high = level->count;      /* first_child[low] <= child < ...[high] */

    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        if (level->first_child[middle] <= child) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

void lab_levels_plan(const LabLevels *levels, uint64_t number, LabPlan *plan)
{
    memset(plan, 0, sizeof(*plan));
    plan->kind = LAB_STRATEGY_BOUND;
    plan->depth = levels->depth;
    for (unsigned d = levels->depth; d > 0; d--) {
        const Level *parents = &levels->level[d - 1];
        uint64_t parent = parent_of(parents, number);

        plan->skip[d - 1] = number - parents->first_child[parent];
        number = parent;
    }
}
