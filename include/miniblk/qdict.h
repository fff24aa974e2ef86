/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options as JSON objects. A QDict is jansson's json_t (an object), so all of jansson's
 * calls work on it. Values are either typed (from JSON) or strings (from a command line or
 * foreign code); the bdrv_opt_*() getters take both. A key may be dotted
 * ("file.driver"), see bdrv_options_nest().
 */
#ifndef MINIBLK_QDICT_H
#define MINIBLK_QDICT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "error.h"

typedef struct json_t QDict;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* Empty, one reference. */
QDict *qdict_new(void);
void qdict_put_str(QDict *qdict, const char *key, const char *value);
void qdict_put_int(QDict *qdict, const char *key, int64_t value);
void qdict_put_bool(QDict *qdict, const char *key, bool value);
/* NULL when absent or not a string. */
const char *qdict_get_try_str(const QDict *qdict, const char *key);
bool qdict_haskey(const QDict *qdict, const char *key);
void qdict_del(QDict *qdict, const char *key);
#define qobject_ref(obj)   json_incref(obj)
#define qobject_unref(obj) json_decref(obj)

/*
 * Turn dotted keys into nested objects, in place: {"file.driver": x} becomes
 * {"file": {"driver": x}}; objects whose keys are 0, 1, 2 ... become arrays. False with ERRP
 * set when a key is both a value and a prefix ("Cannot mix scalar and non-scalar keys").
 */
bool bdrv_options_nest(QDict *options, Error **errp);

/*
 * Take KEY out of OPTIONS. True when it was absent (*VAL is left as it is) or well-formed
 * (*VAL is set); false with ERRP set: wrong type or not a number ("Parameter 'size' expects
 * a ..."). Strings are newly allocated (the old value is freed).
 */
bool bdrv_opt_str(QDict *options, const char *key, char **val, Error **errp);
/* true/false, or a string on/off/yes/no/true/false/y/n. */
bool bdrv_opt_bool(QDict *options, const char *key, bool *val, Error **errp);
/* VALUE, of the parameter NAME: one of those words. False with ERRP set otherwise. */
bool qapi_bool_parse(const char *name, const char *value, bool *obj, Error **errp);
/* An integer >= 0, or a string with an optional suffix b k K M G T P E (powers of 1024). */
bool bdrv_opt_size(QDict *options, const char *key, uint64_t *val, Error **errp);
/* An index into the NULL-terminated NAMES. */
bool bdrv_opt_enum(QDict *options, const char *key, const char *const *names, int *val,
                   Error **errp);

/*
 * Parse "k=v,k.sub=v,..." into a new nested object with string values; a doubled comma is a
 * literal one. IMPLIED_KEY (may be NULL) names the key of a first part without "=". NULL
 * with ERRP set when it is malformed.
 */
QDict *keyval_parse(const char *params, const char *implied_key, Error **errp);
/*
 * A number of bytes in TEXT: decimal, with an optional fraction and suffix as above, or
 * hexadecimal; blanks and "+" may stand before it. 0 with *SIZE set; -EINVAL; -ERANGE when it is
 * 2^64 or more. Any thread.
 */
int bdrv_parse_size(const char *text, uint64_t *size);
/* The same; false with ERRP set, *RET unchanged. NAME is for the message. */
bool parse_option_size(const char *name, const char *value, uint64_t *ret, Error **errp);

#endif
