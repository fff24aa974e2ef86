/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img check on damaged images beside the peer: what is told on both streams, as text
 * and as JSON, how it ends, and what repairing it does. The images are made by the peer with
 * clusters of 4 KiB:
 *
 *     cluster   0        1              2               3          4         5 ...
 *               header   refcount table refcount block  L1 table   L2 table  data
 *
 * Not here, as the peer does worse: a cluster in use with refcount 0, or a bad entry of the
 * refcount table, has it write all refcounts anew, and -r leaks give up; an L1 entry of offset 0
 * counts as a table to it; and it frees the clusters of a snapshot whose L1 table, or whose
 * entry of the snapshot table, cannot be read (tests/unit/test-qcow2-check.c). Nor data in the place of an L1 or L2 table: ours moves the
 * table, the peer's stays (tests/unit/test-qcow2-repair.c).
 */
#include "tests/interop/img-like-peer.h"

/*
 * e NAME OFFSET HEX...: put bytes into a copy of $I, and look at it. "made" is told by a program
 * of ours about images that only it has touched, so the streams are told apart, one by one.
 */
#define TRY                                                                     \
    "p() { PATH=${PATH#*:} \"$@\"; }\n"                                           \
    "put() { printf \"$(echo $2 | sed 's/../\\\\x&/g')\" |\n"                       \
    "  dd of=x bs=1 seek=$(($1)) conv=notrunc 2>/dev/null; }\n"                 \
    "look() { for o in '' --output=json -q '-r leaks' '-r leaks --output=json' \\\n"              \
    "  '-r all' '-r all --output=json'; do cp x y; echo \"$ check $o: $1\"\n"     \
    "  s=0; timeout 60 qemu-img check $o y >out 2>err || s=$?; echo \"[exit $s]\"\n"             \
    "  cat out err; cmp x y >/dev/null || p qemu-img check -q y || :; done; }\n"                \
    "e() { n=$1; cp $I x; shift; while [ $# -gt 0 ]; do put $1 $2; shift 2; done; look $n; }\n"
#define PLAIN                                                                   \
    "p qemu-img create -q -f qcow2 -o cluster_size=4k plain 16M\n"              \
    "qemu-io -f qcow2 -c 'write -P 1 0 40k' -c 'write -P 2 4M 8k' plain >log; I=plain\n"

static const Script scripts[] = {
    { "refcounts",
      TRY PLAIN
      "e none; e too-high 0x200c 0002; e much-too-high 0x200c 0009; e two 0x2008 00020002\n"
      "e of-l2-table 0x2008 0002; e of-l1-table 0x2006 0005; e of-refcount-block 0x2004 0002\n"
      "e of-header 0x2000 0007; truncate -s 1M plain; e leaked 0x20c8 0001\n"
      "e leaked-all-over 0x20c8 00010007 0x20b0 0001 0x20fe 0100; e leaked-at-end 0x21fe 0001\n" },
    { "l1-table",
      TRY PLAIN
      "e gone 0x3000 0000000000000000; e reserved-bits 0x3000 9000000000004000\n"
      "e reserved-low-bits 0x3000 8000000000004001; e not-copied 0x3000 0000000000004000\n" },
    { "l2-table",
      TRY PLAIN
      "e gone 0x4008 0000000000000000; e gone-3 0x4008 000000000000000000000000000000000000000000000000\n"
      "e not-copied 0x4008 0000000000006000; e twice 0x4010 8000000000006000\n"
      "e twice-not-copied 0x4008 00000000000060000000000000006000\n"
      "e header 0x4008 8000000000000000\n"
      "e unaligned 0x4008 8000000000006200; e unaligned-2 0x4008 80000000000062008000000000007200\n"
      "e behind-end 0x4008 8000000000100000; e far 0x4008 8004000000000000\n"
      "e farthest 0x4008 80fffffffffff000; e reserved-bit 0x4008 9000000000006000\n"
      "e reserved-low-bits 0x4008 8000000000006006; e zero-allocated 0x4008 8000000000006001\n"
      "e zero 0x4640 0000000000000001; e zero-host-behind-end 0x4640 8000000000100001\n"
      "e compressed 0x4008 4000000000005000; e compressed-copied 0x4008 c000000000006000\n"
      "e compressed-far 0x4008 4004000000000000\n"
      "e several 0x4008 0000000000006000 0x4018 0000000000000000 0x2010 0003\n" },
    { "version-2",
      TRY "p qemu-img create -q -f qcow2 -o cluster_size=4k,compat=0.10 old 16M; I=old\n"
      "qemu-io -f qcow2 -c 'write -P 1 0 40k' -c 'write -P 2 4M 8k' old >log; e none\n"
      "e zero 0x4640 0000000000000001; e zero-allocated 0x4008 8000000000006001\n"
      "e not-copied 0x4008 0000000000006000; e too-high 0x200c 0003\n" },
    { "flags-of-the-header",
      TRY PLAIN
      "e dirty 0x48 0000000000000001; e corrupt 0x48 0000000000000002\n"
      "e dirty-and-leaked 0x48 0000000000000001 0x200c 0002\n"
      "e corrupt-and-not-copied 0x48 0000000000000002 0x4008 0000000000006000\n" },
    { "end-of-the-file",
      TRY PLAIN
      "cp plain x; truncate -s 1M x; look longer; cp plain x; truncate -s +100 x; look part\n"
      "cp plain x; truncate -s -100 x; look cut; cp plain x; truncate -s -4097 x; look cut-more\n" },
    { "snapshots",
      TRY PLAIN
      "for s in s1 s2; do p qemu-img snapshot -c $s plain; done\n"
      "qemu-io -f qcow2 -c 'write -P 3 4k 4k' plain >>log\n"
      "at() { od -An -tu8 --endian=big -j $(($1)) -N 8 plain | tr -d ' '; }\n"
      "table=$(at 0x40); l1=$(at $table); l2=$(($(at $l1) & 0xfffffffffff000))\n"
      "e none; e l1-entry-gone $l1 0000000000000000; e more 0x3c 00000003; e less 0x3c 00000001\n"
      "e l2-entry-gone $l2 0000000000000000\n" },
    { "compressed",
      TRY PLAIN
      "p qemu-img convert -c -O qcow2 -o cluster_size=4k plain comp; I=comp; e none\n"
      "for c in 5 6 7 8; do e too-high-$c $((0x2000 + 2 * c)) 0063; done\n" },
    { "subclusters",
      TRY "p qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on ext 16M; I=ext\n"
      "qemu-io -f qcow2 -c 'write -P 1 0 40k' -c 'write -P 2 4M 1k' -c 'write -z 64k 512' \\\n"
      "  ext >log; e none; e not-copied 0x10000 0000000000014000\n"
      "e both 0x10008 ffffffffffffffff; e both-once 0x10008 0000000100000003\n"
      "e without-place 0x10648 0000000000000003; e zero-bit 0x10000 8000000000014001\n" },
    { "data-file",
      TRY "p qemu-img create -q -f qcow2 -o cluster_size=4k,data_file=d,data_file_raw=on data 1M\n"
      "qemu-io -f qcow2 -c 'write -P 1 0 40k' data >log; I=data; e none\n"
      "e gone 0x4008 0000000000000000; e not-copied 0x4008 0000000000001000\n" },
    { "refcount-widths",
      TRY "for b in 1 2 4 8 32 64; do I=w$b; echo \"refcount_bits=$b\"\n"
      "  p qemu-img create -q -f qcow2 -o cluster_size=4k,refcount_bits=$b $I 16M\n"
      "  qemu-io -f qcow2 -c 'write -P 1 0 40k' $I >log; truncate -s 1M $I\n"
      "  e none; e leaked $((0x2000 + 20 * b)) ff; e not-copied 0x4008 0000000000006000; done\n" },
};

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    add_scripts("/img-check/like-peer", scripts, G_N_ELEMENTS(scripts));
    return t_main();
}
