#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests clients of other servers, as they are published, against a real Clipper.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python
python=$(tools/venv.sh clients $runtime/requirements.txt $runtime/requirements-test.txt e2e/clients/requirements.txt)
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper
cd e2e/clients
# Each in a process of its own: they bring descriptors of the same names.
for client in test_*.py; do
  echo "clients: $client"
  "$python" -m pytest -q -p no:cacheprovider "$client" "$@"
done
