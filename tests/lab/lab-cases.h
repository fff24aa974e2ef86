/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests of what the lab says: a case has to end in a certain way, and certain words have to be
 * said. In place of the lab's own lab_main().
 */
#ifndef LAB_CASES_H
#define LAB_CASES_H

#include "lab/lab.h"

enum { LAB_CASE_WORDS = 8 };

typedef struct LabCase {
    const char *path;
    void (*test)(void);
    LabVerdict verdict;
    const char *words[LAB_CASE_WORDS];  /* in the message, in any order */
    unsigned schedules;         /* random ones besides the default one; all must end so */
} LabCase;

/* Before g_test_run(). */
void lab_cases_add(const LabCase *cases, unsigned count);

#endif
