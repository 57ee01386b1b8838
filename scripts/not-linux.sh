#!/bin/sh
# Shows that what is not for Linux needs nothing of Linux: a copy of the sources in which no
# target_os = "linux" holds, and without the dependencies that are for Linux alone, compiles. It
# stands in for a cross build: no other system's standard library can be counted on here.
set -eu
cd "$(dirname "$0")/.."
copy=build/not-linux
rm -rf "$copy"
mkdir -p "$copy"
cp -r src packaging Cargo.lock "$copy"
find "$copy/src" -name '*.rs' -exec sed -i \
    -e 's/not(target_os = "linux")/all()/' \
    -e 's/target_os = "linux"/any()/' {} +
sed -e '/^\[workspace\]$/,/^$/d' -e '/^\[target.*linux/,/^$/d' -e '/^\[dev-dependencies\]$/,/^$/d' \
    -e '/^\[\[bench\]\]$/,/^$/d' Cargo.toml >"$copy/Cargo.toml"
printf '\n[workspace]\n' >>"$copy/Cargo.toml"
if grep -rn 'std::os::linux' "$copy/src" --include='*.rs' |
    grep -v -e /linux/ -e daemon/notify.rs; then
    echo "not-linux: only Linux has this" >&2
    exit 1
fi
CARGO_TARGET_DIR=build/not-linux-target RUSTFLAGS='-D warnings' \
    cargo build --quiet --manifest-path "$copy/Cargo.toml"

# It runs, too: it answers, and touches nothing.
volnet=build/not-linux-target/debug/volnet
folder=$(mktemp -d)
VOLNET_SOCKET=$folder/socket VOLNET_CONFIG=$folder/config.json
export VOLNET_SOCKET VOLNET_CONFIG
echo '{}' >"$VOLNET_CONFIG"
"$volnet" serve 2>"$folder/log" &
daemon=$!
trap 'kill $daemon; rm -rf "$folder"' EXIT
until "$volnet" list >/dev/null 2>&1; do sleep 0.05; done
"$volnet" create web --json | grep -q '"tap":"vttap-web"'
"$volnet" list | grep -q web
"$volnet" metrics | grep -q 'volnet_vms{status="created"} 1'
"$volnet" version | grep -q noop
grep -q WARN "$folder/log"
echo "not-linux: the crate compiles without Linux, answers, and changes nothing"
