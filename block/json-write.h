/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON text as the peer writes it. */
#ifndef BLOCK_JSON_WRITE_H
#define BLOCK_JSON_WRITE_H

#include <glib.h>
#include <jansson.h>

/*
 * Append VALUE: ", " and ": " between items, everything but printable ASCII escaped, bytes
 * that are not UTF-8 as U+FFFD. PRETTY: one item a line, indented by 4 spaces more than
 * DEPTH times 4; an empty array or object takes two lines.
 */
void json_write(GString *out, const json_t *value, bool pretty, int depth);
/* Append the LEN bytes as a JSON string. */
void json_write_string(GString *out, const char *text, size_t len);
void json_write_real(GString *out, double value);

#endif
