/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sets of host clusters: a hash table in which 64 neighbours share a slot. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

static struct Qcow2SetSlot *find_slot(const Qcow2Set *set, uint64_t key)
{
    size_t i = key * 0x9e3779b97f4a7c15ULL >> 32;

    for (;; i++) {
        struct Qcow2SetSlot *slot = &set->slots[i & (set->nb_slots - 1)];
        if (slot->key == key || slot->key == 0) {
            return slot;
        }
    }
}

static void grow(Qcow2Set *set)
{
    Qcow2Set bigger = { .nb_slots = MAX(set->nb_slots * 2, 64), .used = set->used };

    bigger.slots = g_new0(struct Qcow2SetSlot, bigger.nb_slots);
    for (size_t i = 0; i < set->nb_slots; i++) {
        if (set->slots[i].key) {
            *find_slot(&bigger, set->slots[i].key) = set->slots[i];
        }
    }
    g_free(set->slots);
    *set = bigger;
}

void qcow2_set_add(Qcow2Set *set, uint64_t cluster)
{
    if (set->used * 2 >= set->nb_slots) {
        grow(set);
    }
    struct Qcow2SetSlot *slot = find_slot(set, cluster / 64 + 1);
    if (!slot->key) {
        slot->key = cluster / 64 + 1;
        set->used++;
    }
    slot->mask |= 1ULL << (cluster % 64);
}

void qcow2_set_remove(Qcow2Set *set, uint64_t cluster)
{
    if (set->nb_slots) {
        /* The slot stays, so that chains are not cut; a cluster is likely to come back. */
        find_slot(set, cluster / 64 + 1)->mask &= ~(1ULL << (cluster % 64));
    }
}

bool qcow2_set_has(const Qcow2Set *set, uint64_t cluster)
{
    return set->nb_slots && find_slot(set, cluster / 64 + 1)->mask >> (cluster % 64) & 1;
}

void qcow2_set_clear(Qcow2Set *set)
{
    g_free(set->slots);
    *set = (Qcow2Set){ NULL };
}

static int compare_slots(const void *a, const void *b)
{
    const struct Qcow2SetSlot *x = a, *y = b;

    return x->key < y->key ? -1 : x->key > y->key;
}

void qcow2_set_sort(Qcow2Set *set)
{
    size_t n = 0;

    for (size_t i = 0; i < set->nb_slots; i++) {
        if (set->slots[i].key) {
            set->slots[n++] = set->slots[i];
        }
    }
    g_assert(n == set->used);
    if (n) {
        qsort(set->slots, n, sizeof(set->slots[0]), compare_slots);
    }
}
