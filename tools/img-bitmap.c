/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img bitmap: change the dirty bitmaps that an image keeps. */
#include "miniblk/osdep.h"
#include "miniblk/dirty-bitmap.h"
#include "tools/img.h"

#define GRANULARITY_BYTES_MIN 512

enum { OPT_ADD = IMG_OPT_LAST, OPT_REMOVE, OPT_CLEAR, OPT_ENABLE, OPT_DISABLE, OPT_MERGE };

typedef struct BitmapRequest {
    ImgSource src;
    ImgSource merge_src;        /* -b; without a name, bitmaps are merged within the image */
    const char *bitmap;
    int64_t granularity_bytes;  /* 0: as suits the image */
} BitmapRequest;

/* One thing to do, in the order of the command line. */
typedef struct BitmapAction {
    int option;
    const char *merge_from;     /* name of a bitmap */
} BitmapAction;

static const char *action_name(int option)
{
    static const char *const names[] = {
        [OPT_ADD - OPT_ADD] = "add", [OPT_REMOVE - OPT_ADD] = "remove",
        [OPT_CLEAR - OPT_ADD] = "clear", [OPT_ENABLE - OPT_ADD] = "enable",
        [OPT_DISABLE - OPT_ADD] = "disable", [OPT_MERGE - OPT_ADD] = "merge",
    };

    return names[option - OPT_ADD];
}

/* ---- what convert does, too ------------------------------------------------------- */

BdrvDirtyBitmap *img_add_bitmap(BlockDriverState *bs, const char *name, int64_t granularity,
                                Error **errp)
{
    if (!*name) {
        error_setg(errp, "Bitmap name cannot be empty");
        return NULL;
    }
    if (granularity == 0) {
        granularity = bdrv_get_default_bitmap_granularity(bs);
    }
    if (granularity < GRANULARITY_BYTES_MIN || granularity > UINT32_MAX ||
        (granularity & (granularity - 1))) {
        error_setg(errp, "Granularity must be power of 2 and at least %d",
                   GRANULARITY_BYTES_MIN);
        return NULL;
    }
    if (bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return NULL;
    }
    if (!bdrv_can_store_new_dirty_bitmap(bs, name, (uint32_t)granularity, errp)) {
        return NULL;
    }
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(bs, (uint32_t)granularity, name,
                                                       errp);
    if (bitmap) {
        bdrv_dirty_bitmap_set_persistence(bitmap, true);
    }
    return bitmap;
}

bool img_store_bitmaps(BlockBackend *blk, Error **errp)
{
    return blk_set_perm(blk, 0, BLK_PERM_ALL, errp) >= 0 &&
           bdrv_inactivate(blk_bs(blk), errp) >= 0;
}

/* ---- actions ---------------------------------------------------------------------- */

/* Find NAME in BS; NULL with ERRP set, also when FORBIDDEN (BDRV_BITMAP_*) applies to it. */
static BdrvDirtyBitmap *find(BlockDriverState *bs, const char *name, uint32_t forbidden,
                             Error **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    if (!bitmap) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    return bdrv_dirty_bitmap_check(bitmap, forbidden, errp) < 0 ? NULL : bitmap;
}

static bool remove_bitmap(const BitmapRequest *req, BlockDriverState *bs, Error **errp)
{
    BdrvDirtyBitmap *bitmap = find(bs, req->bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp);

    if (!bitmap || (bdrv_dirty_bitmap_get_persistence(bitmap) &&
                    bdrv_remove_persistent_dirty_bitmap(bs, req->bitmap, errp) < 0)) {
        return false;
    }
    bdrv_release_dirty_bitmap(bitmap);
    return true;
}

static bool merge(const BitmapRequest *req, BlockDriverState *bs, BlockBackend *merge_blk,
                  const char *from, Error **errp)
{
    BdrvDirtyBitmap *dest = find(bs, req->bitmap, BDRV_BITMAP_DEFAULT, errp);
    BdrvDirtyBitmap *src = dest ? find(merge_blk ? blk_bs(merge_blk) : bs, from,
                                       BDRV_BITMAP_ALLOW_RO, errp) : NULL;

    return src && bdrv_merge_dirty_bitmap(dest, src, NULL, errp);
}

static bool do_action(const BitmapRequest *req, const BitmapAction *action, BlockBackend *blk,
                      BlockBackend *merge_blk, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    BdrvDirtyBitmap *bitmap;

    switch (action->option) {
    case OPT_ADD:
        return img_add_bitmap(bs, req->bitmap, req->granularity_bytes, errp) != NULL;
    case OPT_REMOVE:
        return remove_bitmap(req, bs, errp);
    case OPT_MERGE:
        return merge(req, bs, merge_blk, action->merge_from, errp);
    }
    bitmap = find(bs, req->bitmap,
                  action->option == OPT_CLEAR ? BDRV_BITMAP_DEFAULT : BDRV_BITMAP_ALLOW_RO,
                  errp);
    if (!bitmap) {
        return false;
    }
    if (action->option == OPT_CLEAR) {
        bdrv_clear_dirty_bitmap(bitmap, NULL);
    } else if (action->option == OPT_ENABLE) {
        bdrv_enable_dirty_bitmap(bitmap);
    } else {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return true;
}

static bool run(const BitmapRequest *req, const GArray *actions)
{
    BlockBackend *merge_blk = NULL;
    Error *err = NULL;
    bool ok = true;
    BlockBackend *blk = img_open(&req->src, BDRV_O_RDWR);

    if (!blk) {
        return false;
    }
    if (req->merge_src.name) {
        /* Without what is behind it, which may be the image that is written to. */
        merge_blk = img_open(&req->merge_src, BDRV_O_NO_BACKING | BDRV_O_NO_IO);
        ok = merge_blk != NULL;
    }
    for (guint i = 0; ok && i < actions->len; i++) {
        const BitmapAction *action = &g_array_index(actions, BitmapAction, i);
        ok = do_action(req, action, blk, merge_blk, &err);
        if (!ok) {
            error_reportf_err(err, "Operation %s on bitmap %s failed: ",
                              action_name(action->option), req->bitmap);
        }
    }
    if (ok && !img_store_bitmaps(blk, &err)) {
        error_reportf_err(err, "Could not store bitmap %s: ", req->bitmap);
        ok = false;
    }
    blk_unref(merge_blk);
    blk_unref(blk);
    return ok;
}

/* ---- command line ----------------------------------------------------------------- */

/* Options that need each other, or are missing; NULL when all is well. */
static const char *find_conflict(const BitmapRequest *req, const GArray *actions,
                                 int argument_count, bool granularity_given)
{
    bool adds = false, merges = false;

    for (guint i = 0; i < actions->len; i++) {
        int option = g_array_index(actions, BitmapAction, i).option;
        adds |= option == OPT_ADD;
        merges |= option == OPT_MERGE;
    }
    if (actions->len == 0) {
        return "Need at least one of --add, --remove, --clear, --enable, --disable, or "
               "--merge";
    }
    if (argument_count != 2) {
        return "Expecting filename and bitmap name";
    }
    if (granularity_given && !adds) {
        return "granularity only supported with --add";
    }
    if (req->merge_src.format && !req->merge_src.name) {
        return "-F only supported with -b";
    }
    if (req->merge_src.name && !merges) {
        return "Merge bitmap source file only supported with --merge";
    }
    return NULL;
}

int img_bitmap(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "add", no_argument, NULL, OPT_ADD },
        { "remove", no_argument, NULL, OPT_REMOVE },
        { "clear", no_argument, NULL, OPT_CLEAR },
        { "enable", no_argument, NULL, OPT_ENABLE },
        { "disable", no_argument, NULL, OPT_DISABLE },
        { "merge", required_argument, NULL, OPT_MERGE },
        { "granularity", required_argument, NULL, 'g' },
        { "source-file", required_argument, NULL, 'b' },
        { "source-format", required_argument, NULL, 'F' },
        { NULL },
    };
    g_autoptr(GArray) actions = g_array_new(false, false, sizeof(BitmapAction));
    BitmapRequest req = { 0 };
    bool granularity_given = false;
    int c;

    while ((c = img_getopt(argc, argv, "b:f:F:g:", longopts)) != -1) {
        switch (c) {
        case 'b': req.merge_src.name = optarg; break;
        case 'f': req.src.format = optarg; break;
        case 'F': req.merge_src.format = optarg; break;
        case 'g':
            granularity_given = true;
            req.granularity_bytes = img_parse_size("granularity", optarg, 0, INT64_MAX);
            if (req.granularity_bytes < 0) {
                return EXIT_FAILURE;
            }
            break;
        case IMG_OPT_IMAGE_OPTS: req.src.image_opts = true; break;
        default: {
            BitmapAction action = { c, optarg };
            g_array_append_val(actions, action);
            break;
        }
        }
    }
    const char *conflict = find_conflict(&req, actions, argc - optind, granularity_given);
    if (conflict) {
        error_report("%s", conflict);
        return EXIT_FAILURE;
    }
    if (img_source_conflict(&req.src)) {
        return EXIT_FAILURE;
    }
    req.src.name = argv[optind];
    req.bitmap = argv[optind + 1];
    return run(&req, actions) ? EXIT_SUCCESS : EXIT_FAILURE;
}
