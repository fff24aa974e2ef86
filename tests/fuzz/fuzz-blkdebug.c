/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing of the rules of "blkdebug" nodes: any text is a file of rules or is refused with a
 * message; rules that are accepted are followed, through any events and requests, and their
 * memory is given back.
 *
 * Built with -DMINIBLK_LIBFUZZER and -fsanitize=fuzzer it is a libFuzzer target. Built
 * plainly it runs the files that are given, or a number of generated inputs as a test.
 */
#include "block/filter/blkdebug.h"
#include "miniblk/main-loop.h"
#include "replay.h"

static void set_up(void)
{
    static bool done;

    if (!done) {
        done = true;
        qemu_init_main_loop(&error_abort);
        bdrv_init();
    }
}

typedef struct Run {
    Blkdebug *debug;
    const uint8_t *data;
    size_t size;
    bool done;
} Run;

/* The input's bytes are what happens, too. */
static void coroutine_fn run_entry(void *opaque)
{
    Run *r = opaque;

    for (size_t i = 0; i < r->size; i++) {
        uint8_t c = r->data[i];
        if (c % 3 == 0) {
            blkdebug__event(r->debug, c % BLKDBG__MAX);
        } else {
            int ret = blkdebug__check(r->debug, (int64_t)c * 512, c, c % 6);
            g_assert(ret <= 0);
        }
    }
    r->done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    Error *err = NULL;
    Blkdebug debug;

    set_up();
    QDict *options = blkdebug__parse_config(text, "input", &err);
    g_assert(!options == !!err);
    if (!options) {
        error_free(err);
        return 0;
    }
    blkdebug__init(&debug);
    if (blkdebug__add_rules(&debug, options, &err)) {
        Run r = { &debug, data, MIN(size, 256), false };
        g_assert(!json_object_size(options));
        qemu_coroutine_enter(qemu_coroutine_create(run_entry, &r));
        while (!r.done) {
            aio_poll(qemu_get_aio_context(), true);
        }
    } else {
        g_assert(err);
        error_free(err);
    }
    blkdebug__destroy(&debug);
    json_decref(options);
    return 0;
}

#ifndef MINIBLK_LIBFUZZER

enum { INPUTS = 200000 };

static const char *const words[] = {
    "[inject-error]\n", "[set-state]\n", "[inject-error \"x\"]\n", "[", "]", "\"", "=", "\n",
    " ", "#", "\t", "\r", "event = \"read_aio\"\n", "event = \"none\"\n",
    "event = \"write_aio\"\n", "event = \"l2_load\"\n", "event = \"nope\"\n",
    "state = \"1\"\n", "state = \"2\"\n", "new_state = \"2\"\n", "errno = \"28\"\n",
    "errno = \"99999999999999999999\"\n", "sector = \"3\"\n", "sector = \"-1\"\n",
    "once = \"on\"\n", "immediately = \"on\"\n", "iotype = \"read\"\n", "event", "errno",
    "0x10", "-", "\xff", "\xc3\xa9",
};

static GString *generate(GRand *rand)
{
    GString *input = g_string_new(NULL);
    int n = g_rand_int_range(rand, 1, 30);

    /* mostly a rule to begin with, or little would be accepted */
    if (g_rand_int_range(rand, 0, 4)) {
        g_string_append(input, words[g_rand_int_range(rand, 0, 2)]);
        g_string_append(input, words[g_rand_int_range(rand, 12, 16)]);
    }
    for (int i = 0; i < n; i++) {
        bool garbage = g_rand_int_range(rand, 0, 40) == 0;
        int word = g_rand_int_range(rand, garbage ? 0 : 12, G_N_ELEMENTS(words) - 6);
        g_string_append(input, words[word]);
        if (g_rand_int_range(rand, 0, 100) == 0) {
            g_string_append_c(input, g_rand_int_range(rand, 0, 256));
        }
    }
    return input;
}

static void test_generated(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);

    for (int i = 0; i < INPUTS; i++) {
        g_autoptr(GString) input = generate(rand);
        LLVMFuzzerTestOneInput((const uint8_t *)input->str, input->len);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1) {
        return fuzz_replay(argv + 1);
    }
    g_test_add_func("/fuzz/blkdebug/generated", test_generated);
    return g_test_run();
}

#endif
