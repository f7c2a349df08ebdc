#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the C++ adapter of a framework against the runtime of this tree, which is built first if it
# has changed, and prints the path of the executable. Further arguments are for CMake.
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: tools/cpp-adapter.sh NAME [CMAKE-ARGUMENT...]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
name=$1
shift
folder=$root/containerrpc/adapters/$name
[ -e "$folder/CMakeLists.txt" ] || { echo "$folder has no CMakeLists.txt: it is no adapter in C++" >&2; exit 2; }

prefix=$("$root/tools/cpp-runtime.sh")
build=$root/.cache/cpp-adapter-$name
# Two that ask at once must not build the same one.
exec 9>"$root/.cache/cpp-adapter.lock"
if command -v flock >/dev/null; then flock 9; fi

# No registry has a package of ONNX Runtime for C++.
if [ "$name" = onnx-cpp ] && [[ "$*" != *-DONNXRUNTIME_ROOT=* ]]; then
  onnxruntime=$("$root/tools/onnxruntime.sh")
  set -- -DONNXRUNTIME_ROOT="$onnxruntime" "$@"
fi

quietly() {
  "$@" >"$root/.cache/cpp-adapter.log" 2>&1 || { cat "$root/.cache/cpp-adapter.log" >&2; exit 1; }
}
jobs=${CLIPPER_JOBS:-$(nproc)}
quietly cmake -S "$folder" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" "$@"
quietly cmake --build "$build" --parallel "$jobs"
echo "$build/adapter"
