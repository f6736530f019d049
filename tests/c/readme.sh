#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: readme.sh README EXAMPLE
# The README's first C block is the example, without its first line.
set -eu
tail -n +2 "$2" > "${TMPDIR:-/tmp}/example.$$"
trap 'rm -f "${TMPDIR:-/tmp}/example.$$"' EXIT
awk '/^```c$/ { on = 1; next } /^```$/ && on { exit } on' "$1" | diff -u "${TMPDIR:-/tmp}/example.$$" -
