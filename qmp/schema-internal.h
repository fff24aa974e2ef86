/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The types of schema.h, for the files that make and use them. */
#ifndef QMP_SCHEMA_INTERNAL_H
#define QMP_SCHEMA_INTERNAL_H

#include "qmp/schema.h"

typedef enum SchemaKind {
    SCHEMA_UNDEFINED,
    SCHEMA_STR, SCHEMA_INT, SCHEMA_UINT, SCHEMA_UINT32, SCHEMA_SIZE, SCHEMA_BOOL,
    SCHEMA_NULL, SCHEMA_ANY, SCHEMA_DRIVER,
    SCHEMA_ENUM, SCHEMA_OBJECT, SCHEMA_ARRAY, SCHEMA_ALTERNATE,
} SchemaKind;

typedef struct SchemaMember {
    char *name;
    bool optional;
    SchemaType *type;
} SchemaMember;

struct SchemaType {
    SchemaKind kind;
    char *name;                 /* NULL for a type without one */
    char **names;               /* ENUM; NULL-terminated */
    GArray *members;            /* OBJECT; of SchemaMember */
    char *tag;                  /* OBJECT; the member that chooses more members, or NULL */
    SchemaType *element;        /* ARRAY */
    GPtrArray *choices;         /* ALTERNATE; of SchemaType */
};

/* What the tag's value adds to OBJECT; NULL when there is no such type. */
const SchemaType *schema__branch(const SchemaType *object, const char *tag_value);

#endif
