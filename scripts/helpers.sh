#!/bin/sh
# Installs the helpers of QEMU that the tests with real guests use into build/bin:
# vhost-device-vsock, which stands in for the kernel's vhost-vsock where that is missing, as it is
# in most CI machines, and virtiofsd, of which Debian 12 has no package.
set -eu
cd "$(dirname "$0")/.."

install() { # NAME VERSION
    [ -x "build/bin/$1" ] || cargo install --quiet --locked --root build --version "$2" "$1"
}

install vhost-device-vsock 0.3.0
install virtiofsd 1.14.0
