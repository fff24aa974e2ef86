#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Raw O_DIRECT reads of 4 KiB at depth 32: rate against fio with the same engine, processor
# time per request against qemu-img. The two of a pair run one right after the other; what
# counts is the median of the pairs' ratios.
#
#   tests/bench/raw-engine.sh [--build-dir DIR] [--file FILE] [--pairs N] [--requests N]
#
#   --file FILE    what to read (a new file of 256 MiB in the build directory)
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
build=$root/build file="" pairs=5 requests=200000
while [ $# -gt 1 ]; do
    case $1 in
    --build-dir) build=$(realpath -m "$2") ;;
    --file) file=$(realpath -m "$2") ;;
    --pairs) pairs=$2 ;;
    --requests) requests=$2 ;;
    *) break ;;
    esac
    shift 2
done
if [ $# -gt 0 ]; then
    sed -n 's/^# \?//; 4,10p' "$0"
    exit 2
fi
bench=$build/tests/bench/raw-engine
[ -x "$bench" ] || { echo "raw-engine.sh: build it first: $bench" >&2; exit 1; }
work=$(mktemp -d "$build/raw-engine-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
if [ -z "$file" ]; then
    file=$work/file
    head -c 256M /dev/urandom >"$file"
    sync "$file"
fi

# A large odd multiple of the request's size: no two neighbours are in flight together.
step=$((4096 * 15485863 % $(stat -c %s "$file")))

median() {
    sort -g | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2)
                     if (NR) print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'
}
# The rate (k/s) and the processor time (us) per request of one run, each.
ours() { # ours ENGINE OPTION...
    "$bench" --file "$file" --requests $requests --aio "$@" |
        sed -n 's/.*"value": \([0-9.]*\),.*/\1/p' | paste -sd ' '
}
fio_run() {
    fio --name=x --filename="$file" --direct=1 --rw=randread --bs=4k --iodepth=32 \
        --ioengine="$1" --io_size=$((requests * 4096)) --randrepeat=0 --norandommap \
        --output-format=terse --terse-version=3 |
        awk -F ';' '{ n = $6 / 4; s = $9 / 1e3   # KiB, ms; processor time in percent of it
                      print n / s / 1e3, ($88 + $89) / 100 * s / n * 1e6 }'
}
qemu_run() {
    local TIMEFORMAT='%R %U %S'
    { time qemu-img bench -f raw -t none -i "$1" -c $requests -d 32 -s 4096 -S $step \
           "$file" >/dev/null 2>&1; } 2>&1 |
        awk -v n=$requests '{ print n / $1 / 1e3, ($2 + $3) / n * 1e6 }'
}
ratio() { awk "BEGIN { print $1 / $2 }"; }

compare() { # compare ENGINE PEER PEER_ENGINE OPTION...
    local engine=$1 peer=$2 peer_engine=$3 i a b
    shift 3
    : >"$work/rate"; : >"$work/cpu"; : >"$work/a"; : >"$work/b"
    for ((i = 0; i < pairs; i++)); do
        a=$(ours "$engine" "$@")
        b=$("${peer}_run" "$peer_engine")
        echo "$a" >>"$work/a"; echo "$b" >>"$work/b"
        ratio "${a% *}" "${b% *}" >>"$work/rate"
        ratio "${a#* }" "${b#* }" >>"$work/cpu"
    done
    printf '{"work": "raw reads, %s", "peer": "%s", "pairs": %d, "rate_ratio": %.3f, ' \
        "$engine" "$peer" "$pairs" "$(median <"$work/rate")"
    printf '"cpu_ratio": %.3f, "k_per_s": [%.1f, %.1f], "cpu_us": [%.2f, %.2f]}\n' \
        "$(median <"$work/cpu")" \
        "$(cut -d' ' -f1 "$work/a" | median)" "$(cut -d' ' -f1 "$work/b" | median)" \
        "$(cut -d' ' -f2 "$work/a" | median)" "$(cut -d' ' -f2 "$work/b" | median)"
}

if command -v fio >/dev/null; then
    compare native fio libaio
    compare io_uring fio io_uring
else
    echo "No fio here: its figures are missing." >&2
fi
if command -v qemu-img >/dev/null; then
    compare native qemu native --step $step
    compare io_uring qemu io_uring --step $step
else
    echo "No qemu-img here: its figures are missing." >&2
fi
