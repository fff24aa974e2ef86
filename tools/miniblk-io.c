/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-io: make single requests to an image and look at what comes back. It answers to the
 * name it is called by, so that a link named qemu-io serves scripts that expect that one.
 */
#include "miniblk/osdep.h"
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qmp/qmp.h"
#include "tools/img.h"
#include "tools/io.h"
#include "tools/streams.h"

/* The release whose command line and output this is. */
#define PEER_VERSION "8.2.0"

/* Longer lines are no commands. */
#define LINE_BYTES_MAX (1 << 20)

enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS };

IoSession io;

/* ---- commands from stdin ---------------------------------------------------------- */

typedef struct Input {
    GString *buf;               /* what has been read and not been run */
    bool watched;               /* stdin is something that one can wait for */
    bool readable;
    bool eof;
} Input;

static void input_readable(void *opaque)
{
    Input *in = opaque;

    in->readable = true;
    qemu_set_fd_handler(STDIN_FILENO, NULL, NULL, NULL);
}

/* Requests in flight go on while nothing is there to be read. */
static void wait_for_input(Input *in)
{
    if (!in->watched) {
        main_loop_wait(true);
        return;
    }
    in->readable = false;
    qemu_set_fd_handler(STDIN_FILENO, input_readable, NULL, in);
    while (!in->readable) {
        fflush(stdout);         /* reports of those that have ended */
        main_loop_wait(false);
    }
}

static void read_more(Input *in)
{
    char chunk[4096];
    ssize_t n;

    wait_for_input(in);
    do {
        n = read(STDIN_FILENO, chunk, sizeof(chunk));
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        g_string_append_len(in->buf, chunk, n);
    } else {
        in->eof = true;
    }
}

/* The next line without its end, newly allocated; NULL when there is none. */
static char *read_line(Input *in)
{
    const char *end;

    main_loop_wait(true);
    while (!(end = memchr(in->buf->str, '\n', in->buf->len)) && !in->eof) {
        if (in->buf->len > LINE_BYTES_MAX) {
            error_report("A line on stdin is longer than %d bytes", LINE_BYTES_MAX);
            in->eof = true;
            g_string_truncate(in->buf, 0);
            return NULL;
        }
        read_more(in);
    }
    gssize n = end ? end - in->buf->str : (gssize)in->buf->len;
    if (!end && n == 0) {
        return NULL;
    }
    char *line = g_strndup(in->buf->str, n);
    g_string_erase(in->buf, 0, MIN(n + 1, (gssize)in->buf->len));
    return line;
}

static bool run_stdin(void)
{
    struct stat st;
    Input in = { .buf = g_string_new(NULL),
                 .watched = fstat(STDIN_FILENO, &st) == 0 && !S_ISREG(st.st_mode) };
    bool ok = true;

    while (!io.quit) {
        printf("%s> ", error_get_progname());
        fflush(stdout);
        g_autofree char *line = read_line(&in);
        if (!line) {
            if (isatty(STDIN_FILENO)) {
                printf("\n");
            }
            break;
        }
        ok = io_run_line(line) && ok;
    }
    g_string_free(in.buf, TRUE);
    return ok;
}

/* ---- the command line ------------------------------------------------------------- */

typedef struct CommandLine {
    IoOpen how;
    const char *format;
    GPtrArray *commands;        /* of -c, not copied */
} CommandLine;

static void print_help(void)
{
    printf("Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
           "Makes single requests to a disk image\n"
           "\n"
           "  --object OBJECTDEF   make an object: an I/O thread or a throttle group\n"
           "  --image-opts         'file' is a string of options\n"
           "  -c, --cmd STRING     run a command; without -c they are read from stdin\n"
           "  -f, --format FMT     format of the image; probed when not given\n"
           "  -r, --read-only      open it read-only\n"
           "  -s, --snapshot       writes go to a temporary file, not to the image\n"
           "  -n, --nocache        the same as -t none\n"
           "  -C, --copy-on-read   copy what is read from the backing file into the image\n"
           "  -m, --misalign       use buffers that are not aligned\n"
           "  -k, --native-aio     the same as -i native\n"
           "  -i, --aio=MODE       how requests are made: threads, native, io_uring\n"
           "  -t, --cache=MODE     none, off, writeback, writethrough, directsync, unsafe\n"
           "  -d, --discard=MODE   whether discards reach the file: ignore, off, unmap, on\n"
           "  -T, --trace ARG      accepted for compatibility; there are no trace events\n"
           "  -U, --force-share    others may use the image, too (needs -r)\n"
           "  -h, --help           display this help and exit\n"
           "  -V, --version        output version information and exit\n"
           "\n"
           "See '%s -c help' for information on available commands.\n",
           error_get_progname(), error_get_progname());
}

static bool add_object(const char *definition)
{
    Error *err = NULL;

    if (!qmp_command_line_option("object", definition, &err)) {
        error_report_err(err);
        return false;
    }
    return true;
}

/* Take option C into account; whether to go on. */
static bool handle_option(CommandLine *cl, int c)
{
    switch (c) {
    case 'c':
        g_ptr_array_add(cl->commands, optarg);
        return true;
    case 'f':
        cl->format = optarg;
        return true;
    case 'm':
        io.misalign = true;
        return true;
    case 'T':
        warn_report("trace event '%s' does not exist", strchr(optarg, '=')
                    ? strchr(optarg, '=') + 1 : optarg);
        return true;
    case 'V':
        printf("%s version %s (miniblk %s)\n", error_get_progname(), PEER_VERSION,
               MINIBLK_VERSION);
        exit(EXIT_SUCCESS);
    case 'h':
        print_help();
        exit(EXIT_SUCCESS);
    case OPT_OBJECT:
        return add_object(optarg);
    case OPT_IMAGE_OPTS:
        io.image_opts = true;
        return true;
    case '?':
        print_help();
        return false;
    default:
        return io_open_option(&cl->how, c, optarg);
    }
}

static bool parse_options(CommandLine *cl, int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "cmd", required_argument, NULL, 'c' },
        { "format", required_argument, NULL, 'f' },
        { "read-only", no_argument, NULL, 'r' },
        { "snapshot", no_argument, NULL, 's' },
        { "nocache", no_argument, NULL, 'n' },
        { "copy-on-read", no_argument, NULL, 'C' },
        { "misalign", no_argument, NULL, 'm' },
        { "native-aio", no_argument, NULL, 'k' },
        { "aio", required_argument, NULL, 'i' },
        { "discard", required_argument, NULL, 'd' },
        { "cache", required_argument, NULL, 't' },
        { "trace", required_argument, NULL, 'T' },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPT_OBJECT },
        { "image-opts", no_argument, NULL, OPT_IMAGE_OPTS },
        { NULL },
    };

    static const char letters[] = "hVc:d:f:rsnCmki:t:T:U";

    for (int c; (c = getopt_long(argc, argv, letters, longopts, NULL)) != -1;) {
        if (!handle_option(cl, c)) {
            return false;
        }
    }
    if (argc - optind > 1) {
        print_help();
        return false;
    }
    if (cl->format && io.image_opts) {
        error_report("--image-opts and -f are mutually exclusive");
        return false;
    }
    return true;
}

/* Open the image that the command line names. */
static bool open_image(const CommandLine *cl, const char *name)
{
    QDict *options;

    if (io.image_opts) {
        Error *err = NULL;
        options = keyval_parse(name, "file", &err);
        if (!options) {
            error_report_err(err);
            return false;
        }
        return io_open_image(NULL, options, &cl->how);
    }
    options = qdict_new();
    if (cl->format) {
        qdict_put_str(options, "driver", cl->format);
    }
    return io_open_image(name, options, &cl->how);
}

static bool run_commands(const GPtrArray *commands)
{
    bool ok = true;

    for (guint i = 0; i < commands->len && !io.quit; i++) {
        ok = io_run_line(g_ptr_array_index(commands, i)) && ok;
    }
    return ok;
}

int main(int argc, char **argv)
{
    g_autofree char *progname = g_path_get_basename(argv[0] ? argv[0] : "miniblk-io");
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    CommandLine cl = { .how = IO_OPEN_DEFAULT, .commands = commands };

    streams_guard();
    error_set_progname(progname);
    argv[0] = progname;         /* for messages of getopt() */
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    if (!parse_options(&cl, argc, argv) ||
        (optind < argc && !open_image(&cl, argv[optind]))) {
        return EXIT_FAILURE;
    }
    bool ok = commands->len ? run_commands(commands) : run_stdin();
    io_close_image();
    ok = streams_flush() && ok;
    bdrv_close_all();
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
