#!/bin/bash
# systemd-networkd beside volnet: it manages the uplink.
# shellcheck source=beside.sh
. "$(dirname "$0")/beside.sh"

configure() { # LINE...
    mkdir -p /etc/systemd/network
    {
        printf '%s\n' '[Match]' 'Name=uplink' '[Network]' "Address=$HOST/24"
        [ $# = 0 ] || printf '%s\n' "$@"
    } >/etc/systemd/network/20-uplink.network
}
# networkd has done with the uplink.
is_up() { [[ "$(networkctl status uplink)" == *"State: routable (configured)"* ]]; }
# networkd has nothing to do with volnet's links.
leaves_ours() {
    local link
    for link in vbr0 vttap-web vttap-db vttap-mail; do
        [[ "$(networkctl status $link)" == *"(unmanaged)"* ]] ||
            fail "systemd-networkd manages $link: $(networkctl status $link)"
    done
}

make_world
install_volnet
make_guests
well "volnet alone"
configure
systemctl enable --now systemd-networkd
eventually is_up
leaves_ours
well "systemd-networkd started"
configure 'DNS=198.51.100.1'
networkctl reload
eventually is_up
well "networkctl reload"
configure 'IPv4Forwarding=no'
networkctl reload
eventually is_up
mended "networkctl reload, IPv4Forwarding=no" "world port"
configure
networkctl reload
eventually is_up
mkdir -p /etc/systemd/networkd.conf.d
printf '%s\n' '[Network]' 'IPv4Forwarding=no' >/etc/systemd/networkd.conf.d/forwarding.conf
systemctl restart systemd-networkd
eventually is_up
# It switched off what volnet switches on again, and then only what is the uplink's.
eventually grep -qx 1 /proc/sys/net/ipv4/ip_forward
networkctl reconfigure uplink
eventually is_up
mended "IPv4Forwarding=no in networkd.conf" "world port"
rm /etc/systemd/networkd.conf.d/forwarding.conf
systemctl restart systemd-networkd
eventually is_up
well "restarted without it"
networkctl down uplink && networkctl up uplink
eventually is_up
well "networkctl down, up uplink"
systemctl restart systemd-networkd
eventually is_up
leaves_ours
well "systemd-networkd restarted"
systemctl restart volnet
eventually volnet list
leaves_ours
well "volnet restarted"
systemctl stop systemd-networkd systemd-networkd.socket
well "systemd-networkd stopped"
systemctl start systemd-networkd
eventually is_up

remove_volnet
volnet teardown --service
systemctl restart systemd-networkd
eventually is_up
install_volnet
make_guests
leaves_ours
well "systemd-networkd first, then volnet"
