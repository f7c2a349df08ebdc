#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the C++ runtime with sanitizers and tests it, and tests the package that it installs.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A package=(
  [cmake]=cmake [ctest]=cmake [c++]=g++ [pkg-config]=pkg-config [protoc]=protobuf-compiler [grpc_cpp_plugin]=protobuf-compiler-grpc
)
missing=()
for c in cmake ctest c++ pkg-config protoc grpc_cpp_plugin; do
  command -v "$c" >/dev/null || missing+=("${package[$c]}")
done
if command -v pkg-config >/dev/null; then
  pkg-config --exists grpc++ || missing+=(libgrpc++-dev)
  pkg-config --exists gtest || missing+=(libgtest-dev)
  pkg-config --exists prometheus-cpp-pull || missing+=(prometheus-cpp-dev)
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "missing: ${missing[*]} (names of Debian packages)" >&2
  exit 1
fi

mkdir -p .cache
log=.cache/cpp.log
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}
# build FOLDER SANITIZERS TARGET: without optimisation, since the generated code takes long to compile.
build() {
  quietly cmake -S containerrpc/cpp -B "$1" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-g1 -fsanitize=$2 -fno-sanitize-recover=all"
  quietly cmake --build "$1" --target "$3" --parallel "${CLIPPER_JOBS:-$(nproc)}"
}

echo "sanitizers: address, undefined"
build .cache/cpp-address address,undefined all
ctest --test-dir .cache/cpp-address --output-on-failure --no-tests=error "$@"

echo "sanitizer: thread"
build .cache/cpp-thread thread scripted
CLIPPER_SCRIPTED=$PWD/.cache/cpp-thread/scripted TSAN_OPTIONS="suppressions=$PWD/containerrpc/cpp/tests/tsan.supp" \
  ctest --test-dir .cache/cpp-address --output-on-failure --no-tests=error -R '^ProcessTest' "$@"

echo "package: find_package(ClipperContainer)"
prefix=$(tools/cpp-runtime.sh)
rm -rf .cache/cpp-consumer
quietly cmake -S containerrpc/cpp/tests/consumer -B .cache/cpp-consumer -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build .cache/cpp-consumer
quietly .cache/cpp-consumer/consumer --help

echo "a new container in C++"
new=.cache/new-cpp
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper
rm -rf "$new"
quietly "$CLIPPER_BINARY" container new --lang cpp new --directory "$new"
quietly cmake -S "$new" -B "$new/build" -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build "$new/build"
python=$(tools/venv.sh runtime containerrpc/python/requirements.txt containerrpc/python/requirements-test.txt)
(cd "$new" && "$python" -m pytest -q -p no:cacheprovider)

# check PROGRAM [ARGUMENT...]: the container keeps the contract to its end.
check() {
  echo "clipper container check: $(basename "$1")"
  local folder code=0
  folder=$(mktemp -d)
  "$@" --address "unix:$folder/s" >"$folder/log" 2>&1 &
  local pid=$!
  "$CLIPPER_BINARY" container check "unix:$folder/s" --drain-pid "$pid" >"$folder/report" 2>&1 || code=1
  # The check has told it to stop; a container that was not reached gets told here.
  [ "$code" = 0 ] || kill "$pid" 2>/dev/null || true
  wait "$pid" || { echo "exit code $? after SIGTERM" >>"$folder/report"; code=1; }
  [ "$code" = 0 ] || cat "$folder/report" "$folder/log" >&2
  rm -rf "$folder"
  return "$code"
}
check .cache/cpp-release/clipper-noop
echo numbers >.cache/cpp-numbers
check .cache/cpp-address/scripted --model-path .cache/cpp-numbers

echo "TLS and tokens of registration, as the Python runtime has them"
export CLIPPER_SECURE_CONTAINER=$PWD/.cache/cpp-address/clipper-noop
(cd containerrpc/python && "$python" -m pytest -q -p no:cacheprovider tests/test_secure.py)
