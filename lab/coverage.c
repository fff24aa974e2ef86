/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "lab/coverage.h"

#include <sys/mman.h>

enum { SET_MIN = 1 << 10, SET_MAX = 1 << 26, OBJECTS_MAX = 16384 };

static size_t set_size_bytes(uint32_t size)
{
    return sizeof(LabSet) + size * sizeof(uint64_t);
}

LabSet *lab_set_new(uint64_t count)
{
    uint32_t size = SET_MIN;
    LabSet *set;

    while (size < SET_MAX && size < 2 * count) {
        size *= 2;
    }
    set = mmap(NULL, set_size_bytes(size), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (set == MAP_FAILED) {
        g_error("miniblk-lab: no address space for a set of %u numbers", size);
    }
    set->size = size;
    return set;
}

void lab_set_free(LabSet *set)
{
    munmap(set, set_size_bytes(set->size));
}

/* An empty slot is taken by whoever exchanges its 0 first; nothing is ever taken away. */
void lab_set_add(LabSet *set, uint64_t number)
{
    uint64_t key = number ? number : 1;
    uint32_t i = (key * 0x9e3779b97f4a7c15u) >> 32;

    for (uint32_t probes = 0; probes < set->size / 4; probes++, i++) {
        _Atomic uint64_t *slot = &set->slots[i & (set->size - 1)];
        uint64_t found = atomic_load_explicit(slot, memory_order_relaxed);

        if (found == 0 && atomic_compare_exchange_strong(slot, &found, key)) {
            atomic_fetch_add(&set->count, 1);
            return;
        }
        if (found == key) {
            return;
        }
    }
    atomic_store(&set->full, true);
}

typedef struct LabLastOp {
    LabAgent agent;
    LabOpKind kind;
    bool is_write;
    const char *where;
} LabLastOp;

LabCoverage *lab_coverage_new(LabSet *pairs)
{
    LabCoverage *coverage = g_new0(LabCoverage, 1);

    coverage->pairs = pairs;
    lab_map_init(&coverage->objects, OBJECTS_MAX);
    coverage->last = g_new0(LabLastOp, OBJECTS_MAX);
    return coverage;
}

void lab_coverage_free(LabCoverage *coverage)
{
    lab_map_destroy(&coverage->objects);
    g_free(coverage->last);
    g_free(coverage);
}

void lab_coverage_begin(LabCoverage *coverage)
{
    lab_map_clear(&coverage->objects);
}

/* By content, not by address: an inlined function has its name in many places. */
static uint64_t hash_name(LabOpKind kind, const char *where)
{
    uint64_t hash = kind + 1;

    for (; where && *where; where++) {
        hash = (hash ^ (unsigned char)*where) * 0x100000001b3u;
    }
    return hash;
}

void lab_coverage_step(LabCoverage *coverage, LabAgent agent, const LabOp *op)
{
    LabLastOp *last;
    uint32_t i;
    bool added;

    if (!op->object) {
        return;
    }
    i = lab_map_add(&coverage->objects, op->object, &added);
    if (i == LAB_MAP_NONE) {
        return;
    }
    last = &coverage->last[i];
    if (!added && (last->is_write || op->is_write)
        && (last->agent.kind != agent.kind || last->agent.number != agent.number)) {
        lab_set_add(coverage->pairs, lab_mix(hash_name(last->kind, last->where),
                                             hash_name(op->kind, op->where)));
    }
    *last = (LabLastOp) { agent, op->kind, op->is_write, op->where };
}
