#!/bin/bash
# firewalld beside volnet.
# shellcheck source=beside.sh
. "$(dirname "$0")/beside.sh"
is_up() { firewall-cmd --state; }

make_world
install_volnet
make_guests
well "volnet alone"
install_later
eventually is_up
mended "firewalld installed and started" "service world"
firewall-cmd -q --reload
well "firewall-cmd --reload"
firewall-cmd -q --complete-reload
well "firewall-cmd --complete-reload"
systemctl restart firewalld
eventually is_up
well "firewalld restarted"
systemctl restart volnet
eventually volnet list
well "volnet restarted"
