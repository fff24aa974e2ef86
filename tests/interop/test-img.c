/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img from outside: command line, messages, output and exit statuses of the commands
 * that look at images, make them and copy them.
 */
#include "tests/interop/img-like-peer.h"

#include <stdlib.h>
#include <string.h>

static const Script scripts[] = {
    { "image-opts",
      "q create -q -f qcow2 a 1M; q create -q $'b\\xff' 1M; q create -q bä 1M\n"
      "for o in read-only=off force-share=off force-share=on file.read-only=off \\\n"
      "  force-share=on,read-only=off; do\n"
      "  for c in info map 'snapshot -l' 'measure -O qcow2' 'info -U' 'map -U' 'check -U'; do\n"
      "  q $c --image-opts driver=qcow2,file.filename=a,$o; done; done\n"
      "for f in $'b\\xff' bä; do q info --image-opts \"driver=raw,size=1k,file.filename=$f\"\n"
      "q info --output=json --image-opts \"driver=raw,size=1k,file.filename=$f\"; done\n" },
    { "usage",
      "q; q nosuch; q --bogus; q -T foo info\n"
      "for c in create info convert compare check map resize measure; do\n"
      "  q $c; [ $c = measure ] || q $c --bogus; [ $c = measure ] || q $c -Q\n"
      "  q $c --object foo,id=x a b; done\n"
      "q create -f; q info --output; q info a b; q compare a; q compare a b c\n"
      "q create a.img 1M extra; q create -f raw a.img -5; q convert a\n" },
    { "sizes",
      "for s in 0 1 5X 1.5k 1.5 100 8E 9E 16E 99999999999999999999 1b 513b 1K 1kk 0x100k \\\n"
      "  0x100 0x1e 1.1k .5k 1.k 1e3 +5 ' 5' '5 ' '' 1.0 1.0b 1.99999999999M 007 1M 5kB \\\n"
      "  0x 0x1.8k; do q create -f raw a.img \"$s\"; stat -c %s a.img; done\n" },
    { "create-raw",
      "q create r.img 1M; q create -f raw r.img 1M -o size=2M; q create -q r.img 1M\n"
      "q create -f raw -o size=2M r.img; q create -f raw -o size=2M r.img 1M\n"
      "q create -f raw -o preallocation=full r.img 1M; stat -c %s r.img; room r.img\n"
      "q create -f raw -o preallocation=falloc,nocow=off r.img 1M; q create r.img\n"
      "q create -f raw -o preallocation=off -o extent_size_hint=1M r.img 1M\n"
      "q create -f raw -o help r.img; q create -f file -o '?'; q create -f bogus -o help x\n"
      "q create -f raw -b q -F raw r.img; q create -f raw -F raw r.img 1M\n"
      "q create -f raw /nonexist/x 1M; q create -f raw foo:bar 1M; q create -f null-co x 1M\n"
      "q create -f bogus x 1M; q create -f raw '' 1M; q create -f file x.file 1M\n"
      "q create -f raw 'with,comma and space' 1M\n" },
    { "option-lists",
      "for o in nosuch nosuch=1 nocow=maybe extent_size_hint=x preallocation=off, =, , ,a \\\n"
      "  extent_size_hint=1M,,2 extent_size_hint=-1 extent_size_hint=16E nocow=; do\n"
      "  q create -f raw -o \"$o\" a.raw 1M; done; q create -f raw -o '' a.raw 1M\n" },
    { "create-qcow2",
      "q create -f qcow2 a.qcow2 64M; q create -f qcow2 -q a.qcow2 1M; q info a.qcow2\n"
      "q create -f qcow2 a.qcow2; q create -f qcow2 -o help | grep -v encrypt\n"
      "for o in cluster_size=4k,lazy_refcounts=on cluster_size=3k cluster_size=4M \\\n"
      "  compat=0.10 compat=1.1 compat=bogus preallocation=metadata refcount_bits=1 \\\n"
      "  refcount_bits=3 refcount_bits=x lazy_refcounts lazy_refcounts=maybe \\\n"
      "  lazy_refcounts=true lazy_refcounts=no lazy_refcounts=TRUE \\\n"
      "  nolazy_refcounts compat=0.10,lazy_refcounts=on compat=0.10,refcount_bits=1; do\n"
      "  rm -f a.qcow2; q create -f qcow2 -o $o a.qcow2 1M; q info a.qcow2 2>&1 |\n"
      "  grep -v 'disk size'; done\n"
      "q create -f qcow2 a.qcow2 7E; q create -f qcow2 a.qcow2 100; q info a.qcow2\n"
      "q create -f qcow2 /nonexist/x 1M; q create -f qcow2 foo:bar 1M\n" },
    { "backing",
      "q create -f qcow2 q.qcow2 1M; q create -f raw r.img 1M\n"
      "q create -f qcow2 -b q.qcow2 -F qcow2 b.qcow2; q create -f qcow2 -b nosuch -F raw b\n"
      "q create -f qcow2 -b nosuch -F raw b 1M; q create -f qcow2 -u -b nosuch b 1M\n"
      "q create -f qcow2 -u -b nosuch -F raw b 1M; q create -f qcow2 -u -b nosuch -F raw b\n"
      "q create -f qcow2 -b nosuch -F bogus b 1M; q create -f qcow2 -b q.qcow2 -F '' b 1M\n"
      "for s in 2M 512k; do q create -f qcow2 -b q.qcow2 -F qcow2 b.qcow2 $s\n"
      "q info b.qcow2; done\n"
      "q create -f qcow2 -o backing_file=q.qcow2,backing_fmt=qcow2 b.qcow2\n"
      "q create -f qcow2 -b q.qcow2 -F qcow2 q.qcow2; q create -f qcow2 -b '' b.qcow2 1M\n"
      "q create -f qcow2 with,comma 1M; q create -f qcow2 -b with,comma -F qcow2 bb\n"
      "q info bb; mkdir sub; cd sub; q create -f qcow2 -b ../q.qcow2 -F qcow2 rel; cd ..\n"
      "q info sub/rel; q info --backing-chain sub/rel\n"
      "q info --output=json --backing-chain sub/rel\n"
      "q create -f qcow2 -b q.qcow2 -F qcow2 \\\n"
      "  sub/wrong; rm q.qcow2; q info bb; q info sub/rel; q info --backing-chain sub/rel\n" },
    { "info",
      "q create nf 1M; q info --output=yaml nf; q info -f bogus nf; q info nosuch\n"
      "q info --output=json nosuch; mkdir sub; q info sub; q info foo:bar; q info nf\n"
      "q info --output=json nf; q info -f raw nf; q info -U nf; q info ./nf; q info $PWD/nf\n"
      "q info --image-opts -f raw file.filename=nf; q info --image-opts nf\n"
      "q info --image-opts filename=nf\n"
      "q info --image-opts driver=raw,bogus=1,file.filename=nf\n"
      "q info --image-opts driver=raw,file.filename=nosuch\n"
      "q info --image-opts driver=raw,file=nosuch; q info --image-opts driver=bogus,file=x\n"
      "q info --image-opts driver=raw,file.filename=nf; q info --image-opts file.filename=nf\n"
      "q info 'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"nf\"}}'\n"
      "for n in 0 1 999 1000 1023999 1024000 1047552 10240000 123456789 1072693248; do\n"
      "  truncate -s $n sz; q info -f raw sz; done; q info --output=json sz\n" },
    { "convert-options",
      "truncate -s 1M one; truncate -s 512k half; mark one 70000; mark one 300000\n"
      "q convert nosuch o; q convert -f bogus one o; q convert -O bogus one o\n"
      "q convert -O null-co one o; q convert one foo:bar; q convert one /nonex/x\n"
      "q convert -o nosuch=1 one o; q convert -c one o; q convert -n one nosuch.raw\n"
      "q convert -n one half; q convert -n -o preallocation=off one half\n"
      "q convert --target-is-zero one half; q convert --target-image-opts one half\n"
      "q convert -n -O raw --target-image-opts one driver=raw,file.filename=half\n"
      "q convert -f raw --image-opts driver=raw,file.filename=one o\n"
      "q convert --image-opts driver=raw,file.filename=one o; cmp one o\n"
      "for s in 3 x 0 512 513 1000000000000 -1; do q convert -S $s one o; done\n"
      "for m in 0 17 16 x; do q convert -m $m one o; done\n"
      "q convert -t bogus one o; q convert -T bogus one o; q convert -r x one o\n"
      "q convert -r 1G one o; q convert -B a one o; q convert -F raw one o\n"
      "q convert -C one o; q convert -C -S 0 one o; q convert -C -c one o\n"
      "q convert -W one o\n"
      "q convert --salvage one o; q convert --salvage -C one o; q convert --bitmaps one o\n"
      "q convert --skip-broken-bitmaps one o; q convert -U one o; q convert -s x one o\n"
      "q convert -o size=3M one o; stat -c %s o; q convert '' o; q convert one ''\n" },
    { "convert-progress",
      "truncate -s 9M one; for n in 0 1 2 3 4 5 6 7 8; do mark one $((n<<20)); done\n"
      "q convert -p -m 1 one o; q convert -q -p one o; truncate -s 0 none\n"
      "q convert -p none o; q convert -p nosuch o; q convert -p -O bogus one o\n"
      "q convert -p; q convert -p -m x one o\n" },
    { "convert-onto-source",
      "truncate -s 1M one; mark one 70000; md5sum <one; q convert one one; md5sum <one\n"
      "ln one hard; q convert one hard; ln -s one soft; q convert one soft; md5sum <one\n" },
    { "odd-sizes",
      "truncate -s 1000 odd; mark odd 999; truncate -s 1M one; mark one 70000\n"
      "q convert odd o; stat -c %s o; md5sum <o; q convert odd one o; stat -c %s o\n"
      "md5sum <o\n"
      "q convert one odd o; stat -c %s o; md5sum <o; q convert -O qcow2 odd o; q info o\n"
      "q compare odd o; q convert -f qcow2 o p; stat -c %s p; md5sum <p\n" },
    { "convert-qcow2",
      "truncate -s 3M one; mark one 70000; mark one 3000000; q convert -O qcow2 one a\n"
      "q check a; q compare one a; q info a; q map a | wc -l; q convert a o; cmp one o\n"
      "q convert -n -O qcow2 one a; q convert -n --target-is-zero -O qcow2 one a\n"
      "q create -f qcow2 small 2M; q convert -n -O qcow2 a small\n"
      "q convert -n -O qcow2 small a\n"
      "q convert -O qcow2 -o cluster_size=3k a b; q convert -O qcow2 -B a -F qcow2 a b\n"
      "q info b; q convert -O qcow2 -B a a c; q convert -O raw -B a -F qcow2 a c\n"
      "q convert -O qcow2 -B nosuch -F qcow2 a c; q convert -O qcow2 -F qcow2 a c\n"
      "q convert -O qcow2 -B a -F qcow2 a b c; q convert -n -O qcow2 -B a -F qcow2 a b c\n"
      "q convert -O qcow2 -o backing_file=a,backing_fmt=qcow2 a b c\n"
      "q convert -O qcow2 -o preallocation=metadata a c; q info c; q compare a c\n" },
    { "compare",
      "truncate -s 1M one; mark one 5; mark one 70000; q compare -f bogus one one\n"
      "q compare -F bogus one one; q compare -T bogus one one; q compare nosuch one\n"
      "q compare one nosuch; q compare one one; q compare -p one one\n"
      "q compare -p -q one one\n"
      "cp one two; mark two 5001; q compare one two; q compare -q one two\n"
      "q compare -p one two\n"
      "cp one two; truncate -s 3M two; q compare one two; q compare two one\n"
      "q compare -q two one\n"
      "q compare -s two one; q compare -p two one; mark two 2500000; q compare one two\n"
      "q compare -p two one; q compare -p -T bogus two one; q compare -p two nosuch\n"
      "q compare --image-opts -f raw one two\n"
      "q compare --image-opts driver=raw,file.filename=one \\\n"
      "  driver=raw,file.filename=one\n"
      "q compare --image-opts driver=raw,file.filename=one two\n"
      "truncate -s 0 e1; truncate -s 0 e2; q compare -p e1 e2\n"
      "q convert -O qcow2 one a; q compare one a; q compare a one; q compare a two\n" },
    { "check",
      "truncate -s 1M raw; q check raw; q check nosuch; q check --output=x raw\n"
      "q check --output=json raw; q check -r bogus raw; q check -T bogus raw; q check a b\n"
      "q create -f qcow2 a 8M; q check a; q check --output=json a; q check -q a\n"
      "q check -r leaks a; q check -r all a; mark raw 500000; q convert -O qcow2 raw b\n"
      "q check b; q check --output=json b\n"
      "q check --image-opts driver=qcow2,file.filename=b\n" },
    { "map",
      "truncate -s 1M raw; mark raw 5; mark raw 500000; q map raw; q map --output=json raw\n"
      "q map --start-offset=65M raw; q map --start-offset=65M --output=json raw\n"
      "q map nosuch\n"
      "q map --start-offset=-1 raw; q map --max-length=x raw; q map --output=x raw\n"
      "q map --start-offset=100 --output=json --max-length=200 raw\n"
      "q map --start-offset=100 --max-length=200 raw\n"
      "tg=throttle-group,id=tg0; of=driver=throttle,throttle-group=tg0,file.driver=file\n"
      "q map --object $tg,x-iops-total=1000 --image-opts $of,file.filename=raw\n"
      "q map --object $tg,x-iops-total=x --image-opts $of,file.filename=raw\n"
      "q map --object $tg --object $tg raw; q map --object throttle-group raw\n"
      "q map --image-opts $of,file.filename=raw\n"
      "truncate -s 0 none; q map none; q map --output=json none\n" },
    { "resize",
      "truncate -s 1M one; q resize one; q resize one foo; q resize -f raw one 2M\n"
      "q resize -f raw one +1M; q resize -f raw one -1M; q resize -f raw --shrink one -1M\n"
      "q resize -f raw one -- -1M; q resize -f raw one -200M; q resize -q -f raw one +1M\n"
      "q resize -f raw --shrink one -200M; q resize nosuch +1M; stat -c %s one\n"
      "q resize --preallocation=full -f raw one +1M; q resize --preallocation=bogus one +1M\n"
      "q resize --preallocation=full -f raw --shrink one -1M; q resize -f raw one +0\n"
      "q resize -f raw one 8E; q resize -f raw one +x; q resize -f raw one ''\n"
      "for s in 16E +16E ++1k ' 2M' 1.5k 1e3 0x200 1kB +1.; do q resize -f raw one \"$s\"; done\n"
      "q resize -f raw +1M one; q resize -f raw --shrink one 12345; stat -c %s one\n"
      "q create -f qcow2 a 1M; q resize a 3M; q info a; q check a\n"
      "q resize a 0; q resize --shrink a 0; q resize --shrink a -- -3M; q resize -f raw one 0\n"
      "q resize -f raw --shrink one 0; q info a; stat -c %s one\n" },
    { "measure",
      "truncate -s 1M one; mark one 5; mark one 500000; q measure -O raw one\n"
      "q measure -O raw --size 1G; q measure -O raw one --output=json\n"
      "q measure -O bogus one\n"
      "q measure --size 1G one; q measure --size x; q measure -O null-co one\n"
      "q measure -f qcow2 --size 1G; for s in 0 1 1G 1T; do q measure -O qcow2 --size $s\n"
      "q measure -O qcow2 -o cluster_size=512 --size $s\n"
      "q measure -O qcow2 -o cluster_size=2M,refcount_bits=64 --size $s; done\n"
      "q measure -O qcow2 --size 1G --output=json; q measure -O qcow2 one\n"
      "for o in cluster_size=4k preallocation=full preallocation=falloc,cluster_size=512; do\n"
      "q measure -O qcow2 -o $o one; done; q convert -O qcow2 one a; q measure -O qcow2 a\n"
      "for o in extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=4k \\\n"
      "  compat=0.10,refcount_bits=1 compat=bogus preallocation=bogus backing_file=nosuch; do\n"
      "q measure -O qcow2 -o $o --size 40T; q measure -O qcow2 -o $o one; done\n"
      "q measure -O qcow2 --output=json a; for s in 0 1 513; do q measure --size $s; done\n"
      "for o in compat=bogus compat=v3 preallocation=foo compat=0.10,refcount_bits=1 \\\n"
      "  compat=0.10,extended_l2=on extended_l2=on,cluster_size=4k extended_l2=on \\\n"
      "  extended_l2=yes,cluster_size=16k encrypt.format=aes bogus=1 refcount_bits=x \\\n"
      "  refcount_bits=3 cluster_size=3 lazy_refcounts=x lazy_refcounts=n backing_fmt=raw \\\n"
      "  backing_file=one,backing_fmt=raw backing_file=one,preallocation=metadata \\\n"
      "  cluster_size=513,refcount_bits=3,compat=x,preallocation=z size=5M \\\n"
      "  refcount_bits=3,compat=x,preallocation=z refcount_bits=3,preallocation=z; do\n"
      "q measure -O qcow2 -o $o --size 1T; q measure -O qcow2 -o $o one; done\n"
      "q measure -O raw -o bogus=1 one; q measure -O file one\n" },
};

/* ---- what the installed peer is too old for ---------------------------------------- */

typedef struct Expected {
    const char *command;
    int status;
    const char *output;
} Expected;

#define CHILD_BLOCK(name, length)                                               \
    "Child node '/file':\n"                                                     \
    "    filename: " name "\n"                                                  \
    "    protocol type: file\n"                                                 \
    "    file length: " length "\n"                                             \
    "    disk size: X\n"
#define QCOW2_SPECIFIC                                                          \
    "Format specific information:\n"                                            \
    "    compat: 1.1\n"                                                         \
    "    compression type: zlib\n"                                              \
    "    lazy refcounts: false\n"                                               \
    "    refcount bits: 16\n"                                                   \
    "    corrupt: false\n"                                                      \
    "    extended l2: false\n"

static const Expected expected[] = {
    { "create -f raw r.img 1M", 0, "Formatting 'r.img', fmt=raw size=1048576\n" },
    { "info r.img", 0,
      "image: r.img\n"
      "file format: raw\n"
      "virtual size: 1 MiB (1048576 bytes)\n"
      "disk size: X\n"
      CHILD_BLOCK("r.img", "1 MiB (1048576 bytes)") },
    { "info --output=json r.img", 0,
      "{\n"
      "    \"children\": [\n"
      "        {\n"
      "            \"name\": \"file\",\n"
      "            \"info\": {\n"
      "                \"children\": [\n"
      "                ],\n"
      "                \"virtual-size\": 1048576,\n"
      "                \"filename\": \"r.img\",\n"
      "                \"format\": \"file\",\n"
      "                \"actual-size\": X,\n"
      "                \"format-specific\": {\n"
      "                    \"type\": \"file\",\n"
      "                    \"data\": {\n"
      "                    }\n"
      "                },\n"
      "                \"dirty-flag\": false\n"
      "            }\n"
      "        }\n"
      "    ],\n"
      "    \"virtual-size\": 1048576,\n"
      "    \"filename\": \"r.img\",\n"
      "    \"format\": \"raw\",\n"
      "    \"actual-size\": X,\n"
      "    \"dirty-flag\": false\n"
      "}\n" },
    { "create -f qcow2 a.qcow2 64M", 0,
      "Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off "
      "compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16\n" },
    { "create -f qcow2 -b a.qcow2 b.qcow2", 1,
      "qemu-img: b.qcow2: Backing file specified without backing format\n"
      "Detected format of qcow2.\n" },
    { "create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2", 0,
      "Formatting 'b.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off "
      "compression_type=zlib size=67108864 backing_file=a.qcow2 backing_fmt=qcow2 "
      "lazy_refcounts=off refcount_bits=16\n" },
    { "info b.qcow2 | sed 's/file length.*/file length: X/'", 0,
      "image: b.qcow2\n"
      "file format: qcow2\n"
      "virtual size: 64 MiB (67108864 bytes)\n"
      "disk size: X\n"
      "cluster_size: 65536\n"
      "backing file: a.qcow2\n"
      "backing file format: qcow2\n"
      QCOW2_SPECIFIC
      CHILD_BLOCK("b.qcow2", "X") },
    { "map --output=json a.qcow2", 0,
      "[{ \"start\": 0, \"length\": 67108864, \"depth\": 0, \"present\": false, "
      "\"zero\": true, \"data\": false, \"compressed\": false}]\n" },
    { "convert -n --target-is-zero -B a.qcow2 -O qcow2 a.qcow2 b.qcow2", 1,
      "qemu-img: Cannot use --target-is-zero when the destination image has a backing "
      "file\n" },
    { "--version | sed 's/8.2.*//'", 0, "qemu-img version \n" },
};

static void test_expected(void)
{
    g_free(t_run_ok("rm -rf expected && mkdir expected"));
    for (size_t i = 0; i < G_N_ELEMENTS(expected); i++) {
        g_autofree char *out = NULL;
        int status = t_run(&out, "cd expected && PATH=%s:$PATH; qemu-img %s",
                           our_dir(), expected[i].command);
        g_autoptr(GRegex) sizes = g_regex_new("(disk size: |\"actual-size\": )[^,\n]*", 0, 0,
                                              NULL);
        g_autofree char *masked = g_regex_replace(sizes, out, -1, 0, "\\1X", 0, NULL);
        g_test_message("%s", expected[i].command);
        g_assert_cmpstr(masked, ==, expected[i].output);
        g_assert_cmpint(status, ==, expected[i].status);
    }
}

/* The tool speaks under the name it is called by. */
static void test_name(void)
{
    g_autofree char *own = NULL, *linked = NULL;
    g_autofree char *tool = t_tool("miniblk-img");

    g_assert_cmpint(t_run(&own, "miniblk-img nosuch"), ==, 1);
    g_assert_cmpstr(own, ==, "miniblk-img: Command not found: nosuch\n"
                    "Try 'miniblk-img --help' for more information\n");
    g_assert_cmpint(t_run(&linked, "ln -sf %s other-name && ./other-name info nosuch", tool),
                    ==, 1);
    g_assert_cmpstr(linked, ==, "other-name: Could not open 'nosuch': Could not open "
                    "'nosuch': No such file or directory\n");
}

/* Help names every command, and every command knows -h. */
static void test_help(void)
{
    static const char *const commands[] = {
        "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd",
        "info", "map", "measure", "rebase", "resize", "snapshot",
    };
    g_autofree char *help = t_run_ok("miniblk-img --help");

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *line = g_strdup_printf("\n  %s ", commands[i]);
        g_autofree char *own = t_run_ok("miniblk-img %s -h", commands[i]);
        g_assert_nonnull(strstr(help, line));
        g_assert_cmpstr(own, ==, help);
    }
    g_assert_nonnull(strstr(help, "\nSupported formats: "));
}

/* Programs look into the help text for what a command can do: each says the same. */
static void test_syntax(void)
{
    if (!t_need("qemu-img")) {
        return;
    }
    g_autofree char *help = t_run_ok("miniblk-img --help");
    g_autofree char *peer = t_run_ok("qemu-img --help | "
                                     "sed -n '/^Command syntax/,/^$/s/^  /&/p'");
    g_auto(GStrv) lines = g_strsplit(peer, "\n", -1);

    g_assert_cmpuint(g_strv_length(lines), >, 14);
    for (char **line = lines; *line && **line; line++) {
        if (!g_str_has_prefix(*line, "  rebase ")) {    /* ours can compress */
            g_test_message("%s", *line);
            g_assert_nonnull(strstr(help, *line));
        }
    }
}

/*
 * What only describes an image answers while somebody holds it for writing, and needs no -U
 * for that; what reads its contents, too, with a word of warning that says who it is. A copy
 * of what changes is not made unless asked for.
 *
 *     peer       open for writing ....................................... close
 *     ours              info: ok   check: ok, warns   convert: refused
 */
static void test_locked(void)
{
    g_autofree char *out = NULL;

    if (!t_need("qemu-io")) {
        return;
    }
    g_free(t_run_ok("rm -f held over raw pipe*; : >log1; : >log2; mkfifo pipe1 pipe2\n"
                    "miniblk-img create -f qcow2 -q held 1M; miniblk-img create -q raw 1M\n"
                    "miniblk-img create -f qcow2 -q -b raw -F raw over"));
    int status = t_run(&out,
        "t() { miniblk-img \"$@\" >/dev/null 2>err; echo $* $?;\n"
        "  sed 's/process [0-9]* /process N /' err; }\n"
        "qemu-io -f qcow2 held <pipe1 >log1 2>&1 & exec 3>pipe1; echo 'write 0 64k' >&3\n"
        "qemu-io -f raw raw <pipe2 >log2 2>&1 3>&- & exec 4>pipe2; echo 'write 0 64k' >&4\n"
        "until grep -q wrote log1 && grep -q wrote log2; do :; done\n"
        "for c in info map 'measure -O qcow2' 'snapshot -l' 'check -U' 'compare -U raw'; do\n"
        "  t $c held; done; t create -q -f qcow2 -b held -F qcow2 new\n"
        "t check held; t compare -f raw -F qcow2 raw held; t check -r all held\n"
        "t convert held o; t convert -U held o; t dd if=held of=o; t bench -c 1 held\n"
        "t rebase -b held -F qcow2 over; t rebase -U -b held -F qcow2 over\n"
        "t convert -f raw raw o; t convert -U -f raw raw o; t dd -f raw if=raw of=o\n"
        "exec 3>&- 4>&-; wait");
    g_assert_cmpint(status, ==, 0);
#define REASON(name)                                                            \
    "Failed to get shared \"write\" lock\n"                                     \
    "Is another process using the image [" name "]? (process N 'qemu-io')\n"
#define WARNS "miniblk-img: warning: 'held' is in use, and what is read may change "           \
    "meanwhile: " REASON("held")
#define REFUSED(name) "miniblk-img: Could not open '" name "': " REASON(name)                  \
    "With -U it is read all the same, though what is read may change meanwhile.\n"
    g_assert_cmpstr(out, ==,
        "info held 0\nmap held 0\nmeasure -O qcow2 held 0\nsnapshot -l held 0\n"
        "check -U held 0\ncompare -U raw held 0\ncreate -q -f qcow2 -b held -F qcow2 new 0\n"
        "check held 0\n" WARNS
        "compare -f raw -F qcow2 raw held 0\n" WARNS
        "check -r all held 1\nminiblk-img: Could not open 'held': Failed to get \"write\" "
        "lock\nIs another process using the image [held]? (process N 'qemu-io')\n"
        "convert held o 1\n" REFUSED("held")
        "convert -U held o 0\n"
        "dd if=held of=o 1\n" REFUSED("held")
        "bench -c 1 held 1\n" REFUSED("held")
        "rebase -b held -F qcow2 over 1\nminiblk-img: Could not open new backing file 'held': "
        REASON("held")
        "With -U it is read all the same, though what is read may change meanwhile.\n"
        "rebase -U -b held -F qcow2 over 0\n"
        "convert -f raw raw o 1\n" REFUSED("raw")
        "convert -U -f raw raw o 0\n"
        "dd -f raw if=raw of=o 0\n");
}

/* SIGUSR1 asks a silent convert how far it is. */
static void test_signal(void)
{
    g_autofree char *err = NULL;

    /* Sent before the tool begins, and blocked: it arrives when the tool has its handler. */
    int status = t_run2(NULL, &err,
        "head -c 8M /dev/urandom >slow\n"
        "env --block-signal=USR1 sh -c 'kill -USR1 $$; exec miniblk-img convert slow o' && "
        "cmp slow o");
    g_assert_cmpint(status, ==, 0);
    g_assert_true(g_regex_match_simple("^    \\([0-9]+\\.[0-9]{2}/100%\\)\n$", err, 0, 0));
}

/* Output that cannot be written is an error: a script must not take half of it for all. */
static void test_full_output(void)
{
    g_autofree char *err = NULL;

    g_free(t_run_ok("miniblk-img create -q r.img 1M"));
    g_assert_cmpint(t_run2(NULL, &err, "miniblk-img info r.img >/dev/full"), ==, 1);
    g_assert_cmpstr(err, ==, "miniblk-img: Could not write output: "
                    "No space left on device\n");
}

/* Half an image is not left lying about, nor the data file that was made for it. */
static void test_create_that_fails(void)
{
    g_autofree char *out = NULL;

    int status = t_run(&out, "trap '' XFSZ; ulimit -f 1000; exec 2>/dev/null\n"
        "for f in raw qcow2; do miniblk-img create -q -f $f -o preallocation=full big 10M\n"
        "echo $?; done; test ! -e big || exit 7; echo old >stale\n"
        "for d in fresh stale; do miniblk-img create -q -f qcow2 -o data_file=$d no/dir 1M\n"
        "done\n"
        "miniblk-img create -q -f qcow2 -o data_file=fresh,preallocation=full big 10M\n"
        "test ! -e fresh && test ! -e big && test -e stale");
    g_assert_cmpstr(out, ==, "1\n1\n");
    g_assert_cmpint(status, ==, 0);
}

/* Nobody reads it: no error. And no image gets the number of a stream that is closed. */
static void test_output_that_nobody_reads(void)
{
    g_autofree char *out = NULL;

    g_free(t_run_ok("miniblk-img create -q r.img 1M; mkfifo gone"));
    int status = t_run(&out, "exec 2>&1; set -e\n"
        "(exec 3<gone) & exec 4>gone; wait; miniblk-img info r.img >&4\n"
        "miniblk-img create -f qcow2 q 1M >&-; miniblk-img compare -f raw r.img r.img >&-\n"
        "miniblk-img info q <&- >&- 2>&-; miniblk-img check -q q");
    g_assert_cmpstr(out, ==, "");
    g_assert_cmpint(status, ==, 0);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    add_scripts("/img/like-peer", scripts, G_N_ELEMENTS(scripts));
    g_test_add_func("/img/expected", test_expected);
    g_test_add_func("/img/name", test_name);
    g_test_add_func("/img/help", test_help);
    g_test_add_func("/img/syntax", test_syntax);
    g_test_add_func("/img/locked", test_locked);
    g_test_add_func("/img/signal", test_signal);
    g_test_add_func("/img/full-output", test_full_output);
    g_test_add_func("/img/create-that-fails", test_create_that_fails);
    g_test_add_func("/img/output-that-nobody-reads", test_output_that_nobody_reads);
    return t_main();
}
