#!/usr/bin/env bash
# Runs make targets one after the other until one fails, and ends with a table of their minutes.
#
#   hack/steps.sh TARGET... [-- TARGET...]
#
# With TEST_MINUTES=N (or TEST_SECONDS) it ends in time, whatever the machine: of the targets after the
# --, one that isn't through by then is stopped, and it and the next ones are said to be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes() { # seconds
    printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

limit=${TEST_SECONDS:-${TEST_MINUTES:+$((TEST_MINUTES * 60))}}
over="the ${limit:+$(minutes "$limit")} minutes are over"

passed=0 failed=0 skipped=0 table=
row() { # step, minutes, result
    table+=$(printf '%-16s %8s  %s' "$1" "$2" "$3")$'\n'
}

may_skip=false
for step in "$@"; do
    if [[ $step == -- ]]; then
        may_skip=true
        continue
    fi
    if ((failed > 0)); then
        row "$step" - "not run"
        continue
    fi
    limited=()
    if $may_skip && [[ -n $limit ]]; then
        left=$((limit - SECONDS))
        if ((left <= 0)); then
            skipped=$((skipped + 1))
            row "$step" - "SKIPPED: $over"
            continue
        fi
        limited=(timeout --kill-after=60 "$left")
    fi
    printf '\n== %s\n' "$step"
    start=$SECONDS status=0
    "${limited[@]}" "${MAKE:-make}" --no-print-directory "$step" || status=$?
    took=$(minutes $((SECONDS - start)))
    if ((status == 0)); then
        passed=$((passed + 1))
        row "$step" "$took" passed
    elif ((${#limited[@]} > 0 && (status == 124 || status == 137))); then
        skipped=$((skipped + 1))
        row "$step" "$took" "SKIPPED: stopped, $over"
    else
        failed=$((failed + 1))
        row "$step" "$took" FAILED
    fi
done

printf '\n%-16s %8s\n%s\n' step minutes "$table"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
