/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-lab as it is used: find the bug of docs/lab.md, replay it, make it small, draw it,
 * prove the corrected program.
 */
#include "miniblk/osdep.h"
#include <sys/wait.h>

static char *directory;
static char *replay_file;

typedef struct Outcome {
    int status;
    char *out, *err;
} Outcome;

static void outcome_clear(Outcome *o)
{
    g_free(o->out);
    g_free(o->err);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Outcome, outcome_clear)

/* miniblk-lab WORDS..., in the test's directory. */
static Outcome lab_v(const char *first, va_list words)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    Outcome o = { 0 };

    g_ptr_array_add(argv, (char *)g_getenv("MINIBLK_LAB"));
    for (const char *word = first; word; word = va_arg(words, const char *)) {
        g_ptr_array_add(argv, (char *)word);
    }
    g_ptr_array_add(argv, NULL);
    g_spawn_sync(directory, (char **)argv->pdata, NULL, 0, NULL, NULL, &o.out, &o.err,
                 &o.status, &error);
    g_assert_no_error(error);
    o.status = WIFEXITED(o.status) ? WEXITSTATUS(o.status) : -1;
    return o;
}

static Outcome G_GNUC_NULL_TERMINATED lab(const char *first, ...)
{
    va_list words;
    Outcome o;

    va_start(words, first);
    o = lab_v(first, words);
    va_end(words);
    return o;
}

#define assert_has(text, part)                                                  \
    do {                                                                        \
        if (!strstr(text, part)) {                                              \
            g_error("'%s' is not in:\n%s", part, text);                         \
        }                                                                       \
    } while (0)

static const char *lesson(void)
{
    return g_getenv("LESSON");
}

/* With a sanitizer each schedule is a process: there are fewer, and the same is looked at. */
static bool sanitized(void)
{
    return strcmp(g_getenv("SANITIZE"), "none") != 0;
}

/* The file of the failing schedule is there, as when it was found. */
static void find_bug(void)
{
    static char *text;

    if (text) {
        g_assert_true(g_file_set_contents(replay_file, text, -1, NULL));
    } else {
        g_auto(Outcome) o = lab("run", lesson(), "--schedules", "20000", NULL);

        if (o.status != 1) {
            g_error("status %d\n%s%s", o.status, o.out, o.err);
        }
        g_assert_true(g_file_get_contents(replay_file, &text, NULL, NULL));
    }
}

static void test_list(void)
{
    g_auto(Outcome) o = lab("list", lesson(), NULL);

    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, "/device/drain\n");
}

static void test_run_finds(void)
{
    g_auto(Outcome) one = lab("run", lesson(), "--schedules=20000", "--jobs", "1", NULL);
    g_auto(Outcome) three = lab("run", lesson(), "--schedules=20000", "--jobs", "3", NULL);
    const char *words = "# main read d->busy";

    g_assert_cmpint(one.status, ==, 1);
    assert_has(one.out, "not ok 1 /device/drain # lab deadlock in schedule ");
    assert_has(one.out, "AIO_WAIT_WHILE(qatomic_read(&d->busy))");
    assert_has(one.out, "# seed LAB1:/device/drain:");
    assert_has(one.out, "(2 deviations)\n");
    assert_has(one.out, "# no schedule with fewer than 2 deviations fails so\n");
    assert_has(one.out, words);
    assert_has(strstr(one.out, words), " landed\n");
    /* But for what GLib says of its own random seed, nothing depends on the processes. */
    g_assert_cmpstr(strstr(one.out, "TAP version"), ==, strstr(three.out, "TAP version"));
}

/* Without store buffers there is no bug. */
static void test_memory_model(void)
{
    const char *budget = sanitized() ? "200" : "2000";
    g_autofree char *words = g_strdup_printf("ok 1 /device/drain # lab %s schedules, ", budget);
    g_auto(Outcome) o = lab("run", lesson(), "--tso", "off", "--schedules", budget, NULL);

    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, words);
    assert_has(o.out, " complete\n");
}

static void test_paths(void)
{
    g_auto(Outcome) none = lab("run", lesson(), "-p", "/device/dr", NULL);
    g_auto(Outcome) skipped = lab("run", "-s", "/device", lesson(), NULL);

    g_assert_cmpint(none.status, ==, 2);
    assert_has(none.out, "1..0\nBail out! this program has no case /device/dr, nor below it\n");
    g_assert_cmpint(skipped.status, ==, 0);
    assert_has(skipped.out, "1..0\n");
}

static void test_replay(void)
{
    const char *times = sanitized() ? "50" : "1000";
    g_autofree char *words = g_strdup_printf("not ok 1 /device/drain # lab replayed %s times: "
                                             "deadlock\n", times);
    g_auto(Outcome) o = { 0 };

    find_bug();
    o = lab("replay", replay_file, "--times", times, NULL);
    g_assert_cmpint(o.status, ==, 1);
    assert_has(o.out, words);
    assert_has(o.out, "# the order that matters:\n");
    g_assert_null(strstr(o.out, "diverged"));
}

/* FILE with what matches REGEX replaced by TEXT. */
static void change_file(const char *file, const char *regex, const char *text)
{
    g_autoptr(GRegex) compiled = g_regex_new(regex, 0, 0, NULL);
    g_autofree char *before = NULL, *after = NULL;

    g_assert_true(g_file_get_contents(file, &before, NULL, NULL));
    after = g_regex_replace(compiled, before, -1, 0, text, 0, NULL);
    g_assert_cmpstr(before, !=, after);
    g_assert_true(g_file_set_contents(file, after, -1, NULL));
}

/* What the same program does otherwise than its file says is a failure, and the last run. */
static void test_replay_diverges(void)
{
    static const struct {
        const char *regex, *text, *result, *why;
        int status;
    } table[] = {
        { "deviation T[0-9]+ ([0-9]+)", "deviation T9 \\1\\g<1>",
          "not ok 1 /device/drain # lab replayed 1 time: diverged\n",
          "# run 1 diverged: not every deviation was met\n", 1 },
        { "(deviation .*\n)+", "", "not ok 1 /device/drain # lab replayed 1 time: diverged\n",
          "# the file says: deadlock: no thread can ever go on\n", 1 },
        { "verdict deadlock", "verdict assertion",
          "not ok 1 /device/drain # lab replayed 1 time: deadlock\n",
          "# the file says: assertion: no thread can ever go on\n", 1 },
        { "[0-9a-f]+(\nprogram .*\nverdict .*\nmessage .*\n)(deviation .*\n)+", "00\\1",
          "\nok 1 /device/drain # lab replayed 1 time: ok\n",
          "# the program was built anew since the file was written\n", 0 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_auto(Outcome) o = { 0 };

        find_bug();
        change_file(replay_file, table[i].regex, table[i].text);
        o = lab("replay", replay_file, "--times", "3", NULL);
        assert_has(o.out, table[i].result);
        assert_has(o.out, table[i].why);
        g_assert_cmpint(o.status, ==, table[i].status);
    }
}

/* What no schedule decides is never as the file says. */
static void test_replay_of_chance(void)
{
    const char *program = g_getenv("BROKEN_WORLD");
    g_autofree char *file = g_strdup_printf("%s/broken-world-broken-diverges.lab", directory);
    g_auto(Outcome) found = lab("run", program, "-p", "/broken/diverges", "--check", "1", NULL);
    g_auto(Outcome) again = lab("replay", file, "--times", "100", NULL);

    g_assert_cmpint(found.status, ==, 1);
    assert_has(found.out, "not ok 1 /broken/diverges # lab diverged in schedule ");
    g_assert_cmpint(again.status, ==, 1);
    assert_has(again.out, "not ok 1 /broken/diverges # lab replayed 1 time: diverged\n");
    assert_has(again.out, "# the file says: diverged: the same choices did not give");
}

static void test_seed_line(void)
{
    g_auto(Outcome) found = lab("run", lesson(), "--schedules=20000", "--shrink=off", NULL);
    g_autofree char *line = NULL;
    g_auto(Outcome) o = { 0 }, wrong = { 0 };
    const char *begin;

    g_assert_cmpint(found.status, ==, 1);
    begin = strstr(found.out, "LAB1:");
    line = g_strndup(begin, strcspn(begin, "\n"));
    o = lab("run", lesson(), "--line", line, NULL);
    g_assert_cmpint(o.status, ==, 1);
    assert_has(o.out, "not ok 1 /device/drain # lab replayed 1 time: deadlock\n");
    line[strlen("LAB1:/device/d")] = 'x';
    wrong = lab("run", lesson(), "--line", line, NULL);
    g_assert_cmpint(wrong.status, ==, 2);
    assert_has(wrong.out, "Bail out! this program has no case /device/dxain\n");
}

static void test_replay_pictures(void)
{
    static const struct {
        const char *option, *name, *begins, *arrow;
    } table[] = {
        { "--svg", "a.svg", "<", "<path class=\"wake\"" },
        { "--html", "a.html", "<!DOCTYPE html>", "<path class=\"wake\"" },
        { "--trace", "a.json", "{", "\"cat\":\"wake\"" },
    };

    find_bug();
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_auto(Outcome) o = lab("replay", replay_file, table[i].option, table[i].name, NULL);
        g_autofree char *name = g_build_filename(directory, table[i].name, NULL);
        g_autofree char *text = NULL;

        g_assert_cmpint(o.status, ==, 1);
        g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
        g_assert_true(g_ascii_strncasecmp(text, table[i].begins,
                                          strlen(table[i].begins)) == 0);
        assert_has(text, table[i].arrow);       /* main wakes the IOThread */
    }
    {
        g_auto(Outcome) o = lab("replay", replay_file, "--svg", "/nowhere/a.svg", NULL);

        g_assert_cmpint(o.status, ==, 2);
        assert_has(o.out, "cannot write '/nowhere/a.svg': No such file or directory");
    }
}

/* No format has a place for it as it is; the case is listed, found, replayed and drawn. */
static void test_odd_name(void)
{
    const char *words = "/odd/<i>&amp;\"'\\\\:\\t\\r\\n\\001\\177\xff\xef\xbf\xbe\xc3\xbc\\\\";
    const char *program = g_getenv("ODD_NAME");
    g_autofree char *line = g_strdup_printf("%s\n", words);
    g_autofree char *result = g_strdup_printf("not ok 1 %s # lab ", words);
    g_autofree char *file = NULL;
    g_auto(Outcome) list = lab("list", program, NULL);
    g_auto(Outcome) found = lab("run", program, NULL);
    const char *name = strstr(found.out, "# replay file ");

    assert_has(list.out, line);
    g_assert_cmpint(found.status, ==, 1);
    assert_has(found.out, result);
    g_assert_nonnull(name);
    name += strlen("# replay file ");
    file = g_strndup(name, strcspn(name, " "));
    {
        g_auto(Outcome) o = lab("replay", file, "--svg", "odd.svg", "--html", "odd.html",
                                "--trace", "odd.json", NULL);
        static const char *const pictures[] = { "odd.svg", "odd.html", "odd.json" };

        g_assert_cmpint(o.status, ==, 1);
        assert_has(o.out, result);
        for (unsigned i = 0; i < G_N_ELEMENTS(pictures); i++) {
            g_autofree char *path = g_build_filename(directory, pictures[i], NULL);
            g_autofree char *text = NULL;

            g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
            g_assert_true(g_utf8_validate(text, -1, NULL));
            g_assert_null(strpbrk(text, "\x01\x1b\r"));
            g_assert_true(i == 2 || !strstr(text, "<i>"));      /* JSON has no markup */
        }
    }
    {
        g_auto(Outcome) o = lab("shrink", file, NULL);

        g_assert_cmpint(o.status, ==, 0);
    }
}

/* A result that nobody can see must not look like success. */
static void test_no_space(void)
{
    static const char *const commands[] = {
        "run \"$LESSON_FIXED\" --schedules 10", "run \"$LESSON\" --schedules 20000",
        "list \"$LESSON\"", "--help", "--version",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *command = g_strdup_printf("\"$MINIBLK_LAB\" %s > /dev/full",
                                                   commands[i]);
        g_autofree char *err = NULL;
        int status;

        g_assert_true(g_spawn_sync(directory, (char *[]) { (char *)"sh", (char *)"-c", command,
                                                           NULL },
                                   NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, &err, &status,
                                   NULL));
        g_assert_cmpint(WIFEXITED(status) ? WEXITSTATUS(status) : -1, ==, 2);
        assert_has(err, "miniblk-lab: cannot write");
        assert_has(err, ": No space left on device\n");
    }
}

/* A schedule with many deviations becomes one with two, and the file says so. */
static void test_shrink(void)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) parts = NULL;
    g_auto(Outcome) found = lab("run", lesson(), "--schedules=20000", "--strategy", "random",
                                "--depth", "1", "--shrink", "off", NULL);
    g_auto(Outcome) o = { 0 };

    g_assert_cmpint(found.status, ==, 1);
    g_assert_null(strstr(found.out, "(2 deviations)"));
    o = lab("shrink", replay_file, NULL);
    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, "ok 1 /device/drain # lab 2 of ");
    assert_has(o.out, "# no schedule with fewer deviations fails so\n");
    g_assert_true(g_file_get_contents(replay_file, &text, NULL, NULL));
    parts = g_strsplit(text, "\ndeviation ", -1);
    g_assert_cmpuint(g_strv_length(parts), ==, 3);
}

/* What GLib says has the program's name in it, as it was started. */
static void test_shrink_by_another_name(void)
{
    const char *program = g_getenv("BROKEN_WORLD");
    g_autofree char *base = g_path_get_basename(program), *dir = g_path_get_dirname(program);
    g_autofree char *name = g_strdup_printf("%s/./%s", dir, base);
    g_autofree char *file = g_strdup_printf("%s/broken-world-broken-critical.lab", directory);
    g_auto(Outcome) found = lab("run", name, "-p", "/broken/critical", "--shrink", "off", NULL);
    g_auto(Outcome) o = { 0 };

    g_assert_cmpint(found.status, ==, 1);
    o = lab("shrink", file, NULL);
    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, "ok 1 /broken/critical # lab 0 of ");
}

static void test_prove(void)
{
    g_auto(Outcome) wrong = lab("prove", lesson(), "-p", "/device/drain", "--bound", "2",
                                NULL);
    const char *bound = sanitized() ? "1" : "2";
    g_autofree char *proven = g_strdup_printf(", D<=%s complete\n", bound);
    g_auto(Outcome) right = lab("prove", g_getenv("LESSON_FIXED"), "--bound", bound, NULL);
    g_auto(Outcome) stopped = lab("prove", g_getenv("LESSON_FIXED"), "--bound", "2",
                                  "--schedules", "100", NULL);

    g_assert_cmpint(wrong.status, ==, 1);
    assert_has(wrong.out, "not ok 1 /device/drain # lab deadlock");
    g_assert_cmpint(right.status, ==, 0);
    assert_has(right.out, "ok 1 /device/drain # lab ");
    assert_has(right.out, proven);
    g_assert_cmpint(stopped.status, ==, 3);
    assert_has(stopped.out, "not ok 1 /device/drain # lab 100 schedules, ");
}

/*
 * The one schedule without deviations has some number of steps. With the bound at more than half
 * of it, everybody has a turn from there on: it ends, and has told nothing.
 */
static void test_given_up(void)
{
    const char *fixed = g_getenv("LESSON_FIXED");
    unsigned times = 0;

    for (unsigned steps = 2; steps < 10000; steps *= 2) {
        g_autofree char *bound = g_strdup_printf("%u", steps);
        g_auto(Outcome) o = lab("run", fixed, "--schedules", "1", "--steps", bound,
                                "--shrink", "off", NULL);

        if (strstr(o.out, "given up")) {
            g_auto(Outcome) proof = lab("prove", fixed, "--bound", "0", "--steps", bound, NULL);

            times++;
            g_assert_cmpint(o.status, ==, 0);
            assert_has(o.out, "ok 1 /device/drain # SKIP lab: all 1 schedules given up "
                       "(1 passed the step bound)\n");
            assert_has(o.out, "# 1 of 1 cases tell nothing: ");
            g_assert_cmpint(proof.status, ==, 3);
            assert_has(proof.out, "not ok 1 /device/drain # lab 1 schedules, 1 distinct, "
                       "1 given up (1 passed the step bound)\n");
        } else {
            assert_has(o.out, times ? "ok 1 /device/drain # lab 1 schedules" : "lab livelock");
        }
    }
    g_assert_cmpuint(times, ==, 1);
}

/* What never ends is ended: when it is found, replayed, and to be made small. */
static void test_loop_without_a_point(void)
{
    const char *words = "no end of the schedule in 1 s of real time";
    g_autofree char *file = g_build_filename(directory, "loops-lab-loops.lab", NULL);
    g_auto(Outcome) found = lab("run", g_getenv("LOOPS"), "--hang", "1", NULL);
    g_auto(Outcome) again = lab("replay", file, "--hang", "1", NULL);
    g_auto(Outcome) small = lab("shrink", file, "--hang", "1", NULL);

    g_assert_cmpint(found.status, ==, 1);
    assert_has(found.out, "not ok 1 /loops # lab livelock in schedule 0\n");
    assert_has(found.out, words);
    g_assert_cmpint(again.status, ==, 1);
    assert_has(again.out, "not ok 1 /loops # lab livelock\n");
    assert_has(again.out, words);
    g_assert_cmpint(small.status, ==, 1);
    assert_has(small.out, words);
}

/* Where address space is short, this is said. */
static void test_no_room(void)
{
    g_autofree char *command = g_strdup_printf("ulimit -v 8000000; '%s' run '%s'",
                                               g_getenv("MINIBLK_LAB"), lesson());
    g_autofree char *out = NULL, *err = NULL;
    int status;

    if (sanitized()) {
        g_test_skip("the sanitizer has no room itself, and says so first");
        return;
    }
    g_assert_true(g_spawn_sync(directory, (char *[]) { (char *)"sh", (char *)"-c", command,
                                                       NULL },
                               NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status,
                               NULL));
    g_assert_cmpint(WIFEXITED(status) ? WEXITSTATUS(status) : -1, ==, 125);
    assert_has(err, "miniblk-lab: no room for ");
}

/* A file for the program with the bug does not fail in the one without. */
static void test_replay_of_another_program(void)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) parts = NULL;
    g_auto(Outcome) o = { 0 };

    find_bug();
    g_assert_true(g_file_get_contents(replay_file, &text, NULL, NULL));
    parts = g_strsplit(text, lesson(), 2);
    g_assert_cmpuint(g_strv_length(parts), ==, 2);
    g_free(text);
    text = g_strjoinv(g_getenv("LESSON_FIXED"), parts);
    g_assert_true(g_file_set_contents(replay_file, text, -1, NULL));
    o = lab("replay", replay_file, NULL);
    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, "# the program was built anew since the file was written\n");
    assert_has(o.out, "# the file says: deadlock");
}

/* gdb stops at each of the two deviations, and then the program ends. */
static void test_gdb(void)
{
    g_autofree char *gdb = g_find_program_in_path("gdb");
    g_autofree char *command = NULL, *out = NULL;

    if (!gdb) {
        g_test_skip("no gdb");
        return;
    }
    find_bug();
    command = g_strdup_printf("cd %s && printf 'continue\\ncontinue\\nquit\\n' | "
                              "'%s' replay %s --gdb 2>&1", directory,
                              g_getenv("MINIBLK_LAB"), replay_file);
    g_assert_true(g_spawn_sync(directory, (char *[]) { (char *)"sh", (char *)"-c", command,
                                                       NULL },
                               NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, NULL, NULL, NULL));
    if (strstr(out, "ptrace: Operation not permitted")) {
        g_test_skip("gdb may not trace here");
        return;
    }
    if (!g_regex_match_simple("lab_deviation \\(number=[^)]*1\\).*"
                              "lab_deviation \\(number=[^)]*2\\).*"
                              "lab replayed 1 time: deadlock", out, G_REGEX_DOTALL, 0)) {
        g_error("%s", out);
    }
}

static void test_usage(void)
{
    static const struct {
        const char *words[4], *problem;
    } table[] = {
        { { NULL }, "no command" },
        { { "sing" }, "there is no command 'sing'" },
        { { "run" }, "'run' needs a program: PROG" },
        { { "replay" }, "'replay' needs a FILE" },
        { { "run", "x", "y" }, "'y' after 'x'" },
        { { "run", "--bound", "1" }, "'run' has no option '--bound'" },
        { { "run", "--jobs" }, "option '--jobs' takes a value" },
        { { "replay", "--text=1", "x" }, "option '--text' takes no value" },
        { { "run", "--tso", "perhaps" }, "--tso is 'on' or 'off', not 'perhaps'" },
        { { "run", "/no/such/program" }, "there is no program '/no/such/program'" },
        { { "run", "/bin/true" }, "'/bin/true' is not linked with libminiblk-lab" },
        { { "replay", "/no/such/file" }, "No such file or directory" },
        { { "replay", "/bin/true" }, "'/bin/true' is not a replay file" },
        { { "replay", "/dev/zero" }, "'/dev/zero' is not a regular file" },
        { { "replay", "/tmp" }, "'/tmp' is not a regular file" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_auto(Outcome) o = lab(table[i].words[0], table[i].words[1], table[i].words[2],
                                table[i].words[3], NULL);

        g_assert_cmpint(o.status, ==, 2);
        assert_has(o.err, table[i].problem);
    }
    {
        g_auto(Outcome) o = lab("run", lesson(), "--schedules", "lots", NULL);

        g_assert_cmpint(o.status, ==, 2);
        assert_has(o.out, "Bail out! LAB_SCHEDULES: 'lots' is not a number from 1 to");
    }
}

/* The size is looked at, and nothing of it is read. */
static void test_file_too_large(void)
{
    static const char *const commands[] = { "replay", "shrink" };
    g_autofree char *name = g_build_filename(directory, "large.lab", NULL);
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, (INT64_C(16) << 20) + 1), ==, 0);
    close(fd);
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_auto(Outcome) o = lab(commands[i], name, NULL);

        g_assert_cmpint(o.status, ==, 2);
        assert_has(o.err, "large.lab' is too large for a replay file\n");
    }
}

static void test_help(void)
{
    g_auto(Outcome) o = lab("--help", NULL);

    g_assert_cmpint(o.status, ==, 0);
    assert_has(o.out, "miniblk-lab prove PROG");
}

static void remove_directory(void)
{
    g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);

    for (const char *name; (name = g_dir_read_name(dir));) {
        g_autofree char *path = g_build_filename(directory, name, NULL);

        g_unlink(path);
    }
    g_rmdir(directory);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status;

    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(g_getenv("MINIBLK_LAB"));
    g_assert_nonnull(lesson());
    g_assert_nonnull(g_getenv("SANITIZE"));
    directory = g_dir_make_tmp("lab-command-XXXXXX", &error);
    g_assert_no_error(error);
    replay_file = g_build_filename(directory, "lesson-lab-device-drain.lab", NULL);
    g_test_add_func("/lab-command/list", test_list);
    g_test_add_func("/lab-command/run/finds", test_run_finds);
    g_test_add_func("/lab-command/run/memory-model", test_memory_model);
    g_test_add_func("/lab-command/run/paths", test_paths);
    g_test_add_func("/lab-command/replay", test_replay);
    g_test_add_func("/lab-command/replay/diverges", test_replay_diverges);
    g_test_add_func("/lab-command/replay/chance", test_replay_of_chance);
    g_test_add_func("/lab-command/seed-line", test_seed_line);
    g_test_add_func("/lab-command/replay/pictures", test_replay_pictures);
    g_test_add_func("/lab-command/replay/another-program", test_replay_of_another_program);
    g_test_add_func("/lab-command/replay/gdb", test_gdb);
    g_test_add_func("/lab-command/odd-name", test_odd_name);
    g_test_add_func("/lab-command/no-space", test_no_space);
    g_test_add_func("/lab-command/shrink", test_shrink);
    g_test_add_func("/lab-command/shrink/by-another-name", test_shrink_by_another_name);
    g_test_add_func("/lab-command/prove", test_prove);
    g_test_add_func("/lab-command/given-up", test_given_up);
    g_test_add_func("/lab-command/loop-without-a-point", test_loop_without_a_point);
    g_test_add_func("/lab-command/no-room", test_no_room);
    g_test_add_func("/lab-command/usage", test_usage);
    g_test_add_func("/lab-command/file-too-large", test_file_too_large);
    g_test_add_func("/lab-command/help", test_help);
    status = g_test_run();
    remove_directory();
    g_free(replay_file);
    g_free(directory);
    return status;
}
