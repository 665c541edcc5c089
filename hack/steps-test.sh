#!/usr/bin/env bash
# Do hack/steps.sh and .ci/run fail where they must, leave out only what they may, and say so?
# Steps here are false ones: their names say how they end.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/make" <<'MAKE'
#!/usr/bin/env bash
case ${*: -1} in
passes) ;;
fails) exit 2 ;;
hangs) sleep 30 ;;
test) echo "tested $(git rev-parse HEAD) in $PWD, limit ${TEST_MINUTES:-none}" ;;
esac
MAKE
chmod +x "$folder/make"

failed=0
# Of a run of the steps: its exit code, and lines that its table has, blanks squeezed.
steps() { # minutes, code, steps, lines...
    local minutes=$1 code=$2 names=$3 status=0 table line
    shift 3
    # shellcheck disable=SC2086  # the names are several words
    table=$(MAKE=$folder/make TEST_MINUTES=$minutes hack/steps.sh $names 2>&1) || status=$?
    table=$(sed -E 's/ +/ /g; s/[0-9]+:[0-9]+/T/' <<<"$table")
    [[ $status == "$code" ]] || wrong "$names, $minutes minutes: ends with $status, not $code" "$table"
    for line in "$@"; do
        grep --quiet --fixed-strings --line-regexp "$line" <<<"$table" || wrong "$names, $minutes minutes: no line '$line'" "$table"
    done
}

wrong() { # what, output
    printf '%s\n%s\n\n' "$1" "$2"
    failed=1
}

steps '' 0 'passes -- passes' 'passes T passed' '2 passed, 0 failed, 0 skipped'
steps '' 1 'passes fails passes' 'fails T FAILED' 'passes - not run' '1 passed, 1 failed, 0 skipped'
steps '' 1 'passes -- fails passes' 'fails T FAILED' 'passes - not run' '1 passed, 1 failed, 0 skipped'
# No time is left from the start: what has to pass runs nonetheless, and fails nonetheless.
steps 0 0 'passes -- fails' 'passes T passed' 'fails - SKIPPED: the T minutes are over' '1 passed, 0 failed, 1 skipped'
steps 0 1 'fails -- passes' 'fails T FAILED' 'passes - not run' '0 passed, 1 failed, 0 skipped'
# A step that outlasts the time is stopped, and is no failure.
hangs=$(MAKE=$folder/make TEST_SECONDS=2 hack/steps.sh passes -- hangs passes 2>&1) || wrong 'a step that hangs fails' "$hangs"
grep --quiet 'hangs .* SKIPPED: stopped, the 0:02 minutes are over' <<<"$hangs" || wrong 'a stopped step is not told of' "$hangs"
grep --quiet '1 passed, 0 failed, 2 skipped' <<<"$hangs" || wrong 'what a stopped step leaves is not told of' "$hangs"

# CI tests the commit in the cache's folder, and within a time; elsewhere it runs where it is.
git -c advice.detachedHead=false clone --quiet --no-local --depth=1 "file://$PWD" "$folder/clone"
cp .ci/run "$folder/clone/.ci/run" # as it is here, committed or not
head=$(git rev-parse HEAD)
mkdir "$folder/bin"
cp "$folder/make" "$folder/bin/make"
ci() { # variables...
    env --unset=CARGO_TARGET_DIR --unset=TEST_MINUTES "PATH=$folder/bin:$PATH" "XDG_CACHE_HOME=$folder/cache" "$@" "$folder/clone/.ci/run" 2>&1
}
said=$(ci CI=true)
[[ $said == "tested $head in $folder/cache/orbweaver/tree, limit 84" ]] || wrong 'in CI' "$said"
said=$(ci CI=)
[[ $said == "tested $head in $folder/clone, limit none" ]] || wrong 'by hand' "$said"
# A second run finds the tree, and takes away what is no part of the commit.
touch "$folder/cache/orbweaver/tree/left-over"
ci CI=true >/dev/null
[[ ! -e $folder/cache/orbweaver/tree/left-over ]] || wrong 'in CI again' 'a file of no commit is still there'
# A tree that can't be used costs the saved builds, not the run.
rm -r "$folder/cache/orbweaver/tree"
touch "$folder/cache/orbweaver/tree"
said=$(ci CI=true)
grep --quiet "tested $head in $folder/clone, limit 84" <<<"$said" || wrong 'in CI without a tree' "$said"
exit $failed
