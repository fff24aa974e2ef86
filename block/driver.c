/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of drivers. Written before main() (registration) and by bdrv_init(). */
#include "block/block-internal.h"
#include "miniblk/module.h"

static QLIST_HEAD(, BlockDriver) drivers = QLIST_HEAD_INITIALIZER(drivers);

void bdrv_init(void)
{
    module_call_init(MODULE_INIT_BLOCK);
}

void bdrv_register(BlockDriver *bdrv)
{
    g_assert(bdrv->format_name);
    QLIST_INSERT_HEAD(&drivers, bdrv, list);
}

BlockDriver *bdrv_next_driver(BlockDriver *drv)
{
    return drv ? QLIST_NEXT(drv, list) : QLIST_FIRST(&drivers);
}

BlockDriver *bdrv_find_format(const char *format_name)
{
    BlockDriver *drv;
    QLIST_FOREACH(drv, &drivers, list) {
        if (!strcmp(drv->format_name, format_name)) {
            return drv;
        }
    }
    return NULL;
}

/* Length of a protocol prefix without the colon; 0 if FILENAME has none. */
static size_t protocol_prefix(const char *filename)
{
    size_t len = strcspn(filename, ":/");
    return filename[len] == ':' ? len : 0;
}

BlockDriver *bdrv_find_protocol(const char *filename, bool allow_protocol_prefix,
                                Error **errp)
{
    BlockDriver *drv, *best = NULL;
    int best_score = 0;
    size_t prefix = allow_protocol_prefix ? protocol_prefix(filename) : 0;

    QLIST_FOREACH(drv, &drivers, list) {
        if (prefix && drv->protocol_name && strlen(drv->protocol_name) == prefix &&
            !strncmp(drv->protocol_name, filename, prefix)) {
            return drv;
        }
        int score = !prefix && drv->bdrv_probe_device ? drv->bdrv_probe_device(filename) : 0;
        if (score > best_score) {
            best_score = score;
            best = drv;
        }
    }
    if (prefix) {
        error_setg(errp, "Unknown protocol '%.*s'", (int)prefix, filename);
        return NULL;
    }
    return best ? best : bdrv_find_format("file");
}
