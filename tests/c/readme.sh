#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: readme.sh README EXAMPLE
# The README's first C block is the example, without its first line.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tail -n +2 "$2" > "$work/example.c"
awk '/^```c$/ { on = 1; next } /^```$/ && on { exit } on' "$1" | diff -u "$work/example.c" -
