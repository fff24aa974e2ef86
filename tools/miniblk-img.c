/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img: make, look at, copy, compare and repair disk images. It answers to the name
 * it is called by, so that a link named qemu-img serves scripts that expect that one.
 */
#include "miniblk/osdep.h"
#include "tools/img.h"
#include "tools/streams.h"

/* The release whose command line and output this is. */
#define PEER_VERSION "8.2.0"

/* A new subcommand is a line here, a declaration in img.h, and a file. */
static const ImgCommand commands[] = {
    { "amend", img_amend,
      "[--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] "
      "-o options filename" },
    { "bench", img_bench,
      "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] "
      "[--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] "
      "[-t cache] [-w] [-U] filename" },
    { "bitmap", img_bitmap,
      "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... "
      "[-b source_file [-F source_fmt]] [-g granularity] [--object objectdef] "
      "[--image-opts | -f fmt] filename bitmap" },
    { "check", img_check,
      "[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] "
      "[-r [leaks | all]] [-T src_cache] [-U] filename" },
    { "commit", img_commit,
      "[--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] "
      "[-r rate_limit] [-d] [-p] filename" },
    { "compare", img_compare,
      "[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] "
      "[-U] filename1 filename2" },
    { "convert", img_convert,
      "[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] "
      "[--bitmaps] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] "
      "[-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] "
      "[-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename "
      "[filename2 [...]] output_filename" },
    { "create", img_create,
      "[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] "
      "[-o options] filename [size]" },
    { "dd", img_dd,
      "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] "
      "[skip=blocks] if=input of=output" },
    { "info", img_info,
      "[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] "
      "filename" },
    { "map", img_map,
      "[--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] "
      "[--max-length=len] [--output=ofmt] [-U] filename" },
    { "measure", img_measure,
      "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] "
      "[--image-opts] [-f fmt] [-l snapshot_param] filename]" },
    { "rebase", img_rebase,
      "[--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] "
      "[-p] [-u] [-c] -b backing_file [-F backing_fmt] filename" },
    { "resize", img_resize,
      "[--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] "
      "[--shrink] filename [+ | -]size" },
    { "snapshot", img_snapshot,
      "[--object objectdef] [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | "
      "-d snapshot] filename" },
};

static const char help_parameters[] =
    "Command parameters:\n"
    "  'filename' is a disk image filename\n"
    "  'fmt' is the disk image format. It is guessed when it is not given\n"
    "  'cache' is how the output image is written: 'none', 'writeback' (default, except\n"
    "    for convert), 'writethrough', 'directsync' or 'unsafe' (default for convert)\n"
    "  'src_cache' is the same for the images that are read\n"
    "  'size' is the disk image size in bytes, with an optional suffix 'k' or 'K' (1024),\n"
    "    'M' (1024k), 'G' (1024M), 'T' (1024G), 'P' (1024T) or 'E' (1024P)\n"
    "  'output_fmt' is the format of the output image (default raw)\n"
    "  'options' are options of the image format, name=value, separated by commas;\n"
    "    -o help lists them\n"
    "  '-c' compresses the output image\n"
    "  '-u' allows a backing file that cannot be opened\n"
    "  '-h' with or without a command shows this help\n"
    "  '-p' shows progress, '--progress=json' does so for programs; without them, SIGUSR1\n"
    "    prints one line of it on stderr\n"
    "  '-q' prints nothing but errors\n"
    "  '-S' is how many consecutive zero bytes (default 4k) become a hole in the output;\n"
    "    0: none do, the output is fully allocated\n"
    "  '-n' writes to an image that exists\n"
    "  '-m' is how many requests are in flight during convert (1 to 16, default 8)\n"
    "  '-W' lets convert write out of order\n"
    "  '-C' lets the host copy raw files; zeroes in the data are not looked for then\n"
    "  'snapshot_param' is an ID or name, or 'snapshot.id=[ID],snapshot.name=[NAME]'\n"
    "  '--bitmaps' copies persistent bitmaps, too; with '--skip-broken-bitmaps' without\n"
    "    those that are inconsistent\n"
    "  '-u' in rebase changes only the name of the backing file; '-c' compresses what is\n"
    "    copied\n"
    "  '-d' in commit leaves the image as it is; '-b' is an image further behind\n"
    "  '-r leaks' repairs leaked clusters, '-r all' also other errors\n"
    "  '-s' makes compare fail on different sizes or allocation, too\n"
    "  '-l', '-c', '-a', '-d' list, create, apply and delete snapshots\n"
    "  'if=', 'of=', 'bs=', 'count=', 'skip=' are as for dd(1); bs is 512 if not given\n"
    "  '--output' is 'human' or 'json'\n";

static gint compare_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print_version(void)
{
    printf("%s version %s (miniblk %s)\n", error_get_progname(), PEER_VERSION,
           MINIBLK_VERSION);
}

static void print_formats(void)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (BlockDriver *drv = bdrv_next_driver(NULL); drv; drv = bdrv_next_driver(drv)) {
        if (!g_ptr_array_find_with_equal_func(names, drv->format_name, g_str_equal, NULL)) {
            g_ptr_array_add(names, (gpointer)drv->format_name);
        }
    }
    g_ptr_array_sort(names, compare_text);
    printf("Supported formats:");
    for (guint i = 0; i < names->len; i++) {
        printf(" %s", (const char *)g_ptr_array_index(names, i));
    }
    printf("\n");
}

void img_print_help(void)
{
    print_version();
    printf("usage: %s [standard options] command [command options]\n"
           "Disk image utility\n\n"
           "    '-h', '--help'       display this help and exit\n"
           "    '-V', '--version'    output version information and exit\n"
           "    '-T', '--trace'      accepted for compatibility; there are no trace events\n"
           "\nCommand syntax:\n", error_get_progname());
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        printf("  %s %s\n", commands[i].name, commands[i].syntax);
    }
    printf("\n%s\n", help_parameters);
    print_formats();
}

/* The options before the command. */
static void parse_standard_options(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "trace", required_argument, NULL, 'T' },
        { NULL },
    };
    /* '+': stop at the command, whose options are its own. */
    for (int c; (c = getopt_long(argc, argv, "+:hVT:", longopts, NULL)) != -1;) {
        switch (c) {
        case ':':
            img_usage_error("missing argument for option '%s'", argv[optind - 1]);
        case '?':
            img_usage_error("unrecognized option '%s'", argv[optind - 1]);
        case 'h':
            img_print_help();
            exit(EXIT_SUCCESS);
        case 'V':
            print_version();
            exit(EXIT_SUCCESS);
        case 'T':
            warn_report("trace event '%s' does not exist", optarg);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    g_autofree char *progname = g_path_get_basename(argv[0] ? argv[0] : "miniblk-img");

    streams_guard();
    error_set_progname(progname);
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    parse_standard_options(argc, argv);
    if (optind >= argc) {
        img_usage_error("Not enough arguments");
    }

    const char *name = argv[optind];
    argc -= optind;
    argv += optind;
    optind = 0;         /* makes getopt start afresh with the command's own options */
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(commands[i].name, name)) {
            int status = commands[i].run(argc, argv);
            if (!streams_flush()) {
                status = EXIT_FAILURE;
            }
            bdrv_close_all();
            return status;
        }
    }
    img_usage_error("Command not found: %s", name);
}
