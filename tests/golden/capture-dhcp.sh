#!/bin/sh
# Captures what DHCP clients and dnsmasq(8) say to each other over a veth, in fresh namespaces.
#
#   tests/golden/capture-dhcp.sh     writes tests/golden/dhcp/*.hex anew; needs root, ip, python3,
#                                    dnsmasq, busybox, dhclient
#
# The files are like those of capture.sh, with whole Ethernet frames: `>` from the client, `<` from
# the server. Transaction ids, times and the checksums over them differ from one capture to the
# next.
set -eu
case ${1-} in
inside) ;;
*) exec unshare --net --mount --pid --fork --kill-child "$0" inside ;;
esac
cd "$(dirname "$0")/dhcp"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/dhcp

client() { ip netns exec client "$@"; }

# The capture proper: every IPv4 frame of the link in hexadecimal, until it is killed.
sniff='
import socket, sys
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
sniffer.bind(("server", 0x0003))
print("ready", flush=True)
while True:
    frame = sniffer.recv(4096)
    if frame[23] != 17 or frame[36:38] not in (b"\0\x43", b"\0\x44"): continue
    print(">" if frame[36:38] == b"\0\x43" else "<")
    text = frame.hex()
    for at in range(0, len(text), 64): print(text[at:at + 64])
    sys.stdout.flush()
'

# capture FILE COMMAND...: the command runs in the client's namespace.
capture() {
    file=$1.hex
    shift
    python3 -c "$sniff" >/run/frames &
    sniffer=$!
    until grep -q ready /run/frames; do :; done
    client "$@" >/run/client.log 2>&1 || { cat /run/client.log; exit 1; }
    # The last frame may still be on its way to the file.
    sleep 0.2
    kill $sniffer
    { echo "# $*"; sed 1d /run/frames; } >"$file"
}

ip netns add client
ip link add server address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02
ip link set eth0 netns client
ip addr add 192.168.127.1/24 dev server
ip link set server up
client ip link set lo up
client ip link set eth0 up
dnsmasq --conf-file=/dev/null --port=0 --interface=server --bind-interfaces --no-ping --user=root \
    --pid-file=/run/dnsmasq.pid --dhcp-leasefile=/run/leases --no-resolv \
    --dhcp-range=192.168.127.9,192.168.127.9,1h --dhcp-option=option:dns-server,192.0.2.53 \
    --dhcp-option=option:mtu,1400

capture udhcpc busybox udhcpc -f -n -q -R -i eth0 -s /bin/true
cat >/run/script <<'SCRIPT'
#!/bin/sh
case $reason in BOUND) ip addr add "$new_ip_address/24" dev "$interface" ;; esac
SCRIPT
chmod +x /run/script
files='-cf /dev/null -lf /run/dhclient -pf /run/dhclient.pid -sf /run/script'
# shellcheck disable=SC2086 # a list of words
{
    capture dhclient dhclient -4 -1 $files eth0
    capture dhclient-release dhclient -4 -r $files eth0
}
