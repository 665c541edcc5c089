#!/usr/bin/env bash
# Breaks the core at one place after another and runs its tests: a break that no test notices is a survivor, and a failure.
# By night, not in CI: a file takes minutes, the crate hours. Arguments are files of crates/ipam/src, e.g. `keep.rs ledger.rs`; without any, all.
# What is left out, and why, stands in .cargo/mutants.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

hack/cargo-tool.sh cargo-mutants 27.1.0

files=()
for file in "$@"; do
    files+=(--file "crates/ipam/src/$file")
done
nice -n 15 "$root/bin/cargo-mutants" mutants --package orbweaver-ipam --jobs 1 --output target/mutants-core "${files[@]}"
