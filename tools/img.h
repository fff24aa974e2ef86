/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the subcommands of miniblk-img share. A subcommand is one file and one line in the
 * table of miniblk-img.c; it gets its own argc/argv (argv[0] is its name), and returns the
 * exit status. Everything here runs in the main thread.
 */
#ifndef TOOLS_IMG_H
#define TOOLS_IMG_H

#include <getopt.h>
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"

typedef struct ImgCommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *syntax;         /* options and arguments, for the help text */
} ImgCommand;

int img_amend(int argc, char **argv);
int img_bench(int argc, char **argv);
int img_bitmap(int argc, char **argv);
int img_check(int argc, char **argv);
int img_commit(int argc, char **argv);
int img_compare(int argc, char **argv);
int img_convert(int argc, char **argv);
int img_create(int argc, char **argv);
int img_dd(int argc, char **argv);
int img_info(int argc, char **argv);
int img_map(int argc, char **argv);
int img_measure(int argc, char **argv);
int img_rebase(int argc, char **argv);
int img_resize(int argc, char **argv);
int img_snapshot(int argc, char **argv);

/* ---- command line (img-options.c) ------------------------------------------------- */

/* Values of long options that have no letter. */
enum {
    IMG_OPT_OUTPUT = 256,
    IMG_OPT_BACKING_CHAIN,
    IMG_OPT_OBJECT,
    IMG_OPT_IMAGE_OPTS,
    IMG_OPT_TARGET_IMAGE_OPTS,
    IMG_OPT_TARGET_IS_ZERO,
    IMG_OPT_SALVAGE,
    IMG_OPT_BITMAPS,
    IMG_OPT_SKIP_BROKEN_BITMAPS,
    IMG_OPT_START_OFFSET,
    IMG_OPT_MAX_LENGTH,
    IMG_OPT_SIZE,
    IMG_OPT_SHRINK,
    IMG_OPT_PREALLOCATION,
    IMG_OPT_PROGRESS,
    IMG_OPT_LAST,               /* from here on for one command alone */
};

/* Print the message and where to find help; exit status 1. */
void img_usage_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2) QEMU_NORETURN;
/*
 * getopt_long(), except that -h (and --help) prints the help text and exits, that a bad option
 * ends the program with a message, and that every --object is made on the way.
 */
int img_getopt(int argc, char **argv, const char *shortopts, const struct option *longopts);
/* Make the object of an --object option; false with a message printed. */
bool img_add_object(const char *definition);
void img_print_help(void);

typedef enum ImgOutput { IMG_OUTPUT_HUMAN, IMG_OUTPUT_JSON } ImgOutput;
/* "human" or "json"; false with a message printed. */
bool img_parse_output(const char *arg, ImgOutput *output);
/*
 * The size in VALUE, with an optional fraction and suffix; NAME says what it is. Between MIN
 * and MAX, or -1 with a message printed.
 */
int64_t img_parse_size(const char *name, const char *value, int64_t min, int64_t max);
/* A cache mode's name to BDRV_O_* in *FLAGS and whether each write must be stable. */
bool img_parse_cache(const char *mode, int *flags, bool *writethrough);
/* printf() unless QUIET. */
void img_printf(bool quiet, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* ---- images (img-open.c) ---------------------------------------------------------- */

typedef struct ImgSource {
    const char *name;           /* filename, or an option string with IMAGE_OPTS */
    bool image_opts;
    const char *format;         /* NULL: probe */
    bool force_share;           /* -U */
    bool look;                  /* like it, unless the options demand to write or to lock */
    bool read_in_use;           /* read-only: if somebody writes to it, a warning will do */
} ImgSource;

/* Whether SRC names a format and an option string; a message is printed then. */
bool img_source_conflict(const ImgSource *src);
/* SRC's name is the one argument that is left; exits when SRC is not named once, and clearly. */
void img_take_filename(ImgSource *src, int argc, char **argv);
/*
 * Open SRC; NULL with "Could not open 'NAME': ..." printed. FLAGS: BDRV_O_*; with
 * BDRV_O_NO_SHARE nobody may write to it meanwhile, even where the format would let them.
 */
BlockBackend *img_open(const ImgSource *src, int flags);
/* The same; NULL with ERRP set. */
BlockBackend *img_try_open(const ImgSource *src, int flags, Error **errp);
/* NAME as seen from the place of file BASE. Newly allocated. */
char *img_combine_names(const char *base, const char *name);
/*
 * The name under which a backing file recorded as BACKING in BS is found, from the place of
 * BS. Newly allocated; NULL with ERRP set when it cannot be told.
 */
char *img_resolve_backing_name(BlockDriverState *bs, const char *backing, Error **errp);
/* The same for the one that is recorded; NULL without ERRP set when there is none. */
char *img_full_backing_name(BlockDriverState *bs, Error **errp);
/* Length in bytes, a multiple of the sector size; < 0: a message naming NAME was printed. */
int64_t img_length(BlockBackend *blk, const char *name);
/* Whether BLK's image, or one behind it, is kept in the regular file FILENAME. */
bool img_is_same_file(BlockBackend *blk, const char *filename);
/*
 * Make what was written as durable as the cache mode promises, as closing would not tell of a
 * failure; false after a message naming NAME.
 */
bool img_flush(BlockBackend *blk, const char *name);
/* Run the main loop until *PENDING is 0. */
void img_wait(const int *pending);

/* ---- create options (img-create-opts.c) ------------------------------------------- */

/*
 * Append ARG to the comma-separated list *OPTIONS (NULL at first); false with a message
 * when ARG cannot be part of a list.
 */
bool img_add_options(char **options, const char *arg);
/*
 * The next element of *LIST, doubled commas made single (newly allocated), *LIST then being
 * the rest; NULL at the end.
 */
char *img_next_element(const char **list);
/* Whether the list asks for help ("help" or "?" alone between commas). */
bool img_options_ask_help(const char *options);
/* Print what FORMAT understands, for an image FILENAME when one is given. */
int img_print_create_options(const char *filename, const char *format);
/*
 * The names in LIST, options of DRV, with their types and what they mean; without WITH_FILE
 * those are left out that DRV passes on to the file below.
 */
void img_print_option_list(const BlockDriver *drv, const char *const *list, bool with_file);
/*
 * Both drivers that make an image FILENAME of FORMAT; false with ERRP set when one is
 * unknown or cannot create.
 */
bool img_create_drivers(const char *filename, const char *format, BlockDriver **drv,
                        BlockDriver **proto_drv, Error **errp);
/* Whether DRV knows create option NAME. */
bool img_knows_option(const BlockDriver *drv, const char *name);
/*
 * The options in LIST (NULL: none) for DRV, checked and in canonical spelling (sizes in
 * bytes, switches "on" or "off"); a new object of strings. NULL with ERRP set.
 */
QDict *img_parse_create_options(const BlockDriver *drv, const char *list, Error **errp);
/* " name=value" of each option that is set or has a default, in the peer's order. */
char *img_describe_create_options(const BlockDriver *drv, const QDict *opts);

/* ---- progress (img-progress.c) ---------------------------------------------------- */

typedef enum ImgProgress {
    IMG_PROGRESS_OFF, IMG_PROGRESS_HUMAN, IMG_PROGRESS_JSON,
} ImgProgress;
/* "human" (also for NULL) or "json"; false with a message printed. */
bool img_parse_progress(const char *arg, ImgProgress *kind);
/*
 * A percentage, printed on stdout each time it has grown by STEP_PERCENT; with
 * IMG_PROGRESS_OFF on stderr, when a SIGUSR1 (or, where there is one, SIGINFO) has arrived.
 */
void img_progress_start(ImgProgress kind, double step_percent);
void img_progress_set(double percent);
/* To be called in any case, before the command's last words. */
void img_progress_end(void);

/* ---- bitmaps (img-bitmap.c) ------------------------------------------------------- */

/*
 * A new persistent bitmap of BS; GRANULARITY in bytes, 0: as suits the image. NULL with ERRP
 * set. It is in the image after img_store_bitmaps().
 */
BdrvDirtyBitmap *img_add_bitmap(BlockDriverState *bs, const char *name, int64_t granularity,
                                Error **errp);
/*
 * Write BLK's bitmaps into the image, which closing would do without telling of a failure.
 * The image cannot be written to any more. False with ERRP set.
 */
bool img_store_bitmaps(BlockBackend *blk, Error **errp);

/* ---- snapshots (img-snapshot.c) --------------------------------------------------- */

/*
 * Have BS show its snapshot PARAM: "snapshot.id=ID,snapshot.name=NAME" (one of them may be
 * missing), or an id or a name. False after a message.
 */
bool img_load_snapshot(BlockDriverState *bs, const char *param);

/* Those in BS as an array of objects; NULL when there are none. */
json_t *img_snapshots(BlockDriverState *bs);
/* Such an array (NULL: nothing) as a table, INDENT spaces to the right. */
void img_print_snapshots(const json_t *snapshots, int indent);

/* ---- text (img-text.c) ------------------------------------------------------------ */

/* "1.38 MiB": three significant digits. Newly allocated. */
char *img_size_text(uint64_t bytes);
/* VALUE as JSON text, four spaces a level, one member or element a line. */
void img_print_json(const json_t *value);
/* VALUE as nested "name: value" lines, INDENT spaces and a level of four more each. */
void img_print_nested(const json_t *value, int indent);
/* A JSON string, made valid UTF-8. */
json_t *img_json_string(const char *s);

#endif
