#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests adapters, each against its real framework in an environment of its own: all, or those named.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python

# Every container must pass `clipper container check`.
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper

if [ $# -eq 0 ]; then set -- $(cd containerrpc/adapters && ls -d */ | tr -d /); fi
for name in "$@"; do
  folder=containerrpc/adapters/$name
  echo "adapter: $name"
  python=$(tools/venv.sh "$name" $runtime/requirements.txt $runtime/requirements-test.txt "$folder/requirements.txt")
  if [ -e "$folder/CMakeLists.txt" ]; then
    CLIPPER_ADAPTER=$(tools/cpp-adapter.sh "$name")
    export CLIPPER_ADAPTER
  fi
  # The exit code of pytest is 5 when it has found no test.
  (cd "$folder" && "$python" -m pytest -q -p no:cacheprovider)
  if [ -e "$folder/adapter.py" ]; then "$python" tools/readme-commands.py "$folder"; fi
done
