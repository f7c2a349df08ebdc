#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."
runtime=containerrpc/python

# Containers must pass `clipper container check`.
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper

echo "python: runtime"
python=$(tools/venv.sh runtime $runtime/requirements.txt $runtime/requirements-test.txt)
(cd $runtime && "$python" -m mypy && "$python" -m pytest -q "$@")

# Prints an interpreter of a version: of the path, or of pyenv. The path's may be one that pyenv has switched off.
interpreter() {
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

for edge in oldest=3.9 newest=3.13; do
  if python=$(interpreter "${edge#*=}"); then
    echo "python: runtime on Python ${edge#*=} with the ${edge%=*} libraries"
    python=$(CLIPPER_PYTHON=$python tools/venv.sh "${edge%=*}" "$runtime/requirements-${edge%=*}.txt")
    (cd $runtime && "$python" -m pytest -q -p no:cacheprovider "$@")
  else
    echo "python: SKIPPED, the runtime on Python ${edge#*=}: there is no such interpreter with venv, on the path or of pyenv"
  fi
done

echo "python: client"
client=$(tools/venv.sh client $runtime/requirements.txt $runtime/requirements-test.txt sdk/python/requirements.txt)
export CLIPPER_ACCEPTANCE_SERVER=$PWD/.cache/acceptance-server
CGO_ENABLED=0 go build -o "$CLIPPER_ACCEPTANCE_SERVER" ./sdk/acceptance/server
(cd sdk/python && "$client" -m mypy && "$client" -m pytest -q -p no:cacheprovider --ignore tests/test_acceptance.py "$@")

echo "python: client, built and installed as a user would"
uv=$(echo .cache/uv-*/bin/uv)
export UV_CACHE_DIR=${UV_CACHE_DIR:-$PWD/.cache/uv}
rm -rf .cache/dist-python
for package in gen/python sdk/python; do # The wheel is made from the sdist.
  "$uv" build --quiet --out-dir .cache/dist-python $package
done
# accept PYTHON REQUIREMENTS: runs the acceptance list with the wheels, outside of the source tree.
accept() {
  "$uv" venv --quiet --clear --python "$1" .cache/installed-python
  "$uv" pip install --quiet --python .cache/installed-python/bin/python .cache/dist-python/*.whl --requirement "$2"
  cp sdk/python/tests/test_acceptance.py .cache/installed-python/
  (cd .cache/installed-python && bin/python -m pytest -q -p no:cacheprovider test_acceptance.py)
}
accept python3 sdk/python/requirements-newest.txt
if python=$(interpreter 3.9); then
  accept "$python" sdk/python/requirements-oldest.txt
else
  echo "python: SKIPPED, the client on Python 3.9: there is no such interpreter with venv, on the path or of pyenv"
fi

echo "python: a new container"
rm -rf .cache/new-python
"$CLIPPER_BINARY" container new --lang python new --directory .cache/new-python >/dev/null
(cd .cache/new-python && "$client" -m pytest -q -p no:cacheprovider)

echo "python: HTK's formats"
python=$(tools/venv.sh htk $runtime/requirements.txt $runtime/requirements-test.txt containerrpc/adapters/htk/requirements.txt)
(cd containerrpc/htk && "$python" -m mypy && "$python" -m pytest -q "$@")

echo "python: example of a policy"
(cd examples/policy && "$client" -m pytest -q -p no:cacheprovider "$@")
