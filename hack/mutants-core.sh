#!/usr/bin/env bash
# Breaks the core at one place after another and runs its tests: a break that no test notices is a survivor, and a failure.
# By night, not in CI: a file takes minutes, the crate hours. Arguments are files of crates/ipam/src, e.g. `keep.rs ledger.rs`; without any, all.
# What is left out, and why, stands in .cargo/mutants.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly MUTANTS=27.1.0
root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

if [ "$("$root/bin/cargo-mutants" mutants --version 2>/dev/null)" != "cargo-mutants $MUTANTS" ]; then
    echo "building cargo-mutants $MUTANTS (2 to 4 minutes, once)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    CARGO_TARGET_DIR="$build" cargo install --quiet --locked --force --version "$MUTANTS" --root "$root" cargo-mutants
fi

files=()
for file in "$@"; do
    files+=(--file "crates/ipam/src/$file")
done
nice -n 15 "$root/bin/cargo-mutants" mutants --package orbweaver-ipam --jobs 1 --output target/mutants-core "${files[@]}"
