/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblkd: serve disk images and manage them over QMP. Options are carried out from left
 * to right, so what one refers to must come before it.
 */
#include "miniblk/osdep.h"
#include <getopt.h>
#include <signal.h>
#include "miniblk/block.h"
#include "miniblk/error.h"
#include "miniblk/export.h"
#include "miniblk/iothread.h"
#include "miniblk/job.h"
#include "miniblk/main-loop.h"
#include "qmp/qmp.h"
#include "tools/daemonize.h"
#include "tools/streams.h"

enum { OPT_DAEMONIZE = 256, OPT_PIDFILE, OPT_COMMAND };

static const char short_options[] = "-hV";
static const struct option long_options[] = {
    { "blockdev", required_argument, NULL, OPT_COMMAND },
    { "chardev", required_argument, NULL, OPT_COMMAND },
    { "daemonize", no_argument, NULL, OPT_DAEMONIZE },
    { "export", required_argument, NULL, OPT_COMMAND },
    { "help", no_argument, NULL, 'h' },
    { "monitor", required_argument, NULL, OPT_COMMAND },
    { "nbd-server", required_argument, NULL, OPT_COMMAND },
    { "object", required_argument, NULL, OPT_COMMAND },
    { "pidfile", required_argument, NULL, OPT_PIDFILE },
    { "version", no_argument, NULL, 'V' },
    { NULL }
};

static const char help_text[] =
"Usage: %s [options]\n"
"Serve disk images and manage them over QMP.\n"
"\n"
"  -h, --help             display this help and exit\n"
"  -V, --version          output version information and exit\n"
"\n"
"  --blockdev [driver=]<driver>[,node-name=<N>][,discard=ignore|unmap]\n"
"             [,cache.direct=on|off][,cache.no-flush=on|off]\n"
"             [,read-only=on|off][,auto-read-only=on|off]\n"
"             [,force-share=on|off][,detect-zeroes=on|off|unmap]\n"
"             [,driver specific parameters...]\n"
"                         open a block node\n"
"\n"
"  --chardev <options>    configure a character device: where a monitor talks\n"
"\n"
"  --daemonize            detach from the terminal once everything is set up\n"
"\n"
"  --export [type=]nbd,id=<id>,node-name=<node-name>\n"
"           [,name=<export-name>][,writable=on|off][,iothread=<id>]\n"
"                         serve the specified block node over NBD\n"
"                         (requires --nbd-server)\n"
"\n"
"  --monitor [chardev=]name[,mode=control][,pretty=on|off]\n"
"                         configure a QMP monitor\n"
"\n"
"  --nbd-server addr.type=inet,addr.host=<host>,addr.port=<port>\n"
"               [,max-connections=<n>][,handshake-max-seconds=<n>]\n"
"  --nbd-server addr.type=unix,addr.path=<path>\n"
"               [,max-connections=<n>][,handshake-max-seconds=<n>]\n"
"                         start an NBD server for exporting block nodes\n"
"\n"
"  --object help          list object types that can be added\n"
"  --object <type>[,<property>=<value>...]\n"
"                         create a new object\n"
"\n"
"  --pidfile <path>       write process ID to a file after startup\n"
"\n"
"Options other than the last are carried out in the order given. \"help\" as the\n"
"argument of an option tells more about it.\n";

typedef struct Settings {
    bool daemonize;
    char *pidfile;              /* absolute; NULL: none */
} Settings;

static EventNotifier quit_notifier;

/* ---- the end ---------------------------------------------------------------------- */

static void shut_down(void)
{
    IOThread *iothread;

    blk_exp_close_all();
    if (nbd_server_is_running()) {
        nbd_server_stop(NULL);
    }
    job_cancel_sync_all();
    bdrv_close_all();
    qmp_cleanup();
    while ((iothread = iothread_next(NULL))) {
        iothread_destroy(iothread);
    }
}

/* After an error: leave no socket files behind, and nothing unflushed. */
static void G_GNUC_NORETURN fail(void)
{
    shut_down();
    exit(EXIT_FAILURE);
}

/* ---- command line ----------------------------------------------------------------- */

/* What needs no main loop, and what has to be known before there is one. */
static void first_pass(int argc, char **argv, Settings *set)
{
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        switch (c) {
        case '?':
            exit(EXIT_FAILURE);
        case 'h':
            printf(help_text, argv[0]);
            exit(EXIT_SUCCESS);
        case 'V':
            printf("miniblkd version %s\n", MINIBLK_VERSION);
            exit(EXIT_SUCCESS);
        case OPT_DAEMONIZE:
            set->daemonize = true;
            break;
        case OPT_PIDFILE:
            g_free(set->pidfile);
            /* The working directory changes when we become a daemon. */
            set->pidfile = g_canonicalize_filename(optarg, NULL);
            break;
        }
    }
}

/* The option as it was typed, for messages. FIRST: its index in ARGV. */
static char *option_text(char **argv, int first)
{
    return optind - first == 2 ? g_strdup_printf("%s %s", argv[first], argv[first + 1])
                               : g_strdup(argv[first]);
}

static void show_help_if_wanted(const char *name)
{
    g_autofree char *text = qmp_command_line_help(name, optarg);

    if (text) {
        fputs(text, stdout);
        exit(EXIT_SUCCESS);
    }
}

/* Carry out option NAME, whose index in ARGV is FIRST. */
static bool run_option(char **argv, int first, const char *name)
{
    Error *err = NULL;

    if (!qmp_command_line_option(name, optarg, &err)) {
        g_autofree char *text = option_text(argv, first);

        error_prepend(&err, "%s: ", text);
        error_report_err(err);
        return false;
    }
    return true;
}

static void second_pass(int argc, char **argv)
{
    int c, first, index = 0;

    optind = 0;
    for (;;) {
        first = optind ?: 1;
        c = getopt_long(argc, argv, short_options, long_options, &index);
        if (c == -1) {
            break;
        }
        if (c == 1) {
            error_report("%s: Unexpected argument", optarg);
            fail();
        }
        if (c == OPT_COMMAND) {
            show_help_if_wanted(long_options[index].name);
            if (!run_option(argv, first, long_options[index].name)) {
                fail();
            }
        }
    }
    /* After "--". */
    if (optind < argc) {
        error_report("%s: Unexpected argument", argv[optind]);
        fail();
    }
}

/* ---- signals ---------------------------------------------------------------------- */

static void quit_signal(int signum)
{
    int saved_errno = errno;

    event_notifier_set(&quit_notifier);
    errno = saved_errno;
}

static void quit_notified(EventNotifier *notifier)
{
    if (event_notifier_test_and_clear(notifier)) {
        qmp_request_quit();
    }
}

static void setup_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = quit_signal, .sa_flags = SA_RESTART };
    int ret = event_notifier_init(&quit_notifier, 0);

    if (ret < 0) {
        error_report("Cannot set up signal handling: %s", strerror(-ret));
        fail();
    }
    aio_set_event_notifier(iohandler_get_aio_context(), &quit_notifier, quit_notified, NULL,
                           NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

/* ---- program ---------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    Settings set = { false, NULL };
    Error *err = NULL;

    streams_guard();
    first_pass(argc, argv, &set);
    if (set.daemonize) {
        daemonize_begin();
    }
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    qmp_init();
    second_pass(argc, argv);
    setup_signals();
    if (set.pidfile && !pidfile_create(set.pidfile, &err)) {
        error_report_err(err);
        fail();
    }
    if (set.daemonize) {
        daemonize_ready();
    }
    while (!qmp_quit_requested()) {
        main_loop_wait(0);
    }
    shut_down();
    pidfile_remove();
    g_free(set.pidfile);
    return EXIT_SUCCESS;
}
