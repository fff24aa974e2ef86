/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The models of docs/models/, checked by spin: the protocols as they are must have no error,
 * and each planted bug must be found.
 */
#include "miniblk/osdep.h"
#include "tests/lib/harness.h"

typedef enum Check {
    NO_WAKE_UP_LOST,            /* nobody is stuck: the watchdog's assertion */
    SERVED_IN_THE_END,          /* the LTL property of the model, under weak fairness */
    NO_IDLE_ROUNDS,             /* no cycle without progress, under weak fairness */
} Check;

static const struct {
    const char *cflags, *pan_options;
} checks[] = {
    [NO_WAKE_UP_LOST] = { "-DSAFETY -DNOCLAIM", "" },
    [SERVED_IN_THE_END] = { "", "-a -f -A" },
    [NO_IDLE_ROUNDS] = { "-DNP -DNOCLAIM", "-l -f" },
};

typedef struct Case {
    const char *name;
    const char *model;
    const char *defines;
    Check check;
    bool fails;
} Case;

static const Case cases[] = {
    { "/models/wakeup/correct/lost", "wakeup", "", NO_WAKE_UP_LOST, false },
    { "/models/wakeup/correct/lost-3-notifiers", "wakeup",
      "-DNOTIFIERS=3 -DROUNDS=1 -DWHIMS=1", NO_WAKE_UP_LOST, false },
    { "/models/wakeup/correct/served", "wakeup", "-DROUNDS=1", SERVED_IN_THE_END, false },
    { "/models/wakeup/correct/idle", "wakeup", "-DROUNDS=1", NO_IDLE_ROUNDS, false },
    { "/models/wakeup/planted/look-first", "wakeup", "-DBUG_LOOK_FIRST", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/look-first-served", "wakeup", "-DBUG_LOOK_FIRST",
      SERVED_IN_THE_END, true },
    { "/models/wakeup/planted/ring-first", "wakeup", "-DBUG_RING_FIRST", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/blind-begin", "wakeup", "-DBUG_BLIND_BEGIN", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/plain-notify", "wakeup", "-DBUG_PLAIN_NOTIFY", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/clear-first", "wakeup", "-DBUG_CLEAR_FIRST", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/swallow", "wakeup", "-DBUG_SWALLOW", NO_WAKE_UP_LOST,
      true },
    { "/models/wakeup/planted/keep-asleep", "wakeup", "-DBUG_KEEP_ASLEEP", NO_IDLE_ROUNDS,
      true },

    { "/models/wait/correct/lost", "wait", "", NO_WAKE_UP_LOST, false },
    { "/models/wait/correct/lost-tso", "wait", "-DTSO -DKICKERS=3", NO_WAKE_UP_LOST, false },
    { "/models/wait/correct/served-tso", "wait", "-DTSO", SERVED_IN_THE_END, false },
    { "/models/wait/planted/look-first", "wait", "-DBUG_LOOK_FIRST", NO_WAKE_UP_LOST, true },
    { "/models/wait/planted/kick-first", "wait", "-DBUG_KICK_FIRST", NO_WAKE_UP_LOST, true },
    { "/models/wait/planted/bare-notify", "wait", "-DBUG_BARE_NOTIFY", NO_WAKE_UP_LOST, true },
    /* Without a store buffer a plain store is as good as a read-modify-write. */
    { "/models/wait/planted/plain-register", "wait", "-DBUG_PLAIN_REGISTER", NO_WAKE_UP_LOST,
      false },
    { "/models/wait/planted/plain-register-tso", "wait", "-DTSO -DBUG_PLAIN_REGISTER",
      NO_WAKE_UP_LOST, true },
    { "/models/wait/planted/plain-change", "wait", "-DBUG_PLAIN_CHANGE", NO_WAKE_UP_LOST,
      false },
    { "/models/wait/planted/plain-change-tso", "wait", "-DTSO -DBUG_PLAIN_CHANGE",
      NO_WAKE_UP_LOST, true },
};

/* The number behind KEY in spin's summary; -1 when it is not there. */
static gint64 number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? g_ascii_strtoll(at + strlen(key), NULL, 10) : -1;
}

static void test_model(gconstpointer data)
{
    const Case *c = data;
    g_autofree char *dir = t_path("%s", strrchr(c->name, '/') + 1);
    g_autofree char *generated = NULL, *compiled = NULL, *verified = NULL;

    if (!t_need("spin") || !t_need("cc")) {
        return;
    }
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    generated = t_run_ok("cd %s && spin -a %s %s/%s.pml", dir, c->defines,
                         g_getenv("MINIBLK_MODELS"), c->model);
    /* A bug is found soon, but for cycles: then compiling takes longer than searching. */
    compiled = t_run_ok("cd %s && cc -w %s -DNFAIR=3 %s -o pan pan.c", dir,
                        c->fails && c->check != NO_IDLE_ROUNDS ? "-O0" : "-O1", checks[c->check].cflags);
    /* -E: who may be blocked at the end is the watchdog's business. */
    verified = t_run_ok("cd %s && ./pan -E -m100000 %s", dir, checks[c->check].pan_options);

    gint64 errors = number_after(verified, "errors: ");
    bool complete = errors >= 0 && !strstr(verified, "max search depth too small");
    if (!complete || (errors > 0) != c->fails) {
        g_test_message("%s\n%s", verified, !complete ? "the search was not complete"
                       : c->fails ? "the planted bug was not found" : "an error was found");
        g_test_fail();
    }
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_add_data_func(cases[i].name, &cases[i], test_model);
    }
    return t_main();
}
