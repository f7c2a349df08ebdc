#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python

echo "python: runtime"
python=$(tools/venv.sh runtime $runtime/requirements.txt $runtime/requirements-test.txt)
(cd $runtime && "$python" -m mypy && "$python" -m pytest -q "$@")

echo "python: HTK's formats"
python=$(tools/venv.sh htk containerrpc/adapters/htk/requirements.txt $runtime/requirements.txt $runtime/requirements-test.txt)
(cd containerrpc/htk && "$python" -m mypy && "$python" -m pytest -q "$@")

echo "python: example of a policy"
(cd examples/policy && "$python" -m pytest -q -p no:cacheprovider "$@")
