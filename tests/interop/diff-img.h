/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random commands of the image tool about a few images, for test-diff-img: what there is
 * (diff-img-world.c), and what can be done with it (diff-img-commands.c).
 */
#ifndef TESTS_INTEROP_DIFF_IMG_H
#define TESTS_INTEROP_DIFF_IMG_H

#include "tests/interop/diff.h"

enum { W_IMAGES = 6 };

typedef struct Image {
    char name[2];
    bool exists;                /* and can be opened without what is behind it */
    bool raw;
    bool zstd, v2;
    bool one_bit;               /* refcounts */
    bool loose;                 /* what of it is defined differs, as it is a copy */
    bool moved;                 /* a tool chose which part of a cluster it writes there */
    const struct Image *behind; /* NULL: nothing, or something else */
    bool snapshots;
    bool resized;               /* since it has some: the peer reads them in the new length */
    guint bitmaps;              /* bit N: has one called "bN" */
    gint64 length, cluster_bytes;
} Image;

typedef struct World {
    GRand *rand;
    Image images[W_IMAGES];
} World;

/* One command: what is run, and which image it may change (NULL: it looks only). */
typedef struct Command {
    GString *text;
    Image *target, *second_target;
    bool copies;                /* a new image is made, or what is in one is chosen anew */
    bool moves;                 /* data from one image to another */
} Command;

/* ---- the images (diff-img-world.c) ------------------------------------------------- */

/* Images "a", "b", ..., none of which is there. */
void w_init(World *w, GRand *rand);
/* See what IMAGE is now in the directory "peer". */
void w_look(World *w, Image *image);

/* At least 0, below N; true once in N times; one of WORDS. */
int w_roll(World *w, int n);
bool w_one_in(World *w, int n);
const char *w_pick(World *w, const char *const *words);
#define W_PICK(w, ...) w_pick(w, (const char *const[]){ __VA_ARGS__, NULL })
/* Bytes of a disk. */
gint64 w_length(World *w);

/* An image; mostly one that is there, and mostly qcow2. */
Image *w_image(World *w);
Image *w_qcow2(World *w);
/* One to be overwritten: no other one depends on it. There is always one. */
Image *w_place(World *w);
/* One to be changed: likewise, mostly one that is there, and qcow2 if QCOW2. */
Image *w_target(World *w, bool qcow2);
/*
 * One that may get behind IMAGE, or NULL: not such that IMAGE is behind it, which the peer
 * does not survive.
 */
const Image *w_backing(World *w, const Image *image);
const char *w_format(const Image *image);

/* ---- the commands (diff-img-commands.c) -------------------------------------------- */

/* The Nth command of a round: at first images are made and filled. To be freed. */
Command *w_command(World *w, int n);
void w_command_free(Command *c);

#endif
