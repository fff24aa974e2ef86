/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypted images: they are described as by the peer, and checked, which takes no key; all
 * that would read or write their data is refused.
 */
#include "tests/interop/img-like-peer.h"

/*
 * Images of the peer are made once, as no two have the same keys. It measures the speed of its
 * key derivation by processor time that the kernel may count in ticks, and gives up at once if
 * none passed: every second attempt on some machines, so what bounds them is time.
 */
#define MAKE                                                                    \
    "S='--object secret,id=s0,data=abc'; L=encrypt.format=luks,encrypt.key-secret=s0\n" \
    "p() { PATH=${PATH#*:} \"$@\"; }\n"                                           \
    "make() { SECONDS=0; until [ -e ../$1 ]; do\n"                              \
    "  [ $SECONDS -lt 60 ] || { echo \"$PATH: no image: $(cat ../log)\"; return; }\n" \
    "  p qemu-img create -q $S -f qcow2 -o $2 ../making 4M >../log 2>&1 && mv ../making ../$1\n" \
    "  done; cp ../$1 .; }\n"                                                   \
    "look() { q info $1; q info --output=json $1; q info -U $1; }\n"

static const Script scripts[] = {
    { "luks", MAKE "make luks $L,encrypt.iter-time=100; look luks\n" },
    { "aes",
      MAKE "make aes encrypt.format=aes,encrypt.key-secret=s0; look aes\n"
      "make old compat=0.10,encrypt.format=aes,encrypt.key-secret=s0; look old\n" },
    { "ciphers",
      MAKE "C=$L,encrypt.iter-time=100,encrypt.cipher-mode=cbc\n"
      "p qemu-img create -q ../base 4M; p qemu-img create -q data 4M\n"
      "make essiv $C,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,"
      "encrypt.cipher-alg=serpent-128,backing_file=base,backing_fmt=raw; look essiv\n"
      "make cast5 $C,encrypt.ivgen-alg=plain,encrypt.cipher-alg=cast5-128,"
      "encrypt.hash-alg=sha1,data_file=data; look cast5\n" },
    { "chains",
      MAKE "make luks $L,encrypt.iter-time=100; q create -f qcow2 -b luks -F qcow2 over\n"
      "q info --backing-chain over\n" },
};

/*
 * An image of ours, its header changed to tell of encryption: "crypt METHOD TYPE BYTES OFFSET
 * LENGTH", and the beginning of a LUKS header in its last cluster, which nothing else uses.
 */
static const char made[] =
    "put() { printf \"$(echo $2 | sed 's/../\\\\x&/g')\" |\n"
    "  dd of=${3-x} bs=1 seek=$(($1)) conv=notrunc 2>/dev/null; }\n"
    "crypt() { rm -f x; miniblk-img create -q -f qcow2 -o cluster_size=4k x 1M\n"
    "  miniblk-io -c 'write -q 0 4k' x; truncate -s 32k x; put 0x20 $1; put 0x70 $2$3$4$5\n"
    "  put 0x88 0000000000000000; put 0x7000 4c554b53babe0001; put 0x7008 616573\n"
    "  put 0x7028 7874732d706c61696e; put 0x7048 736861; put 0x706c 00000020; }\n"
    "T=0537be77; O=0000000000007000; B=0000000000001000\n";

static void expect(const char *script, const char *expected)
{
    g_autofree char *text = g_strconcat(made, script, NULL);
    g_autofree char *out = NULL;

    g_assert_true(g_file_set_contents("script.sh", text, -1, NULL));
    t_run(&out, "bash script.sh 2>&1");
    g_assert_cmpstr(out, ==, expected);
}

/* What names the place of the encryption header is not to be trusted. */
static void test_damaged(void)
{
#define NOT "miniblk-img: Could not open 'x': "
#define NOT_IN(place)                                                           \
    NOT "The encryption header (offset " place " bytes) is too short or not in the image file\n"
    expect("i() { miniblk-img info x | grep -A99 encrypt: | head -1; }\n"
           "crypt 00000002 $T 00000010 $O $B; i; crypt 00000002 $T 0000000f $O $B; i\n"
           "crypt 00000002 $T 00000010 0000000000007200 $B; i\n"
           "crypt 00000002 $T 00000010 8000000000000000 $B; i\n"
           "crypt 00000002 $T 00000010 $O 000000000000024f; i\n"
           "crypt 00000002 $T 00000010 $O 0000000000001001; i\n"
           "crypt 00000002 $T 00000010 $O ffffffffffffffff; i\n"
           "crypt 00000002 00000000 00000000 $O $B; i\n"
           "crypt 00000000 $T 00000010 $O $B; i; crypt 00000003 $T 00000010 $O $B; i\n"
           "crypt 00000002 $T 00000010 0000000000003000 $B; i\n"
           "crypt 00000002 $T 00000010 $O $B; put 0x7006 0002; i\n"
           "crypt 00000002 $T 00000010 $O $B; for o in 0x7008 0x7028 0x7048; do\n"
           "  head -c 41 /dev/zero | tr '\\0' a | dd of=x bs=1 seek=$((o)) conv=notrunc 2>/dev/null; i; done\n",
           "    encrypt:\n"
           NOT "CRYPTO header extension size 15, but expected size 16\n"
           NOT "Encryption header offset '29184' is not a multiple of cluster size '4096'\n"
           NOT_IN("9223372036854775808, 4096") NOT_IN("28672, 591") NOT_IN("28672, 4097")
           NOT_IN("28672, 18446744073709551615") NOT_IN("0, 0")
           NOT "CRYPTO header extension only expected with LUKS encryption method\n"
           NOT "CRYPTO header extension only expected with LUKS encryption method\n"
           NOT "Volume is not in LUKS format\n"
           NOT "LUKS version 2 is not supported\n"
           "    encrypt:\n    encrypt:\n    encrypt:\n");
}

/* The encryption header is in use, and repairing gives its clusters their refcount. */
static void test_check(void)
{
    expect("crypt 00000002 $T 00000010 $O $B; cp x y; miniblk-img check x; echo $?\n"
           "miniblk-img check -q -r all x; echo $?; miniblk-img check -q x; echo $?\n"
           "miniblk-img snapshot -l x; cmp -i 0x7000 x y\nminiblk-img info x | grep encrypted\n",
           "ERROR cluster 7 refcount=0 reference=1\n"
           "\n1 errors were found on the image.\n"
           "Data may be corrupted, or further writes to the image may corrupt it.\n"
           "1/256 = 0.39% allocated, 0.00% fragmented, 0.00% compressed clusters\n"
           "Image end offset: 32768\n2\n"
           "ERROR cluster 7 refcount=0 reference=1\n"
           "Repairing cluster 7 refcount=0 reference=1\n0\n0\nencrypted: yes\n");
}

static void test_data_is_refused(void)
{
    expect("for m in 00000001 00000002; do t=$T; [ $m = 00000002 ] || t=00000001\n"
           "crypt $m $t 00000010 $O $B; miniblk-img check -q -r all x 2>/dev/null\n"
           "cp x y; truncate -s 1M r\n"
           "for c in 'map x' 'convert x o' 'compare -f raw r x' 'resize x 2M' \\\n"
           "  'snapshot -c s x' 'measure x' 'bitmap --add x b' 'amend -o lazy_refcounts=on x' 'commit x' \\\n"
           "  'rebase -u -b r -F raw x' 'bench -c 1 x' 'dd if=x of=o'; do\n"
           "  miniblk-img $c 2>>err && echo $c succeeded; done\n"
           "for o in '' -r; do miniblk-io $o -c 'read 0 4k' x 2>>err && echo read; done\n"
           "cmp x y; done; sed 's/^[^:]*: //' err | sort -u\n",
           "Could not open 'x': Encrypted qcow2 images are not supported\n"
           "can't open device x: Encrypted qcow2 images are not supported\n");
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    add_scripts("/img-crypt/like-peer", scripts, G_N_ELEMENTS(scripts));
    g_test_add_func("/img-crypt/damaged", test_damaged);
    g_test_add_func("/img-crypt/check", test_check);
    g_test_add_func("/img-crypt/data-is-refused", test_data_is_refused);
    return t_main();
}
