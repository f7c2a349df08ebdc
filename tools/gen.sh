#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Regenerates everything that is made from proto/. The generators are pinned: Go's in tools/go.mod,
# Python's in tools/requirements-gen.txt, TypeScript's in tools/package-lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.bin:$PWD/tools/node_modules/.bin:$PATH"

rm -rf gen/go/clipper gen/go/inference internal/gen frontend/gateway/clipper gen/openapi/*.json gen/python/src/clipper_proto/v1 gen/typescript/src
buf generate
# The generator writes OpenAPI 2.0; what is kept is 3.1.
python3 tools/openapi.py gen/openapi/clipper.swagger.json gen/openapi/clipper.openapi.json
rm gen/openapi/clipper.swagger.json

# Python imports by package; the package is clipper_proto, so that `clipper` stays free for the SDK.
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
.cache/gen/bin/python -m grpc_tools.protoc -I proto --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" proto/clipper/v1/*.proto
mkdir -p gen/python/src/clipper_proto/v1
for f in "$out"/clipper/v1/*; do
  sed -E 's/^from clipper\.v1 import/from clipper_proto.v1 import/' "$f" >"gen/python/src/clipper_proto/v1/$(basename "$f")"
done
touch gen/python/src/clipper_proto/v1/__init__.py

mkdir -p gen/typescript/src
buf generate --template tools/buf.gen.typescript.yaml --path proto/clipper/v1
