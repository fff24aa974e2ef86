/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Identifiers that users choose: of nodes, jobs, exports and objects. */
#ifndef MINIBLK_ID_H
#define MINIBLK_ID_H

#include <stdbool.h>

/* Whether ID is a letter followed by letters, digits and "-._". Any thread. */
bool id_wellformed(const char *id);

#endif
