#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the images of adapters, clipper-NAME, and those that they are built on: all, or those named. BASE is an
# image of your own in the place of the public ones, with Debian's apt-get and, for Python, `python` and pip.
#   [BASE=IMAGE] tools/images.sh [ADAPTER...]
set -euo pipefail
cd "$(dirname "$0")/.."
adapters=containerrpc/adapters
if [ $# -eq 0 ]; then set -- $(cd $adapters && ls -d */ | tr -d /); fi
for name in "$@"; do
  [ -e "$adapters/$name/Dockerfile" ] || { echo "there is no adapter $name: $(cd $adapters && ls -d */ | tr -d / | xargs)" >&2; exit 2; }
done
mkdir -p .cache

# Builds an image; what the builder says is shown when it fails. Packages are fetched over the machine's own network.
build() {
  local image=$1 log=.cache/image-$1.log
  shift
  if ! docker build --network host --tag "$image" "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "$image was not built; all that the builder said: $log" >&2
    exit 1
  fi
  printf '%-30s %6d MB\n' "$image" $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000))
}

base=()
[ -z "${BASE:-}" ] || base=(--build-arg "BASE=$BASE")
built=
# Builds what an adapter is built on, once.
runtime() {
  [[ " $built " != *" $1 "* ]] || return 0
  built+=" $1"
  case $1 in
    python) build clipper-container-python "${base[@]}" --file containerrpc/python/Dockerfile . ;;
    cpp)
      build clipper-container-cpp "${base[@]}" --file containerrpc/cpp/Dockerfile .
      build clipper-container-cpp-runtime "${base[@]}" --file containerrpc/cpp/Dockerfile --target runtime .
      ;;
  esac
}

for name in "$@"; do
  folder=$adapters/$name
  if [ -e "$folder/CMakeLists.txt" ]; then runtime cpp; else runtime python; fi
  case $name in
    htk) build clipper-htk --file "$folder/Dockerfile" containerrpc ;; # The decoder is a package beside the adapters.
    onnx-cpp)
      docker image inspect onnxruntime >/dev/null 2>&1 || tar -C "$(tools/onnxruntime.sh)" -c . | docker import - onnxruntime >/dev/null
      build clipper-onnx-cpp "$folder"
      ;;
    *) build "clipper-$name" "$folder" ;;
  esac
done
