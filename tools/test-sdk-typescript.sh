#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs the TypeScript SDK, installs it from the file into a fresh project, and runs the acceptance list there: over gRPC,
# over REST in Node, and in Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
server=$PWD/build/acceptance-server
go build -o "$server" ./sdk/acceptance/server
cd sdk/typescript
if ! cmp -s package-lock.json node_modules/.complete; then
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.complete
fi
npm test --silent
node_modules/.bin/publint --strict

project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT
npm pack --silent --ignore-scripts --pack-destination "$project" >/dev/null
cp acceptance/* "$project"
esbuild=$PWD/node_modules/.bin/esbuild tsc=$PWD/node_modules/.bin/tsc types=$PWD/node_modules/@types
cd "$project"
npm init --yes >/dev/null
npm install --prefer-offline --no-audit --no-fund --loglevel=error ./clipper-serving-client-*.tgz
for file in node.mjs run.mjs page.mjs; do node --check $file; done
node --eval 'const c = require("@clipper-serving/client"), g = require("@clipper-serving/client/grpc"); new c.RestClient(); new g.GrpcClient().close()'
# The example of the README, as its readers type it; nothing of it may need Node's types but the client over gRPC.
"$tsc" --strict --noEmit --module nodenext --target es2022 --lib es2022,dom,esnext.disposable --types node --typeRoots "$types" example.mts
# Without Node's modules: a bundle for browsers fails on one.
"$esbuild" page.mjs --bundle --format=esm --platform=browser --minify --log-level=warning --outfile=bundle.js
node node.mjs "$server" grpc
node node.mjs "$server" rest
if command -v chromium >/dev/null; then
  node node.mjs "$server" browser
else
  echo "typescript: SKIPPED, the acceptance list in a browser: chromium is not installed" >&2
fi
