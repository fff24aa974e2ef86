#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# With ThreadSanitizer the lab finds accesses that nothing orders, in whatever schedule, and none
# where something does. With -Db_sanitize=thread only.
#
#   test-races.sh RACES
set -u
export LAB_SCHEDULES=40 LAB_SHRINK=off LAB_JOBS=1
LAB_DIR=$(mktemp -d) || exit 2
export LAB_DIR
trap 'rm -rf "$LAB_DIR"' EXIT
cases=$("$1" -l | grep "^/")
output=$("$1" 2>&1)
number=0 failed=0
echo "1..$(wc -l <<<"$cases")"
while read -r path; do
    number=$((number + 1))
    text=$(grep -A1 "^\(not \)\?ok [0-9]* $path " <<<"$output")
    case $path in
    /races/*) [[ $text == "not ok"*"lab memory"*"ThreadSanitizer: data-race"* ]] ;;
    *) [[ $text == "ok "* ]] ;;
    esac && echo "ok $number $path" && continue
    echo "not ok $number $path"
    sed 's/^/# /' <<<"$text"
    failed=1
done <<<"$cases"
exit $failed
