#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The stack switch for AArch64: the coroutine core is cross-compiled and run in an emulator.
# Prints TAP. Skips, with the reason, when the compiler or the emulator is missing.
set -u
cd "$(dirname "$0")/../.." || exit 2

levels="-O0 -O2 -O3"
skip() { echo "1..0 # SKIP $*"; exit 0; }
compiler=aarch64-linux-gnu-gcc
command -v $compiler >/dev/null || skip "no $compiler (package gcc-aarch64-linux-gnu)"
emulator=$(command -v qemu-aarch64 qemu-aarch64-static | head -n 1)
[ -n "$emulator" ] || skip "no qemu-aarch64 (package qemu-user)"
# GLib is needed for its types only, which are the same on both 64-bit machines.
includes=$(pkg-config --cflags-only-I glib-2.0 2>/dev/null) || skip "no GLib headers"

tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
echo "int main(void) { return 0; }" >"$tmp/empty.c"
$compiler -static -o "$tmp/empty" "$tmp/empty.c" 2>/dev/null && "$emulator" "$tmp/empty" ||
    skip "$compiler and $emulator do not work together here"

sources="tests/unit/coroutine-alien.c aio/thread.c aio/lockable.c aio/spin.c"
for part in coroutine coroutine-lock coroutine-loop coroutine-stack coroutine-asm; do
    sources+=" aio/$part.c"
done
sources+=" aio/coroutine-asm-aarch64.S"

echo "1..$(wc -w <<<"$levels")"
number=0 status=0
for level in $levels; do
    number=$((number + 1))
    # Unused functions may call what is not there: they are dropped. Headers of libraries
    # that are the same everywhere come from this machine, after the target's own.
    if $compiler $level -g -static -D_GNU_SOURCE -Iinclude -I. $includes \
            -idirafter /usr/include -Wno-unused -ffunction-sections -Wl,--gc-sections \
            -o "$tmp/alien" $sources -lpthread >"$tmp/log" 2>&1 &&
            timeout 60 "$emulator" "$tmp/alien" >"$tmp/log" 2>&1; then
        echo "ok $number coroutines on AArch64, compiled with $level"
    else
        echo "not ok $number coroutines on AArch64, compiled with $level"
        sed 's/^/# /' "$tmp/log"
        status=1
    fi
done
exit $status
