#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the images of adapters and serves a model with each through the launcher docker: all, or those named. BASE
# is an image to build them on; without one, root on Debian makes it, since a registry may be out of reach.
#   [BASE=IMAGE] tools/test-images.sh [ADAPTER...]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${CLIPPER_IMAGES_ENGINE:-}" ]; then CLIPPER_IMAGES_ENGINE=1 exec tools/docker.sh "$0" "$@"; fi
if [ $# -eq 0 ]; then set -- $(cd containerrpc/adapters && ls -d */ | tr -d /); fi
if [ -z "${BASE:-}" ] && [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null; then
  BASE=$(tools/docker-base.sh)
  export BASE
fi

CGO_ENABLED=0 go build -o bin/clipper ./cmd/clipper
python=$(tools/venv.sh runtime containerrpc/python/requirements.txt containerrpc/python/requirements-test.txt)
# Models for an adapter in C++ are made in the image of the one in Python.
tools/images.sh $(printf '%s\n' "$@" "${@%-cpp}" | sort -u)
export CLIPPER_BINARY=$PWD/bin/clipper CLIPPER_IMAGES="$*"
"$python" -m pytest -q -p no:cacheprovider e2e/images
