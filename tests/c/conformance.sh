#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Is the table of docs/conformance.md as the program is?
#
#   conformance.sh PROGRAM TABLE                 the same rules in the same order and words
#   conformance.sh PROGRAM TABLE RELEASE COLUMN  on the twin of that Linux no rule fails, and those that
#                                                pass are those with `yes` in the column of this name
#   conformance.sh PROGRAM without BITS RULE     on a twin without these quirks the rule fails
set -eu

program=$1
table=$2
if [ "$2" = without ]; then
    status=0
    said=$("$program" --twin --quirks-off "$3" --only "$4") || status=$?
    printf '%s\n' "$said" | grep "^failed *$4 " && [ $status = 1 ]
    exit
fi
if [ $# = 2 ]; then
    "$program" --list >rules.list
    sed -n '/^|---/,$ s/^| \([^ ]*\) | \([^|]*\) |.*/\1 \2/p' "$table" | diff - rules.list
    exit
fi

log=conformance-$3.log
"$program" --twin="$3" >"$log" || {
    grep -v '^passed\|^skipped' "$log"
    exit 1
}
awk -F ' *[|] *' -v name="$4" '
    FILENAME == ARGV[1] && $2 == "rule" { for (i = 4; i < NF; i++) if ($i == name) column = i }
    FILENAME == ARGV[1] && column && $2 != "rule" && $2 !~ /^-/ { shown[$2] = $column }
    FILENAME == ARGV[2] && /^(passed|skipped) / {
        split($0, word, " +")
        seen = word[1] == "passed" ? "yes" : "-"
        if (shown[word[2]] != seen) {
            print word[2] ": the table has \"" shown[word[2]] "\", seen: \"" seen "\""
            wrong = 1
        }
    }
    END { exit wrong || !column }' "$table" "$log"
tail -n 1 "$log"
