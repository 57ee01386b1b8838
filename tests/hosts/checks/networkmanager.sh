#!/bin/bash
# NetworkManager beside volnet: it manages the uplink.
# shellcheck source=beside.sh
. "$(dirname "$0")/beside.sh"

is_up() { [[ "$(nmcli -g GENERAL.STATE device show uplink)" == "100 "* ]]; }
# NetworkManager has nothing to do with volnet's links.
leaves_ours() {
    local link
    for link in vbr0 vttap-web vttap-db vttap-mail; do
        [[ "$(nmcli -g GENERAL.STATE device show $link)" == "10 "* ]] ||
            fail "NetworkManager manages $link: $(nmcli device show $link)"
    done
}

make_world
install_volnet
make_guests
well "volnet alone"
install_later
eventually nmcli general status
nmcli connection add type ethernet ifname uplink con-name wired ipv4.method manual \
    ipv4.addresses $HOST/24 ipv4.dns 198.51.100.1 ipv6.method disabled
nmcli device set uplink managed yes
nmcli connection up wired
eventually is_up
leaves_ours
well "NetworkManager installed and started"
nmcli general reload
well "nmcli general reload"
nmcli connection modify wired ipv4.dns 198.51.100.2 connection.zone ''
nmcli connection up wired
eventually is_up
well "nmcli connection modify, up"
nmcli networking off
nmcli networking on
eventually is_up
leaves_ours
well "nmcli networking off, on"
systemctl restart NetworkManager
eventually is_up
leaves_ours
well "NetworkManager restarted"
systemctl restart volnet
eventually volnet list
leaves_ours
well "volnet restarted"
systemctl stop NetworkManager
well "NetworkManager stopped"
systemctl start NetworkManager
eventually is_up

remove_volnet
volnet teardown --service
systemctl restart NetworkManager
eventually is_up
install_volnet
make_guests
leaves_ours
well "NetworkManager first, then volnet"
