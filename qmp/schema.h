/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What arguments look like, as a compact text, and checking values against it.
 *
 *     str int uint uint32 size bool null any     scalars ("any" is not looked into)
 *     {a|b|c}                                    an enumeration
 *     {name:type, name?:type}                    an object; ? marks what may be absent
 *     {tag:type, ... <tag>}                      and, added by the value of its member
 *                                                "tag", the members of type NAME.VALUE
 *     [type]                                     an array
 *     (type / type)                              one of several, told apart by JSON type
 *     Name                                       a type of schema-types.c
 *
 * An enumeration can also be "driver": whatever bdrv_find_format() knows.
 */
#ifndef QMP_SCHEMA_H
#define QMP_SCHEMA_H

#include <jansson.h>
#include "miniblk/error.h"
#include "miniblk/qdict.h"

typedef struct SchemaType SchemaType;

typedef enum SchemaInput {
    SCHEMA_TYPED,               /* from JSON: types must match */
    SCHEMA_KEYVAL,              /* from a command line: strings are converted */
} SchemaInput;

/* The type that TEXT describes; lives as long as the program. A bad TEXT aborts. */
const SchemaType *schema_type(const char *text);
/*
 * VALUE (not consumed) as TYPE, converted, members in the order of declaration; NULL with
 * ERRP set in the peer's words. PATH names VALUE in messages ("" for arguments).
 */
json_t *schema_convert(const SchemaType *type, const json_t *value, const char *path,
                       SchemaInput input, Error **errp);
/* "Name = type" lines, NULL-terminated; schema-types.c. */
extern const char *const schema_type_lines[];

#endif
