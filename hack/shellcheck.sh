#!/usr/bin/env bash
# Checks the scripts it is given; says so where it cannot.
set -euo pipefail

if ! command -v shellcheck >/dev/null; then
    echo "SKIPPED: shellcheck is not installed" >&2
    [ -z "${ORBWEAVER_REQUIRE_TOOLS:-}" ]
    exit
fi
shellcheck "$@"
