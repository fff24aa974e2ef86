/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random commands of the image tool on a random set of images, by ours and by the peer's: each
 * works in a directory of its own and must say the same, end alike and leave images that show
 * the same, have the same map and the same description. See diff.h.
 *
 *     files a ... f: raw and qcow2 images, some with others of them behind them
 *         ours/a ... ours/f   <- miniblk-img     peer/a ... peer/f   <- qemu-img
 *     after each command: the image that it was about; at the end of a round: all
 */
#include "tests/interop/diff-img.h"

#include <string.h>

enum { COMMANDS = 40 };
/* A command that takes longer hangs; it ends with this status then. */
#define LIMITED "timeout 60 "
enum { TIMED_OUT = 124 };

static bool have_server;        /* qemu-nbd, and what asks it */

/* ---- running and comparing -------------------------------------------------------- */

/*
 * TEXT without what each tool chooses for itself, unless PLACES: where in a file data lies,
 * and so how far the file goes and how scattered it is; and which zeroes are data.
 */
static char *without_places(const char *text, bool places)
{
    static const char *const patterns[] = {
        "^ *\"image-end-offset\": .*\n", ",\n *\"fragmented-clusters\": [0-9]+",
        "^Image end offset: .*\n", "^[0-9]+/[0-9]+ = .* allocated, .*\n",
        "^ *\"(total|allocated|compressed)-clusters\": .*\n",
        ": Cluster at offset 0x.* has a refcount of .*$",
    };
    char *out = g_strdup(text);

    for (gsize i = 0; !places && i < G_N_ELEMENTS(patterns); i++) {
        g_autoptr(GRegex) regex = g_regex_new(patterns[i], G_REGEX_MULTILINE, 0, NULL);
        char *next = g_regex_replace(regex, out, -1, 0, "", 0, NULL);
        g_free(out);
        out = next;
    }
    return out;
}

/* The tools run TEXT, each in the directory given; *PEER_STATUS may be NULL. */
static bool same_run(const char *text, const char *our_dir, const char *peer_dir,
                     int *peer_status)
{
    bool map = strstr(text, "map --output=json") != NULL;
    bool places = !strcmp(our_dir, peer_dir);
    int our_status, status;
    g_autofree char *ours = diff_run(DIFF_OURS, &our_status, our_dir, "%s", text);
    g_autofree char *peer = diff_run(DIFF_PEER, &status, peer_dir, "%s", text);
    g_autofree char *a = map ? diff_canonical_map(ours, places) : without_places(ours, places);
    g_autofree char *b = map ? diff_canonical_map(peer, places) : without_places(peer, places);

    if (peer_status) {
        *peer_status = status;
    }
    if (!diff_texts(text, a, b)) {
        return false;
    }
    if (our_status != status) {
        g_test_message("%s: ours ends with %d, the peer with %d; both print\n%s", text,
                       our_status, status, ours);
    }
    return our_status == status;
}

/*
 * The peer sees the layer NAME define the same in both directories. Only for qcow2: which
 * zeroes of a raw file are holes is for each tool to choose.
 */
static bool same_map(const char *name)
{
    g_autofree char *command = g_strdup_printf("qemu-img map --output=json 'json:{"
        "\"driver\": \"qcow2\", \"backing\": null, \"file\": {\"driver\": \"file\", "
        "\"filename\": \"%s\"}}'", name);
    g_autofree char *a = diff_run(DIFF_PEER, NULL, "ours", "%s", command);
    g_autofree char *b = diff_run(DIFF_PEER, NULL, "peer", "%s", command);
    g_autofree char *ours = diff_canonical_map(a, false);
    g_autofree char *peer = diff_canonical_map(b, false);

    return diff_texts("map of the layer by the peer", ours, peer);
}

/*
 * What was written to IMAGE while it had bitmaps is dirty in both directories, as the peer's
 * server tells it.
 */
static bool same_bitmaps(const Image *image)
{
    bool same = true;

    for (int i = 0; same && image->bitmaps >> i && have_server; i++) {
        if (!(image->bitmaps & 1u << i)) {
            continue;
        }
        g_autofree char *command = g_strdup_printf("nbdinfo --map=qemu:dirty-bitmap:b%d -- "
            "[ qemu-nbd -r -f qcow2 -B b%d %s ]", i, i, image->name);
        g_autofree char *ours = diff_run(DIFF_PEER, NULL, "ours", "%s", command);
        g_autofree char *peer = diff_run(DIFF_PEER, NULL, "peer", "%s", command);
        same = diff_texts(command, ours, peer);
    }
    return same;
}

/* NAME shows the same, is described the same and is without fault in both directories. */
static bool same_image(const Image *image)
{
    const char *name = image->name;
    int status;
    g_autofree char *info = g_strdup_printf("qemu-img info --output=json %s", name);
    g_autofree char *check = g_strdup_printf("qemu-img check %s", name);

    if (!same_run(info, "ours", "peer", NULL) || !same_run(check, "ours", "peer", NULL) ||
        (!image->loose && !same_map(name))) {
        return false;
    }
    g_autofree char *check_out = diff_run(DIFF_PEER, &status, "ours", "%s", check);
    if (status != 0 && status != 63 && status != 1) {
        g_test_message("the peer says about ours/%s: %s", name, check_out);
        return false;
    }
    g_autofree char *out = diff_run(DIFF_PEER, &status, ".",
                                    "qemu-img compare ours/%s peer/%s", name, name);
    if (status == 1 || status > 2) {
        g_test_message("ours/%s and peer/%s: %s", name, name, out);
        return false;
    }
    return true;
}

/*
 * The peer has not come to an end, or finds fault with what it has written: then there is
 * nothing to be learnt.
 */
static bool peer_failed(const Image *image, int peer_status)
{
    int status = peer_status;

    if (peer_status != TIMED_OUT) {
        g_free(diff_run(DIFF_PEER, &status, "peer", "qemu-img check %s", image->name));
    }
    if (status == TIMED_OUT || status == 2 || status == 3) {
        g_test_message("the peer has failed");
        return true;
    }
    return false;
}

static void mark(Image *image, const Command *c)
{
    image->loose |= c->copies;
    image->moved |= c->copies || c->moves;
}

/* False when the round is over; then *OK says whether all was well. */
static bool run_command(World *w, const Command *c, bool *ok)
{
    g_autofree char *text = g_strconcat(LIMITED, c->text->str, NULL);
    int peer_status;

    if (!c->target) {
        *ok = same_run(text, "ours", "ours", NULL) && same_run(text, "peer", "peer", NULL);
        return *ok;
    }
    if (strstr(text, "img create")) {
        c->target->loose = c->target->moved = false;
    }
    mark(c->target, c);
    if (c->second_target) {
        mark(c->second_target, c);
    }
    *ok = same_run(text, "ours", "peer", &peer_status) && same_image(c->target) &&
          (!c->second_target || same_image(c->second_target));
    if (!*ok) {
        *ok = peer_failed(c->target, peer_status);
        return false;
    }
    w_look(w, c->target);
    if (c->second_target) {
        w_look(w, c->second_target);
    }
    return true;
}

static void random_commands(GRand *rand)
{
    bool ok = true, more = true;
    World w;

    g_free(t_run_ok("mkdir ours peer"));
    w_init(&w, rand);
    for (int i = 0; more && i < COMMANDS; i++) {
        Command *c = w_command(&w, i);
        g_test_message("%s", c->text->str);
        more = run_command(&w, c, &ok);
        w_command_free(c);
    }
    for (int i = 0; more && ok && i < W_IMAGES; i++) {
        ok = same_image(&w.images[i]) && (w.images[i].moved || same_bitmaps(&w.images[i]));
    }
    if (!ok) {
        g_test_fail();
    }
}

static void test_random_commands(void)
{
    have_server = t_have("nbdinfo") && t_have("qemu-nbd");
    if (diff_need_peer()) {
        diff_rounds(4, random_commands);
    }
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/diff/img/random-commands", test_random_commands);
    return t_main();
}
