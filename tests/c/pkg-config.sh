#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# usage: pkg-config.sh DIRECTORY SOURCE -- CC...
# SOURCE builds by hand with what pkg-config says, finding the .pc in DIRECTORY, and runs.
set -eu
directory=$1 source=$2
shift 3
PKG_CONFIG_PATH=$directory
export PKG_CONFIG_PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=$(pkg-config --cflags --libs nested-vtd)
# shellcheck disable=SC2086 # flags are words
"$@" -std=c11 -Wall -Wextra -Werror -o "$work/program" "$source" $flags
"$work/program"
