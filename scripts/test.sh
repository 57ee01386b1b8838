#!/bin/sh
# make test: all that must hold. Needs root, for the kernel is the judge: the tests make network
# namespaces of their own and touch nothing outside them.
set -eu
cd "$(dirname "$0")/.."
step() { echo "== $*"; }

[ "$(id -u)" = 0 ] || { echo "make test needs root (it makes network namespaces)" >&2; exit 1; }

step packages, test guest, vhost-device-vsock, a Varlink client
scripts/deps.sh
tests/guest/build.sh
scripts/vsock-device.sh
scripts/varlink-client.sh
PATH=$PWD/build/bin:$PATH
export PATH

step scripts, unit, manual
scripts/check-files.sh

step format
cargo fmt --all --check

step lints
cargo clippy --locked --workspace --all-targets -- -D warnings

step other systems
scripts/foreign.sh

step tests
cargo test --locked --workspace --no-fail-fast

step the demo, with the binary that is shipped
scripts/demo.sh
