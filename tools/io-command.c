/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding and running commands; help. */
#include "miniblk/osdep.h"
#include "tools/io.h"

static bool run_help(int argc, char **argv);

static bool run_quit(int argc, char **argv)
{
    io.quit = true;
    return true;
}

static const IoCommand own_commands[] = {
    { "help", "?", run_help, 0, 1, .without_image = true, .syntax = "[command]",
      .summary = "help for one or all commands" },
    { "quit", "q", run_quit, .without_image = true, .syntax = "",
      .summary = "exit the program" },
    { NULL },
};

static const IoCommand *const tables[] = {
    own_commands, io_open_commands, io_request_commands, io_aio_commands,
    io_image_commands, io_stat_commands, io_debug_commands,
};

static const IoCommand *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const IoCommand *c = tables[i]; c->name; c++) {
            if (!strcmp(name, c->name) || !g_strcmp0(name, c->alias)) {
                return c;
            }
        }
    }
    return NULL;
}

/* ---- help ------------------------------------------------------------------------- */

static void print_syntax(const char *name, const IoCommand *c)
{
    printf("%s%s%s -- %s\n", name, *c->syntax ? " " : "", c->syntax, c->summary);
}

bool io_usage(char **argv)
{
    const IoCommand *c = find_command(argv[0]);

    print_syntax(c->name, c);
    return false;
}

static gint compare_commands(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const IoCommand *const *)a)->name, (*(const IoCommand *const *)b)->name);
}

static void help_on_all(void)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const IoCommand *c = tables[i]; c->name; c++) {
            g_ptr_array_add(all, (gpointer)c);
        }
    }
    g_ptr_array_sort(all, compare_commands);
    for (guint i = 0; i < all->len; i++) {
        const IoCommand *c = g_ptr_array_index(all, i);
        print_syntax(c->name, c);
    }
    printf("\nUse 'help commandname' for extended help.\n");
}

static bool run_help(int argc, char **argv)
{
    if (argc == 1) {
        help_on_all();
        return true;
    }
    const IoCommand *c = find_command(argv[1]);
    if (!c) {
        printf("command %s not found\n", argv[1]);
        return false;
    }
    print_syntax(argv[1], c);
    if (c->help) {
        printf("\n%s\n", c->help);
    }
    return true;
}

/* ---- running ---------------------------------------------------------------------- */

static bool check_count(const IoCommand *c, const char *name, int count)
{
    if (count >= c->args_min && (c->args_max < 0 || count <= c->args_max)) {
        return true;
    }
    error_printf("bad argument count %d to %s, expected ", count, name);
    if (c->args_max < 0) {
        error_printf("at least %d arguments\n", c->args_min);
    } else if (c->args_min == c->args_max) {
        error_printf("%d arguments\n", c->args_min);
    } else {
        error_printf("between %d and %d arguments\n", c->args_min, c->args_max);
    }
    return false;
}

/* The image may have been opened for less than the command needs. */
static bool take_permissions(uint64_t needed)
{
    uint64_t perm, shared;
    Error *err = NULL;

    blk_get_perm(io.blk, &perm, &shared);
    if ((perm & needed) != needed &&
        blk_set_perm(io.blk, perm | needed, shared, &err) < 0) {
        error_report_err(err);
        return false;
    }
    return true;
}

static bool run_words(int argc, char **argv)
{
    const IoCommand *c = find_command(argv[0]);

    if (!c) {
        error_printf("command \"%s\" not found\n", argv[0]);
        return false;
    }
    if (!c->without_image && !io.blk) {
        error_printf("no file open, try 'help open'\n");
        return false;
    }
    return check_count(c, argv[0], argc - 1) &&
           (!c->perm || take_permissions(c->perm)) &&
           c->run(argc, argv);
}

bool io_run_line(const char *line)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) parts = g_strsplit(line, " ", -1);

    for (char **part = parts; *part; part++) {
        if (**part) {
            g_ptr_array_add(words, g_strdup(*part));
        }
    }
    if (words->len == 0) {
        return true;
    }
    /* getopt() sorts what it is given, so the words are freed by the array, not through it. */
    g_autofree char **argv = g_new0(char *, words->len + 1);
    memcpy(argv, words->pdata, words->len * sizeof(char *));
    bool ok = run_words((int)words->len, argv);
    io_tell_suspended();
    fflush(stdout);             /* so that it stands before what goes to stderr next */
    return ok;
}
