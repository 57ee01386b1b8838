#!/bin/sh
# make bench: measures volnet beside the floor and its peers, into build/bench.json, and writes the
# tables to docs/PERFORMANCE.md, unless others keep the machine busy. Needs root, for namespaces of
# its own. BENCH_QUICK=1 takes two minutes and writes no page; BENCH_RUNS=2 measures twice and shows
# the spread.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "make bench needs root (it makes network namespaces)" >&2; exit 1; }
scripts/deps.sh
# Peers that no test needs. One that cannot be had is missing from the tables, and they say so.
[ -e /usr/lib/cni/bridge ] && [ -e "${NETAVARK:-/usr/lib/podman/netavark}" ] ||
    apt-get -qq install --no-install-recommends -y containernetworking-plugins netavark \
        >/dev/null ||
    echo "bench: peers are missing" >&2
scripts/dist.sh

runs=''
for run in $(seq "${BENCH_RUNS:-1}"); do
    cargo bench --locked --quiet --bench bench
    mv build/bench.json "build/bench-$run.json"
    runs="$runs build/bench-$run.json"
done
cp "build/bench-$run.json" build/bench.json
page='--page docs/PERFORMANCE.md'
[ -z "${BENCH_QUICK:-}" ] || page=''
# shellcheck disable=SC2086 # lists of words
scripts/performance.py $page $runs
