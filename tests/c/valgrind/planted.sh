#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: planted.sh PLANTED LOCKS -- HELGRIND...
# Helgrind sees what it is there for: nothing where there is nothing, a race of the caller's own in a
# callback, and the unit's shared data as soon as nobody tells it of the locks.
set -eu
planted=$1 locks=$2
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect PATTERN WHAT PRELOAD [ARGUMENT]: a report with PATTERN, or none if it is empty.
expect() {
    pattern=$1 what=$2
    status=0
    LD_PRELOAD=$3 "$run" "$planted" ${4+"$4"} >"$work/out" 2>&1 || status=$?
    if [ -z "$pattern" ] && [ $status = 0 ] && ! grep -q '^==' "$work/out"; then
        echo "ok: $what"
    elif [ -n "$pattern" ] && [ $status != 0 ] && grep -q "$pattern" "$work/out"; then
        echo "ok: $what"
    else
        cat "$work/out"
        echo "not ok, exit status $status: $what"
        exit 1
    fi
}

# The words of HELGRIND as one program.
run=$work/helgrind
{
    echo '#!/bin/sh'
    printf 'exec'
    printf ' "%s"' "$@"
    echo ' "$@"'
} >"$run"
chmod +x "$run"

expect '' 'no race is reported where there is none' "$locks"
expect 'at 0x.*: event (planted.c' 'a race in a callback' "$locks" race
expect 'by 0x.*: nested_vtd::' 'every use of shared data, if the locks are not known' ''
