#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Are the program's rules those of docs/conformance.md, in that order and those words?
#
#   conformance.sh PROGRAM docs/conformance.md
set -eu

list=$("$1" --list)
table=$(sed -n '/^|---/,$ s/^| \([^ ]*\) | \([^|]*\) |.*/\1 \2/p' "$2")
[ "$list" = "$table" ] && exit
printf '%s\n' "$list" >rules.list
printf '%s\n' "$table" | diff - rules.list
