/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Differential tests: the same random work is done by our tools and by the peer's on images
 * of the same random geometry, and each looks at what the other has written.
 *
 *     directory "ours"                        directory "peer"
 *     miniblk-img create  img                 qemu-img create  img
 *     miniblk-io  <script 1                   qemu-io     <script 1
 *     qemu-io     <script 2                   miniblk-io  <script 2      ... and so on
 *                      both tools: check, map, info; compare one with the other
 *
 * A test is a few rounds, always the same ones: what is found does not depend on the day or on how
 * fast the machine is. MINIBLK_DIFF_SECONDS=N searches, with seeds that nobody has tried. The seed
 * of a round that fails is printed; MINIBLK_SEED=N repeats that round alone.
 */
#ifndef TESTS_INTEROP_DIFF_H
#define TESTS_INTEROP_DIFF_H

#include "tests/lib/harness.h"

typedef struct DiffGeometry {
    int64_t cluster_bytes;
    int64_t length;             /* of the guest's disk, as the scripts change it */
    bool v2;
    bool compress;              /* compressed writes make sense */
    bool snapshots;             /* can be taken */
    bool same_layers;           /* the work alone says what is defined; else a tool may choose */
    int snapshots_taken;        /* after the first one the length stays */
    GString *options;           /* of create, for -o */
    char *base_create;          /* shell text that makes the backing file, "" without */
    char *backing;              /* words of create that name it, "" without */
} DiffGeometry;

typedef enum DiffTool { DIFF_OURS, DIFF_PEER } DiffTool;

/* Whether the peer is there; else the running test is skipped. */
bool diff_need_peer(void);
/*
 * Run ROUND(RAND) in an empty working directory, ROUNDS times with seeds of its own, or as the
 * environment says. A round that fails stops the test.
 */
void diff_rounds(int rounds, void (*round)(GRand *rand));

/* A geometry both can make. */
DiffGeometry *diff_geometry_new(GRand *rand);
void diff_geometry_free(DiffGeometry *g);
/* Make DIR with the image "img" in it, and its backing file if it has one. */
void diff_create(DiffTool tool, const DiffGeometry *g, const char *dir);
/*
 * N random commands of qemu-io, one a line. Those that begin with DIFF_COMPRESS are for ours
 * only, and the peer gets diff_plain_script(): it (7.2) corrupts images when compressed
 * clusters are written between other work.
 */
#define DIFF_COMPRESS "write -c"
char *diff_plain_script(const char *script);
char *diff_script(GRand *rand, DiffGeometry *g, int n);
/* A random command of qemu-img about snapshots of "img"; NULL when there is none to be made. */
char *diff_snapshot_command(GRand *rand, DiffGeometry *g);

/*
 * Run COMMAND (shell text, printf-style, with qemu-img or qemu-io for the program) in DIR by
 * one tool: what it printed on both streams, with what differs between releases and runs
 * cut out. *STATUS may be NULL.
 */
char *diff_run(DiffTool tool, int *status, const char *dir, const char *fmt, ...)
    G_GNUC_PRINTF(4, 5);
/* Both must print the same and end with 0; false with what is wrong told. */
bool diff_good(const char *dir, const char *command);
/* OURS and PEER must be the same text; else false with the first lines that differ told. */
bool diff_texts(const char *what, const char *ours, const char *peer);
/*
 * A JSON map with whatever may be told in one or in several extents told in one, and without
 * the places in the file of what holds no data: the peer tells some of them. Without PLACES
 * only what is defined where, not whether by data or as zeroes. TEXT that is no such map is
 * returned as it is.
 */
char *diff_canonical_map(const char *text, bool places);

#endif
