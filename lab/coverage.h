/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a run has seen: sets of 64-bit numbers in memory that all processes of it share.
 */
#ifndef LAB_COVERAGE_H
#define LAB_COVERAGE_H

#include "lab.h"
#include "map.h"

#include <stdatomic.h>

/* Numbers come in only, from several processes at once. */
typedef struct LabSet {
    uint32_t size;              /* a power of two */
    _Atomic uint32_t count;
    _Atomic bool full;          /* numbers were left out; COUNT is a lower bound */
    _Atomic uint64_t slots[];
} LabSet;

/* At least COUNT numbers will fit. Memory is taken when it is used. Never fails. */
LabSet *lab_set_new(uint64_t count);
void lab_set_free(LabSet *set);
void lab_set_add(LabSet *set, uint64_t number);

/*
 * Pairs of adjacent conflicting operations of different threads, by their static names: which
 * of the program's races have been run in which order. One process's side of it.
 */
struct LabCoverage {
    LabSet *pairs;
    LabMap objects;
    struct LabLastOp *last;     /* per object */
};

typedef struct LabCoverage LabCoverage;

LabCoverage *lab_coverage_new(LabSet *pairs);
void lab_coverage_free(LabCoverage *coverage);
/* A new schedule begins. */
void lab_coverage_begin(LabCoverage *coverage);
void lab_coverage_step(LabCoverage *coverage, LabAgent agent, const LabOp *op);

#endif
