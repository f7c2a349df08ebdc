#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and installs the C++ runtime of this tree if it has changed, and prints where.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cmake >/dev/null || { echo "missing: cmake (Debian package cmake)" >&2; exit 1; }
build=$PWD/.cache/cpp-release
prefix=$PWD/.cache/cpp-runtime
log=$PWD/.cache/cpp-runtime.log
mkdir -p .cache
# Two that ask at once must not build the same one.
exec 9>.cache/cpp-runtime.lock
if command -v flock >/dev/null; then flock 9; fi

quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}
quietly cmake -S containerrpc/cpp -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
quietly cmake --build "$build" --parallel "${CLIPPER_JOBS:-$(nproc)}"
quietly cmake --install "$build" --prefix "$prefix"
echo "$prefix"
