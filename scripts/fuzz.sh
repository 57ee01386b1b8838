#!/bin/sh
# make fuzz: every target for FUZZ_SECONDS seconds, starting from its named corpus. What is found
# stays in fuzz/artifacts; the corpus in the repository is left as it is.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-30}

cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
grown=$(mktemp -d)
trap 'rm -rf "$grown"' EXIT
trap 'exit 1' HUP INT TERM
bad=0
for target in $(cargo fuzz list); do
    mkdir "$grown/$target"
    words=
    if ls "fuzz/corpus/$target"/*.json >/dev/null 2>&1; then
        words=-dict=fuzz/json.dict
    fi
    # The first corpus is the one that grows. No sanitizer: all the code is safe Rust, panics and
    # hangs are what there is to find, and this runs on a stable compiler.
    if cargo fuzz run --sanitizer none "$target" "$grown/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=5 $words >"$grown/$target.log" 2>&1; then
        echo "$target: $(grep '^Done' "$grown/$target.log")"
    else
        cat "$grown/$target.log"
        bad=1
    fi
done
exit $bad
