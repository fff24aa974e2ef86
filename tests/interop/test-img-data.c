/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img and what is in the images: conversions of random images, checked by the peer
 * and byte for byte, in both directions. The random images hold data, zeroes that are
 * written, and holes, at positions that do and do not fall on sectors, pages and clusters.
 */
#include "tests/lib/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SECTOR_BYTES 512
#define RUN_BYTES_MAX (300 * 1024)

/* Run a line of shell commands, all of which must succeed. */
#define RUN_OK(line, ...) g_free(t_run_ok("set -e; " line, ##__VA_ARGS__))

static gboolean need_peer(void)
{
    return t_need("qemu-img") && t_need("qemu-io");
}

static gint64 aligned(gint64 value)
{
    static const gint64 units[] = { 1, 512, 4096, 65536 };
    gint64 unit = units[g_test_rand_int_range(0, G_N_ELEMENTS(units))];

    return value / unit * unit;
}

/* A file NAME of BYTES bytes with random runs of data, written zeroes and holes. */
static void make_random_file(const char *name, gint64 bytes)
{
    g_autofree char *buf = g_malloc(RUN_BYTES_MAX);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, bytes), ==, 0);
    for (gint64 pos = 0; pos < bytes;) {
        gint64 end = aligned(pos + g_test_rand_int_range(1, RUN_BYTES_MAX));
        gint64 len = CLAMP(end - pos, 1, bytes - pos);
        int kind = g_test_rand_int_range(0, 3);
        if (kind != 0) {
            memset(buf, kind == 1 ? 0 : g_test_rand_int_range(1, 256), len);
            g_assert_cmpint(pwrite(fd, buf, len, pos), ==, len);
        }
        pos += len;
    }
    close(fd);
}

/* A size from one byte to a few MiB, often not a multiple of anything. */
static gint64 random_size(void)
{
    gint64 size = aligned(g_test_rand_int_range(1, 5 << 20));

    return MAX(1, size);
}

/* Images are whole sectors long: fill FILE up with zeroes to compare it byte by byte. */
static void pad_to_sector(const char *file)
{
    RUN_OK("truncate -s %%%d %s", SECTOR_BYTES, file);
}

/* The peer must find image A sound and equal to B. */
static void peer_approves(const char *image, const char *format, const char *like)
{
    if (!strcmp(format, "qcow2")) {
        RUN_OK("qemu-img check -q -f qcow2 %s", image);
    }
    RUN_OK("qemu-img compare -f %s -F raw %s %s", format, image, like);
}

/* ---- conversions ------------------------------------------------------------------- */

static const char *const convert_options[] = {
    "", "-W", "-m 1", "-m 16", "-S 0", "-S 512", "-S 64k", "-S 1M", "-W -m 16 -S 512",
    "-t writeback", "-t writethrough", "-T none", "-t none", "-t directsync -m 3", "-q -p",
};

static const char *const qcow2_options[] = {
    "cluster_size=64k", "cluster_size=512", "cluster_size=4k", "cluster_size=2M",
    "compat=0.10", "refcount_bits=1", "refcount_bits=64,cluster_size=8k",
    "lazy_refcounts=on", "preallocation=metadata",
};

/* raw -> raw: the same bytes, whatever the options. */
static void test_raw_to_raw(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(convert_options); i++) {
        make_random_file("src", random_size());
        pad_to_sector("src");
        g_test_message("%s", convert_options[i]);
        RUN_OK("rm -f dst; miniblk-img convert %s -f raw -O raw src dst",
               convert_options[i]);
        RUN_OK("cmp src dst");
    }
}

/* raw -> ours -> raw, and the peer reads ours in between. */
static void test_to_qcow2(void)
{
    if (!need_peer()) {
        return;
    }
    /* Their numbers have no common divisor, so this meets each pair in turn. */
    guint first = g_test_rand_int_range(0, 1 << 20);
    for (guint i = first; i < first + 48; i++) {
        const char *options = convert_options[i % G_N_ELEMENTS(convert_options)];
        const char *format_options = qcow2_options[i % G_N_ELEMENTS(qcow2_options)];
        make_random_file("src", random_size());
        pad_to_sector("src");
        g_test_message("%s -o %s", options, format_options);
        RUN_OK("rm -f img dst; miniblk-img convert %s -f raw -O qcow2 -o %s src img",
               options, format_options);
        peer_approves("img", "qcow2", "src");
        RUN_OK("miniblk-img check -q img; miniblk-img compare -F raw img src");
        RUN_OK("miniblk-img convert -f qcow2 -O raw img dst; cmp src dst");
    }
}

/* The peer's images, read by us. */
static void test_from_peer(void)
{
    if (!need_peer()) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(qcow2_options); i++) {
        const char *compress = i % 2 ? "-c" : "";
        if (strstr(qcow2_options[i], "preallocation")) {
            compress = "";
        }
        make_random_file("src", random_size());
        pad_to_sector("src");
        g_test_message("%s -o %s", compress, qcow2_options[i]);
        RUN_OK("rm -f img dst; qemu-img convert %s -f raw -O qcow2 -o %s src img",
               compress, qcow2_options[i]);
        RUN_OK("miniblk-img convert -f qcow2 -O raw img dst; cmp src dst");
        RUN_OK("miniblk-img compare img src; miniblk-img check img");
        RUN_OK("rm -f img2; miniblk-img convert -O qcow2 img img2");
        peer_approves("img2", "qcow2", "src");
    }
}

/* Writing over an image that has contents must not let any of them through. */
static void test_onto_existing(void)
{
    static const char *const formats[] = { "raw", "qcow2" };

    if (!need_peer()) {
        return;
    }
    for (int i = 0; i < 8; i++) {
        const char *format = formats[i % 2];
        gint64 bytes = random_size() + SECTOR_BYTES;
        make_random_file("old", bytes);
        make_random_file("src", bytes);
        pad_to_sector("old");
        pad_to_sector("src");
        RUN_OK("rm -f img; qemu-img convert -f raw -O %s old img", format);
        RUN_OK("miniblk-img convert -n %s -f raw -O %s src img",
               convert_options[i % G_N_ELEMENTS(convert_options)], format);
        peer_approves("img", format, "src");
    }
}

/* Several sources are joined, each a whole number of sectors. */
static void test_join(void)
{
    for (int i = 0; i < 10; i++) {
        make_random_file("a", random_size());
        make_random_file("b", random_size());
        make_random_file("c", random_size());
        pad_to_sector("a");
        pad_to_sector("b");
        pad_to_sector("c");
        RUN_OK("cat a b c >all; rm -f dst; miniblk-img convert -f raw a b c dst");
        RUN_OK("cmp all dst");
    }
}

/* ---- sparse ------------------------------------------------------------------------- */

/* Holes and long zeroes take no room in the copy; with -S 0 everything does. */
static void test_allocation(void)
{
    RUN_OK("rm -f src; truncate -s 64M src; head -c 1M /dev/urandom |"
           " dd of=src bs=64k seek=100 conv=notrunc 2>/dev/null;"
           " head -c 4M /dev/zero | dd of=src bs=64k seek=500 conv=notrunc "
           "2>/dev/null");
    g_autofree char *sparse = t_run_ok("set -e; miniblk-img convert -f raw src dst; "
                                       "cmp src dst; "
                                       "echo $(($(stat -c %%b dst) * 512 / 1024))");
    g_autofree char *full = t_run_ok("set -e; miniblk-img convert -S 0 -f raw src dst; "
                                     "cmp src dst; "
                                     "echo $(($(stat -c %%b dst) * 512 / 1024))");

    /* 1 MiB, and what the file system reserves ahead; but not the 4 MiB of zeroes. */
    g_assert_cmpint(g_ascii_strtoll(sparse, NULL, 10), <=, 3 * 1024);
    g_assert_cmpint(g_ascii_strtoll(full, NULL, 10), >=, 64 * 1024);
}

/* ---- backing chains ------------------------------------------------------------------ */

/* A few random writes of PATTERN into qcow2 image NAME of SIZE_KIB, by the peer. */
static void scribble(const char *name, int size_kib, int pattern)
{
    GString *commands = g_string_new(NULL);

    for (int i = 0; i < 12; i++) {
        int at = g_test_rand_int_range(0, size_kib - 8);
        int want = g_test_rand_int_range(1, 200);
        int len = MIN(want, size_kib - at);
        g_string_append_printf(commands, " -c 'write %s %dk %dk'",
                               i % 4 == 3 ? "-z" : pattern % 2 ? "-P 17" : "-P 200", at, len);
    }
    RUN_OK("qemu-io -f qcow2%s %s", commands->str, name);
    g_string_free(commands, TRUE);
}

/*
 *     base (SIZES[0]) <- mid (SIZES[1]) <- top (SIZES[2])      KiB
 *
 * Layers may be shorter or longer than what is behind them.
 */
static void test_chain(void)
{
    static const int sizes[][3] = {
        { 2048, 2048, 2048 }, { 1024, 2048, 3072 }, { 3072, 2048, 1024 },
        { 2048, 1000, 3000 }, { 1025, 3001, 1023 },
    };

    if (!need_peer()) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        const char *tool = i % 2 ? "qemu-img" : "miniblk-img";
        RUN_OK("rm -rf chain; mkdir chain; cd chain;"
               "%s create -q -f qcow2 base %dk;"
               "%s create -q -f qcow2 -o cluster_size=4k -b base -F qcow2 mid %dk;"
               "%s create -q -f qcow2 -b mid -F qcow2 top %dk",
               tool, sizes[i][0], tool, sizes[i][1], tool, sizes[i][2]);
        scribble("chain/base", sizes[i][0], 1);
        scribble("chain/mid", sizes[i][1], 2);
        scribble("chain/top", sizes[i][2], 3);

        /* Flat, by us and by the peer. */
        RUN_OK("cd chain; qemu-img convert -O raw top peer.raw;"
               "miniblk-img convert -O raw top ours.raw; cmp peer.raw ours.raw;"
               "miniblk-img convert -O qcow2 top flat; qemu-img check -q flat;"
               "qemu-img compare flat top; miniblk-img compare flat top");
        /* Only the top layer, put before a copy of the middle one. */
        RUN_OK("cd chain; miniblk-img convert -O qcow2 mid mid2;"
               "qemu-img check -q mid2;"
               "miniblk-img convert -O qcow2 -B mid2 -F qcow2 top top2;"
               "qemu-img check -q top2; qemu-img compare top top2;"
               "miniblk-img compare top top2");
        /* The maps agree but for a member that the peer's release may lack. */
        RUN_OK("cd chain; qemu-img map --output=json top |"
               " sed 's/, \"compressed\": [a-z]*//' >peer.map;"
               "miniblk-img map --output=json top |"
               " sed 's/, \"compressed\": [a-z]*//' >ours.map; cmp peer.map ours.map;"
               "qemu-img map top >peer.map; miniblk-img map top >ours.map;"
               "cmp peer.map ours.map");
        RUN_OK("cd chain; for o in raw qcow2; do qemu-img measure -O $o top >peer.size;"
               "miniblk-img measure -O $o top >ours.size; cmp peer.size ours.size;"
               "done");
    }
}

/* ---- comparing ---------------------------------------------------------------------- */

/* One changed byte anywhere is found, at the place where the peer finds it. */
static void test_compare_finds(void)
{
    if (!need_peer()) {
        return;
    }
    for (int i = 0; i < 25; i++) {
        gint64 bytes = random_size();
        gint64 at = g_test_rand_int_range(0, bytes);
        g_autofree char *peer = NULL, *ours = NULL;
        make_random_file("a", bytes);
        RUN_OK("cp --sparse=always a b; rm -f q; miniblk-img convert -f raw -O qcow2 a q;"
               "dd if=b bs=1 skip=%" G_GINT64_FORMAT " count=1 2>/dev/null |"
               " tr '\\000-\\376\\377' '\\001-\\377\\000' |"
               " dd of=b bs=1 seek=%" G_GINT64_FORMAT " conv=notrunc 2>/dev/null",
               at, at);
        g_assert_cmpint(t_run(&peer, "qemu-img compare -f raw -F raw a b"), ==, 1);
        g_assert_cmpint(t_run(&ours, "miniblk-img compare -f raw -F raw a b"), ==, 1);
        g_assert_cmpstr(ours, ==, peer);
        g_free(ours);
        g_assert_cmpint(t_run(&ours, "miniblk-img compare -f qcow2 -F raw q b"), ==, 1);
        g_assert_cmpstr(ours, ==, peer);
    }
}

/* What cannot be read has its own status, and conversion does not make up data. */
static void test_read_errors(void)
{
    g_autofree char *out = NULL;
    const char *broken = "driver=raw,file.driver=file,file.filename=img";

    if (!need_peer()) {
        return;
    }
    /* A qcow2 image that maps a cluster beyond the end of its file. */
    RUN_OK("rm -f img; miniblk-img create -q -f qcow2 img 1M;"
           "qemu-io -f qcow2 -c 'write -P 5 0 64k' img;"
           "miniblk-img convert --image-opts %s whole;"
           "cp img torn; printf '\\200\\0\\0\\0\\0\\5\\2\\0' |"
           " dd of=torn bs=1 seek=$((0x40000)) conv=notrunc 2>/dev/null", broken);
    g_assert_cmpint(t_run(&out, "miniblk-img convert -f qcow2 torn o"), ==, 1);
    g_assert_nonnull(strstr(out, "miniblk-img: error while reading"));
    g_assert_cmpint(t_run(NULL, "miniblk-img compare -f qcow2 -F qcow2 torn img"), >, 1);
    RUN_OK("miniblk-img convert --salvage -q -f qcow2 torn o");
    RUN_OK("truncate -s 1M zero; cmp o zero");
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/img/data/raw-to-raw", test_raw_to_raw);
    g_test_add_func("/img/data/to-qcow2", test_to_qcow2);
    g_test_add_func("/img/data/from-peer", test_from_peer);
    g_test_add_func("/img/data/onto-existing", test_onto_existing);
    g_test_add_func("/img/data/join", test_join);
    g_test_add_func("/img/data/allocation", test_allocation);
    g_test_add_func("/img/data/chain", test_chain);
    g_test_add_func("/img/data/compare-finds", test_compare_finds);
    g_test_add_func("/img/data/read-errors", test_read_errors);
    return t_main();
}
