/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In words: TAP lines, timelines, which order matters, replay files of failures.
 */
#ifndef LAB_REPORT_H
#define LAB_REPORT_H

#include "explore.h"
#include "replay.h"

/* Exit statuses; miniblk-lab has the same. */
enum {
    LAB_STATUS_OK = 0,
    LAB_STATUS_FAILED = 1,
    LAB_STATUS_USAGE = 2,       /* wrong usage, or what was found cannot be written */
    LAB_STATUS_UNFINISHED = 3,
};

/* To stdout at once. What cannot be written ends the process. */
void lab_print(const char *text);
void lab_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* TEXT as TAP comments. */
void lab_print_comment(const char *text);

/* ---- timeline.c ------------------------------------------------------------------------ */

/* The recorded events of one schedule, copied: they outlive the next one. */
typedef struct LabTrace {
    size_t count;
    LabEvent *events;
} LabTrace;

/* Of the last schedule. */
void lab_trace_take(LabTrace *trace);
void lab_trace_clear(LabTrace *trace);

/*
 * TRACE as text, one column per thread, to OUT: all of it, or (OBJECTS not NULL) what is near
 * a deviation, near the end, on one of OBJECTS, or something else than a step.
 */
void lab_timeline(const LabTrace *trace, GHashTable *objects, GString *out);

/* ---- order.c --------------------------------------------------------------------------- */

/*
 * Which orders make the difference: conflicting steps of FAILING that PASSING, the same
 * schedule without one deviation, has the other way round. One sentence a line; at most MAX.
 * The objects that they are about are added to OBJECTS. TSO: stores may land late.
 */
void lab_order_in_words(const LabTrace *failing, const LabTrace *passing, bool tso,
                        unsigned max, GString *out, GHashTable *objects);

/* ---- report.c -------------------------------------------------------------------------- */

/* Whether none of its schedules has come to its end under our choices. */
bool lab_nothing_tried(const LabResult *result);

/* "ok 7 /drain/iothread # lab 20000 schedules, 9120 distinct, D<=1 complete" */
void lab_report_line(unsigned number, const char *path, const LabResult *result);

/* Message, seed line, replay file, and the schedule made small in words. FAILURE's list of
 * deviations may become shorter on the way. */
void lab_report_failure(const LabConfig *config, unsigned number, LabFailure *failure);

/* The replay file of a failure; its seed line and name are printed. */
void lab_save_failure(const LabConfig *config, unsigned number, const char *filename,
                      const LabFailure *failure);

/* Run LIST once more, recorded: the order that matters, if it ends as WANTED, and the
 * timeline, as CONFIG wants them. */
void lab_report_schedule(const LabConfig *config, unsigned number, const LabDeviations *list,
                         const LabOutcome *wanted);

#endif
