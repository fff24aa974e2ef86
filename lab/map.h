/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An exact map from 64-bit keys to small records, for code that runs in the middle of a
 * schedule: all memory is there from the beginning, emptying it costs one increment. Exact,
 * so that nothing depends on how addresses hash.
 */
#ifndef LAB_MAP_H
#define LAB_MAP_H

#include "rng.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct LabMapSlot {
    uint64_t key;
    uint32_t epoch;             /* in use when it is the map's */
    uint32_t index;             /* of the record: 0, 1, 2... in the order of insertion */
} LabMapSlot;

typedef struct LabMap {
    uint32_t size;              /* a power of two, at least twice the records */
    uint32_t epoch;
    uint32_t count, count_max;
    LabMapSlot *slots;
} LabMap;

enum { LAB_MAP_NONE = UINT32_MAX };

/* Not while a schedule runs. */
static inline void lab_map_init(LabMap *map, uint32_t count_max)
{
    uint32_t size = 16;

    while (size < 2 * count_max) {
        size *= 2;
    }
    *map = (LabMap) { .size = size, .epoch = 1, .count_max = count_max,
                      .slots = g_new0(LabMapSlot, size) };
}

static inline void lab_map_destroy(LabMap *map)
{
    g_free(map->slots);
}

static inline void lab_map_clear(LabMap *map)
{
    map->count = 0;
    if (++map->epoch == 0) {
        memset(map->slots, 0, map->size * sizeof(map->slots[0]));
        map->epoch = 1;
    }
}

static inline LabMapSlot *lab_map_slot(const LabMap *map, uint64_t key)
{
    uint32_t i = (key * 0x9e3779b97f4a7c15u) >> 32;

    for (;; i++) {
        LabMapSlot *slot = &map->slots[i & (map->size - 1)];

        if (slot->epoch != map->epoch || slot->key == key) {
            return slot;
        }
    }
}

/* The record of KEY, or LAB_MAP_NONE. */
static inline uint32_t lab_map_find(const LabMap *map, uint64_t key)
{
    const LabMapSlot *slot = lab_map_slot(map, key);

    return slot->epoch == map->epoch ? slot->index : LAB_MAP_NONE;
}

/*
 * The record of KEY, which is made when it is missing (*ADDED: it was; the caller must fill
 * it). LAB_MAP_NONE: the map is full.
 */
static inline uint32_t lab_map_add(LabMap *map, uint64_t key, bool *added)
{
    LabMapSlot *slot = lab_map_slot(map, key);

    *added = slot->epoch != map->epoch;
    if (*added) {
        if (map->count == map->count_max) {
            *added = false;
            return LAB_MAP_NONE;
        }
        *slot = (LabMapSlot) { key, map->epoch, map->count++ };
    }
    return slot->index;
}

#endif
