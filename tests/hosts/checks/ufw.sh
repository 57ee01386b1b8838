#!/bin/bash
# ufw beside volnet.
# shellcheck source=beside.sh
. "$(dirname "$0")/beside.sh"

make_world
install_volnet
make_guests
well "volnet alone"
install_later
well "ufw installed"
ufw --force enable
mended "ufw enabled" "service"
ufw reload
well "ufw reload"
ufw allow 22/tcp
ufw deny 8080/tcp
ufw limit 2222/tcp
well "rules for the host added"
ufw default deny routed
well "ufw default deny routed"
ufw default allow routed
well "ufw default allow routed"
ufw default reject routed
systemctl restart ufw
well "ufw restarted"
systemctl restart volnet
eventually volnet list
well "volnet restarted"
ufw disable
well "ufw disabled"
ufw --force enable
well "ufw enabled again"
ufw --force reset
ufw --force enable
mended "ufw reset and enabled" "service"

remove_volnet
ufw delete allow in on vbr0
systemctl start volnet
eventually volnet list
make_guests
mended "ufw first, then volnet" "service"
