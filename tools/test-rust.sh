#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests the SDK for Rust, and runs the acceptance list in a fresh project, with the crate as it is published.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "missing: Rust 1.88 or newer; see https://rustup.rs" >&2; exit 1; }
export CARGO_TARGET_DIR=$PWD/.cache/rust
export CARGO_BUILD_JOBS=${CLIPPER_JOBS:-$(nproc)}
mkdir -p .cache
crate=sdk/rust

if grep '^source = ' $crate/Cargo.lock | grep -v 'registry+https://github.com/rust-lang/crates.io-index'; then
  echo "Cargo.lock: crates come from crates.io only" >&2
  exit 1
fi
if cargo fmt --version >/dev/null 2>&1; then (cd $crate && cargo fmt --check); else echo 'rust: SKIPPED, format: no rustfmt'; fi
if cargo clippy --version >/dev/null 2>&1; then
  (cd $crate && cargo clippy --quiet --locked --all-targets --features ndarray -- --deny warnings)
else
  echo 'rust: SKIPPED, lint: no clippy'
fi
(cd $crate && cargo test --quiet --locked --features ndarray --test client && cargo test --quiet --locked --features ndarray --doc)

echo "package: clipper-client, in a fresh project"
(cd $crate && cargo package --quiet --locked --allow-dirty --no-verify)
project=$PWD/.cache/rust-project
rm -rf "$project"
mkdir -p "$project/src" "$project/tests"
archive=$(ls -t .cache/rust/package/clipper-client-*.crate | head -n1)
# Its files keep their times, so that nothing is built again when nothing has changed.
mkdir "$project/clipper-client"
tar xzf "$archive" -C "$project/clipper-client" --strip-components=1
cp -p $crate/tests/acceptance.rs "$project/tests/"
cp $crate/Cargo.lock "$project/"
echo 'fn main() {}' >"$project/src/main.rs"
{
  printf '[package]\nname = "project"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n\n'
  printf '[dependencies]\nclipper-client = { path = "clipper-client" }\n\n[dev-dependencies]\n'
  # What the test itself needs.
  sed -n '/^\[dev-dependencies\]/,/^\[/p' $crate/Cargo.toml | grep -v '^\[\|^$'
  printf '\n[profile.dev]\ndebug = 0\n'
} >"$project/Cargo.toml"
export CLIPPER_ACCEPTANCE_SERVER=$PWD/.cache/acceptance-server
CGO_ENABLED=0 go build -o "$CLIPPER_ACCEPTANCE_SERVER" ./sdk/acceptance/server
(cd "$project" && cargo test --quiet --test acceptance "$@")
