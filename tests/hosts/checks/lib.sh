# shellcheck shell=bash
# What the checks have in common. They run in the host, as root, in /src.
set -euo pipefail
cd /src
# An emulated processor that shares two with others is slow; nothing is measured by this bound.
PATIENCE_SECONDS=600

fail() { echo "FAILED: $*" >&2; exit 1; }
step() { echo "== $*"; }
eventually() { # COMMAND...: until it succeeds
    local end=$((SECONDS + PATIENCE_SECONDS))
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            "$@" || :
            fail "did not come: $*"
        fi
        sleep 0.2
    done
}
reaches() { ping -q -c 1 -W 2 "$1"; }
# What a UDP port of the host leads to says what it is told.
echoes() { [ "$(echo hello | nc -u -w 2 "$1" "$2" | head -n 1)" = hello ]; }
vm() { volnet get "$1" --json | jq -er ".vm.$2"; }
# What volnet may change of a host, in words that are compared.
network() {
    ip -o link | awk '{ print $2 }' | sed 's/@.*//' | sort
    ip -o addr | awk '{ print $2, $4 }' | sort
    nft list ruleset
    sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding
}
# The rules, without what counts and names them.
rules() { nft -j list ruleset | jq -S 'del(.. | .handle?, .packets?, .bytes?, .expires?, .elem?)'; }
# Of volnet, anywhere on the host.
nothing_is_left() {
    local left
    left=$({
        network | grep -e vbr -e vttap -e volnet
        find / -xdev -path /src -prune -o -iname '*volnet*' ! -path '/sys/*' \
            ! -path '/proc/*' -print
        grep volnet /etc/passwd /etc/group /etc/shadow /etc/gshadow
        systemctl list-units --all --no-legend | grep volnet
        pgrep -a volnet
    } || :)
    [ -z "$left" ] || fail "left: $left"
}
