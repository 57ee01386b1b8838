#!/bin/sh
# Shows that the sources are for more than this machine: they compile with the oldest compiler that
# Cargo.toml names, for arm64 and riscv64, and for a machine that differs in all that code likes to
# take for granted: 32 bits, the most significant byte first, `c_char` without a sign, other numbers
# of ioctls (powerpc). Nothing is linked, so no C compiler for these is needed.
set -eu
cd "$(dirname "$0")/.."
CARGO_TARGET_DIR=build/portable RUSTFLAGS='-D warnings'
export CARGO_TARGET_DIR RUSTFLAGS

# A compiler or target that rustup cannot fetch is left out and named. PORTABLE=all makes that a
# failure: so it is in the workflow, whose machines always reach rustup's server.
left_out() {
    echo "portable: rustup cannot fetch $1, so nothing was compiled with it" >&2
    [ "${PORTABLE:-}" != all ] || exit 1
}

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if rustup toolchain list | grep -q "^${oldest}[.-]" ||
    rustup toolchain install "$oldest" --profile minimal; then
    cargo "+$oldest" check --quiet --locked --workspace --all-targets
    echo "portable: Rust $oldest compiles it"
else
    left_out "Rust $oldest"
fi

for target in aarch64-unknown-linux-musl riscv64gc-unknown-linux-gnu powerpc-unknown-linux-gnu; do
    if rustup target add "$target" 2>/dev/null; then
        cargo check --quiet --locked --workspace --target "$target"
        echo "portable: it compiles for $target"
    else
        left_out "$target"
    fi
done
