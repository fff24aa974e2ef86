/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * User-creatable objects: what a type provides to object-add, object-del and the qom-*
 * commands, one file per type. Main thread, big lock held.
 */
#ifndef QMP_OBJECT_H
#define QMP_OBJECT_H

#include "qmp/dispatch.h"

typedef struct QmpObjectProperty {
    const char *name;
    const char *type;           /* as qom-list tells it */
} QmpObjectProperty;

typedef struct QmpObjectType {
    const char *name;           /* the value of qom-type */
    const char *help;           /* what may follow NAME on the command line, for people */
    const QmpObjectProperty *properties;        /* ended by an empty entry */
    /*
     * Make one, with what ObjectOptions has for this type in ARGS. ID is well-formed and not
     * in use. On error nothing stays behind.
     */
    bool (*add)(const char *id, QDict *args, Error **errp);
    /* Refused while it is in use: "object 'ID' is in use, can not be deleted". */
    bool (*del)(void *obj, Error **errp);
    /* In the order of creation; NULL gives the first, and is given after the last. */
    void *(*next)(void *obj);
    char *(*get_id)(void *obj);         /* newly allocated */
    /* NAME is one of PROPERTIES. */
    json_t *(*get)(void *obj, const char *name);
    /* The same; VALUE comes from outside as it is. On error nothing changes. */
    bool (*set)(void *obj, const char *name, const json_t *value, Error **errp);
} QmpObjectType;

extern const QmpObjectType qmp_object_iothread;
extern const QmpObjectType qmp_object_throttle_group;

/* "expected: integer" unless VALUE is one. NAME is the property's. */
bool qmp_property_is_int(const char *name, const json_t *value, Error **errp);

/* object-iothread.c */
json_t *qmp_query_iothreads(json_t *args, Error **errp);

#endif
