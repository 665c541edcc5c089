#!/usr/bin/env bash
# Puts one of cargo's tools, at a version, into the cache folder of tools; quick where it is there.
# Usage: hack/cargo-tool.sh NAME VERSION
set -euo pipefail

name=$1 version=$2
root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

there=$(cargo install --list --root "$root" 2>/dev/null || true)
if [[ $there != *"$name v$version:"* ]]; then
    echo "building $name $version (2 to 4 minutes, once)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    # What checks a few files need not be fast; optimised as its authors would, it takes ten minutes more.
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
    CARGO_TARGET_DIR="$build" cargo install --quiet --locked --force --version "$version" --root "$root" "$name"
fi
