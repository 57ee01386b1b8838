#!/bin/bash
# The host finds VMs by their names, by systemd-resolved and the commands of docs/NAMES.md: over
# restarts, with a bridge that is made anew, after a reboot, and no more when it is given up.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
trap 'case $? in
0 | 75) ;;
*) journalctl -b -u "volnet*" -u systemd-resolved --no-pager -n 60; resolvectl status vbr0 ;;
esac' EXIT

# The commands of NAMES, from one to another.
commands() { # FIRST LAST
    sed -n '/^## The host asks/,$s/^# //p' docs/NAMES.md | sed -n "/^$1/,/^$2/p"
}
knows() { [ "$(getent ahosts "$1" | awk '{ print $1 }' | sort -u)" = "$2" ]; }
web() { knows web.volnet "$({ vm web ip && vm web ip6; } | sort)"; }
index() { cat /sys/class/net/vbr0/ifindex; }
is_new() { [ "$(index)" != "$1" ]; }
# systemd-resolved asks volnet for nothing but what is in the domain.
only_the_domain() {
    resolvectl domain vbr0 | grep -q '~volnet$' || fail "$(resolvectl domain vbr0)"
    resolvectl default-route vbr0 | grep -q 'no$' || fail "$(resolvectl default-route vbr0)"
}

if [ "${1:-}" != after ]; then
    ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
    systemctl enable --now systemd-resolved
    step "README, Install, and NAMES"
    mkdir -p /etc/volnet
    jq '. + { networks: [{ ipv6: true }] }' tests/hosts/config.json >/etc/volnet/config.json
    install -m 755 dist/volnet /usr/local/bin/
    install -m 644 packaging/volnet.sysusers /usr/lib/sysusers.d/volnet.conf
    systemd-sysusers
    volnet setup --service
    systemctl daemon-reload
    systemctl enable --now volnet
    volnet run web --hypervisor standin
    eval "$(commands 'volnet setup' 'systemctl enable')"
    eventually web
    only_the_domain
    gateway=$(ip -o addr show dev vbr0 scope global | awk '{ print $4 }' | sed 's,/.*,,' | sort)
    knows gateway.volnet "$gateway" || fail "gateway.volnet is $(getent ahosts gateway.volnet)"
    knows nobody.volnet "" || fail "it knows nobody.volnet"

    step systemd-resolved is restarted
    systemctl restart systemd-resolved
    eventually web
    only_the_domain

    step volnet is restarted
    systemctl restart volnet
    eventually volnet list
    eventually web

    for _ in 1 2 3; do
        step others delete the bridge
        before=$(index)
        ip link del vbr0
        eventually is_new "$before"
        eventually web
        only_the_domain
    done

    step volnet is set up anew
    volnet delete web
    systemctl stop volnet
    volnet teardown
    systemctl start volnet
    echo '{ "autostart": true }' >/root/vm.json
    volnet run web --hypervisor standin --config /root/vm.json
    eventually web
    exit 75
fi

step after a reboot
eventually volnet list
eventually web
only_the_domain

step given up
eval "$(commands 'systemctl disable' 'resolvectl revert')"
! web || fail "it still knows web"
left=$(find /etc/systemd -name 'volnet-resolved*')
[ -z "$left" ] || fail "left: $left"
volnet delete web
