#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: called.sh LIST ARCHIVE
# The C tests, whose objects are in ARCHIVE, call every function of LIST.
set -eu
called=$(nm --undefined-only "$2" | awk '$1 == "U" { print $2 }' | sort -u)
status=0
while read -r name; do
    if ! echo "$called" | grep -qx "$name"; then
        echo "no C test calls $name"
        status=1
    fi
done <"$1"
exit $status
