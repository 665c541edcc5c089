#!/usr/bin/env bash
# Breaks the core at one place after another and runs its unit tests: a break that none notices is a survivor, and a failure.
# By night, not in CI: on two cores about an hour. Arguments are files of crates/ipam/src, e.g. `keep.rs plan/pass.rs`; without any, all.
# What is left out, and why, stands in .cargo/mutants.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

hack/cargo-tool.sh cargo-mutants 27.1.0

files=()
for file in "$@"; do
    files+=(--file "crates/ipam/src/$file")
done
# Each break is one small build: what it shares with the one before is worth keeping, what a debugger needs is not.
export CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
# A broken loop collects until it is stopped: by its time, or here, before the machine is out of memory.
ulimit -v 12000000
code=0
nice -n 15 "$root/bin/cargo-mutants" mutants --no-shuffle --package orbweaver-ipam --jobs "$(nproc)" --output target/mutants-core "${files[@]}" || code=$?
# 3: some breaks made a test hang, and none survived. A test that does not end is one that fails.
((code == 3)) || exit "$code"
