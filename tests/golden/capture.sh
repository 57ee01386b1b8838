#!/bin/sh
# Captures what ip(8), tc(8), conntrack(8) and the kernel say to each other, in a fresh network
# namespace.
#
#   tests/golden/capture.sh          writes tests/golden/{rtnl,conntrack}/*.hex anew; needs root,
#                                    ip, tc, conntrack, strace
#
# A file begins with the command. Then come the datagrams: a line `>` for one that was sent or `<`
# for one that was received, and its bytes in hexadecimal. Sequence numbers and ports differ from
# one capture to the next, nothing else does on the same kernel.
set -eu
[ "${1-}" = inside ] || exec unshare --net "$0" inside
cd "$(dirname "$0")/rtnl"
trace=$(mktemp)
pid=$(mktemp)
trap 'rm -f "$trace" "$pid"' EXIT

# From strace's hex dumps to datagrams.
datagrams() {
    awk '/^(sendto|sendmsg)\(/ { side = ">" } /^(recvfrom|recvmsg)\(/ { side = "<" }
         /^ \| / {
             if ($2 == "00000") print side
             line = substr($0, 11, 49); gsub(/ /, "", line); print line
         }' "$trace"
}

traced() {
    strace -o "$trace" -e trace=sendto,sendmsg,recvfrom,recvmsg -e read=all -e write=all "$@"
}

# capture FILE COMMAND...: a command that fails is captured too, the kernel's answer is the point.
capture() {
    file=$1.hex
    shift
    traced "$@" >/dev/null 2>&1 || true
    { echo "# $*"; datagrams; } >"$file"
}

wait_for() {
    until grep -q "$1" "$trace"; do :; done
}

ip link set dev lo up
capture bridge-add ip link add vbr0 address 02:aa:bb:cc:dd:ee type bridge mcast_snooping 0
capture bridge-add-exists ip link add vbr0 address 02:aa:bb:cc:dd:ee type bridge
capture bridge-snoop ip link set dev vbr0 type bridge mcast_snooping 1
capture bridge-set ip link set dev vbr0 mtu 1400 alias volnet: up
capture no-ipv6 ip link set dev vbr0 addrgenmode none
capture mtu-too-small ip link set dev vbr0 mtu 9
ip tuntap add dev vttap-web1 mode tap vnet_hdr multi_queue user 1000
ip tuntap add dev vttap-db mode tap
ip tuntap add dev tun0 mode tun
ip link set dev vttap-web1 address 02:00:00:00:00:01
ip link set dev vttap-db address 02:00:00:00:00:02
ip link add veth0 address 02:00:00:00:00:03 type veth peer name veth1 address 02:00:00:00:00:04
capture attach ip link set dev vttap-web1 mtu 1400 master vbr0 alias volnet:web-1 group 77 up
capture port ip link set dev vttap-web1 type bridge_slave isolated on guard on learning off
capture link-get ip -d link show dev vttap-web1
capture link-dump ip -d link show
capture link-get-missing ip link show dev nobody

capture address-add ip address add 192.168.127.1/24 dev vbr0
capture address-dump ip -4 address show
ip link set dev veth0 up
ip link set dev veth1 up
ip address add 10.9.0.1/30 dev veth0
ip route add 10.10.0.0/16 via 10.9.0.2
ip route add 10.11.0.0/16 nexthop via 10.9.0.2 dev veth0 nexthop via 192.168.127.2 dev vbr0
ip route add blackhole 10.12.0.0/16
ip route add default via 10.9.0.2
capture route-dump ip -4 route show table main

ip neighbour add 192.168.127.9 lladdr 02:00:00:00:00:09 dev vbr0 nud reachable
capture neighbour-dump ip -4 neighbour show dev vbr0
capture neighbour-delete ip neighbour delete 192.168.127.9 dev vbr0
capture address-delete ip address delete 192.168.127.1/24 dev vbr0

capture qdisc-set tc qdisc replace dev vttap-web1 root handle 766f: tbf rate 12500000bps \
    burst 128kb limit 625000b
capture qdisc-dump tc qdisc show
capture qdisc-delete tc qdisc delete dev vttap-web1 root handle 766f:
capture ingress-add tc qdisc add dev vttap-web1 ingress
capture redirect-add tc filter add dev vttap-web1 parent ffff: protocol all prio 1 u32 \
    match u32 0 0 action mirred egress redirect dev vttap-db
capture redirect-dump tc filter show dev vttap-web1 ingress

# A tap is attached, detached and removed, as others hear of it. strace writes a call when it
# returns, so that the bind is how we know that ip listens.
: >"$trace"
traced -e trace=bind,recvmsg sh -c 'echo $$ >"$0"; exec ip monitor link' "$pid" >/dev/null 2>&1 &
wait_for '^bind.* = 0$'
ip link set dev vttap-db master vbr0
ip link set dev vttap-db nomaster
ip link delete dev vttap-db
wait_for 'RTM_DELLINK.*AF_UNSPEC'
kill "$(cat "$pid")"
wait || true
{
    printf '%s' "# ip monitor link # while: ip link set dev vttap-db master vbr0; "
    echo "ip link set dev vttap-db nomaster; ip link delete dev vttap-db"
    datagrams
} >monitor.hex

capture delete-group ip link delete group 77
capture delete ip link delete dev vbr0

# A guest begins one connection and answers another through NAT; a third is somebody else's.
cd ../conntrack
track() { conntrack -I -t 600 "$@" >/dev/null 2>&1; }
track -p tcp -s 192.168.127.9 -d 203.0.113.1 --sport 40000 --dport 443 --state ESTABLISHED
track -p udp -s 198.51.100.7 -d 192.0.2.1 --sport 5000 --dport 53 --dst-nat 192.168.127.9
track -p udp -s 192.168.127.8 -d 203.0.113.1 --sport 40001 --dport 53 --zone 7
capture delete conntrack -D -s 192.168.127.9
