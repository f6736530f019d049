#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: planted.sh PLANTED
# The sanitizers see what they are there for, and nothing where there is nothing.
set -eu
planted=$1
out=$(mktemp)
trap 'rm -f "$out"' EXIT
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1

# expect PATTERN [MISTAKE]: a report with PATTERN, or none if it is empty.
expect() {
    pattern=$1
    shift
    status=0
    "$planted" "$@" >"$out" 2>&1 || status=$?
    if [ -z "$pattern" ] && [ $status = 0 ] && ! grep -qE 'ERROR|runtime error' "$out"; then
        echo "ok: no mistake"
    elif [ -n "$pattern" ] && [ $status != 0 ] && grep -q "$pattern" "$out"; then
        echo "ok: $pattern"
    else
        cat "$out"
        echo "not ok, exit status $status: ${1:-no mistake}"
        exit 1
    fi
}

expect ''
expect 'AddressSanitizer: heap-use-after-free' freed
expect 'AddressSanitizer: heap-buffer-overflow' behind
expect 'runtime error: shift exponent 32 is too large' shift
expect 'LeakSanitizer: detected memory leaks' leak
