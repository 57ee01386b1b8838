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
firewall-cmd -q --add-service=http
firewall-cmd -q --add-rich-rule='rule family=ipv4 source address=198.51.100.0/24 drop'
firewall-cmd -q --zone=internal --add-interface=eth9
well "rules added"
firewall-cmd -q --set-default-zone=drop
well "default zone drop"
firewall-cmd -q --set-default-zone=public
firewall-cmd -q --panic-on
mended "firewall-cmd --panic-on" "gateway service world hairpin port host"
systemctl stop firewalld
well "firewalld stopped"
systemctl start firewalld
eventually is_up
well "firewalld started"

remove_volnet
firewall-cmd -q --permanent --zone=trusted --remove-interface=vbr0
firewall-cmd -q --reload
systemctl start volnet
eventually volnet list
make_guests
mended "firewalld first, then volnet" "service world"
