/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cache modes on the command lines of all tools. */
#include "miniblk/osdep.h"
#include "tools/img.h"

bool img_parse_cache(const char *mode, int *flags, bool *writethrough)
{
    static const struct {
        const char *name;
        int flags;
        bool writethrough;
    } modes[] = {
        { "none", BDRV_O_NOCACHE, false },
        { "off", BDRV_O_NOCACHE, false },
        { "directsync", BDRV_O_NOCACHE, true },
        { "writeback", 0, false },
        { "writethrough", 0, true },
        { "unsafe", BDRV_O_NO_FLUSH, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            *flags = (*flags & ~BDRV_O_CACHE_MASK) | modes[i].flags;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
}
