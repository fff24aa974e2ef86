/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scripts that run twice in fresh directories, once with the peer's image tool and once with
 * ours under the peer's name, and must print the same.
 */
#ifndef TESTS_INTEROP_IMG_LIKE_PEER_H
#define TESTS_INTEROP_IMG_LIKE_PEER_H

#include "tests/lib/harness.h"

#include <string.h>

/*
 * q runs a command: what it is, what it prints (\r shown as @), how it ends. room tells how many
 * 64 KiB a file takes, without what little the file system adds to tell where. Anything else that
 * fails was to set up: then the comparison would be one of failures.
 */
#define SET_UP_FAILED "set-up failed: "
static const char prelude[] =
    "set -E; trap 'echo \"" SET_UP_FAILED "$BASH_COMMAND\"' ERR\n"
    "q() { echo \"\\$ qemu-img $*\"; qemu-img \"$@\" </dev/null 2>&1 | tr '\\r' '@'; "
    "echo \"[exit ${PIPESTATUS[0]}]\"; }\n"
    "mark() { printf x | dd of=$1 bs=1 seek=$2 conv=notrunc 2>/dev/null; }\n"
    "room() { echo $(($(stat -c %b $1) / 128)); }\n";

typedef struct Script {
    const char *name;
    const char *text;
} Script;

/*
 * What differs between releases of the peer, what the host and the clock decide, and what we
 * do better: cut from both.
 * - disk size: a file system's business
 * - the block of each child node (since 8.0), and with it "children" in JSON
 * - "compressed" in a JSON map (since 8.2)
 * - who holds a lock, and what to do about it, which the peer does not say; dates; names that
 *   nodes are given; how long a benchmark took; the steps of a progress display; the order in
 *   which data came to lie in a file, and with it fragmentation
 */
static const char filter[] =
    "sed -E -e 's/disk size: .*/disk size: X/'"
    " -e 's/\"actual-size\": [0-9]+/\"actual-size\": X/'"
    " -e 's/, \"compressed\": (true|false)//' -e '/^Child node/d'"
    " -e '/^    (filename|protocol type|file length|disk size): /d'"
    " -e '/^ *\"children\": \\[/,/^( {4}| {8})\\],$/d'"
    " -e 's/ \\(process [^)]*\\)$//' -e '/^With -U it is read all the same/d'"
    " -e 's/#block[0-9]+/#block/'"
    " -e 's/20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}/DATE/'"
    " -e 's/\"date-(n?sec)\": [0-9]+/\"date-\\1\": X/'"
    " -e 's/(Run completed in )[0-9.]+/\\1X/'"
    " -e 's/^( +\\([0-9.]+\\/100%\\)@){3,}/    (progress)/'"
    " -e 's/[0-9.]+% fragmented/X% fragmented/'";

/* Run SCRIPT in a fresh directory with DIR first in PATH; what it printed. */
static char *run_script(const Script *script, const char *dir)
{
    g_autofree char *text = g_strconcat(prelude, script->text, NULL);

    g_assert_true(g_file_set_contents("script.sh", text, -1, NULL));
    return t_run_ok("rm -rf work && mkdir work && cd work && "
                    "PATH=%s:$PATH bash ../script.sh 2>&1 | %s", dir, filter);
}

/* A directory with our tool under the peer's name. */
static const char *our_dir(void)
{
    static char *dir;

    if (!dir) {
        g_autofree char *tool = t_tool("miniblk-img");
        dir = t_path("as-peer");
        g_free(t_run_ok("mkdir -p %s && ln -sf %s %s/qemu-img", dir, tool, dir));
    }
    return dir;
}

/* The place of the first difference with the lines around it, to be read at a glance. */
static char *first_difference(const char *peer, const char *ours)
{
    g_auto(GStrv) a = g_strsplit(peer, "\n", -1);
    g_auto(GStrv) b = g_strsplit(ours, "\n", -1);
    guint i = 0;

    while (a[i] && b[i] && !strcmp(a[i], b[i])) {
        i++;
    }
    guint command = i;
    while (command > 0 && !(a[command] && g_str_has_prefix(a[command], "$ "))) {
        command--;
    }
    return g_strdup_printf("after \"%s\"\n  peer: %s\n  ours: %s", a[command],
                           a[i] ? a[i] : "(end)", b[i] ? b[i] : "(end)");
}

static void test_script(gconstpointer opaque)
{
    const Script *script = opaque;

    if (!t_need("qemu-img")) {
        return;
    }
    g_autofree char *peer = run_script(script, "/nowhere");
    g_autofree char *ours = run_script(script, our_dir());
    g_assert_null(strstr(peer, SET_UP_FAILED));
    if (strcmp(peer, ours) != 0) {
        g_autofree char *difference = first_difference(peer, ours);
        g_test_message("%s", difference);
        g_test_fail();
    }
}

static void add_scripts(const char *prefix, const Script *scripts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        g_autofree char *path = g_strdup_printf("%s/%s", prefix, scripts[i].name);
        g_test_add_data_func(path, &scripts[i], test_script);
    }
}

#endif
