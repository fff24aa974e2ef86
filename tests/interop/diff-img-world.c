/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The images of test-diff-img, and choices among them; see diff-img.h. */
#include "tests/interop/diff-img.h"

#include <string.h>

/* ---- choices ---------------------------------------------------------------------- */

int w_roll(World *w, int n)
{
    return g_rand_int_range(w->rand, 0, n);
}

bool w_one_in(World *w, int n)
{
    return w_roll(w, n) == 0;
}

const char *w_pick(World *w, const char *const *words)
{
    return words[w_roll(w, (int)g_strv_length((char **)words))];
}

Image *w_image(World *w)
{
    Image *image = NULL;

    for (int i = 0; i < 10; i++) {
        image = &w->images[w_roll(w, W_IMAGES)];
        if (image->exists) {
            return image;
        }
    }
    return image;
}

Image *w_qcow2(World *w)
{
    Image *image = NULL;

    for (int i = 0; i < 20; i++) {
        image = w_image(w);
        if (image->exists && !image->raw) {
            return image;
        }
    }
    return image;
}

/* An image that is behind another one is not changed: each tool chooses what shows through. */
static bool is_below(World *w, const Image *image)
{
    for (int i = 0; i < W_IMAGES; i++) {
        if (w->images[i].behind == image) {
            return true;
        }
    }
    return false;
}

Image *w_place(World *w)
{
    Image *image;

    do {
        image = &w->images[w_roll(w, W_IMAGES)];
    } while (is_below(w, image));
    return image;
}

Image *w_target(World *w, bool qcow2)
{
    Image *image;

    for (int i = 0; i < 20; i++) {
        image = w_place(w);
        if (image->exists && !(qcow2 && image->raw)) {
            break;
        }
    }
    return image;
}

const Image *w_backing(World *w, const Image *image)
{
    const Image *backing = w_image(w), *i = backing;

    while (i && i != image) {
        i = i->behind;
    }
    return i ? NULL : backing;
}

const char *w_format(const Image *image)
{
    return image->raw ? "raw" : "qcow2";
}

gint64 w_length(World *w)
{
    gint64 length = (gint64)w_roll(w, 12 << 20) / 65536 * 65536;

    return MAX(length + 512 * (w_one_in(w, 3) ? w_roll(w, 128) : 0), 512);
}

/* ---- the set of images ------------------------------------------------------------ */

/* A bit for each of the BITMAPS that the tool tells of, as in Image. */
static guint bitmap_bits(json_t *bitmaps)
{
    json_t *bitmap;
    guint bits = 0;
    size_t i;

    json_array_foreach(bitmaps, i, bitmap) {
        const char *name = json_string_value(json_object_get(bitmap, "name"));
        bits |= 1u << g_ascii_digit_value(name[1]);
    }
    return bits;
}

static Image *image_named(World *w, const char *name)
{
    for (int i = 0; i < W_IMAGES; i++) {
        if (!strcmp(w->images[i].name, name)) {
            return &w->images[i];
        }
    }
    return NULL;
}

void w_look(World *w, Image *image)
{
    g_autofree char *text = NULL;
    t_run2(&text, NULL, "cd peer && qemu-img info --output=json %s", image->name);
    json_t *info = json_loads(text, 0, NULL);
    const char *behind = json_string_value(json_object_get(info, "backing-filename"));

    image->exists = info != NULL;
    image->raw = !g_strcmp0(json_string_value(json_object_get(info, "format")), "raw");
    json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    image->zstd = !g_strcmp0(json_string_value(json_object_get(specific, "compression-type")),
                             "zstd");
    image->bitmaps = bitmap_bits(json_object_get(specific, "bitmaps"));
    image->snapshots = json_object_get(info, "snapshots") != NULL;
    image->v2 = !g_strcmp0(json_string_value(json_object_get(specific, "compat")), "0.10");
    image->one_bit = json_integer_value(json_object_get(specific, "refcount-bits")) == 1;
    gint64 length = json_integer_value(json_object_get(info, "virtual-size"));
    image->resized = image->snapshots && (image->resized || length != image->length);
    image->length = length;
    image->cluster_bytes = json_integer_value(json_object_get(info, "cluster-size"));
    image->behind = behind ? image_named(w, behind) : NULL;
    json_decref(info);
}

void w_init(World *w, GRand *rand)
{
    *w = (World){ .rand = rand };
    for (int i = 0; i < W_IMAGES; i++) {
        w->images[i].name[0] = (char)('a' + i);
    }
}
