#!/bin/sh
# make dist: one static, stripped binary that runs on any x86-64 Linux: dist/volnet.
#
# musl rather than glibc: the binary and what of it is resident are two thirds of the size. Where
# rustup cannot add that target, the host's own serves, and the binary is larger.
set -eu
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-musl

if rustup target add "$target" 2>/dev/null; then
    # A panic aborts, so that nobody reads the tables of frames: a seventh of the file. What is
    # alike in several functions is made a function of its own.
    small="-C link-arg=-Wl,-T,scripts/no-frames.ld -C link-arg=-Wl,--no-eh-frame-hdr
        -C llvm-args=--enable-machine-outliner=always"
else
    target=x86_64-unknown-linux-gnu small=''
    echo "dist: there is no musl target; making a larger binary with glibc" >&2
fi

# The target is named even if it is the host's: without it the flags would also reach build
# scripts and procedural macros, which cannot be static. A relocation model of its own keeps the
# result from being a static PIE, which is larger.
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static $small" \
    cargo build --locked --release --target "$target"
install -D -m 755 "target/$target/release/volnet" dist/volnet

kind=$(file -b dist/volnet)
case $kind in
*"statically linked"*", stripped"*) ;;
*) echo "dist/volnet is not static and stripped: $kind" >&2; exit 1 ;;
esac
echo "dist/volnet: $(stat -c %s dist/volnet) bytes, static"
