#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demonstration: trains five models, serves them with `clipper up`, and streams images through
# an ensemble while its best model fails and recovers. KEEP=1 leaves it running. LAUNCHER=docker runs each model
# in a Docker container of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

clipper=$PWD/bin/clipper
work=$(mktemp -d)
launcher=${LAUNCHER:-process}
python=$(tools/venv.sh demo containerrpc/python/requirements.txt containerrpc/adapters/sklearn/requirements.txt)

finish() {
  status=$?
  [ -z "${server:-}" ] || kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
  if [ "$status" != 0 ] && [ -s "$work/clipper.log" ]; then
    echo "--- the last lines of clipper's log" >&2
    tail -n 30 "$work/clipper.log" >&2
  fi
  if [ "$launcher" = docker ]; then
    # Clipper has removed its containers, unless the machine was too slow for the time that they had to end.
    docker ps --all --quiet --filter label=clipper.installation=demo | xargs --no-run-if-empty docker rm --force >/dev/null
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

# show prints a command as one would type it, and runs it.
show() {
  printf '\n$ clipper %s\n' "$*"
  "$clipper" "$@"
}

options=()
if [ "$launcher" = docker ]; then
  BASE=${BASE:-$(tools/docker-base.sh python:3.13-slim)} tools/images.sh sklearn
  options=(--abstraction-launcher docker --abstraction-docker-installation demo)
fi

"$python" examples/demo/train.py "$work"

printf '\n$ %s\n' "clipper up ${options[*]}"
"$clipper" up --data-dir "$work/data" --abstraction-python "$python" "${options[@]}" >"$work/clipper.log" 2>&1 &
server=$!
for _ in $(seq 200); do
  kill -0 "$server" 2>/dev/null || { echo "clipper up has ended" >&2; exit 1; }
  "$clipper" status >/dev/null 2>&1 && break
  sleep 0.1
done

models=(svm logistic forest knn mlp)
for m in "${models[@]}"; do
  show model deploy "$m" --version 1 --framework sklearn --path "$work/$m.joblib" --no-cache
done
# The bad releases wait beside the good ones; the demonstration switches to one of them.
for m in "${models[@]}"; do
  "$clipper" model deploy "$m" --version shuffled --framework sklearn --path "$work/$m-shuffled.joblib" --no-cache --keep-current >/dev/null
done
list=$(IFS=,; echo "${models[*]}")
# No weight falls below a fifth of the best: the ensemble stays one, and a model that is healed can return.
show app create digits --models "$list" --policy exp4 --param eta=0.05 --param floor=0.2 --default 0 --slo 250ms
show app create digits-exp3 --models "$list" --policy exp3 --param eta=0.05 --default 0 --slo 250ms
show status
if [ "$launcher" = docker ]; then
  filter=label=clipper.installation=demo
  printf '\n$ docker ps --filter %s\n' "$filter"
  docker ps --filter "$filter" --format '{{.Names}}\t{{.Status}}'
fi

printf '\nEvery query is answered by the models anew (their cache is off), and followed by its feedback.\n'
status=0
go run ./examples/demo -images "$work/heldout.jsonl" || status=$?

image=$(head -n 1 "$work/heldout.jsonl" | sed -E 's/.*"image": (\[[^]]*\]).*/\1/')
cat <<END

Go on by hand:
  curl -d '{"input": $image}' \\
    http://127.0.0.1:1337/v1/applications/digits/query
  curl -d '{"feedback_id": "THE ANSWER'S", "truth": 3}' http://127.0.0.1:1337/v1/applications/digits/feedback
  curl http://127.0.0.1:1338/v1/applications/digits/state
  curl http://127.0.0.1:1338/v1/models
  the page to try the API: http://127.0.0.1:1338/docs
END
if [ "${KEEP:-}" = 1 ]; then
  echo "It keeps running; Ctrl-C ends it."
  wait "$server" || true
  server=
fi
exit "$status"
