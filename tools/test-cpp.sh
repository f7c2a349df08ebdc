#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Generates C++ from the protos, builds it and runs its tests.
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
build=.cache/cpp
# Without optimisation: the tests take milliseconds, and the generated code takes long to compile.
cmake -S containerrpc/cpp -B "$build" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-g1 >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "${CLIPPER_JOBS:-$(nproc)}" >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
ctest --test-dir "$build" --output-on-failure --no-tests=error "$@"

# What is installed is found and works from outside.
echo "package: find_package(ClipperContainer)"
prefix=$PWD/.cache/cpp-prefix
{ rm -rf "$prefix" .cache/cpp-consumer && cmake --install "$build" --prefix "$prefix" &&
  cmake -S containerrpc/cpp/tests/consumer -B .cache/cpp-consumer -DCMAKE_PREFIX_PATH="$prefix" &&
  cmake --build .cache/cpp-consumer && .cache/cpp-consumer/consumer --help; } >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }

echo "a new container in C++"
new=.cache/new-cpp
export CLIPPER_BINARY=$PWD/bin/clipper
{ rm -rf "$new" && CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper &&
  "$CLIPPER_BINARY" container new --lang cpp new --directory "$new" &&
  cmake -S "$new" -B "$new/build" -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$new/build"; } >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
python=$(tools/venv.sh runtime containerrpc/python/requirements.txt containerrpc/python/requirements-test.txt)
(cd "$new" && "$python" -m pytest -q -p no:cacheprovider)

# The same tests against a container with sanitizers. gRPC and protobuf of the system have none.
for sanitizer in address,undefined thread; do
  echo "sanitizer: $sanitizer"
  sanitized=.cache/cpp-${sanitizer%,*}
  cmake -S containerrpc/cpp -B "$sanitized" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-g1 -fsanitize=$sanitizer -fno-sanitize-recover=all" \
    >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
  cmake --build "$sanitized" --target scripted --parallel "${CLIPPER_JOBS:-$(nproc)}" >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
  CLIPPER_SCRIPTED=$PWD/$sanitized/scripted TSAN_OPTIONS="suppressions=$PWD/containerrpc/cpp/tests/tsan.supp halt_on_error=1" \
    ctest --test-dir "$build" --output-on-failure --no-tests=error -R '^ProcessTest' "$@"
done
