#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# scripts/gdb/miniblk.py in a stopped program and in its core file. Prints TAP; skips, with the
# reason, where gdb is missing or may not trace.
#
#   test-coroutine-gdb.sh PROGRAM SANITIZER     (coroutine-stopped; "none" or what it has)
set -u
program=$1 sanitizer=$2
script=$(cd "$(dirname "$0")/../.." && pwd)/scripts/gdb/miniblk.py

skip() { echo "1..0 # SKIP $*"; exit 0; }
command -v gdb >/dev/null || skip "no gdb"
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
# The leak checker traces the process, which gdb does already.
export ASAN_OPTIONS=detect_leaks=0
debug() { # debug FILE... -- COMMAND...
    local files=() commands=()
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    shift
    for command in "set width 0" "set pagination off" "set debuginfod enabled off" "$@"; do
        commands+=(-ex "$command")
    done
    timeout 120 gdb -q -nx -batch "${commands[@]}" "${files[@]}" </dev/null 2>&1
}
debug "$program" -- "break main" run "print 6 * 7" >"$tmp/can" 2>&1
grep -q '= 42' "$tmp/can" || skip "gdb without Python, or it may not trace here"
grep -q 'Breakpoint 1, main' "$tmp/can" || skip "gdb may not trace programs here"
[ "$(debug -- "python print(6 * 7)")" = 42 ] || skip "this gdb has no Python"

number=0 status=0
result() { # result STATUS NAME [FILE]: FILE is shown when it failed
    number=$((number + 1))
    if [ "$1" = 0 ]; then
        echo "ok $number $2"
    else
        echo "not ok $number $2"
        [ -n "${3:-}" ] && sed 's/^/# /' "$3"
        status=1
    fi
}
has() { # has FILE REGEX...: these lines, in this order, maybe with others between
    local file=$1 text
    shift
    text=$(cat "$file")
    for regex in "$@"; do
        if ! grep -qE -- "$regex" <<<"$text"; then
            echo "# missing: $regex"
            return 1
        fi
        text=$(awk -v re="$regex" 'found; !found && $0 ~ re { found = 1 }' <<<"$text")
    done
}
# The last frame of a stack, and nothing that gdb has to say about a damaged one.
end='in coroutine__main '
clean() { ! grep -qE 'Backtrace stopped|corrupt|Python Exception|Error' "$1"; }

commands=("source $script" "miniblk coroutines" "echo ----\n" "miniblk bt deep" "echo ----\n"
          "miniblk bt" "echo ----\n" "bt")
[ "$sanitizer" = none ] && commands+=("generate-core-file $tmp/core")
debug "$program" -- "break stop_inlined" run "${commands[@]}" continue >"$tmp/all"
csplit -sz -f "$tmp/part" "$tmp/all" '/^----$/' '{*}'

echo "1..6"
has "$tmp/part00" 'suspended, .*entry deep_entry' 'holds 1 lock, entry locking_entry' \
    'suspended, .*entry locking_entry' 'scheduled in qemu_co_sleep_ns, .*sleeping_entry' \
    'scheduled in aio_co_schedule, .*finished_entry' 'suspended, .*finished_entry' \
    'has entered another, .*outer_entry' 'running in thread [0-9]+, .*inner_entry' &&
    [ "$(grep -c ^Coroutine "$tmp/part00")" = 8 ]
result $? "coroutines are listed with their states" "$tmp/part00"

has "$tmp/part01" 'in wait_deep_inside' 'in wait_deep_inside' 'in wait_deep_inside' \
    'in wait_deep_inside' 'in deep_entry' "$end" && clean "$tmp/part01" &&
    [ "$(tail -n 1 "$tmp/part01" | grep -cE "$end")" = 1 ]
result $? "backtrace of a suspended coroutine" "$tmp/part01"

has "$tmp/part02" deep_entry "$end" ' qemu_co_mutex_lock ' 'in locking_entry' "$end" \
    ' qemu_co_sleep ' 'in sleeping_entry' "$end" '\(not started\)' 'in outer_entry' "$end" \
    ' stop_inlined ' ' stop_here ' 'in inner_entry' "$end" && clean "$tmp/part02"
result $? "backtraces of all coroutines" "$tmp/part02"

has "$tmp/part03" ' stop_here ' 'in inner_entry' "$end" 'in (coroutine__)?start ' &&
    clean "$tmp/part03"
result $? "the backtrace of a running coroutine ends at its start" "$tmp/part03"

has "$tmp/all" 'exited normally'
result $? "the program goes on unharmed" "$tmp/all"

name="backtrace from a core file"
if [ "$sanitizer" != none ]; then
    echo "ok $((number + 1)) $name # SKIP a sanitizer's shadow memory does not fit into one"
else
    debug "$program" "$tmp/core" -- "source $script" "miniblk bt deep" >"$tmp/core.out"
    has "$tmp/core.out" 'in wait_deep_inside' 'in deep_entry' "$end" && clean "$tmp/core.out"
    result $? "$name" "$tmp/core.out"
fi
exit $status
