#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the images of adapters and serves a model with each through the launcher docker: all, or those named. BASE
# is an image to build them on. Without a Docker Engine it is skipped, except in CI.
#   [BASE=IMAGE] tools/test-images.sh [ADAPTER...]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${CLIPPER_IMAGES:-}" ]; then
  if [ $# -eq 0 ]; then set -- $(cd containerrpc/adapters && ls -d */ | tr -d /); fi
  status=0
  CLIPPER_IMAGES="$*" tools/docker.sh tools/test-images.sh || status=$?
  if [ $status = 3 ] && [ -z "${CI:-}" ]; then
    echo "images: SKIPPED"
    exit
  fi
  exit $status
fi
export BASE=${BASE:-$(tools/docker-base.sh python:3.13-slim)}
export CLIPPER_BINARY=$PWD/bin/clipper
CGO_ENABLED=0 go build -o "$CLIPPER_BINARY" ./cmd/clipper
python=$(tools/venv.sh runtime containerrpc/python/requirements.txt containerrpc/python/requirements-test.txt)
set -- $CLIPPER_IMAGES
# Models for an adapter in C++ are made in the image of the one in Python.
tools/images.sh $(printf '%s\n' "$@" "${@%-cpp}" | sort -u)
"$python" -m pytest -q -p no:cacheprovider e2e/images
