/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GTest as the lab has it: cases are registered here, and g_test_run() explores them. These
 * definitions are found before GLib's, so a test program needs no change.
 *
 * Output of a case would come thousands of times; it goes to the trace instead.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/real.h"
#include "lab/tsan.h"
#include "lab/world.h"

/* ---- cases ----------------------------------------------------------------------------- */

typedef void (*FixtureFunc)(void *fixture, gconstpointer data);

typedef struct Case {
    char *path;
    size_t fixture_size;
    gconstpointer data;
    FixtureFunc setup, test, teardown;
    GTestFunc plain;            /* or one without arguments */
    GTestDataFunc with_data;    /* or one with DATA */
    GDestroyNotify free_data;
} Case;

static Case *cases;
static unsigned case_count;

static void add(const char *path, Case c)
{
    c.path = g_strdup(path);
    cases = g_renew(Case, cases, case_count + 1);
    cases[case_count++] = c;
}

void g_test_add_func(const char *path, GTestFunc fn)
{
    add(path, (Case){ .plain = fn });
}

void g_test_add_data_func(const char *path, gconstpointer data, GTestDataFunc fn)
{
    add(path, (Case){ .with_data = fn, .data = data });
}

void g_test_add_data_func_full(const char *path, gpointer data, GTestDataFunc fn,
                               GDestroyNotify free_data)
{
    add(path, (Case){ .with_data = fn, .data = data, .free_data = free_data });
}

void g_test_add_vtable(const char *path, gsize size, gconstpointer data,
                       GTestFixtureFunc setup, GTestFixtureFunc test,
                       GTestFixtureFunc teardown)
{
    add(path, (Case){ .fixture_size = size, .data = data, .setup = (FixtureFunc)setup,
                      .test = (FixtureFunc)test, .teardown = (FixtureFunc)teardown });
}

unsigned lab_case_count(void)
{
    return case_count;
}

const char *lab_case_path(unsigned number)
{
    g_assert(number < case_count);
    return cases[number].path;
}

/* Suites that a program puts together by hand have no place in the list. */
#define REFUSE(ret, name, ...)                                                  \
    ret name(__VA_ARGS__);                                                      \
    ret name(__VA_ARGS__)                                                       \
    {                                                                           \
        dprintf(2, "miniblk-lab: " #name "(): the lab knows cases only that are " \
                "added by g_test_add*()\n");                                    \
        _exit(2);                                                               \
    }
REFUSE(GTestSuite *, g_test_create_suite, const char *name)
REFUSE(GTestCase *, g_test_create_case, const char *name, gsize size, gconstpointer data,
       GTestFixtureFunc setup, GTestFixtureFunc test, GTestFixtureFunc teardown)
REFUSE(GTestSuite *, g_test_get_root, void)
REFUSE(int, g_test_run_suite, GTestSuite *suite)

/* ---- what a case says ------------------------------------------------------------------- */

/* All of it is put back before the next schedule. */
static const Case *running;
static bool failed, skipped;
static char fail_reason[512], skip_reason[512];
static struct { gpointer object; GDestroyNotify destroy; } *queue;
static unsigned queue_count;

static char last_words[2048];

static void say_failed(const char *reason)
{
    failed = true;
    if (!fail_reason[0]) {
        g_strlcpy(fail_reason, reason, sizeof(fail_reason));
    }
}

void g_test_fail(void)
{
    say_failed("g_test_fail()");
}

void g_test_fail_printf(const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    say_failed(text);
}

gboolean g_test_failed(void)
{
    return failed;
}

static void say_skipped(const char *reason)
{
    skipped = true;
    g_strlcpy(skip_reason, reason ? reason : "", sizeof(skip_reason));
}

void g_test_skip(const char *reason)
{
    say_skipped(reason);
}

void g_test_skip_printf(const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    say_skipped(text);
}

void g_test_incomplete(const char *reason)
{
    say_skipped(reason);
}

void g_test_incomplete_printf(const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    say_skipped(text);
}

static void note_text(const char *text)
{
    if (lab_limits()->record) {
        lab__trace_event(LAB_EVENT_TEXT, -1, 0, NULL, text);
    }
}

void g_test_message(const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    note_text(text);
}

const char *g_test_get_path(void)
{
    return running ? running->path : "";
}

void g_test_queue_destroy(GDestroyNotify destroy, gpointer object)
{
    queue = g_realloc_n(queue, queue_count + 1, sizeof(*queue));
    queue[queue_count].object = object;
    queue[queue_count++].destroy = destroy;
}

void g_test_queue_free(gpointer object)
{
    g_test_queue_destroy(g_free, object);
}

/* ---- other processes are out of the lab's reach ----------------------------------------- */

gboolean g_test_subprocess(void)
{
    return FALSE;
}

void g_test_trap_subprocess(const char *path, guint64 timeout_us, GTestSubprocessFlags flags)
{
    lab_fail(LAB_SKIP, "runs itself in a subprocess");
}

/* ---- chance ---------------------------------------------------------------------------- */

/* The same numbers in each schedule. */
static uint64_t random_state;

static uint64_t random_next(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15);  /* splitmix64, public domain */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

gint32 g_test_rand_int(void)
{
    return random_next() >> 32;
}

gint32 g_test_rand_int_range(gint32 begin, gint32 end)
{
    g_assert(begin < end);
    return begin + (int64_t)((random_next() >> 32) * ((uint64_t)end - begin) >> 32);
}

double g_test_rand_double(void)
{
    return (random_next() >> 11) * 0x1p-53;
}

double g_test_rand_double_range(double begin, double end)
{
    return begin + g_test_rand_double() * (end - begin);
}

/* GLib would read the system's. */
GRand *g_rand_new(void)
{
    return g_rand_new_with_seed(random_next());
}

/* ---- output ---------------------------------------------------------------------------- */

static void remember(const char *text, size_t size)
{
    size_t room = sizeof(last_words) - 1, used = strlen(last_words);

    if (size > room) {
        text += size - room;
        size = room;
    }
    if (used + size > room) {
        memmove(last_words, last_words + used + size - room, room - size);
        used = room - size;
    }
    memcpy(last_words + used, text, size);
    last_words[used + size] = '\0';
}

/* COOKIE: the descriptor. */
static ssize_t stream_write(void *cookie, const char *text, size_t size)
{
    char line[256];

    if (!lab_running) {
        return write((intptr_t)cookie, text, size);
    }
    if ((intptr_t)cookie == STDERR_FILENO) {
        remember(text, size);
    }
    snprintf(line, sizeof(line), "%.*s", (int)MIN(size, sizeof(line) - 1), text);
    note_text(g_strchomp(line));
    return size;
}

/* GLib asks, and would not write to a stream without a descriptor. */
int fileno(FILE *f)
{
    return !lab_frozen || (f != stdout && f != stderr) ? REAL(fileno)(f)
           : f == stdout ? STDOUT_FILENO : STDERR_FILENO;
}

const char *lab_last_words(void)
{
    char *text = last_words, *assertion = g_strrstr(text, "**\n");

    /* g_assert() begins with that; what came before is of no interest then */
    return g_strstrip(assertion ? assertion + 3 : text);
}

static FILE *stream(int fd, int buffering)
{
    FILE *f = fopencookie((void *)(intptr_t)fd, "w",
                          (cookie_io_functions_t){ .write = stream_write });
    g_assert_nonnull(f);
    setvbuf(f, NULL, buffering, BUFSIZ);
    return f;
}

/* ---- running --------------------------------------------------------------------------- */

static LAB_IN_PROGRAM void run_program(const Case *c, void *fixture)
{
    if (c->setup) {
        c->setup(fixture, c->data);
    }
    if (c->plain) {
        c->plain();
    } else if (c->with_data) {
        c->with_data(c->data);
    } else {
        c->test(fixture, c->data);
    }
    for (unsigned i = queue_count; i-- > 0;) {
        queue[i].destroy(queue[i].object);
    }
    if (c->teardown) {
        c->teardown(fixture, c->data);
    }
    if (c->free_data) {
        c->free_data((gpointer)c->data);
    }
}

LabVerdict lab_case_run(unsigned number, const char **message)
{
    const Case *c = running = &cases[number];
    void *fixture = c->fixture_size ? g_malloc0(c->fixture_size) : (void *)c->data;

    LAB_PROGRAM(run_program(c, fixture));
    g_free(queue);
    if (c->fixture_size) {
        g_free(fixture);
    }
    *message = failed ? fail_reason : skipped ? skip_reason : NULL;
    return failed ? LAB_ASSERT : skipped ? LAB_SKIP : LAB_OK;
}

/* noinline: the frame of the caller must be main()'s. */
__attribute__((noinline)) int g_test_run(void)
{
    fflush(NULL);
    stdout = stream(STDOUT_FILENO, _IOLBF);
    stderr = stream(STDERR_FILENO, _IONBF);
    g_random_set_seed(1);
    /* GLib's messages have it in them: the same, however the program was started */
    g_set_prgname(program_invocation_short_name);
    lab_world_freeze((char *)__builtin_frame_address(0) + 2 * sizeof(void *));
    int ret = lab_main();
    fflush(NULL);
    lab_world_reset();        /* main() goes on as if no case had run */
    return ret;
}
