/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this build of the lab can do. */
#ifndef LAB_LAB_CONFIG_H
#define LAB_LAB_CONFIG_H

#include "aio/sanitizer.h"

/* A sanitizer owns malloc() and the handlers of signals: memory is not put back then, and each
 * schedule has a process of its own. */
#if defined(USE_ASAN) || defined(USE_TSAN)
#define LAB_OWNS_MEMORY 0
#else
#define LAB_OWNS_MEMORY 1
#endif

#endif
