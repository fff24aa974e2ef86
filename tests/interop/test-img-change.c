/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img from outside: the commands that change images, and what convert does with
 * snapshots, bitmaps and compression.
 */
#include "tests/interop/img-like-peer.h"

#include <stdlib.h>

/* base (raw) <- mid <- top (longer, with zeroes over base's data), and other beside them. */
#define CHAIN                                                                   \
    "mk() { rm -f base mid top other; truncate -s 1M base; mark base 70000\n"   \
    "  qemu-img create -q -f qcow2 -b base -F raw mid\n"                        \
    "  qemu-io -f qcow2 -c 'write -P 5 256k 64k' mid >io.log\n"                 \
    "  qemu-img create -q -f qcow2 -b mid -F qcow2 top 2M\n"                    \
    "  qemu-io -f qcow2 -c 'write -P 6 512k 100k' -c 'write -z 0 64k' \\\n"     \
    "    -c 'write -P 7 1600k 64k' top >>io.log\n"                              \
    "  qemu-img create -q -f qcow2 other 700k\n"                                \
    "  qemu-io -f qcow2 -c 'write -P 8 300k 64k' -c 'write -P 5 256k 64k' \\\n" \
    "    other >>io.log; }\n"

/* Where data is, but not at which offset of the file. */
#define MAP "m() { qemu-img map --output=json $1 | sed 's/, \"offset.*//'; }\n"

static const Script scripts[] = {
    { "dd",
      "truncate -s 1M one; mark one 70000; mark one 1048575\n"
      "q dd; q dd if=one; q dd of=o; q dd if=one of=o; stat -c %s o; room o; cmp one o\n"
      "q dd if=one of=o bs=64k count=2; stat -c %s o; room o\n"
      "q dd if=one of=o bs=3000 count=7; stat -c %s o; md5sum <o\n"
      "q dd if=one of=o skip=5 bs=100000; stat -c %s o; md5sum <o\n"
      "q dd if=one of=o skip=100 bs=1M; stat -c %s o\n"
      "q dd if=one of=o bs=1k skip=1023; md5sum <o; q dd if=one of=o bs=1k skip=1024\n"
      "q dd if=one of=o bs=4k skip=3 count=5; stat -c %s o\n"
      "q dd if=one of=o bs=4k skip=5 count=5; q dd if=one of=o bs=4k skip=6 count=5\n"
      "for b in 0 x -1 4G 2G 16E 8E 1w 0x10 1.5k '' 1b; do\n"
      "  q dd bs=$b count=100 if=one of=o; done\n"
      "for c in 0 x -1 1M 9E; do q dd count=$c if=one of=o; q dd skip=$c if=one of=o; done\n"
      "for x in foo=1 foo conv=sync seek=1 IF=one =; do q dd if=one of=o $x; done\n"
      "q dd -f raw -O qcow2 if=one of=o bs=64k; q compare one o; q check o\n"
      "q dd -O qcow2 if=one of=o bs=1000 count=3; q info o; q dd -O bogus if=one of=o\n"
      "q dd -f bogus if=one of=o; q dd if=nosuch of=o; q dd if=one of=/nonex/o\n"
      "q dd if=one of=foo:bar; q dd -O null-co if=one of=o\n"
      "q dd --image-opts if=driver=raw,file.filename=one of=o\n"
      "q dd --image-opts -f raw if=one of=o; q dd -U if=one of=o; q dd -q if=one of=o\n"
      "q dd --bogus; q dd -f; q dd --object foo if=one of=o; q dd if= of=; q dd if=one of=\n"
      "q dd if=one if=nosuch of=o; q dd bs=1k bs=2k count=1 if=one of=o; stat -c %s o\n" },
    { "bench",
      "truncate -s 1M one; mark one 70000; q bench; q bench one two; q bench nosuch\n"
      "q bench one -c 0; for c in x -1 99999999999 10; do q bench -f raw -c $c one; done\n"
      "q bench -f raw -d 99999999999 one; q bench -f raw -c 10 -d 3 -s 1000 one\n"
      "for s in 0 4G 1x 2M; do q bench -f raw -c 10 -s $s one; done\n"
      "for s in 0 64k x 4G 2M; do q bench -f raw -c 10 -S $s one; done\n"
      "for o in 1M 64k x -1; do q bench -f raw -c 10 -o $o one; done\n"
      "q bench -f raw -c 300 -o 1000k one; q bench -f raw -c 10 -w one; md5sum <one\n"
      "q bench -f raw -c 10 -w --pattern=65 one; md5sum <one\n"
      "q bench -f raw -w --pattern=256 one; q bench -f raw -w --pattern=x one\n"
      "q bench -f raw -c 5 --pattern=1 one; q bench -f raw -w --flush-interval=x one\n"
      "for x in '' --no-drain '-d 2' '-d 2 --no-drain' '-d 3 -q'; do\n"
      "  q bench -f raw -c 10 -w --flush-interval=3 $x one; done\n"
      "q bench -f raw -c 10 --flush-interval=3 one; q bench -f raw -c 9 -w --no-drain one\n"
      "q bench -f raw -c 10 -i bogus one; q bench -f raw -c 10 -i threads one\n"
      "q bench -f raw -c 10 -i native one; q bench -f raw -c 10 -n one\n"
      "q bench -f raw -c 10 -t bogus one; q bench -U -f raw -c 10 one\n"
      "q bench -U -w -f raw -c 10 one; q bench -f bogus one; q bench --bogus\n"
      "q bench --image-opts -c 10 driver=raw,file.filename=one\n"
      "q bench --image-opts -f raw one; q bench --object foo one; truncate -s 1000 odd\n"
      "q bench -f raw -c 10 -s 600 odd; q bench -f raw -w -c 10 -s 600 odd\n"
      "q create -q -f qcow2 a 4M; q bench -f qcow2 -w -c 100 -d 8 -s 10000 a; q check a\n" },
    { "commit",
      CHAIN MAP
      "mk; q commit; q commit top mid; q commit nosuch; q commit base; q commit -b nosuch top\n"
      "q commit -b top top; q commit -t bogus top; q commit -r x top; q commit -f raw top\n"
      "q commit -f bogus top; q commit --image-opts -f qcow2 top; q commit --bogus\n"
      "q commit -b; q commit -U top; q commit --object foo top; q commit -r -1 top\n"
      "qemu-img convert -O raw top ref; q commit top; m top; q compare top ref; q info mid\n"
      "q check mid; m mid\n"
      "mk; q commit -p top; q compare top ref; mk; q commit -d top; q compare mid ref; m top\n"
      "mk; q commit -b base top; q compare base ref; q info top; stat -c %s base; m mid\n"
      "q map base; q compare top ref; mk; q commit -b mid top; q compare mid ref; m top\n"
      "mk; q commit -q -p top; mk; q commit -r 1G top\n"
      "for t in none writethrough unsafe; do q commit -t $t top; done\n"
      "mk; rm base; q commit top; mk; q commit --image-opts driver=qcow2,file.filename=top\n"
      "mk; q commit -b ./base top; mk; q commit -b $PWD/base top; q create -f qcow2 nob 1M\n"
      "q commit nob; q commit -b foo nob; q create -q -f qcow2 -b base -F raw small 64k\n"
      "qemu-io -f qcow2 -c 'write -P 9 0 64k' small >io.log; q commit small; stat -c %s base\n"
      "mkdir sub; mk; mv base mid top sub; q commit sub/top; q commit -b base sub/top\n"
      "truncate -s 1M base; q create -q -f qcow2 -b base -F raw -o extended_l2=on parts 1M\n"
      "qemu-io -f qcow2 -c 'write 102400 2k' -c 'write 512k 20k' parts >io.log\n"
      "qemu-img convert -O raw parts ref; q commit parts; cmp base ref; q compare parts ref\n"
      "q check parts; q create -q -f qcow2 -b base -F raw -o refcount_bits=1 bit\n"
      "qemu-io -f qcow2 -c 'write 102400 2k' bit >io.log; q commit bit; q check bit\n"
      "stat -c %s bit; q snapshot -c s bit; q check -q bit\n" },
    { "rebase",
      CHAIN MAP
      "mk; q rebase; q rebase top; q rebase -b base; q rebase -b base top x\n"
      "q rebase -b nosuch top; q rebase -b nosuch -F raw top; q rebase -b base -F bogus top\n"
      "q rebase -b base top; q rebase -u -b base top; q rebase -u -b nosuch top\n"
      "q rebase -u -b nosuch -F raw top; q info top; q rebase -u -b nosuch -F bogus top\n"
      "q rebase -b base -F raw nosuch\n"
      "mk; qemu-img convert -O raw top ref; q rebase -b base -F raw top; q info top\n"
      "q compare top ref; m top; mk; q rebase -p -b other -F qcow2 top; q info top\n"
      "q compare top ref; mk; q rebase -b '' top; q info top\n"
      "q compare top ref; m top; q rebase -b '' top; q rebase -u -b '' top\n"
      "q rebase -b base -F raw top; q compare top ref; m top; mk; q rebase -u -b '' top\n"
      "q info top; mk; q rebase -b top -F qcow2 top; q rebase -b ./top -F qcow2 top\n"
      "q create -q -f qcow2 -b top -F qcow2 over; q rebase -b over -F qcow2 top\n"
      "q rebase -b base -F raw base; q rebase -f raw -b base -F raw base\n"
      "q rebase -t bogus -b base -F raw top; q rebase -T bogus -b base -F raw top\n"
      "q rebase -q -p -b base -F raw top; mk; q rebase -t none -T none -b base -F raw top\n"
      "q rebase -U -b base -F raw top; q rebase --image-opts -f raw -b base -F raw top\n"
      "q rebase --image-opts -b base -F raw driver=qcow2,file.filename=top\n"
      "q rebase --bogus; q rebase --object foo -b base top; q rebase -f bogus -b base top\n"
      "mk; rm mid; q rebase -b base -F raw top; q rebase -u -b base -F raw top\n"
      "mk; mkdir sub; mv top mid base sub/; q rebase -b base -F raw sub/top\n"
      "q info sub/top; mv sub/* .; q create -q -f qcow2 -b base -F raw odd 1000001\n"
      "q rebase -b other -F qcow2 odd; q compare odd base\n"
      "q create -q -f qcow2 -o compat=0.10 -b base -F raw old 2M\n"
      "q rebase -p -b other -F qcow2 old; q check old; m old\n"
      "q rebase -F qcow2 -u -b $(printf 'x%.0s' $(seq 1100)) top | cut -c1-60\n" },
    { "snapshot",
      "q create -q -f qcow2 a 1M; qemu-io -c 'write -P 5 0 64k' a >io.log; q snapshot\n"
      "q snapshot a; q snapshot -l a; q snapshot -c s1 a; q snapshot -l a; q snapshot -c s1 a\n"
      "q snapshot -c 2 a; q snapshot -l a; qemu-io -c 'write -P 6 0 64k' a >io.log\n"
      "qemu-img convert a now; q snapshot -a s1 a; qemu-img convert a then; md5sum now then\n"
      "q snapshot -a nope a; q snapshot -d nope a; q snapshot -d 1 a; q snapshot -d s1 a\n"
      "q snapshot -d 2 a; q snapshot -l a; q snapshot -a 2 a; q check a | grep -v end\n"
      "q snapshot -c x -d y a; q snapshot -c x -c y a; q snapshot -l -c y a\n"
      "q snapshot -l -l a; q snapshot -f qcow2 -l a; q snapshot -U -l a; q snapshot -U -c z a\n"
      "q snapshot -q -c z a; q snapshot -q -l a; q snapshot --bogus; q snapshot -c\n"
      "q snapshot --image-opts -l driver=qcow2,file.filename=a; q snapshot -c x nosuch\n"
      "q snapshot -l nosuch; q snapshot --object foo -l a; q snapshot --force-share -l a\n"
      "q snapshot -l a b; q snapshot -c x; truncate -s 1M raw; q snapshot -l raw\n"
      "q snapshot -c x raw; q snapshot -d x raw; q snapshot -c '' a; q snapshot -l a\n"
      "q snapshot -d '' a; q snapshot -a '' a; q create -f qcow2 -o compat=0.10 old 1M\n"
      "q snapshot -c s old; q snapshot -l old; q info old; q info --output=json old\n"
      "q create -q -f qcow2 -b a -F qcow2 b; q snapshot -c b1 b; q info --output=json b\n"
      "q snapshot -c 'a b' b; q resize b 2M; q snapshot -a b1 b; q info b; q check b | grep -v end\n" },
    { "bitmap",
      "mk() { rm -f a b r; qemu-img create -q -f qcow2 a 1M; qemu-img create -q -f qcow2 b 1M\n"
      "  truncate -s 1M r; }\n"
      "mk; q bitmap; q bitmap a; q bitmap a b0; q bitmap a b0 c; q bitmap --add a\n"
      "q bitmap --add a b0; q info a; q bitmap --add a b0; q bitmap --add -g 64k a b1\n"
      "for g in 3k x 0 256 4G; do q bitmap --add -g $g a b2; done; q bitmap --add -g 2G a g\n"
      "q bitmap -g 64k a b2; q bitmap --remove -g 64k a b1; q bitmap --remove nosuch a\n"
      "for o in remove clear enable disable 'merge x'; do q bitmap --$o a nosuch; done\n"
      "q bitmap --merge x a b0; q bitmap --disable a b0; q info a; q bitmap --enable a b0\n"
      "q bitmap --clear a b0; q bitmap --add --disable a c; q bitmap --merge b0 a c\n"
      "q bitmap --merge b0 --merge c a b1; q bitmap --remove a b1; q info --output=json a\n"
      "q bitmap --remove --add a c; q bitmap --add a x --enable --disable --clear --merge b0\n"
      "q bitmap --add --add a y; q bitmap -b b --merge b0 a c; qemu-img bitmap --add b bb\n"
      "q bitmap -b b --merge bb a c; q bitmap -b b -F qcow2 --merge bb a c\n"
      "q bitmap -F qcow2 --merge b0 a c; q bitmap -b b --clear a c\n"
      "q bitmap -b b -F raw --merge bb a c; q bitmap -b nosuch --merge bb a c\n"
      "q bitmap -f qcow2 --add a z; q bitmap -f bogus --add a z; q bitmap --add nosuch x\n"
      "q bitmap --image-opts --add driver=qcow2,file.filename=a zz\n"
      "q bitmap --image-opts -f qcow2 --add a z; q bitmap --bogus; q bitmap --add a ''\n"
      "q bitmap -U --add a x; q bitmap -q --add a x; q bitmap --object foo --add a x\n"
      "q bitmap -g; q bitmap --merge; q create -q -f qcow2 c2 2M; q bitmap --add c2 x\n"
      "q bitmap -b c2 --merge x a c; q bitmap --clear --remove a c; q bitmap --remove --clear a x\n"
      "q check a; q create -q -f qcow2 -b a -F qcow2 t; q bitmap --add t new\n"
      "q bitmap --add a new; q bitmap --merge new -b t -F qcow2 a new; q check a\n" },
    { "amend",
      "i() { qemu-img info $1 | grep -v 'disk size'; }\n"
      "q create -q -f qcow2 a 1M; q create -q -f qcow2 b 1M; truncate -s 1M r; q amend\n"
      "q amend a; q amend -o compat=0.10; q amend -o compat=0.10 a; i a\n"
      "q amend -o compat=1.1 a; i a; q amend -o compat=1.1 a b; q amend -o lazy_refcounts=on a\n"
      "i a; q amend -o refcount_bits=8 a; i a; q amend -o compat=0.10 a\n"
      "q amend -o lazy_refcounts=off a; q amend -o compat=0.10 a; q amend -o refcount_bits=16 a\n"
      "q amend -o compat=0.10 a; q check -q a\n"
      "for o in nosuch=1 cluster_size=4k preallocation=full size=2M size=1M extended_l2=on \\\n"
      "  compression_type=zstd backing_file=b backing_file=b,backing_fmt=qcow2 \\\n"
      "  backing_file= backing_fmt=raw data_file=x data_file_raw=on encryption=on \\\n"
      "  encrypt.format=luks compat=bogus lazy_refcounts=on refcount_bits=3 \\\n"
      "  refcount_bits=128 ,a '' compat; do q amend -o \"$o\" a; done; i a\n"
      "q create -q -f qcow2 -b r -F raw c; for o in backing_file=r backing_fmt=raw \\\n"
      "  backing_file=r,backing_fmt=raw backing_file=r,backing_fmt=qcow2 backing_file=; do\n"
      "  q amend -o $o c; done; i c; q amend -o backing_file=,backing_fmt= a\n"
      "q amend -o help; q amend -o help a; q amend -f qcow2 -o help; q amend -f raw -o help\n"
      "q amend -f raw -o size=1M r; q amend -o compat=1.1 r; q amend -f bogus -o help\n"
      "q amend -f bogus -o compat=1.1 a; q amend -f null-co -o help\n"
      "q amend -t bogus -o compat=1.1 a; q amend -t none -o compat=1.1 a\n"
      "q amend -q -p -o compat=1.1 a; q amend --image-opts -f qcow2 -o compat=1.1 a\n"
      "q amend --image-opts -o compat=1.1 driver=qcow2,file.filename=a\n"
      "q amend --force -o compat=1.1 a; q amend -o compat=1.1 nosuch; q amend --bogus\n"
      "q amend -U -o x a; q amend --object foo -o compat=1.1 a\n"
      "q amend -o compat=1.1 -o lazy_refcounts=on a; i a; q amend -o refcount_bits=1 a; i a\n"
      "q amend -o refcount_bits=16 a; q snapshot -c x a; q amend -o refcount_bits=2 a\n"
      "q amend -o compat=0.10 a; q check -q a\n" },
    { "convert-snapshot",
      "q create -q -f qcow2 a 1M; qemu-io -c 'write -P 5 0 64k' a >io.log\n"
      "q snapshot -c s1 a; qemu-io -c 'write -P 6 0 64k' a >io.log; q snapshot -c 1 a\n"
      "for l in s1 1 nope snapshot.id=1 snapshot.name=1 snapshot.id=2,snapshot.name=1 \\\n"
      "  snapshot.id=2,snapshot.name=s1 snapshot.foo=1 snapshot.id=9 '' snapshot.id=; do\n"
      "  rm -f o; q convert -l \"$l\" a o; [ -f o ] && md5sum <o; done\n"
      "q convert -l s1 a a o; q convert -l s1 -l nope a o; q measure -O qcow2 -l s1 a\n"
      "q measure -O qcow2 -l nope a; q measure -l snapshot.id=1 a; q measure -O qcow2 a\n"
      "q measure -l s1 --size 1G; q snapshot -c a,b a; q convert -l snapshot.name=a,,b a o\n"
      "md5sum <o\n" },
    { "convert-bitmaps",
      "q create -q -f qcow2 b 1M; q bitmap --add b b0; q bitmap --add -g 512 --disable b b1\n"
      "qemu-io -c 'write 0 128k' b >io.log; q bitmap --add b b2; truncate -s 1M r\n"
      "q convert --bitmaps -O qcow2 b o; q info o; q check o; q measure -O qcow2 b\n"
      "q measure -O raw b; q measure -O qcow2 --output=json -o cluster_size=4k b\n"
      "q convert --bitmaps b o; q convert --bitmaps -O qcow2 r o\n"
      "q convert --bitmaps -O qcow2 b b o; q convert --bitmaps -O qcow2 -o compat=0.10 b o\n"
      "q convert --bitmaps --skip-broken-bitmaps -O qcow2 b o\n"
      "q convert --skip-broken-bitmaps -O qcow2 b o; q create -q -f qcow2 t 1M\n"
      "q convert --bitmaps -n -O qcow2 b t; q info t; q bitmap --remove t b0\n"
      "truncate -s 4M r4; q convert --bitmaps -n -O raw b r4\n" },
    { "convert-compressed",
      "truncate -s 3M r; mark r 70000; mark r 2000000; truncate -s 4M r4\n"
      "q convert -c -O qcow2 r o; q compare r o; q check o; q convert -c -O raw r o\n"
      "q convert -c -C -S 4k -O qcow2 r o; q convert -c -S 0 -O qcow2 r o; q compare r o\n"
      "q convert -c -W -O qcow2 r o; q compare r o; q convert -c -n -O raw r r4\n"
      "q convert -c -O qcow2 -o compression_type=zstd r o; q info o; q compare r o\n"
      "q convert -c -O qcow2 -o preallocation=metadata r o; q check o; q map o\n"
      "q convert -c -O qcow2 -o cluster_size=512 r o; q compare r o; q check o\n" },
};

/* ---- what the peer does not do ------------------------------------------------------ */

/* Every command that shows progress shows it to programs, too: one object a line. */
static void test_progress_json(void)
{
    static const char *const commands[] = {
        "convert --progress=json one o", "compare --progress=json one one",
        "convert -q --progress=json one o",
        "rebase --progress=json -b '' top", "commit --progress=json mid",
        "amend --progress=json -o refcount_bits=64 top",
    };

    g_free(t_run_ok("truncate -s 4M one; miniblk-img create -q -f qcow2 base 1M\n"
                    "miniblk-img create -q -f qcow2 -b base -F qcow2 mid\n"
                    "miniblk-img create -q -f qcow2 -b mid -F qcow2 top"));
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *out = t_run_ok("miniblk-img %s", commands[i]);
        g_auto(GStrv) lines = g_strsplit(out, "\n", -1);
        double last = -1;
        g_test_message("%s", commands[i]);
        for (char **line = lines; *line && **line == '{'; line++) {
            double percent;
            json_t *object = json_loads(*line, 0, NULL);
            g_assert_cmpint(json_unpack(object, "{s:F!}", "percent", &percent), ==, 0);
            g_assert_cmpfloat(percent, >=, last);
            last = percent;
            json_decref(object);
        }
        g_assert_cmpfloat(last, ==, strstr(commands[i], "-q") ? -1 : 100);
    }
    g_autofree char *out = NULL;
    g_assert_cmpint(t_run(&out, "miniblk-img convert --progress=xml one o"), ==, 1);
    g_assert_cmpstr(out, ==, "miniblk-img: --progress must be used with human or json as "
                    "argument.\n");
}

/* An image is never copied onto itself; the peer's dd empties it. */
static void test_dd_onto_itself(void)
{
    g_autofree char *out = NULL;

    g_free(t_run_ok("rm -f self soft; head -c 1M /dev/urandom >self; cp self copy; "
                    "ln -s self soft"));
    g_assert_cmpint(t_run(&out, "miniblk-img dd if=self of=soft"), ==, 1);
    g_assert_cmpstr(out, ==, "miniblk-img: soft: cannot copy an image onto itself\n");
    g_free(t_run_ok("cmp self copy"));
}

/* A queue that holds nothing would wait for ever. */
static void test_bench_depth(void)
{
    g_autofree char *out = NULL;

    g_free(t_run_ok("rm -f none; : >none"));
    g_assert_cmpint(t_run(&out, "miniblk-img bench -f raw -d 0 none"), ==, 1);
    g_assert_cmpstr(out, ==, "miniblk-img: Invalid queue depth specified\n");
    g_free(out);
    g_assert_cmpint(t_run(&out, "miniblk-img bench -f raw -c 3 none 2>&1 >/dev/null"), ==, 1);
    g_assert_cmpstr(out, ==, "miniblk-img: Failed request: Input/output error\n");
}

/* rebase can compress what it copies into the image. */
static void test_rebase_compressed(void)
{
    g_free(t_run_ok(
        "rm -f base top; yes 'some text' | head -c 1M >base; cp base ref\n"
        "miniblk-img create -q -f qcow2 -b base -F raw top\n"
        "miniblk-img rebase -c -b '' top && rm base && miniblk-img compare top ref && "
        "miniblk-img check top | grep '100.00%% compressed'"));
}

/* -C gives the same image, whether the host can copy (raw files) or not. */
static void test_copy_offload(void)
{
    g_free(t_run_ok(
        "rm -f one odd o q; head -c 3M /dev/urandom >one; truncate -s 5M one\n"
        "printf x >>one; truncate -s 1000 odd; printf x >>odd\n"
        "miniblk-img convert -C -f raw one o && cmp -n $(stat -c %%s one) one o &&\n"
        "miniblk-img convert -C -f raw odd o && cmp -n 1001 odd o &&\n"
        "miniblk-img convert -C -W -m 16 one odd o &&\n"
        "miniblk-img convert one odd p && cmp o p &&\n"
        "miniblk-img convert -C -O qcow2 one q && miniblk-img compare one q &&\n"
        "miniblk-img convert -C q o && miniblk-img compare one o"));
}

/* A snapshot's name is cut to what the format takes, and said so. */
static void test_snapshot_name(void)
{
    g_autofree char *out = NULL;
    g_autofree char *name = g_strnfill(300, 'n');

    g_free(t_run_ok("rm -f a; miniblk-img create -q -f qcow2 a 1M"));
    g_assert_cmpint(t_run(&out, "miniblk-img snapshot -c %s a", name), ==, 0);
    g_assert_true(g_str_has_prefix(out, "miniblk-img: warning: The name is too long"));
    g_free(t_run_ok("miniblk-img snapshot -l a | grep -q ' n\\{255\\} '"));
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    add_scripts("/img-change/like-peer", scripts, G_N_ELEMENTS(scripts));
    g_test_add_func("/img-change/progress-json", test_progress_json);
    g_test_add_func("/img-change/dd-onto-itself", test_dd_onto_itself);
    g_test_add_func("/img-change/bench-depth", test_bench_depth);
    g_test_add_func("/img-change/rebase-compressed", test_rebase_compressed);
    g_test_add_func("/img-change/copy-offload", test_copy_offload);
    g_test_add_func("/img-change/snapshot-name", test_snapshot_name);
    return t_main();
}
