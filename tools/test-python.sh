#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python

echo "python: runtime"
python=$(tools/venv.sh runtime $runtime/requirements.txt $runtime/requirements-test.txt)
(cd $runtime && "$python" -m mypy && "$python" -m pytest -q "$@")

echo "python: client"
client=$(tools/venv.sh client $runtime/requirements.txt $runtime/requirements-test.txt sdk/python/requirements.txt)
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper
(cd sdk/python && "$client" -m mypy && "$client" -m pytest -q -p no:cacheprovider "$@")

echo "python: example of a policy"
(cd examples/policy && "$python" -m pytest -q -p no:cacheprovider "$@")
