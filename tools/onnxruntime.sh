#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints a folder with ONNX Runtime's C API, laid out as its release archives are: include/ and lib/.
# No package registry has the archive. The library is the one in Python's wheel, and the headers of
# the same version are in a Go module; both are checked against the hashes below.
set -euo pipefail
version=1.23.2
headers=github.com/yalue/onnxruntime_go@v1.25.0
headers_sum=h1:nlhVau1BpLZ/BYr+WpPZCJRD/WES0qo6dK7aKyyAs3g=
architecture=$(uname -m)
case $architecture in
  x86_64) wheel_sum=da44b99206e77734c5819aa2142c69e64f3b46edc3bd314f6a45a932defc0b3e ;;
  aarch64) wheel_sum=bbfd2fca76c855317568c1b36a885ddea2272c13cb0e395002c402f2360429a6 ;;
  *) echo "there is no ONNX Runtime $version for $architecture here: name your own with -DONNXRUNTIME_ROOT" >&2; exit 1 ;;
esac
[ "$(uname -s)" = Linux ] || { echo "this is for Linux: name your own ONNX Runtime with -DONNXRUNTIME_ROOT" >&2; exit 1; }

cache=$(cd "$(dirname "$0")/.." && pwd)/.cache
folder=$cache/onnxruntime-$version
mkdir -p "$cache"
# Two that ask at once must not fetch the same one.
exec 8>"$cache/onnxruntime.lock"
if command -v flock >/dev/null; then flock 8; fi
if [ ! -e "$folder" ]; then
  made=$(mktemp -d "$cache/onnxruntime.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  mkdir "$made/include" "$made/lib"

  # The library does not depend on Python, so the wheel of one version will do.
  echo "onnxruntime==$version --hash=sha256:$wheel_sum" >"$made/requirements.txt"
  "${CLIPPER_PYTHON:-python3}" -m venv "$made/venv" >&2
  "$made/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --dest "$made" \
    --implementation cp --python-version 3.11 --abi cp311 --platform "manylinux_2_27_$architecture" -r "$made/requirements.txt" >&2
  python3 -m zipfile -e "$made"/onnxruntime-*.whl "$made/wheel"
  mv "$made/wheel/onnxruntime/capi/libonnxruntime.so.$version" "$made/lib/"
  ln -s "libonnxruntime.so.$version" "$made/lib/libonnxruntime.so.1"
  ln -s libonnxruntime.so.1 "$made/lib/libonnxruntime.so"

  module=$(cd "$made" && GOWORK=off go mod download -json "$headers") || { echo "$module" >&2; exit 1; }
  read -r sum source < <(python3 -c 'import json, sys; m = json.load(sys.stdin); print(m["Sum"], m["Dir"])' <<<"$module")
  [ "$sum" = "$headers_sum" ] || { echo "$headers has the hash $sum, and not $headers_sum" >&2; exit 1; }
  install -m 644 "$source"/onnxruntime_*c_api.h "$made/include/"

  rm -rf "$made/venv" "$made/wheel" "$made/requirements.txt" "$made"/*.whl
  chmod 755 "$made"
  mv "$made" "$folder"
fi
echo "$folder"
