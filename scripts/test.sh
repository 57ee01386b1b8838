#!/bin/sh
# All that must hold, in parts: scripts/test.sh PART...
#
#   check     format, lints, documentation, scripts, the tests that need neither root nor network
#   portable  it compiles with the oldest compiler, and for machines that differ from this one
#   kernel    tests on the real kernel, in network namespaces; needs root
#   guests    tests with real guests in QEMU, the commands of the README, the demo; needs root
#   hosts     the binary that is shipped on the hosts of tests/hosts/table, in QEMU; HOSTS names
#             some of them, and --always what the table has for every change; needs root
#
# A test file that no list names belongs to "kernel".
set -eu
cd "$(dirname "$0")/.."

CHECK_TESTS='corpus netlink rooms'
GUEST_TESTS='guests woken devices by_hand readme'
# Of those on the kernel, which begin first, because they take longest; and how many run at once.
LONG_TESTS='crash traffic hostile vmms kernel_twin ipv6 firewall'
AT_ONCE=4
# Steps of the random simulation in "check". "kernel" runs the whole simulation.
CHECK_SIMULATION_STEPS=20000

# Whoever builds once has no use for what makes the next build faster.
[ "${CI:-}" != true ] || export CARGO_INCREMENTAL=0

step() { echo "== $*"; }
need_root() {
    [ "$(id -u)" = 0 ] || { echo "$1 needs root: it makes network namespaces" >&2; exit 1; }
}
# What names these files of tests/ to cargo.
flags_of() { printf -- '--test %s ' "$@"; }
# Runs the named files of tests/, one after the other.
run_tests() {
    # shellcheck disable=SC2046 # a list of words
    cargo test --locked --no-fail-fast $(flags_of "$@")
}
# Runs the named files of tests/, several beside each other: they mostly wait. What each prints
# comes when it has ended.
run_tests_beside() {
    # shellcheck disable=SC2046 # a list of words
    cargo test --locked --no-run $(flags_of "$@")
    mkdir -p build/tests
    # shellcheck disable=SC2016 # for the other shell
    printf '%s\n' "$@" | xargs -P "$AT_ONCE" -n 1 sh -c '
        status=0
        cargo test --locked --no-fail-fast --test "$0" >"build/tests/$0.log" 2>&1 || status=1
        flock build/tests cat "build/tests/$0.log"
        exit "$status"'
}
# The names of all files of tests/ that no list above has. The simulation has a step of its own.
kernel_tests() {
    for name in $LONG_TESTS; do echo "$name"; done
    for path in tests/*.rs tests/*/main.rs; do
        name=${path#tests/} name=${name%/main.rs} name=${name%.rs}
        case " $LONG_TESTS $CHECK_TESTS $GUEST_TESTS simulation " in
        *" $name "*) ;;
        *) echo "$name" ;;
        esac
    done
}

check() {
    step scripts, unit, manual
    scripts/check-files.sh
    step format
    cargo fmt --all --check
    step lints
    cargo clippy --locked --workspace --all-targets -- -D warnings
    # The library as it is installed, without what only tests use.
    cargo clippy --locked --workspace -- -D warnings
    step systems other than Linux
    scripts/not-linux.sh
    step documentation
    RUSTDOCFLAGS='-D warnings' \
        cargo doc --locked --quiet --workspace --no-deps --document-private-items \
        --all-features
    step tests without root
    cargo test --locked --workspace --no-fail-fast --lib --bins
    # shellcheck disable=SC2086 # a list of words
    run_tests $CHECK_TESTS
    step a short simulation
    VOLNET_SIM_STEPS=$CHECK_SIMULATION_STEPS cargo test --locked --test simulation random
}

portable() {
    step other compilers and machines
    scripts/portable.sh
}

# The whole simulation computes for minutes, and the tests on the kernel mostly wait. So it runs
# beside them, with what they leave of the processors, and its output comes last.
kernel() {
    need_root 'make test-kernel'
    scripts/deps.sh
    scripts/varlink-client.sh
    scripts/cri-client.sh
    mkdir -p build
    nice -n 19 cargo test --locked --profile simulation --test simulation -- --show-output \
        >build/simulation.log 2>&1 &
    simulation=$!
    # A test outlives the cargo that runs it.
    trap 'pkill -P "$simulation"; kill "$simulation"' EXIT
    trap 'exit 1' INT TERM
    step tests beside the code that need root
    cargo test --locked --workspace --no-fail-fast --lib -- --ignored
    step tests on the real kernel
    # shellcheck disable=SC2046 # a list of words
    run_tests_beside $(kernel_tests)
    step the whole simulation
    status=0
    wait "$simulation" || status=$?
    trap - EXIT INT TERM
    cat build/simulation.log
    return "$status"
}

guests() {
    need_root 'make test-guests'
    scripts/deps.sh
    tests/guest/build.sh
    scripts/helpers.sh
    step tests with real guests
    # shellcheck disable=SC2086 # a list of words
    PATH=$PWD/build/bin:$PATH run_tests $GUEST_TESTS
    step the demo, with the binary that is shipped
    scripts/demo.sh
}

hosts() {
    need_root 'make test-hosts'
    scripts/deps.sh
    rm -f dist/*.deb
    scripts/deb.sh
    case ${HOSTS:-arm64} in *arm64*) ARCH=arm64 scripts/deb.sh ;; esac
    step packages
    lintian --fail-on error dist/*.deb
    step hosts
    # shellcheck disable=SC2086 # a list of words
    tests/hosts/run.py ${HOSTS:-}
}

PARTS='check|portable|kernel|guests|hosts'
[ $# -gt 0 ] || { echo "usage: scripts/test.sh $PARTS ..." >&2; exit 2; }
for part in "$@"; do
    case $part in
    check | portable | kernel | guests | hosts) "$part" ;;
    *) echo "test: there is no part $part" >&2; exit 2 ;;
    esac
done
