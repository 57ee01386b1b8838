#!/bin/sh
# Shows that the sources are for more than this machine: they compile with the oldest compiler that
# Cargo.toml names, for arm64, and for a machine that differs from both in all that code likes to
# take for granted: 32 bits, the most significant byte first, `c_char` without a sign, other numbers
# of ioctls (powerpc). Nothing is linked, so no C compiler for these is needed.
set -eu
cd "$(dirname "$0")/.."
CARGO_TARGET_DIR=build/portable RUSTFLAGS='-D warnings'
export CARGO_TARGET_DIR RUSTFLAGS

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup toolchain list | grep -q "^${oldest}[.-]" ||
    rustup toolchain install "$oldest" --profile minimal
cargo "+$oldest" check --quiet --locked --workspace --all-targets
echo "portable: Rust $oldest compiles it"

for target in aarch64-unknown-linux-musl powerpc-unknown-linux-gnu; do
    rustup target add "$target" 2>/dev/null
    cargo check --quiet --locked --workspace --target "$target"
    echo "portable: it compiles for $target"
done
