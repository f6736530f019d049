#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: exports.sh LIST LIBRARY
# A shared library into which the whole archive was linked exports what LIST says and nothing else.
set -eu
readelf --dyn-syms -W "$2" |
    awk '$5 != "LOCAL" && $7 != "UND" && $1 ~ /^[0-9]+:$/ { print $8 }' |
    LC_ALL=C sort | diff -u "$1" -
