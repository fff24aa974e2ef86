/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random work on qcow2 images by both tools, turn by turn: what one writes the other reads,
 * checks, maps and goes on with. See diff.h.
 */
#include "tests/interop/diff.h"

#include <string.h>

enum { TURNS = 4, COMMANDS_PER_TURN = 100 };

static const char *const dirs[] = { "ours", "peer" };

/* The last command of a script before line LINE of its output, for messages. */
static bool same_output(const char *script, const char *ours, const char *peer)
{
    g_auto(GStrv) a = g_strsplit(ours, "qemu-io> ", -1);
    g_auto(GStrv) b = g_strsplit(peer, "qemu-io> ", -1);
    g_auto(GStrv) commands = g_strsplit(script, "\n", -1);

    for (guint i = 0; a[i] && b[i]; i++) {
        if (strcmp(a[i], b[i]) != 0) {
            g_test_message("%s\n  ours: %s\n  peer: %s", i ? commands[i - 1] : "", a[i],
                           b[i]);
            return false;
        }
    }
    return g_strv_length(a) == g_strv_length(b);
}

/* The same as for run_turn(). */
static bool run_snapshot_command(GRand *rand, DiffGeometry *g, int turn)
{
    g_autofree char *command = diff_snapshot_command(rand, g);
    int status[2];
    char *out[2];

    if (!command) {
        return true;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = diff_run((turn + i) % 2 == 0 ? DIFF_OURS : DIFF_PEER, &status[i], dirs[i],
                          "%s", command);
    }
    bool ok = diff_texts(command, out[turn % 2], out[1 - turn % 2]);
    if (ok && status[0] != status[1]) {
        g_test_message("%s ends with %d in \"ours\", with %d in \"peer\"", command, status[0],
                       status[1]);
        ok = false;
    }
    g_free(out[0]);
    g_free(out[1]);
    return ok;
}

/* One writes to DIR/img while the other writes to the other directory; then they swap. */
static bool run_turn(GRand *rand, DiffGeometry *g, int turn)
{
    g_autofree char *script = diff_script(rand, g, COMMANDS_PER_TURN);
    char *out[2];

    g_autofree char *plain = diff_plain_script(script);
    g_assert_true(g_file_set_contents("script-ours", script, -1, NULL));
    g_assert_true(g_file_set_contents("script-peer", plain, -1, NULL));
    for (int i = 0; i < 2; i++) {
        DiffTool tool = (turn + i) % 2 == 0 ? DIFF_OURS : DIFF_PEER;
        out[i] = diff_run(tool, NULL, dirs[i], "qemu-io -f qcow2 img <../script-%s",
                          tool == DIFF_OURS ? "ours" : "peer");
    }
    bool ok = same_output(script, out[turn % 2], out[1 - turn % 2]);
    g_free(out[0]);
    g_free(out[1]);
    return ok;
}

static bool same_map(const char *dir)
{
    static const char command[] = "qemu-img map -f qcow2 --output=json img";
    g_autofree char *our_text = diff_run(DIFF_OURS, NULL, dir, command);
    g_autofree char *peer_text = diff_run(DIFF_PEER, NULL, dir, command);
    g_autofree char *ours = diff_canonical_map(our_text, true);
    g_autofree char *peer = diff_canonical_map(peer_text, true);

    return diff_texts(command, ours, peer);
}

/* Both images define the same, whichever tool has written them. */
static bool same_layers(const DiffGeometry *g)
{
    static const char command[] = "qemu-img map --output=json 'json:{\"driver\": \"qcow2\", "
        "\"backing\": null, \"file\": {\"driver\": \"file\", \"filename\": \"img\"}}'";

    if (!g->same_layers) {
        return true;
    }
    g_autofree char *our_text = diff_run(DIFF_PEER, NULL, "ours", command);
    g_autofree char *peer_text = diff_run(DIFF_PEER, NULL, "peer", command);
    g_autofree char *ours = diff_canonical_map(our_text, false);
    g_autofree char *peer = diff_canonical_map(peer_text, false);

    return diff_texts("map of the layer by the peer", ours, peer);
}

/* Both tools find no fault with DIR/img, and tell the same about it. */
static bool check_image(const char *dir)
{
    return diff_good(dir, "qemu-img check -f qcow2 img") &&
           diff_good(dir, "qemu-img check -f qcow2 --output=json img") &&
           diff_good(dir, "qemu-img info -f qcow2 img") &&
           diff_good(dir, "qemu-img info -f qcow2 --output=json img") &&
           diff_good(dir, "qemu-img snapshot -l img") &&
           diff_good(dir, "qemu-img measure -f qcow2 -O qcow2 img") &&
           diff_good(dir, "qemu-img measure -f qcow2 -O raw --output=json img") &&
           same_map(dir);
}

static void random_turns(GRand *rand)
{
    DiffGeometry *g = diff_geometry_new(rand);
    bool ok = true;

    g_test_message("-o %s %s, %" G_GINT64_FORMAT " bytes", g->options->str, g->backing,
                   g->length);
    diff_create(DIFF_OURS, g, "ours");
    diff_create(DIFF_PEER, g, "peer");
    ok = !g_test_failed();
    for (int turn = 0; ok && turn < TURNS; turn++) {
        ok = run_turn(rand, g, turn) && run_snapshot_command(rand, g, turn) &&
             check_image("ours") && check_image("peer") && same_layers(g) &&
             diff_good(".", "qemu-img compare -f qcow2 -F qcow2 ours/img peer/img");
        if (!ok) {
            g_test_message("in turn %d", turn);
            g_test_fail();
        }
    }
    diff_geometry_free(g);
}

static void test_random_work(void)
{
    if (diff_need_peer()) {
        diff_rounds(10, random_turns);
    }
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/diff/qcow2/random-work", test_random_work);
    return t_main();
}
