#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the interpreter of a virtual environment that has what the requirements files say, and
# Clipper's Python packages as they are in this tree. It is made once for each content of the files.
# The environments share files of the same package (uv links them), so that each adapter can have
# exactly its own. CLIPPER_PYTHON names the interpreter to make it with.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: tools/venv.sh NAME REQUIREMENTS..." >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
name=$1
shift
python=${CLIPPER_PYTHON:-python3}
uv=uv==0.13.9
command -v "$python" >/dev/null || { echo "missing: $python, Python 3.9 or newer" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "missing: Python 3.9 or newer; $python is $("$python" --version 2>&1)" >&2; exit 1; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: Python's venv (Debian package python3-venv)" >&2; exit 1; }

# Two that ask at once must not build the same one.
lock() {
  mkdir -p "$root/.cache"
  exec 9>"$root/.cache/$1.lock"
  if command -v flock >/dev/null; then flock 9; fi
}

packages=("$root/gen/python/src" "$root/containerrpc/python/src" "$root/containerrpc/htk/src" "$root/sdk/python/src")
key=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; echo "${packages[*]} $uv"; cat "$@"; } | sha256sum | cut -c1-12)
venv=$root/.cache/venv-$name-$key
installer=$root/.cache/${uv/==/-}
if [ ! -e "$venv/.complete" ]; then
  lock uv
  if [ ! -x "$installer/bin/uv" ]; then
    rm -rf "$root/.cache/uv-"*/
    python3 -m venv "$installer" >&2
    "$installer/bin/python" -m pip install --quiet --disable-pip-version-check "$uv" >&2
  fi
  lock "venv-$name"
  if [ ! -e "$venv/.complete" ]; then
    echo "making the virtual environment .cache/venv-$name-$key" >&2
    rm -rf "$root/.cache/venv-$name-"????????????
    "$python" -m venv "$venv" >&2
    UV_CACHE_DIR=${UV_CACHE_DIR:-$root/.cache/uv} "$installer/bin/uv" pip install --quiet --python "$venv/bin/python" "${@/#/--requirement=}" >&2
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "${packages[@]}" >"$site/clipper.pth"
    touch "$venv/.complete"
  fi
fi
echo "$venv/bin/python"
