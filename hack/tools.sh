#!/usr/bin/env bash
# Puts the tools of the checks into the cache folder, and installs shellcheck where Debian's packages can be had.
# The cluster's own binaries and packages are the e2e harness's business.
set -euo pipefail

cd "$(dirname "$0")/.."

root="${XDG_CACHE_HOME:-$HOME/.cache}/orbweaver/tools"

# Prometheus checks the chart's alerts and dashboard. Its Debian package would start a server, so it is only unpacked.
if [ ! -x "$root/bin/promtool" ]; then
    if command -v apt-get >/dev/null; then
        echo "unpacking the Debian package prometheus"
        packages=$(mktemp -d)
        trap 'rm -rf "$packages"' EXIT
        [ "$(id -u)" -ne 0 ] || apt-get update -qq
        (cd "$packages" && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb unpacked)
        mkdir -p "$root/bin"
        install "$packages"/unpacked/usr/bin/{prometheus,promtool} "$root/bin/"
    else
        echo "prometheus is missing and cannot be installed here: the chart's alerts will not be checked"
    fi
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
