#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the Python packages and every adapter, each adapter against its real framework.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python

echo "python: runtime"
python=$(tools/venv.sh runtime $runtime/requirements.txt $runtime/requirements-test.txt)
(cd $runtime && "$python" -m mypy && "$python" -m pytest -q "$@")

echo "python: example of a policy"
(cd examples/policy && "$python" -m pytest -q -p no:cacheprovider "$@")

for adapter in containerrpc/adapters/*/test_*.py; do
  folder=$(dirname "$adapter")
  name=$(basename "$folder")
  echo "python: adapter $name"
  # The demonstration uses the same environment: it has all that its models need.
  python=$(tools/venv.sh "$name" $runtime/requirements.txt $runtime/requirements-test.txt "$folder/requirements.txt")
  (cd "$folder" && "$python" -m pytest -q -p no:cacheprovider "$@")
done
