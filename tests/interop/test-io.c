/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-io from outside. Each row of commands below runs twice on equal images, once with
 * the peer and once with ours under the peer's name, and must print the same on both streams
 * and end alike. Times are cut out.
 */
#include "tests/lib/harness.h"

#include <stdlib.h>
#include <string.h>

/* ---- like the peer ---------------------------------------------------------------- */

typedef struct Row {
    const char *options;
    const char *commands;       /* separated by |; NULL: none on the command line */
    const char *image;          /* NULL: a.qcow2; "": none */
    const char *input;          /* of stdin; NULL: empty */
} Row;

typedef struct Group {
    const char *name;
    const Row *rows;
} Group;

static const Row rows_read[] = {
    { "", "read 0 512|read -v 0 40|read -v 1M 1|write -P 0x41 3 37|read -v 0 64" },
    { "", "write -s all 0 256|read -v 0 256|read -qv 512k 3|readv -v 1k 3 4" },
    { "", "read|read 0|read 0 x|read x 0|read 0 0|read 0 1M|read 0 2M|read -1 3|read 0 -1|"
          "read 0 3 4|read -Z 0 1|read -a 0 1|read 0 3G" },
    { "", "read -P 256 0 1|read -P xx 0 1|read -P 0x 0 1|read -P -1 0 1|read -P 07 0 1|"
          "read -P 08 0 1|read 0 1 -P 3|read -P 3 0 1 -q|read -Pq 0 1|read -vP 0 -C 0 1" },
    { "", "read -P 1 0 1|read -s 1 0 1|read -l 1 0 1|read -P 0 -s 10 -l 10 0 512|"
          "read -P 0 -s 600 -l 10 0 512|read -P 0 -s 0 -l 1000 0 512|read -l 2 -P 0 0 3|"
          "read -P 1 -s 1 0 1|read -P 1 -s 2 0 1|read -P 1 -l 0 0 1|read -P 0 -s x 0 1|"
          "read -P 0 -l x 0 1|read -P 0 -l -1 0 1" },
    { "", "write -P 1 0 64k|write -P 2 64k 64k|read -P 1 0 128k|read -P 1 0 64k|"
          "read -v 65504 64|read -P 2 -s 64k 0 128k" },
    { "", "readv 0 1 2 3|readv -v 0 1 2|readv -P 0 0 1 2|readv -P 3 0 1|readv|readv 0|"
          "readv 0 x|readv 0 1 x|readv 0 0|readv -q 0 1|readv -C 0 512 512|readv 1M 1|"
          "readv x 1|readv -P x 0 1|readv 0 3G|readv 0 1G 1G|readv -v 0 0|readv -P 1" },
    { NULL },
};

static const Row rows_numbers[] = {
    { "", "read -v 0 010|read 1k 0.5k|read 1.5k 512|read 1.5 512|read 1b 1B|read 0 1s|"
          "read 0 1K|read 0 1KB|read 0x10k 1|read +1 +1|read \" 1\" 2|read 1e3 1|"
          "read \"0 1|read 0 1 \"\"|read  0   1|  read 0 1  |read 0x 1|read 0x1F 1" },
    { "", "read 18446744073709551616 1|read 9223372036854775808 1|read 8E 1|read 7E 1|"
          "read 7E 1E|read 9223372036854775807 1|read 9223372036854775807 0|discard 7E 1|"
          "write -z 7E 1|write 9223372036854775807 1|alloc 7E|aio_read 7E 1|aio_flush|"
          "aio_write 9223372036854775807 1|aio_flush|"
          "alloc 9223372036854775807 9223372036854775807" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1025" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1536" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1048577" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=5000000000" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=10737418240" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1125899906842624" },
    { "--image-opts", "length|map|alloc 100000", "driver=null-co,size=1152921504606846976" },
    { NULL },
};

static const Row rows_write[] = {
    { "", "write -z 0 64k|write -z -u 64k 64k|write -z -n 0 1k|write -c 0 64k|"
          "write -c -z 0 64k|write -f 0 1k|write -P 0 -q 0 1k|write -C 0 1k|write -p 0 1k|"
          "read -p 0 1k|write 1M 0|write -f -z 0 1k|write -P 1 -P 2 0 1|read -v 0 1|map" },
    { "", "write -u 0 1|write -n 0 1|write -c 1 1|write -b -c 0 1|write -b -z 0 1|"
          "write -z -P 1 0 1k|write -s empty 0 1k|write -s nonexist 0 1k|"
          "write -s a.raw -P 1 0 1|write -z -s a.raw 0 1|write 0|write x 1|write 0 x|"
          "write -c -f 0 64k|write 0 2M|write -c 0 2M|write -z 0 3G|write 0 3G|"
          "write -b -f 0 1k|write -nz 0 3G|write -zcb 0 1|write -ub 0 1|write -bn 0 1|"
          "write -Ps 0 1|write -fcP x 0 1|write -s|write -cz 0 1" },
    { "", "write -s pat 0 20|read -v 0 32|write -s pat 5 3|read -v 0 32|"
          "write -P 0xcd 0 0x10|read -v 0 20" },
    { "", "writev|writev 0|writev 0 1 1|writev -P 3 0 1 1|writev -f 0 1|writev -z 0 1|"
          "writev -C 0 1|writev -q 0 1|writev x 1|writev 0 x|writev 2M 1|"
          "writev 0 1G 1G 1G|writev 0 0 0|writev 0 1 -P 3|writev 0 1 -q 3" },
    { "", "discard|discard 0 x|discard 0 1M|discard -q 0 1|discard -C 0 1k|discard 0 0|"
          "discard 0 4G|discard 1M 1|discard -Z 0 1|discard 0 1 2|flush|flush 1" },
    { "", "write -b -P 5 0 1k|read -b -P 5 0 1k|read -b -v 512 16|read -b -P 5 512 512|"
          "write -b 0 1|read -b 1 512|map|length" },
    { "-f raw", "read -b 0 1|write -b 0 1|read -b 0 512|write -b 0 512|write -c 0 64k|"
                "write -zc 0 64k|map", "a.raw" },
    { NULL },
};

/* Two requests are never in flight at once, so that their order is known. */
static const Row rows_aio[] = {
    { "", "aio_read 0 1|aio_flush|aio_read -v 0 20|aio_flush|aio_read|aio_read 0|"
          "aio_read x 1|aio_read 0 x|aio_read -P 4 0 1|aio_flush|aio_read -P x 0 1|"
          "aio_read -i 0 1|aio_flush|aio_read 1M 1|aio_flush|aio_read -q 0 1|aio_flush|"
          "aio_read -C 0 512 1k|aio_flush|aio_read -Z 0 1|aio_read -P 4 0 512|aio_flush|"
          "aio_read -vP 4 0 51|aio_flush|aio_read 0 2G|aio_read 0 1G 1G 1G|aio_flush 1" },
    { "", "aio_write|aio_write 0|aio_write 0 1|aio_flush|aio_write -P 3 0 1 1|aio_flush|"
          "aio_write -z 0 64k|aio_flush|aio_write -z 0 1 1|aio_write -u 0 1|"
          "aio_write -zu 0 64k|aio_flush|aio_write -f 0 1|aio_flush|aio_write -i 0 1|"
          "aio_write x 1|aio_write 0 x|aio_write 2M 1|aio_flush|aio_write -z 2M 1|aio_flush|"
          "aio_write -z x 1|aio_write -z 0 x|aio_write -q 0 1|aio_flush|"
          "aio_write -P x 0 1|aio_write -C 0 1|aio_flush|aio_write 0 3G|"
          "aio_write -P 9 3 4|aio_flush|read -v 0 16" },
    /* the end of the program waits, and is no failure */
    { "", "aio_read -P 1 0 1" },
    { "", "aio_read 11G 1" },
    { NULL },
};

static const Row rows_image[] = {
    { "", "map|info|alloc 0|alloc 0 1M|alloc 100 200|alloc 512 512|alloc 1M|alloc 2M 1" },
    { "", "write 0 1k|write 70k 1|map|alloc 0 1M|alloc 1k 100|alloc 100|alloc 64k|length" },
    { "", "alloc|alloc x|alloc 0 x|alloc 0 1 2|alloc -1 1|alloc 0 -1|alloc 1048575 5|"
          "alloc 0 1|alloc 0 0|alloc 0 3G|alloc 7E 5|map 1|length 1|info 1" },
    { "-f raw", "map|info|alloc 0|alloc 0 1M|write 0 1k|map|length|read -v 0 3|truncate 3M|"
                "length|map|discard 0 64k|map", "a.raw" },
    { "", "map|info|length|write 0 1k|write 4k 1k", "a.raw" },
    { "-f raw", "length|map|alloc 0|read 900 124|write 900 200|truncate 3M|length",
      "odd.raw" },
    { "", "map|info|alloc 0|alloc 0 2M|write 0 1k|map|length|read 900k 300k|map", "b.qcow2" },
    { "", "truncate 2M|length|truncate|truncate x|truncate -m full 3M|truncate -m bla 3M|"
          "truncate -1|truncate 512k|length|truncate -m off 2M|truncate -m off 3M 4|"
          "truncate -q 3M|truncate -m|truncate -m full 1M|truncate 9E|truncate 7E" },
    { "", "info", "blkdebug::a.qcow2" },
    { "--image-opts", "info|length|map", "driver=null-co,size=65536" },
    { "--image-opts", "info|length", "driver=file,filename=a.raw" },
    { NULL },
};

static const Row rows_open[] = {
    { "", "close|length|close|read 0 1|flush|break a b|open a.raw|open a.raw|length" },
    { "", "open|open a b|open -Z|open -t xx a.raw|open -d xx a.raw|open -i xx a.raw|"
          "open nonexist|open -o x=y a.qcow2|open -o driver=xx a.qcow2|open -U a.qcow2|"
          "open -Cr a.qcow2|open -k a.qcow2|open -d|open -o|length", "" },
    { "", "open -o driver=raw a.raw|length|info|write 0 1k|close|open -rU a.qcow2|info|"
          "write 0 1|close|open -C b.qcow2|read 0 1|map|close|open -n a.qcow2|length|close|"
          "open -s a.qcow2|write 0 64k|map|close|open -r a.qcow2|map|write 0 1|close|"
          "open -o read-only=on a.qcow2", "" },
    { "", "open -o driver=null-co,size=65536|length|map|write -z 0 64k|discard 0 64k|"
          "write -c 0 64k|info|close|open -o driver=file,filename=a.raw|length", "" },
    { "", "open -o driver=qcow2 -o lazy-refcounts=on a.qcow2|info|close|"
          "open json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\","
          "\"filename\":\"a.raw\"}}|length", "" },
    { "", "reopen|reopen -r|write 0 1|reopen -w|write 0 1|reopen -rw|reopen -c none|"
          "reopen -c xx|reopen -o lazy-refcounts=on|reopen -o foo=bar|reopen -o driver=raw|"
          "reopen x|reopen -Z|reopen -c none -c unsafe|reopen -o read-only=on -r|"
          "reopen -o cache.direct=on -c none|write 0 1|reopen -c writethrough|write 0 1" },
    { "-r", "write 0 1|discard 0 1|truncate 2M|flush|aio_write 0 1|reopen -w|write 0 1|"
            "reopen -r|write 0 1|reopen -w|discard 0 1k" },
    { "--image-opts", "length|close|open driver=qcow2,file.driver=file,file.filename=a.qcow2|"
                      "length", "driver=qcow2,file.driver=file,file.filename=a.qcow2" },
    { "--image-opts -f qcow2", "length", "driver=qcow2,file.filename=a.qcow2" },
    { NULL },
};

#define SOME "write 1 64k|aio_write 0 1|aio_flush|discard 0 1|discard 0 64k|map|truncate 2M|" \
             "length|flush|writev 0 1|read 3 4"
static const Row rows_options[] = {
    { "-r", SOME }, { "-rU", SOME }, { "-U", SOME }, { "-s", SOME }, { "-C", SOME },
    { "-n", SOME }, { "-nm", SOME }, { "-k", SOME }, { "-kn", SOME }, { "-i native", SOME },
    { "-i io_uring", SOME }, { "-i threads", SOME }, { "-t writethrough", SOME },
    { "-t directsync -d unmap", SOME }, { "-d off", SOME }, { "-t unsafe", SOME },
    { "-d ignore", SOME }, { "-d on", SOME }, { "-rs", SOME }, { "-r -C", "length" },
    { "-C", "read 3 4k|map|write 1 2|map", "b.qcow2" },
    { "-s", "read 3 4k|map|write 1 2|map", "b.qcow2" },
    { "-d off -f raw", "write 0 64k|discard 0 64k|read -P 0xcd 0 64k", "a.raw" },
    { "-f raw", "write 0 64k|discard 0 64k|read -P 0 0 64k", "a.raw" },
    { "", "length", "nonexist" }, { "-f xx", "length" }, { "-t xx", "length" },
    { "-d xx", "length" }, { "-i xx", "length" }, { "-d xx -t yy", "length" },
    { "--object foo,id=x", "length" }, { "--nocache --cache=none --cmd length", NULL },
    { "-T foo", "length" }, { "--trace enable=foo", "length" }, { "", "length|q|length" },
    { NULL },
};

static const Row rows_breakpoints[] = {
    { "", "break|break write_aio|break write_aio a b|break bogus a|break write_aio A|"
          "aio_write 0 1k|wait_break A|wait_break|resume A|resume A|resume|resume B|"
          "remove_break A|remove_break A|remove_break|aio_flush", "blkdebug::a.qcow2" },
    { "", "break pwritev A|aio_write 0 1k|wait_break A|info|resume A|aio_flush|"
          "read -P 0xcd 0 1k|break read_aio B|remove_break B|read 0 1",
      "blkdebug::a.qcow2" },
    { "", "break write_aio A|resume A|remove_break A" },
    { NULL },
};

static const Row rows_programs[] = {
    { "", "bogus|length" }, { "", "sleep|sleep 10|sleep x|sleep -1|sleep 0x10|sleep 1k" },
    { "", "sigraise|sigraise x|sigraise 0|sigraise -1|sigraise 999|length" },
    { "", "abort" }, { "", "sigraise 15" }, { "", "help bogus|help a b" },
    { "", "help l|help length|help truncate|help ?|help flush" },
    { "", "|  |length" },
    { "", "l|i|r 0 1|w 0 1|a|a 0|o|t 1M|f|d 0 1|s|h|b|m|rv 0 1|wv 0 1|c|c|q|l" },
    { "", NULL, NULL, "length\n\n\nread 0 1\n  length  \nbogus\n#comment\nlength" },
    { "", NULL, NULL, "q\nlength\n" }, { "", NULL, NULL, NULL },
    { "", NULL, NULL, "read 0 1\r\n" }, { "", NULL, NULL, "read 0\t1\n" },
    { "", NULL, NULL, "aio_write 0 1k\naio_flush\nread -P 0xcd 0 1k\n" },
    { "", NULL, "", "length\nopen a.qcow2\nlength\nclose\nlength\n" },
    { NULL },
};

static const Group groups[] = {
    { "read", rows_read }, { "numbers", rows_numbers }, { "write", rows_write },
    { "aio", rows_aio }, { "image", rows_image }, { "open", rows_open },
    { "options", rows_options }, { "breakpoints", rows_breakpoints },
    { "programs", rows_programs },
};

/* "read 4 bytes; 00.01 sec (... ops/sec)", "512,1,0:00:00.01,...", and names of nodes. */
static const char filter[] =
    "sed -E -e 's/; .*\\(.*ops\\/sec\\)/; TIME/' -e 's/^([0-9]+,1),[0-9]+:.*/\\1,TIME/'"
    " -e 's/#block[0-9]+/#blockN/'";

/* Runs a row: sets the images up, prints what came on each stream, and the exit status. */
static const char prelude[] =
    "set -f\n"
    "q() {\n"
    "  local image=$3 args=() IFS='|'\n"
    "  for c in $2; do args+=(-c \"$c\"); done\n"
    "  unset IFS\n"
    "  rm -rf run; cp -r --sparse=always ../io-images run; cd run\n"
    "  echo \"\\$ qemu-io $1 '$2' $3\"\n"
    "  printf \"$4\" >input\n"
    "  { qemu-io $1 \"${args[@]}\" $image <input >out 2>err; } 2>/dev/null; local status=$?\n"
    "  cat out; sed 's/^/stderr: /' err; echo \"[exit $status]\"; cd ..\n"
    "}\n";

/* Images that every row starts with. */
static void make_images(void)
{
    if (!g_file_test("io-images", G_FILE_TEST_IS_DIR)) {
        g_free(t_run_ok("mkdir io-images && cd io-images && "
                        "miniblk-img create -q -f qcow2 a.qcow2 1M && "
                        "miniblk-img create -q -f raw a.raw 1M && "
                        "miniblk-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 2M && "
                        "printf abcdefg >pat && : >empty && truncate -s 1000 odd.raw && "
                        "perl -e 'print map(chr, 0..255)' >all"));
    }
}

static char *run_group(const Group *group, const char *dir)
{
    g_autoptr(GString) text = g_string_new(prelude);

    for (const Row *row = group->rows; row->options; row++) {
        g_autofree char *options = g_shell_quote(row->options);
        g_autofree char *commands = g_shell_quote(row->commands ? row->commands : "");
        g_autofree char *image = g_shell_quote(row->image ? row->image : "a.qcow2");
        g_autofree char *escaped = g_strescape(row->input ? row->input : "", NULL);
        g_autofree char *input = g_shell_quote(escaped);
        g_string_append_printf(text, "q %s %s %s %s\n", options, commands, image, input);
    }
    make_images();
    g_assert_true(g_file_set_contents("script.sh", text->str, -1, NULL));
    return t_run_ok("rm -rf work && mkdir work && cd work && "
                    "PATH=%s:$PATH bash ../script.sh 2>&1 | %s", dir, filter);
}

/* A directory with our tool under the peer's name. */
static const char *our_dir(void)
{
    static char *dir;

    if (!dir) {
        g_autofree char *tool = t_tool("miniblk-io");
        dir = t_path("as-peer");
        g_free(t_run_ok("mkdir -p %s && ln -sf %s %s/qemu-io", dir, tool, dir));
    }
    return dir;
}

static void test_group(gconstpointer opaque)
{
    const Group *group = opaque;

    if (!t_need("qemu-io")) {
        return;
    }
    g_autofree char *peer = run_group(group, "/nowhere");
    g_autofree char *ours = run_group(group, our_dir());
    g_auto(GStrv) a = g_strsplit(peer, "\n", -1);
    g_auto(GStrv) b = g_strsplit(ours, "\n", -1);
    guint i = 0, row = 0;

    while (a[i] && b[i] && !strcmp(a[i], b[i])) {
        row = a[i][0] == '$' ? i : row;
        i++;
    }
    if (a[i] || b[i]) {
        g_test_message("after \"%s\"\n  peer: %s\n  ours: %s", a[row],
                       a[i] ? a[i] : "(end)", b[i] ? b[i] : "(end)");
        g_test_fail();
    }
}

/* ---- what the peer does not have, or does worse ------------------------------------ */

/*
 * Run miniblk-io with ARGS on fresh images; it must end with STATUS and print what the glob
 * PATTERN says.
 */
static void expect(int status, const char *pattern, const char *args)
{
    g_autofree char *out = NULL;
    make_images();
    int ret = t_run(&out, "rm -rf work && cp -r --sparse=always io-images work && "
                    "cd work && miniblk-io %s", args);

    if (ret != status || !g_pattern_match_simple(pattern, out)) {
        g_test_message("miniblk-io %s: exit %d, printed:\n%s\nnot:\n%s", args, ret, out,
                       pattern);
        g_test_fail();
    }
}

/* Counted are requests that ended, failed, and could not be made. */
static void test_stat(void)
{
    expect(1, "read failed: Input/output error\ninjecting invalid read request\n"
              "read: 2 ops, 1.500 KiB, * sec; 1 failed, 1 invalid\n"
              "write: 1 ops, 64 KiB, * sec; 0 failed, 0 invalid\n"
              "flush: 1 ops, 0 bytes, * sec; 0 failed, 0 invalid\n"
              "discard: 0 ops, 0 bytes, * sec; 0 failed, 0 invalid\n",
           "-s -c 'read -q 0 1k' -c 'aio_read -q 0 512' -c aio_flush -c 'read 9M 1' "
           "-c 'aio_read -i 0 1' -c 'write -q 0 64k' -c flush -c stat a.qcow2");
}

/* A hit breakpoint that is removed lets its request go on, and that is a success. */
static void test_remove_hit_breakpoint(void)
{
    expect(0, "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n",
           "-c 'break write_aio A' -c 'aio_write -q 0 1k' -c 'wait_break A' "
           "-c 'remove_break A' -c aio_flush blkdebug::a.qcow2");
}

/* The peer waits for ever. */
static void test_wait_for_no_request(void)
{
    expect(1, "No request is left that could stop at breakpoint 'A'\n",
           "-c 'break read_backing_aio A' -c 'aio_write -q 0 1k' -c 'wait_break A' "
           "blkdebug::a.qcow2");
}

/* Every line of the list of commands has help of its own, and all options are listed. */
static void test_help(void)
{
    g_autofree char *list = t_run_ok("miniblk-io -c help");
    g_autofree char *usage = t_run_ok("miniblk-io --help");
    g_auto(GStrv) lines = g_strsplit(list, "\n", -1);
    int commands = 0;

    for (char **line = lines; **line; line++, commands++) {
        g_autofree char *name = g_strndup(*line, strcspn(*line, " "));
        g_autofree char *help = t_run_ok("miniblk-io -c 'help %s'", name);
        g_assert_true(g_str_has_prefix(help, *line));
        g_assert_nonnull(strstr(*line, " -- "));
    }
    g_assert_cmpint(commands, ==, 27);
    for (const char *c = "cfrsnCmkitdTUhV"; *c; c++) {
        char option[] = { ' ', '-', *c, ',', '\0' };
        g_assert_nonnull(strstr(usage, option));
    }
}

/* What is on stdout and what is on stderr stand in the order in which they came. */
static void test_streams_keep_their_order(void)
{
    expect(1, "1 MiB\ncommand \"bogus\" not found\n1 MiB\n",
           "-c length -c bogus -c length a.qcow2");
}

/* Requests go on while the next command has not been typed. */
static void test_aio_goes_on_while_waiting(void)
{
    make_images();
    g_autofree char *out = t_run_ok(
        "rm -rf work && cp -r --sparse=always io-images work && cd work && mkfifo in && "
        ": >out && "
        "{ miniblk-io -f raw a.raw <in >out & } && exec 3>in && echo 'aio_read 0 1k' >&3 && "
        "until grep -q ops out; do :; done; echo done; echo q >&3; wait");
    g_assert_cmpstr(out, ==, "done\n");
}

/* Objects that the command line makes can be used by the image. */
static void test_object(void)
{
    expect(0, "1 GiB\n", "--object throttle-group,id=g --image-opts -c length "
           "driver=throttle,throttle-group=g,file.driver=null-co");
}

static void test_full_output(void)
{
    g_autofree char *err = NULL;

    make_images();
    g_assert_cmpint(t_run2(NULL, &err, "miniblk-io -r -c length io-images/a.qcow2 "
                           ">/dev/full"), ==, 1);
    g_assert_cmpstr(err, ==, "miniblk-io: Could not write output: "
                    "No space left on device\n");
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
        g_autofree char *path = g_strconcat("/io/like-peer/", groups[i].name, NULL);
        g_test_add_data_func(path, &groups[i], test_group);
    }
    g_test_add_func("/io/stat", test_stat);
    g_test_add_func("/io/remove-hit-breakpoint", test_remove_hit_breakpoint);
    g_test_add_func("/io/wait-for-no-request", test_wait_for_no_request);
    g_test_add_func("/io/help", test_help);
    g_test_add_func("/io/streams-keep-their-order", test_streams_keep_their_order);
    g_test_add_func("/io/aio-goes-on-while-waiting", test_aio_goes_on_while_waiting);
    g_test_add_func("/io/object", test_object);
    g_test_add_func("/io/full-output", test_full_output);
    return t_main();
}
