#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compares the protos with the last landed ones: the branch's upstream, or on a clone whose HEAD is
# the upstream, the version before HEAD's. CLIPPER_BREAKING_AGAINST names another commit.
set -euo pipefail
cd "$(dirname "$0")/.."
against=${CLIPPER_BREAKING_AGAINST:-}
if [ -z "$against" ]; then
  upstream=$(git rev-parse --verify --quiet origin/main || true)
  if [ -n "$upstream" ] && [ "$upstream" != "$(git rev-parse HEAD)" ]; then
    against=$(git merge-base "$upstream" HEAD)
  else
    against=$(git rev-list HEAD~1 --max-count=1 -- proto 2>/dev/null || true)
  fi
fi
if [ -z "$against" ] || [ -z "$(git ls-tree "$against" proto buf.yaml)" ]; then
  echo "buf breaking: no earlier version of the protos to compare with"
  exit 0
fi
echo "buf breaking: comparing with $against"
buf breaking --against ".git#ref=$against"
