#!/usr/bin/env bash
# Runs make targets one after the other until one fails, and ends with a table of their minutes.
#
#   hack/steps.sh TARGET... [-- TARGET...]
#
# With TEST_MINUTES=N it ends in time, whatever the machine: of the targets after the --, one that
# isn't through by then is stopped, and it and the next ones are said to be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes() { # seconds
    printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

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
    if $may_skip && [[ -n ${TEST_MINUTES:-} ]]; then
        left=$((TEST_MINUTES * 60 - SECONDS))
        if ((left <= 0)); then
            skipped=$((skipped + 1))
            row "$step" - "SKIPPED: the $TEST_MINUTES minutes are over"
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
        row "$step" "$took" "SKIPPED: stopped when the $TEST_MINUTES minutes were over"
    else
        failed=$((failed + 1))
        row "$step" "$took" FAILED
    fi
done

printf '\n%-16s %8s\n%s\n' step minutes "$table"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
