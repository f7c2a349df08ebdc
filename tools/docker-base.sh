#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the name of an image to build all others on. That is IMAGE, if it is given and the engine has it or can
# pull it. Or else it is made without a registry of images: Debian from the package mirror, with Python, and with
# what this machine trusts and where its pip looks for packages. That needs root and debootstrap.
#   make images BASE=$(tools/docker-base.sh [IMAGE])
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm
packages=ca-certificates,python3,python3-pip,python3-venv
image=clipper-base

# Debian's pip refuses to install beside Debian's own packages. Nobody else's are in an image.
customize() {
  local tree=$1
  rm -f "$tree"/usr/lib/python3*/EXTERNALLY-MANAGED
  ln -sf python3 "$tree/usr/bin/python"
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc/* "$tree"/usr/share/man/* "$tree"/var/log/*
  # As in Debian's own images: no layer keeps what apt-get has downloaded, or indexed.
  printf '%s\n' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' 'Binary::apt::APT::Keep-Downloaded-Packages "false";' \
    'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' 'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' \
    >"$tree/etc/apt/apt.conf.d/docker-clean"
  # Packages have to be fetched in builds as they are fetched here.
  local bundle=/etc/ssl/certs/ca-certificates.crt
  [ ! -e "$bundle" ] || cp "$bundle" "$tree$bundle"
  rm -rf "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d
  printf 'deb %s %s main\n' "$mirror" "$suite" >"$tree/etc/apt/sources.list"
  local name value
  echo '[global]' >"$tree/etc/pip.conf"
  # Debian's pip looks there by default; the wheels of others bring lists of their own.
  [ ! -e "$bundle" ] || echo "cert = $bundle" >>"$tree/etc/pip.conf"
  for name in index-url extra-index-url trusted-host; do
    value=$(python3 -m pip config get "global.$name" 2>/dev/null || python3 -m pip config get ":env:.$name" 2>/dev/null || true)
    [ -z "$value" ] || printf '%s = %s\n' "$name" "${value//$'\n'/$'\n    '}" >>"$tree/etc/pip.conf"
  done
}

if [ $# -gt 0 ] && { docker image inspect "$1" || timeout 300 docker pull --quiet "$1"; } >/dev/null 2>&1; then
  echo "$1"
  exit
fi
[ "$(id -u)" = 0 ] || { echo "tools/docker-base.sh needs root, for debootstrap" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "missing: debootstrap (Debian package debootstrap)" >&2; exit 1; }
mirror=${DEBIAN_MIRROR:-$(sed -nE 's#^(URIs:|deb( \[[^]]*\])?) +(http[^ ]*/debian)/?( .*)?$#\3#p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sed q || true)}
[ -n "$mirror" ] || { echo "set DEBIAN_MIRROR to a mirror of Debian: the apt sources of this machine name none" >&2; exit 1; }
key=$({ echo "$suite $packages $mirror"; declare -f customize; python3 -m pip config list; } | sha256sum | cut -c1-12)
if ! docker image inspect "$image:$key" >/dev/null 2>&1; then
  archive=$PWD/.cache/docker-base-$key.tar
  mkdir -p .cache
  # Two that ask at once must not make the same one.
  exec 6>.cache/docker-base.lock
  if command -v flock >/dev/null; then flock 6; fi
  if [ ! -e "$archive" ]; then
    echo "making the base image: Debian $suite from $mirror" >&2
    rm -f .cache/docker-base-*.tar
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    debootstrap --variant=minbase --include="$packages" "$suite" "$tree" "$mirror" >.cache/docker-base.log 2>&1 || { tail -n 20 .cache/docker-base.log >&2; exit 1; }
    customize "$tree"
    tar --numeric-owner --one-file-system -C "$tree" -cf "$archive.part" .
    mv "$archive.part" "$archive"
  fi
  docker import --change 'CMD ["bash"]' "$archive" "$image:$key" >/dev/null
fi
echo "$image:$key"
