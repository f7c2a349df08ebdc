#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings the suite of deploy/compose.yaml up, with a model that registers itself, asks it, kills containers of it,
# and brings it down. It needs Docker and Compose, and takes two to three minutes; `make test` does not run it.
# Without an engine it starts one, as root. CLIPPER_REDIS_IMAGE names an image of Redis; without it one is made
# of the redis-server of this machine, so that nothing is pulled.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else echo "missing: docker compose (Debian package docker-compose)" >&2; exit 1; fi

work=$(mktemp -d)
suite() { "${compose[@]}" --file deploy/compose.yaml --project-name "$project" "$@"; }
finish() {
  status=$?
  if [ -n "${project:-}" ]; then
    [ "$status" = 0 ] || suite logs --tail 15 >&2 || true
    suite down --volumes --timeout 20 >/dev/null 2>&1 || true
    docker image rm --force clipper-test-model:dev clipper-test-redis:dev >/dev/null 2>&1 || true
  fi
  if [ -n "${daemon:-}" ]; then kill "$daemon" && wait "$daemon" || true; fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

# await runs a command until it succeeds, for a minute.
await() {
  local end=$((SECONDS + 60))
  until "$@" >"$work/out" 2>&1; do
    [ $SECONDS -lt $end ] || { echo "still not, after a minute: $*" >&2; cat "$work/out" >&2; return 1; }
    sleep 0.2
  done
}

if ! timeout 10 docker version >/dev/null 2>&1; then
  [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null || { echo "no Docker Engine answers: start one, or name it with DOCKER_HOST" >&2; exit 1; }
  export DOCKER_HOST=unix://$work/sock
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" --bridge none >"$work/log" 2>&1 &
  daemon=$!
  await docker version
fi
project=clipper-test-$$
ports=($(python3 -c '
import socket
all = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in all))'))
export CLIPPER_HTTP_PORT=${ports[0]} CLIPPER_GRPC_PORT=${ports[1]} CLIPPER_ADMIN_HTTP_PORT=${ports[2]} CLIPPER_ADMIN_GRPC_PORT=${ports[3]}
export CLIPPER_MODEL_IMAGE=clipper-test-model:dev CLIPPER_MODEL_NAME=echo DOCKER_BUILDKIT=0

for variable in $(grep -o '\${CLIPPER_[A-Z_]*' deploy/compose.yaml | tr -d '${' | sort -u); do
  grep -q "\`$variable\`" docs/deployment.md || { echo "docs/deployment.md does not tell of $variable" >&2; exit 1; }
done

echo "building the images"
make --silent image >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2; exit 1; }
size=$(docker image inspect --format '{{.Size}}' clipper:dev)
[ "$size" -lt $((60 << 20)) ] || { echo "the image of the services has $size bytes: want under 60 MiB" >&2; exit 1; }
mkdir "$work/model"
CGO_ENABLED=0 go build -o "$work/model/container" ./e2e/container
printf 'FROM scratch\nCOPY container /\nUSER 65532:65532\nENTRYPOINT ["/container"]\n' >"$work/model/Dockerfile"
docker build --quiet --tag "$CLIPPER_MODEL_IMAGE" "$work/model" >/dev/null 2>"$work/build.log" || { cat "$work/build.log" >&2; exit 1; }
if [ -z "${CLIPPER_REDIS_IMAGE:-}" ]; then
  export CLIPPER_REDIS_IMAGE=clipper-test-redis:dev
  mkdir -p "$work/redis/usr/bin" "$work/redis/data"
  for program in redis-server redis-cli; do
    path=$(command -v "$program") || { echo "missing: $program (Debian package redis-server)" >&2; exit 1; }
    cp -L "$path" "$work/redis/usr/bin/"
    ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
      mkdir -p "$work/redis$(dirname "$library")" && cp -L "$library" "$work/redis$library"
    done
  done
  chown 999:1000 "$work/redis/data"
  tar -C "$work/redis" -c . | docker import --change 'ENV PATH=/usr/bin' - "$CLIPPER_REDIS_IMAGE" >/dev/null
fi

clipper=$PWD/bin/clipper
export CLIPPER_ADDRESS=127.0.0.1:$CLIPPER_GRPC_PORT CLIPPER_ADMIN_ADDRESS=127.0.0.1:$CLIPPER_ADMIN_GRPC_PORT
status() { docker inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' $(suite ps --quiet "$1"); }
healthy() { [ "$(status "$1")" = "running healthy" ]; }
# asked reports whether the model answers a query with its first number, which no cache has.
asked() { "$clipper" query echo "[$1, 0]" --json | grep -q "\"output\":\"\?$1\"\?,.*\"is_default\":false"; }

echo "bringing the suite up"
suite up --detach --scale model=2 >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; exit 1; }
for service in redis abstraction selector frontend admin; do await healthy "$service"; done
await "$clipper" status
"$clipper" model deploy echo --version 1 --registered --replicas 2 --timeout 60s
"$clipper" app create echo --models echo --default=-1 --slo 1s >/dev/null
await asked 7

echo "administration is not where queries are"
[ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$CLIPPER_HTTP_PORT/v1/models")" = 404 ]
docker run --rm --network "${project}_admin" clipper:dev health frontend-admin:1338 >/dev/null
if docker run --rm --network "${project}_query" clipper:dev health --timeout 2s frontend:1338 >/dev/null 2>&1; then
  echo "the network of queries reaches the administration" >&2; exit 1
fi

echo "a model's container is killed"
docker kill "$(suite ps --quiet model | head -n 1)" >/dev/null
for number in 11 12 13; do await asked "$number"; done

n=20
for service in abstraction selector frontend redis; do
  echo "$service is killed, and started again"
  docker kill "$(suite ps --quiet "$service")" >/dev/null
  # One that somebody killed Docker does not start again.
  suite up --detach --no-recreate --scale model=2 >>"$work/up.log" 2>&1
  n=$((n + 1))
  await asked "$n"
  await healthy "$service"
done

echo "everything goes, and what was deployed is there again"
suite down --timeout 45 >"$work/down.log" 2>&1 || { cat "$work/down.log" >&2; exit 1; }
suite up --detach --scale model=2 >>"$work/up.log" 2>&1
await asked 31

echo "bringing it down"
suite down --volumes --timeout 45 >"$work/down.log" 2>&1 || { cat "$work/down.log" >&2; exit 1; }
left=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project"; docker network ls --quiet --filter "label=com.docker.compose.project=$project"; docker volume ls --quiet --filter "label=com.docker.compose.project=$project")
[ -z "$left" ] || { echo "something is left: $left" >&2; exit 1; }
echo "ok"
