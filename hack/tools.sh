#!/usr/bin/env bash
# Puts the tools of the checks into the cache folder, and installs shellcheck where Debian's packages can be had.
# The cluster's own binaries and packages are the e2e harness's business.
set -euo pipefail

readonly DENY=0.20.2
root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

if [ "$("$root/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $DENY" ]; then
    echo "building cargo-deny $DENY (2 to 4 minutes, once)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    CARGO_TARGET_DIR="$build" cargo install --quiet --locked --force --version "$DENY" --root "$root" cargo-deny
fi

if ! command -v shellcheck >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "installing the Debian package shellcheck"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends shellcheck >/dev/null
    else
        echo "shellcheck is missing and cannot be installed here: scripts will not be checked"
    fi
fi
