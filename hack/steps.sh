#!/usr/bin/env bash
# Runs make targets one after the other until one fails, and ends with a table of their minutes.
# Usage: hack/steps.sh TARGET...
set -euo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 table=
for step in "$@"; do
    if [ "$failed" -gt 0 ]; then
        table+=$(printf '%-16s %8s  %s' "$step" - "not run")$'\n'
        continue
    fi
    printf '\n== %s\n' "$step"
    start=$SECONDS
    if "${MAKE:-make}" --no-print-directory "$step"; then
        passed=$((passed + 1)) result=passed
    else
        failed=$((failed + 1)) result=FAILED
    fi
    seconds=$((SECONDS - start))
    minutes=$(printf '%d:%02d' $((seconds / 60)) $((seconds % 60)))
    table+=$(printf '%-16s %8s  %s' "$step" "$minutes" "$result")$'\n'
done

printf '\n%-16s %8s\n%s\n' step minutes "$table"
echo "$passed passed, $failed failed, $(($# - passed - failed)) not run"
[ "$failed" -eq 0 ]
