#!/bin/sh
# make dist: one static, stripped binary that runs on any x86-64 Linux: dist/volnet.
set -eu
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu

# The target is named although it is the host's: without it the flags would also reach build
# scripts and procedural macros, which cannot be static. A relocation model of its own keeps the
# result from being a static PIE, which is larger.
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
    cargo build --locked --release --target "$target"
install -D -m 755 "target/$target/release/volnet" dist/volnet

kind=$(file -b dist/volnet)
case $kind in
*"statically linked"*", stripped"*) ;;
*) echo "dist/volnet is not static and stripped: $kind" >&2; exit 1 ;;
esac
echo "dist/volnet: $(stat -c %s dist/volnet) bytes, static"
