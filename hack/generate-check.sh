#!/usr/bin/env bash
# Fails with the difference if the CRDs in crds/ or in the chart are not those of the Rust types.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cargo run --quiet --package orbweaver -- crds --dir "$fresh"
for committed in crds helm/orbweaver/crds; do
    diff --recursive --unified "$committed" "$fresh" || {
        echo "$committed is not what the Rust types say: run make generate" >&2
        exit 1
    }
done
