/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pictures of a recorded schedule: SVG, a self-contained HTML page around it, and a trace that
 * Chrome's viewers and Perfetto open. Called while no schedule runs; from lab_events().
 */
#ifndef LAB_DRAW_H
#define LAB_DRAW_H

#include <glib.h>
#include "lab/lab.h"

/* What is written above a picture. */
typedef struct LabPicture {
    const char *path;           /* of the test case */
    const char *verdict;        /* lab_verdict_name() */
    const char *message;        /* the failure in words; several lines; may be empty */
    const char *seed_line;
} LabPicture;

/* Write the picture to the file FILENAME. 0, or -errno when it cannot be written. */
int lab_draw_svg(const char *filename, const LabPicture *picture);
int lab_draw_html(const char *filename, const LabPicture *picture);
int lab_draw_trace(const char *filename, const LabPicture *picture);

/* ---- what all of them draw --------------------------------------------------------------- */

typedef enum LabSpanKind {
    LAB_SPAN_RUN,               /* the thread goes on from step to step */
    LAB_SPAN_BLOCKED,           /* it waits */
    LAB_SPAN_WAIT,              /* it polls for a condition: LABEL */
    LAB_SPAN_SECTION,           /* a drained section of a node */
    LAB_SPAN_REQUEST,
} LabSpanKind;

/* From event BEGIN to event END, both included, in lane LANE. */
typedef struct LabSpan {
    LabSpanKind kind;
    unsigned lane;
    size_t begin, end;
    bool open;                  /* the schedule stopped before its end */
    char label[64];
} LabSpan;

typedef struct LabLane {
    char name[64];
    bool is_thread;
} LabLane;

/* What FROM did at event SINCE is why TO could go on, and did at event AT. */
typedef struct LabArrow {
    unsigned from, to;          /* lanes */
    size_t since, at;
} LabArrow;

typedef struct LabScene {
    const LabEvent *events;
    size_t count;
    size_t first;               /* events before this one are left out */
    GArray *lanes;              /* of LabLane: threads, then disk and clock, then nodes and
                                   requests */
    GArray *spans;              /* of LabSpan, by their ends */
    GArray *arrows;             /* of LabArrow */
    unsigned lane_of_thread[LAB_THREADS_MAX];
} LabScene;

enum { LAB_SCENE_EVENTS_MAX = 4000 };

/* The last LAB_SCENE_EVENTS_MAX events of EVENTS, which must outlive the result. */
LabScene *lab_scene_new(const LabEvent *events, size_t count);
void lab_scene_free(LabScene *scene);
/* The lane of who took the step EVENT. */
unsigned lab_scene_lane(const LabScene *scene, const LabEvent *event);
/* "load iothread0.wake_state", "node 'd': drained section begins": what EVENT is, in words. */
const char *lab_scene_words(const LabEvent *event, char *buffer, size_t size);

#endif
