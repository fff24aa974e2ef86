/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For drivers of formats that are told names of host files. */
#ifndef IMAGES_FILE_SAME_H
#define IMAGES_FILE_SAME_H

#include <stdbool.h>

/* Whether the names A and B lead to the same host file now. Any thread; may wait for the disk. */
bool file_same(const char *a, const char *b);

#endif
