#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command with a Docker Engine: the one that DOCKER_HOST names or that listens at the usual place, or
# else, for root where dockerd is installed, one of this tree's own. That one ends with the command; its images
# are kept in .cache/docker, so that a next build finds them.
# Where none can be had the exit code is 3.
#   tools/docker.sh COMMAND [ARGUMENT...]
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: tools/docker.sh COMMAND [ARGUMENT...]" >&2; exit 2; }
command -v docker >/dev/null || { echo "missing: docker (Debian package docker.io)" >&2; exit 3; }

answers() { timeout 10 docker version >/dev/null 2>&1; }
if answers; then exec "$@"; fi

command -v dockerd >/dev/null && [ "$(id -u)" = 0 ] || {
  echo "no Docker Engine answers at ${DOCKER_HOST:-the usual place}: start it, or set DOCKER_HOST; to start one here needs root and dockerd (Debian package docker.io)" >&2
  exit 3
}
root=$(cd "$(dirname "$0")/.." && pwd)
data=$root/.cache/docker
# Sockets have short paths.
run=/run/clipper-docker-$(printf %s "$root" | sha256sum | cut -c1-8)
mkdir -p "$data"
mkdir -p -m 700 "$run"
# Two that ask at once take turns.
exec 7>"$run/lock"
if command -v flock >/dev/null; then flock 7; fi
export DOCKER_HOST=unix://$run/sock
# One that was left by a run that was killed.
if answers; then exec "$@"; fi

# Containers are in networks of Clipper's own, and builds use the network of the machine: no bridge is needed.
# A session of its own keeps Ctrl-C from it, which ends the command first.
setsid dockerd --host "$DOCKER_HOST" --data-root "$data" --exec-root "$run/exec" --pidfile "$run/pid" --bridge none >"$run/log" 2>&1 7>&- &
daemon=$!
finish() {
  status=$?
  kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null || true
  exit "$status"
}
trap finish EXIT
for _ in $(seq 600); do
  if answers; then
    "$@"
    exit
  fi
  kill -0 "$daemon" 2>/dev/null || break
  sleep 0.1
done
echo "dockerd does not answer; the last lines of its log:" >&2
tail -n 10 "$run/log" >&2
exit 1
