#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What breaks in a schedule is noticed and named, and does not keep the next case from running.
#
#   test-broken-world.sh BROKEN-WORLD SANITIZERS    ("none", or as in -Db_sanitize)
set -u
export LAB_SCHEDULES=200 LAB_FAULTS=on LAB_SHRINK=off LAB_JOBS=1 LAB_CHECK=1
LAB_DIR=$(mktemp -d) || exit 2
export LAB_DIR
trap 'rm -rf "$LAB_DIR"' EXIT
output=$("$1" 2>&1)
status=$?

# Verdict, and words of the message.
declare -A cases=(
    [double-free]='memory|free of 10 bytes that double_free() has freed'
    [write-after-free]='memory|written after free: 100 bytes that write_after_free() has freed'
    [overrun]='memory|written past the end of 10 bytes that overrun() allocated'
    [overrun-not-freed]='memory|written past the end of 10 bytes that overrun_not_freed() allocated'
    [free-of-nothing]='memory|free of a pointer that malloc() has not returned'
    [use-after-free]='signal|read from freed or uninitialised memory, or is none, in use_after_free()'
    [null]='signal|Segmentation fault at NULL + 0, in null()'
    [stack-overflow]='signal|at the end of a stack: it has overflowed, in deep()'
    [division]='signal|Division by zero or overflow, in division()'
    [assertion]='assertion|assertion: assertion failed (1 == 2): (1 == 2)'
    [libc-assertion]='assertion|libc_assertion: Assertion'
    [critical]='assertion|this is critical'
    [aborts]='assertion|miniblk: some_call: wrong'
    [exits]='assertion|exit(3)'
    [fails]='assertion|g_test_fail()'
    [subprocess]='SKIP|runs itself in a subprocess'
    [directory]='SKIP|chdir(): out of the lab'
    [unflushed]='assertion|unflushed: assertion failed'
    [fua-of-others]='assertion|fua_of_others: assertion failed'
    [fault]='assertion|fault: assertion failed'
    [torn-write]='assertion|torn_write: assertion failed'
    [lost-by-a-flush]='assertion|lost_by_a_flush: assertion failed'
    [diverges]='diverged|the same choices did not give the same schedule'
)
# What sanitizers notice earlier, or tell otherwise.
[[ $2 != *address* ]] || cases+=(
    [double-free]='memory|allocated by double_free(), freed by double_free()'
    [write-after-free]='memory|use-after-free in main by write_after_free(), write of 1 bytes'
    [overrun]='memory|overflow in main by overrun(), write of 1 bytes, allocated by overrun()'
    [overrun-not-freed]='memory|overflow in main by overrun_not_freed(), write of 1 bytes'
    [free-of-nothing]='memory|bad-free in main'
    [use-after-free]='memory|use-after-free in main by use_after_free(), read of 8 bytes'
)
[[ $2 != *undefined* ]] || cases+=(
    [null]='assertion|Store to null pointer'
    [division]='assertion|Division by zero'
)
if [[ $2 == *thread* ]]; then
    # with its own malloc(), which looks for races only
    unset "cases[double-free]" "cases[free-of-nothing]" "cases[overrun]" "cases[overrun-not-freed]"
    cases+=(
        [write-after-free]='memory|heap-use-after-free at #new in main: write of 1 bytes by write_after_free()'
        [use-after-free]='memory|heap-use-after-free at #new in main: read of 8 bytes by use_after_free()'
    )
fi
echo "1..$((${#cases[@]} + 1))"
number=0
failed=0
result() { # STATUS NAME
    number=$((number + 1))
    [ "$1" = 0 ] && echo "ok $number $2" || { echo "not ok $number $2"; failed=1; }
}
for path in "${!cases[@]}"; do
    IFS='|' read -r verdict words <<<"${cases[$path]}"
    text=$(grep -A1 "^\(not \)\?ok [0-9]* /broken/$path " <<<"$output")
    [[ $text == *"$verdict"* && $text == *"$words"* ]]
    result $? "$path"
    [ "$failed" = 0 ] || sed 's/^/# /' <<<"$text"
done
[ $status = 1 ]
result $? "exit status 1 ($status)"
exit $failed
