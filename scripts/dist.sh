#!/bin/sh
# make dist: one static, stripped binary that runs on any Linux of this machine's architecture:
# dist/volnet. With ARCH=amd64 or ARCH=arm64, that of another one: dist/volnet-ARCH.
#
# musl rather than glibc: the binary and what of it is resident are two thirds of the size. Where
# rustup cannot add that target, the host's own serves, and the binary is larger. For another
# architecture, Rust brings linker and C library itself: no cross compiler is needed.
set -eu
cd "$(dirname "$0")/.."

# By Debian's names.
case $(uname -m) in
x86_64) here=amd64 ;;
aarch64) here=arm64 ;;
*) here=$(uname -m) ;;
esac
arch=${ARCH:-$here}
case $arch in
amd64) machine=x86_64 shown=x86-64 ;;
arm64) machine=aarch64 shown=aarch64 ;;
*) echo "dist: ARCH is amd64 or arm64, not $arch" >&2; exit 2 ;;
esac
target=$machine-unknown-linux-musl

# A panic aborts, so that nobody reads the tables of frames: a seventh of the file. Rust's linker
# can only leave out their index.
if [ "$arch" != "$here" ]; then
    out=dist/volnet-$arch
    rustup target add "$target"
    flags='-C linker=rust-lld -C link-arg=--no-eh-frame-hdr'
elif out=dist/volnet && rustup target add "$target" 2>/dev/null; then
    flags='-C link-arg=-Wl,-T,scripts/no-frames.ld -C link-arg=-Wl,--no-eh-frame-hdr'
else
    target=$machine-unknown-linux-gnu flags=''
    echo "dist: there is no musl target; making a larger binary with glibc" >&2
fi

# What `opt-level = "s"` inlines by itself is 8 % of the file, and a list is slower with it.
flags="$flags -C llvm-args=-inline-threshold=25 -C llvm-args=-inlinehint-threshold=25"

# The target is named even if it is the host's: without it the flags would also reach build
# scripts and procedural macros, which cannot be static. A relocation model of its own keeps the
# result from being a static PIE, which is larger.
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static $flags" \
    cargo build --locked --release --target "$target"
install -D -m 755 "target/$target/release/volnet" "$out"

kind=$(file -b "$out")
case $kind in
*"$shown"*"statically linked"*", stripped"*) ;;
*) echo "$out is not for $arch, static and stripped: $kind" >&2; exit 1 ;;
esac
echo "$out: $(stat -c %s "$out") bytes, static"
