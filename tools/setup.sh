#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sees to the programs that `make demo`, `make test` and `make test-compose` need. Debian packages are installed when
# this runs as root on Debian; elsewhere it says what is missing and stops.
set -euo pipefail

declare -A package=(
  [git]=git [make]=make [python3]=python3 [redis-server]=redis-server [cmake]=cmake [g++]=g++
  [protoc]=protobuf-compiler [grpc_cpp_plugin]=protobuf-compiler-grpc [chromium]=chromium [gcc]=gcc
  [docker]=docker.io [dockerd]=docker.io [docker-compose]=docker-compose [debootstrap]=debootstrap
  [npm]=npm [node]=nodejs [java]=default-jre-headless [javac]=default-jdk-headless [mvn]=maven [ip]=iproute2 [iptables]=iptables [openssl]=openssl [curl]=curl
)
case "${1:-}" in
  demo | demo-docker) commands=(python3) ;;
  test) commands=(git gcc g++ cmake python3 node npm redis-server protoc grpc_cpp_plugin chromium java javac mvn ip iptables openssl curl) ;;
  compose) commands=(python3 redis-server) && { docker compose version >/dev/null 2>&1 || commands+=(docker-compose); } ;;
  *) echo "usage: tools/setup.sh demo|demo-docker|test|compose" >&2; exit 2 ;;
esac

# Where a Docker Engine answers it is used. Else one is started, and its first image made, which only root can.
if [ "$1" != demo ] && ! docker version >/dev/null 2>&1 && { [ "$1" = demo-docker ] || [ "$(id -u)" = 0 ]; }; then
  commands+=(docker dockerd debootstrap)
fi

missing=()
for c in "${commands[@]}"; do
  command -v "$c" >/dev/null || missing+=("${package[$c]}")
done
# Libraries that come without a command.
if [ "$1" = test ]; then
  [ -e /usr/include/grpcpp/grpcpp.h ] || [ -e /usr/local/include/grpcpp/grpcpp.h ] || missing+=(libgrpc++-dev)
  [ -e /usr/include/google/protobuf/message.h ] || [ -e /usr/local/include/google/protobuf/message.h ] || missing+=(libprotobuf-dev)
  [ -e /usr/include/gtest/gtest.h ] || [ -e /usr/local/include/gtest/gtest.h ] || missing+=(libgtest-dev)
  [ -e /usr/include/prometheus/exposer.h ] || [ -e /usr/local/include/prometheus/exposer.h ] || missing+=(prometheus-cpp-dev)
  [ -e /usr/include/opencv4/opencv2/dnn.hpp ] || [ -e /usr/local/include/opencv4/opencv2/dnn.hpp ] || missing+=(libopencv-dev)
fi
if [ "$(python3 -c 'import venv, ensurepip' 2>&1)" ]; then missing+=(python3-venv); fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # A package that starts a service must not start it here.
    printf '#!/bin/sh\nexit 101\n' >/tmp/policy-rc.d.$$ && chmod +x /tmp/policy-rc.d.$$
    [ -e /usr/sbin/policy-rc.d ] || { mv /tmp/policy-rc.d.$$ /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    rm -f /tmp/policy-rc.d.$$
  else
    echo "missing: ${missing[*]} (names of Debian packages); install them and run this again" >&2
    exit 1
  fi
fi

need=1.26
have=$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true)
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n1)" != "$need" ]; then
  echo "missing: Go $need or newer (found: ${have:-none}); see https://go.dev/doc/install" >&2
  exit 1
fi

# Debian's is too old, so it is not installed here.
if [ "$1" = test ]; then
  need=1.88
  have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
  if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n1)" != "$need" ]; then
    echo "missing: Rust $need or newer (found: ${have:-none}); see https://rustup.rs" >&2
    exit 1
  fi
fi
