#!/bin/bash
# make demo: a real Linux guest on a bridged network, from nothing to nothing.
#
# Everything happens in two network namespaces of this script's own: "host" plays the machine that
# runs VMs, "world" what lies behind its uplink. The machine's own network is not touched, and that
# is checked at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

WORLD_IP=203.0.113.2 UPLINK_IP=203.0.113.1 WORLD_PORT=7
GUEST=build/guest
READY_SECONDS=60

heading() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || heading() { printf '\n== %s\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }
show() { echo "\$ $*"; "$@"; }
on_host() { ip netns exec "$host" "$@"; }
wait_for() { # DESCRIPTION COMMAND...: until it succeeds
    local what=$1 end=$((SECONDS + READY_SECONDS))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited $READY_SECONDS s for $what"
        sleep 0.1
    done
}

[ "$(id -u)" = 0 ] || fail "needs root (it makes network namespaces)"

heading "Packages, test guest, volnet"
scripts/deps.sh
tests/guest/build.sh
scripts/dist.sh

links_before=$(ip -o link | cut -d' ' -f2 | sort)
addresses_before=$(ip -o addr | awk '{ print $2, $4 }' | sort)
host=volnet-demo-$$-host world=volnet-demo-$$-world
folder=$(mktemp -d /tmp/volnet-demo.XXXXXX)
pids=()
clean_up() {
    local status=$?
    trap - EXIT
    if [ "$status" != 0 ]; then
        tail -n 20 "$folder"/daemon.log "$folder"/log/* 2>/dev/null || :
        volnet delete web --timeout 1 >/dev/null 2>&1 || :
    fi
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || :
    wait || :
    ip netns del "$host" 2>/dev/null || :
    ip netns del "$world" 2>/dev/null || :
    rm -rf "$folder"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

heading "A host with an uplink, and a world behind it that has no way back to the guests"
ip netns add "$host"
ip netns add "$world"
ip -n "$host" link set lo up
ip -n "$world" link set lo up
ip -n "$host" link add uplink type veth peer name hosts netns "$world"
ip -n "$host" addr add $UPLINK_IP/24 dev uplink
ip -n "$host" link set uplink up
ip -n "$world" addr add $WORLD_IP/24 dev hosts
ip -n "$world" link set hosts up
# Tells every caller the address that it was called from.
ip netns exec "$world" python3 -c '
import socket
server = socket.create_server(("'$WORLD_IP'", '$WORLD_PORT'))
while True:
    peer, address = server.accept()
    peer.sendall(f"you are {address[0]}\n".encode())
    peer.close()' &
pids+=($!)
ip -n "$host" -br addr
forwarding_before=$(on_host cat /proc/sys/net/ipv4/ip_forward)

heading "volnet serve"
PATH=$PWD/dist:$PATH
export VOLNET_SOCKET=$folder/run/volnet.sock
# The unit of packaging/ does the same at boot.
ip netns exec "$host" volnet serve --kvm no --state-dir "$folder/state" \
    --runtime-dir "$folder/run" --log-dir "$folder/log" >"$folder/daemon.log" 2>&1 &
daemon=$!
pids+=("$daemon")
wait_for "the daemon" volnet list
ip -n "$host" -br addr show dev vbr0
show volnet networks

heading "volnet run"
show volnet run web --hypervisor qemu --kernel "$PWD/$GUEST/vmlinux" \
    --initramfs "$PWD/$GUEST/initramfs" --memory 128 \
    --cmdline "quiet volnet.do=ping:gateway,get:$WORLD_IP:$WORLD_PORT,hold"
show volnet list
vm=$(volnet get web --json)
guest_ip=$(jq -r .vm.ip <<<"$vm")
tap=$(jq -r .vm.tap <<<"$vm")

heading "The tap: on the bridge, with a virtio-net header, and marked as volnet's"
ip -n "$host" -d link show dev "$tap"
ip -n "$host" -d -j link show dev "$tap" | jq -e '
    .[0] | .master == "vbr0" and .ifalias == "volnet:web" and .linkinfo.info_data.vnet_hdr' \
    >/dev/null || fail "the tap is not as it should be"

heading "The rules: their number does not depend on the number of VMs"
on_host nft list table ip volnet

heading "The host pings the guest"
wait_for "the guest" grep -aq 'GUEST ready' -r "$folder/log"
on_host ping -c 3 -i 0.2 "$guest_ip"

heading "What the guest saw: its address, the gateway, the world"
console() { grep -ah '^GUEST' -r "$folder/log" | tr -d '\r'; }
console
console | grep -q "ping .*: ok" || fail "the guest did not reach its gateway"
console | grep -q "get .*: you are $UPLINK_IP" ||
    fail "the guest did not reach the world as $UPLINK_IP"

heading "Scripts speak to the socket"
shown='.parameters.vms[] | {name, ip, status}'
echo "\$ echo '{\"method\":\"io.volnet.List\"}' | nc -U \$VOLNET_SOCKET | jq -c '$shown'"
echo '{"method":"io.volnet.List"}' | nc -N -U "$VOLNET_SOCKET" | jq -ce "$shown"

heading "volnet delete: the guest is asked to power off, then everything is given back"
# A log ends with its VM, so what the guest says last is read under another name.
cp -rl "$folder/log" "$folder/log-kept"
show volnet delete web
grep -ah 'GUEST power button' -r "$folder/log-kept" || fail "the guest was not asked"
ip -n "$host" link show dev "$tap" 2>/dev/null && fail "$tap is still there"

heading "volnet teardown"
show volnet teardown
kill "$daemon"
wait "$daemon" || fail "the daemon ended with status $?"
left=$(ip -n "$host" -br link | awk '$1 !~ /^(lo|uplink@)/'
    on_host nft list ruleset
    find "$folder/state" -name '*.json')
[ -z "$left" ] || fail "left behind: $left"
[ "$(on_host cat /proc/sys/net/ipv4/ip_forward)" = "$forwarding_before" ] ||
    fail "IPv4 forwarding is not as it was"
[ "$(ip -o link | cut -d' ' -f2 | sort)" = "$links_before" ] || fail "this machine's links changed"
[ "$(ip -o addr | awk '{ print $2, $4 }' | sort)" = "$addresses_before" ] ||
    fail "this machine's addresses changed"
echo "Nothing is left, and the links and addresses of this machine are as they were."
