/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-lab: the lab from the command line. Everything happens in the test program itself,
 * which takes its orders from the environment; this turns options into variables and starts
 * it. docs/lab.md lists both.
 */
#include "miniblk/osdep.h"
#include "lab/replay.h"

enum { STATUS_USAGE = 2 };

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) fail(const char *format, ...)
{
    va_list args;

    fputs("miniblk-lab: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(STATUS_USAGE);
}

/* What an option means: a variable. */
typedef enum Kind { VALUE, SWITCH, FLAG, PATH, GDB } Kind;

enum { LIST = 1, RUN = 2, PROVE = 4, REPLAY = 8, SHRINK = 16 };
#define EXPLORE (RUN | PROVE)
#define ALL     (RUN | PROVE | REPLAY | SHRINK)

typedef struct Option {
    const char *name;           /* "-p" or "--name" */
    unsigned commands;
    Kind kind;
    const char *variable;       /* and, of a FLAG, what it is set to */
    const char *setting;
    const char *argument, *help;
} Option;

static const Option options[] = {
    { "-p", LIST | EXPLORE, PATH, "-p", NULL, "PATH",
      "this case, or all below; more than once" },
    { "-s", LIST | EXPLORE, PATH, "-s", NULL, "PATH", "but not these" },
    { "--schedules", EXPLORE | SHRINK, VALUE, "LAB_SCHEDULES", NULL, "N",
      "how many, of each case (2000; shrink: 200000)" },
    { "--time", EXPLORE, VALUE, "LAB_TIME", NULL, "S", "seconds for each case" },
    { "--jobs", EXPLORE, VALUE, "LAB_JOBS", NULL, "N",
      "processes (1); the result does not depend on it" },
    { "--seed", RUN, VALUE, "LAB_SEED", NULL, "N", "where random choices begin (0)" },
    { "--strategy", RUN, VALUE, "LAB_STRATEGY", NULL, "NAME",
      "portfolio, random, pct, pos, few, bound" },
    { "--depth", RUN, VALUE, "LAB_DEPTH", NULL, "D", "of random, pct and few" },
    { "--line", RUN, VALUE, "LAB_LINE", NULL, "LINE",
      "only the schedule of this seed line" },
    { "--bound", PROVE, VALUE, "LAB_BOUND", NULL, "D",
      "all schedules with up to D deviations (1)" },
    { "--tso", EXPLORE, SWITCH, "LAB_TSO", NULL, "on|off", "store buffers (on)" },
    { "--clock", EXPLORE, SWITCH, "LAB_CLOCK", NULL, "on|off",
      "deadlines may come at any time (off)" },
    { "--spurious", EXPLORE, SWITCH, "LAB_SPURIOUS", NULL, "on|off",
      "waits may return without reason (off)" },
    { "--faults", EXPLORE, SWITCH, "LAB_FAULTS", NULL, "on|off",
      "the disk fails now and then (off)" },
    { "--torn", EXPLORE, SWITCH, "LAB_TORN", NULL, "on|off",
      "a power cut may leave a part of a sector (off)" },
    { "--sector", EXPLORE, VALUE, "LAB_SECTOR", NULL, "N[/N]",
      "bytes: logical and physical (512)" },
    { "--steps", ALL, VALUE, "LAB_STEPS", NULL, "N", "steps after which it is a livelock" },
    { "--check", EXPLORE, VALUE, "LAB_CHECK", NULL, "N",
      "every Nth schedule runs twice (64; 0: none)" },
    { "--hang", ALL, VALUE, "LAB_HANG", NULL, "S",
      "a schedule may take so many seconds (60)" },
    { "--progress", EXPLORE, SWITCH, "LAB_PROGRESS", NULL, "on|off",
      "a line on stderr (if it is a terminal)" },
    { "--shrink", EXPLORE, SWITCH, "LAB_SHRINK", NULL, "on|off",
      "make a failing schedule small (on)" },
    { "--directory", EXPLORE, VALUE, "LAB_DIR", NULL, "DIR", "for replay files (.)" },
    { "--times", REPLAY, VALUE, "LAB_TIMES", NULL, "N", "again and again, no divergence" },
    { "--text", REPLAY, FLAG, "LAB_TIMELINE", "whole", NULL, "every step of the timeline" },
    { "--svg", REPLAY, VALUE, "LAB_SVG", NULL, "FILE", "a picture" },
    { "--html", REPLAY, VALUE, "LAB_HTML", NULL, "FILE", "a picture in a page" },
    { "--trace", REPLAY, VALUE, "LAB_TRACE", NULL, "FILE",
      "for Perfetto or chrome://tracing" },
    { "--gdb", REPLAY, GDB, NULL, NULL, NULL, "stop in gdb at each deviation" },
};

static const struct {
    const char *name;
    unsigned bit;
    const char *argument, *help;
} commands[] = {
    { "list", LIST, "PROG", "the cases of a test program" },
    { "run", RUN, "PROG", "look for a failing schedule" },
    { "prove", PROVE, "PROG", "all schedules with few deviations from the default one" },
    { "replay", REPLAY, "FILE", "a failing schedule again" },
    { "shrink", SHRINK, "FILE", "make a failing schedule as small as it can be" },
};

/* A zero status when what was asked for has arrived. */
static int flush_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fail("cannot write: %s", strerror(errno));
    }
    return 0;
}

static int print_help(void)
{
    printf("usage: miniblk-lab COMMAND [OPTION]... PROG|FILE\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("\nminiblk-lab %s %s\n  %s\n", commands[i].name, commands[i].argument,
               commands[i].help);
        for (unsigned j = 0; j < G_N_ELEMENTS(options); j++) {
            const Option *o = &options[j];
            g_autofree char *left = g_strjoin(" ", o->name, o->argument, NULL);

            if (o->commands & commands[i].bit) {
                printf("    %-22s %s\n", left, o->help);
            }
        }
    }
    printf("\nminiblk-lab zoo [OPTION]... [NAME]...\n"
           "  look for the bugs of tests/zoo, in the source tree; see scripts/zoo --help\n");
    printf("\nexit status: 0 all is well, 1 a failure was found, 2 wrong usage or no room for the\n"
           "output, 3 a proof has not come to its bound\n");
    return flush_output();
}

/* ---- the command line ------------------------------------------------------------------ */

typedef struct Order {
    unsigned command;           /* index */
    const char *target;         /* PROG or FILE */
    GPtrArray *arguments;       /* for the program */
    bool gdb;
} Order;

static unsigned find_command(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return i;
        }
    }
    fail("there is no command '%s'; see miniblk-lab --help", name);
}

/* "--name=value" and "--name value". */
static const Option *find_option(const char *word, unsigned command, const char **value)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        const Option *o = &options[i];
        size_t length = strlen(o->name);

        if ((o->commands & commands[command].bit) && strncmp(o->name, word, length) == 0
            && (word[length] == '\0' || word[length] == '=')) {
            *value = word[length] ? word + length + 1 : NULL;
            return o;
        }
    }
    fail("'%s' has no option '%s'; see miniblk-lab --help", commands[command].name, word);
}

static void apply(Order *order, const Option *o, const char *value)
{
    switch (o->kind) {
    case SWITCH:
        if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
            fail("%s is 'on' or 'off', not '%s'", o->name, value);
        }
        /* fall through */
    case VALUE:
        g_setenv(o->variable, value, true);
        break;
    case FLAG:
        g_setenv(o->variable, o->setting, true);
        break;
    case PATH:
        g_ptr_array_add(order->arguments, g_strdup(o->variable));
        g_ptr_array_add(order->arguments, g_strdup(value));
        break;
    case GDB:
        order->gdb = true;
        break;
    }
}

static Order parse(int argc, char **argv)
{
    Order order = { .arguments = g_ptr_array_new() };

    if (argc < 2) {
        fail("no command; see miniblk-lab --help");
    }
    order.command = find_command(argv[1]);
    for (int i = 2; i < argc; i++) {
        const Option *o;
        const char *value;

        if (argv[i][0] != '-') {
            if (order.target) {
                fail("'%s' after '%s': only one is taken", argv[i], order.target);
            }
            order.target = argv[i];
            continue;
        }
        o = find_option(argv[i], order.command, &value);
        if (o->argument && !value) {
            value = ++i < argc ? argv[i] : NULL;
        }
        if (!o->argument != !value) {
            fail("option '%s' takes %s value", o->name, o->argument ? "a" : "no");
        }
        apply(&order, o, value);
    }
    if (!order.target) {
        fail("'%s' needs %s %s", commands[order.command].name,
             commands[order.command].bit & (REPLAY | SHRINK) ? "a" : "a program:",
             commands[order.command].argument);
    }
    return order;
}

/* ---- starting the program -------------------------------------------------------------- */

/* The program that a replay file is of. */
static char *program_of(const char *filename)
{
    g_autofree char *problem = NULL, *quoted = NULL;
    g_autofree char *text = lab_replay_read(filename, &problem);
    const char *line;

    if (!text) {
        fail("%s", problem);
    }
    line = strstr(text, "\nprogram ");
    if (!g_str_has_prefix(text, "miniblk-lab replay file ") || !line) {
        fail("'%s' is not a replay file", filename);
    }
    line += strlen("\nprogram ");
    quoted = g_strndup(line, strcspn(line, "\n"));
    return g_strcompress(quoted);
}

/* A native program would run its cases once, and that would look like success. */
static void check_program(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);
    g_autoptr(GError) error = NULL;
    g_autoptr(GMappedFile) file = NULL;

    if (!path) {
        fail("there is no program '%s'", program);
    }
    file = g_mapped_file_new(path, false, &error);
    if (!file) {
        fail("%s", error->message);
    }
    if (!memmem(g_mapped_file_get_contents(file), g_mapped_file_get_length(file),
                "LAB_SCHEDULES", sizeof("LAB_SCHEDULES"))) {
        fail("'%s' is not linked with libminiblk-lab", program);
    }
}

/*
 * Deviations are the places where the program's run depends on more than itself, so that is
 * where gdb stops. The lab protects pages and handles the faults: not gdb's business. With a
 * sanitizer, the schedule runs in a child.
 */
static void start_gdb(char *program)
{
    char *const argv[] = {
        (char *)"gdb", (char *)"-q",
        (char *)"-ex", (char *)"set breakpoint pending on",
        (char *)"-ex", (char *)"handle SIGSEGV nostop noprint pass",
        (char *)"-ex", (char *)"set follow-fork-mode child",
        (char *)"-ex", (char *)"break lab_deviation",
        (char *)"-ex", (char *)"run",
        (char *)"--args", program, NULL,
    };

    g_setenv("LAB_TIMELINE", "none", true);
    g_setenv("LAB_HANG", "1000000", true);      /* who looks at it takes the time he wants */
    execvp("gdb", argv);
    fail("cannot start gdb: %s", strerror(errno));
}

/* ---- the zoo --------------------------------------------------------------------------- */

/* Bugs are built from sources: those of the tree that we are in. */
static char *find_zoo(void)
{
    g_autofree char *dir = g_get_current_dir();

    for (;;) {
        g_autofree char *script = g_build_filename(dir, "scripts", "zoo", NULL);
        char *parent = g_path_get_dirname(dir);

        if (g_file_test(script, G_FILE_TEST_IS_EXECUTABLE)) {
            g_free(parent);
            return g_steal_pointer(&script);
        }
        if (strcmp(parent, dir) == 0) {
            fail("'zoo' works in the source tree: there is no scripts/zoo here or above");
        }
        g_free(dir);
        dir = parent;
    }
}

/* The script's options are its own; what we have been built with is what it builds with. */
static void G_GNUC_NORETURN start_zoo(char **options_of_zoo)
{
    g_autofree char *script = find_zoo(), *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self ? self : "."), *build = g_path_get_dirname(dir);
    g_autofree char *ninja = g_build_filename(build, "build.ninja", NULL);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, script);
    if (g_file_test(ninja, G_FILE_TEST_EXISTS)) {
        g_ptr_array_add(argv, (char *)"--build-dir");
        g_ptr_array_add(argv, build);
    }
    for (; *options_of_zoo; options_of_zoo++) {
        g_ptr_array_add(argv, *options_of_zoo);
    }
    g_ptr_array_add(argv, NULL);
    execv(script, (char **)argv->pdata);
    fail("cannot start '%s': %s", script, strerror(errno));
}

int main(int argc, char **argv)
{
    g_autofree char *program = NULL;
    Order order;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        return print_help();
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("miniblk-lab %s\n", MINIBLK_VERSION);
        return flush_output();
    }
    if (argc >= 2 && strcmp(argv[1], "zoo") == 0) {
        start_zoo(argv + 2);
    }
    order = parse(argc, argv);
    g_setenv("LAB_MODE", commands[order.command].name, true);
    if (commands[order.command].bit & (REPLAY | SHRINK)) {
        g_setenv("LAB_FILE", order.target, true);
        program = program_of(order.target);
    } else {
        program = g_strdup(order.target);
    }
    check_program(program);
    if (order.gdb) {
        start_gdb(program);
    }
    g_ptr_array_insert(order.arguments, 0, program);
    g_ptr_array_add(order.arguments, NULL);
    execvp(program, (char **)order.arguments->pdata);
    fail("cannot start '%s': %s", program, strerror(errno));
}
