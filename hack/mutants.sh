#!/usr/bin/env bash
# Breaks the product in a copy of the tree, by one patch of tests/sim/mutants/ at a time, and has the
# simulation find it: an oracle that catches nothing is none.
#
#   hack/mutants.sh all | three | NAME...      three: another three each day
#   hack/mutants.sh check                      all must apply, as they must in each of the above
#
# A patch says in its head by which rule it is caught (Oracle) and in which runs (Run), in which
# nothing may be found without it. Oracle "none" is the control: what it breaks is no part of why
# anything is safe, so nothing may be found with it either.
set -euo pipefail
cd "$(dirname "$0")/.."

patches=tests/sim/mutants
target=$(realpath "${CARGO_TARGET_DIR:-target}")
copy=$target/mutants
# The copy is no part of this repository. Dependencies are built once for both trees.
export CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=1 GIT_CEILING_DIRECTORIES=$target
# What is built of a broken tree must never pass for what is built of this one: for cargo, the copy's
# members are others since they are not optimised. They are built sooner, and a few seeds are enough.
apart='opt-level = 0'

# The manifest of the copy: this tree's, with its members told apart.
manifest() {
    local package
    cat Cargo.toml
    for package in orbweaver orbweaver-ipam orbweaver-cni orbweaver-kubesim; do
        printf '\n[profile.checked.package.%s]\n%s\n' "$package" "$apart"
    done
}

# Writes a file of the copy, unless it says that already: what is equal keeps its time, and so only
# what differs is built anew.
put() { # file
    mkdir -p "$(dirname "$copy/$1")"
    cat >"$copy.new"
    cmp --silent "$copy.new" "$copy/$1" || cp "$copy.new" "$copy/$1"
}

sync_copy() {
    # What is here no longer must not be there: a test, a recipe.
    if [[ -d $copy ]]; then
        (cd "$copy" && find . -type f -not -path ./Cargo.lock -printf '%P\n') | while read -r file; do
            [[ -f $file ]] || rm "$copy/$file"
        done
    fi
    git ls-files --cached --others --exclude-standard | while read -r file; do
        # shellcheck disable=SC2094  # one of this tree is read, one of the copy written
        [[ ! -f $file || $file == Cargo.toml ]] || put "$file" <"$file"
    done
    manifest | put Cargo.toml
}

said() { # patch, word
    sed -n "s/^$2: //p" "$patches/$1.patch"
}

# The runs that a patch names, in the copy as it is; fails if they find something.
runs() { # patch
    local run
    read -ra run <<<"$(said "$1" Run)"
    (cd "$copy" && cargo test --quiet --profile checked --test sim -- "${run[@]}" --first) >"$copy.log" 2>&1
}

passes() { # patch
    runs "$1" || {
        cat "$copy.log"
        echo "$1: something is found without it"
        return 1
    }
}

hunt() { # patch
    local oracle found start=$SECONDS
    oracle=$(said "$1" Oracle)
    git -C "$copy" apply "$PWD/$patches/$1.patch"
    if runs "$1"; then found=none; else
        found=$(grep --max-count=1 --only-matching --perl-regexp "^  \K[^ ]+(?= at [0-9.]+ s: )" "$copy.log" || echo nothing)
    fi
    git -C "$copy" apply --reverse "$PWD/$patches/$1.patch"
    if [[ $found != "$oracle" ]]; then
        cat "$copy.log"
        echo "$1: caught by $found, not by $oracle ($(said "$1" Run))"
        return 1
    fi
    echo "ok $1: $oracle ($(said "$1" Run)), $((SECONDS - start)) s"
}

mapfile -t all < <(cd "$patches" && for patch in *.patch; do echo "${patch%.patch}"; done)
for patch in "${all[@]}"; do
    git apply --check "$patches/$patch.patch" || {
        echo "$patch: does not apply any more; make it anew, or say why it goes"
        exit 1
    }
done
case ${1:-all} in
check) exit ;;
all) wanted=("${all[@]}") ;;
three)
    wanted=()
    for nth in 0 1 2; do wanted+=("${all[($(date --utc +%-j) * 3 + nth) % ${#all[@]}]}"); done
    ;;
*) wanted=("$@") ;;
esac

sync_copy
# First all of the tree as it is, which is built once.
failed=0
for patch in "${wanted[@]}"; do passes "$patch" || failed=$((failed + 1)); done
for patch in "${wanted[@]}"; do hunt "$patch" || failed=$((failed + 1)); done
echo "mutants ${#wanted[@]} missed $failed"
[[ $failed == 0 ]]
