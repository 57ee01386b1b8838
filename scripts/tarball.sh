#!/bin/sh
# make tarball: for hosts without Debian's packages, dist/volnet-VERSION-ARCH.tar.gz with the binary
# and what packaging/ has, and dist/SHA256SUMS of all tarballs and packages of dist/. ARCH=arm64 or
# ARCH=amd64 is for another architecture than this machine's.
set -eu
cd "$(dirname "$0")/.."
case $(uname -m) in
x86_64) here=amd64 ;;
aarch64) here=arm64 ;;
*) here=$(uname -m) ;;
esac
arch=${ARCH:-$here}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ARCH=$arch scripts/dist.sh
binary=dist/volnet
[ "$arch" = "$here" ] || binary=dist/volnet-$arch

name=volnet-$version-$arch
tree=build/tarball/$name
rm -rf "$tree"
mkdir -p "$tree/dist"
cp "$binary" "$tree/dist/volnet"
cp -r packaging docs README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$tree"
rm -rf "$tree/packaging/debian"
# The same sources make the same file.
tar -C build/tarball --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$(git log -1 --format=%ct)" -c "$name" | gzip -9n >"dist/$name.tar.gz"
(cd dist && find . -name "*.tar.gz" -o -name "*.deb" | LC_ALL=C sort | cut -c 3- |
    xargs sha256sum >SHA256SUMS)
echo "dist/$name.tar.gz: $(stat -c %s "dist/$name.tar.gz") bytes; dist/SHA256SUMS"
