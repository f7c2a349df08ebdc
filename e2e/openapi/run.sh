#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Holds the REST API to its description: schemathesis asks a real server, with a model, everything that
# /openapi.json of each listener says can be asked, with what fits the description and what does not.
# SEED and EXAMPLES make it longer and different; by default it is the same each time.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(tools/venv.sh openapi e2e/openapi/requirements.txt)
work=$(mktemp -d)
trap 'kill $server 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
go build -o "$work/clipper" ./cmd/clipper
go build -o "$work/noop" ./containerrpc/go/noop

free() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
query=127.0.0.1:$(free) admin=127.0.0.1:$(free)
"$work/clipper" up --data-dir "$work/data" --abstraction-run-dir "$work/run" --abstraction-log-dir "$work/logs" \
  --frontend-http-listen "$query" --frontend-grpc-listen 127.0.0.1:0 \
  --frontend-admin-http-listen "$admin" --frontend-admin-grpc-listen 127.0.0.1:0 --log-level error 2>"$work/log" &
server=$!
for _ in $(seq 200); do
  curl -fs "http://$admin/readyz" >/dev/null && break
  sleep 0.1
done
curl -fs "http://$admin/v1/models" -d '{"version": {"model": "m", "version": "1", "container": {"command": {"arguments": ["'"$work/noop"'"]}},
  "signature": {"inputs": [{"data_type": "DATA_TYPE_FLOAT32", "shape": ["2"]}]}}}' >/dev/null
for _ in $(seq 200); do
  curl -fs "http://$admin/v1/models/m" | grep -q MODEL_STATE_READY && break
  sleep 0.1
done
curl -fs "http://$admin/v1/applications" -d '{"name": "a", "models": [{"model": "m"}], "default_output": 0, "latency_objective": "1s"}' >/dev/null

for listener in "$query" "$admin"; do
  "$(dirname "$python")/schemathesis" --config-file e2e/openapi/schemathesis.toml run "http://$listener/openapi.json" \
    --seed "${SEED:-1}" --max-examples "${EXAMPLES:-20}" "$@"
done
kill -0 $server || { echo "the server has ended" >&2; cat "$work/log" >&2; exit 1; }
