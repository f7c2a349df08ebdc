#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Type-checks the generated TypeScript and runs its test.
set -euo pipefail
cd "$(dirname "$0")/../gen/typescript"
for c in node npm; do
  command -v "$c" >/dev/null || { echo "missing: $c, Node.js 20 or newer with npm" >&2; exit 1; }
done
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "missing: Node.js 20 or newer; this is $(node --version)" >&2; exit 1; }
# Installed once for each content of the lock.
if ! cmp -s package-lock.json node_modules/.complete; then
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.complete
fi
npm test --silent
