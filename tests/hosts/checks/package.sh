#!/bin/bash
# Debian's package: installed, upgraded without the loss of a packet, removed and installed again
# with its VMs, and purged, with nothing left. Comes after remove: the host is as it was at first.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
finish() {
    local status=$?
    [ $status = 0 ] || journalctl -b -u "volnet*" --no-pager -n 60
    rm -rf /run/package
    exit $status
}
trap finish EXIT
mkdir -p /run/package

# The package of another version, with the same files.
repack() { # VERSION
    rm -rf /run/package/tree
    dpkg-deb -R dist/volnet.deb /run/package/tree
    sed -i "s/^Version: .*/Version: $1/" /run/package/tree/DEBIAN/control
    dpkg-deb -Zgzip -b /run/package/tree "/run/package/$1.deb" >/dev/null
}

step the package is installed
before=$(network)
mkdir -p /etc/volnet
cp tests/hosts/config.json /etc/volnet/
dpkg -i dist/volnet.deb
# The host's dpkg unpacks no documentation.
dpkg -L volnet | grep -v -e /usr/share/doc -e /usr/share/man | xargs ls -d >/dev/null
[ "$(systemctl is-active volnet)" = active ] || fail "the unit is not active"
[ "$(systemctl is-enabled volnet)" = enabled ] || fail "the unit is not enabled"
[ "$(command -v volnet)" = /usr/bin/volnet ] || fail "volnet is not in the PATH"
volnet check
volnet run web --hypervisor standin --expose udp:5353:53
eventually reaches "$(vm web ip)"
pid=$(vm web pid) ip=$(vm web ip)
[ "$(stat -c %U "/proc/$pid")" = volnet-vm ] || fail "web does not run as volnet-vm"

step an upgrade: the VM runs on and loses no packet
daemon=$(systemctl show -p MainPID --value volnet)
ping -n -i 0.2 "$ip" >/run/package/ping &
ping=$!
answers() { grep -c icmp_seq= /run/package/ping; }
repack 99.0
dpkg -i /run/package/99.0.deb
[ "$(systemctl show -p MainPID --value volnet)" != "$daemon" ] || fail "the daemon is the old one"
after=$(($(answers) + 10))
enough() { [ "$(answers)" -ge "$after" ]; }
eventually enough
kill -INT $ping
sed -n 's/.*icmp_seq=\([0-9]*\).*/\1/p' /run/package/ping |
    awk '$1 != NR { print "lost: " NR; exit 1 } END { print NR " answers, none lost" }' ||
    fail "a packet was lost"
[ "$(vm web pid)" = "$pid" ] || fail "web has another process"
echoes 192.168.127.1 5353 || fail "web's port does not answer"

step an administrator who stopped and disabled it finds it so after the next upgrade
systemctl disable --now volnet
repack 99.1
dpkg -i /run/package/99.1.deb
[ "$(systemctl is-enabled volnet || :)" = disabled ] || fail "the unit is enabled"
systemctl enable --now volnet
[ "$(vm web pid)" = "$pid" ] || fail "web has another process"

step a removal: the guest is asked to end, the network is as it was
dpkg -r volnet
[ ! -e "/proc/$pid" ] || fail "web runs"
grep -q 'asked to end' /var/log/volnet/web.log || fail "web was not asked to end"
diff <(echo "$before") <(network) || fail "the network is not as it was"

step installed again: the VM is there
dpkg -i dist/volnet.deb
eventually volnet start web
eventually reaches "$(vm web ip)"
[ "$(vm web ip)" = "$ip" ] || fail "web has another address"

step purged: nothing is left
dpkg -P volnet
diff <(echo "$before") <(network) || fail "the network is not as it was"
nothing_is_left
