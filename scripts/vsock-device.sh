#!/bin/sh
# Installs vhost-device-vsock into build/bin. It stands in for the kernel's vhost-vsock where that
# is missing, as it is in most CI machines: the vsock guest test needs one of the two.
set -eu
cd "$(dirname "$0")/.."
version=0.3.0

[ -x build/bin/vhost-device-vsock ] ||
    cargo install --quiet --locked --root build --version "$version" vhost-device-vsock
