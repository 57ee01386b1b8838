#!/bin/bash
# VMs are back by themselves after a reboot. Comes after install. Status 75 asks for the reboot, the
# argument "after" says that it has been.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
trap 'case $? in
0 | 75) ;;
*) volnet list; journalctl -b -u "volnet*" --no-pager -n 60 ;;
esac' EXIT

if [ "${1:-}" != after ]; then
    step three VMs before the reboot
    echo '{ "autostart": true, "restart": "on-failure" }' >/root/vm.json
    volnet run web --hypervisor standin --config /root/vm.json
    volnet run mail --hypervisor standin --config /root/vm.json --mode dhcp
    volnet run api --hypervisor standin --config /root/vm.json --expose udp:5353:53 --rx 10
    volnet create still --ip 192.168.127.77
    volnet create gone --ephemeral
    eventually vm mail ip
    for name in web mail api; do
        eventually reaches "$(vm $name ip)"
        echo "$name $(vm $name ip) $(vm $name mac)" >>/root/before
    done
    cat /root/before
    exit 75
fi

step they are back
eventually volnet list
while read -r name ip mac; do
    eventually reaches "$ip"
    echo "$name answers $(cut -d' ' -f1 /proc/uptime) s after the kernel began"
    [ "$(vm "$name" ip) $(vm "$name" mac)" = "$ip $mac" ] || fail "$name is another"
done </root/before
eventually echoes 192.168.127.1 5353
echo "the exposed port answers $(cut -d' ' -f1 /proc/uptime) s after the kernel began"
[ "$(vm still status)" = created ] || [ "$(vm still status)" = stopped ] || fail "still runs"
volnet get gone && fail "the ephemeral VM is there"
volnet check | tee /run/found
# The unit cannot load modules: the kernel loads them when they are asked for.
lsmod | awk '$1 ~ /^(tun|bridge|vhost|nf|nft|sch)/ { print $1 }' | sort | xargs echo modules:
grep '^error' /run/found && fail "something does not work"
grep -e 'no token buckets' -e 'no rules for bridges' -e 'no deletion' /run/found &&
    fail "a module is missing"

step the guests were asked before the host went down
journalctl -b -1 -u volnet-guests --no-pager -o cat
for name in web mail api; do
    journalctl -b -1 -u volnet-guests --no-pager -o cat | grep -qx "$name: stopped" ||
        fail "$name was not stopped"
    grep -q 'guest: asked to end' /var/log/volnet/$name.log || fail "$name was not asked"
done
# Former stops of the daemon leave hypervisors on purpose.
journalctl -b -1 -u 'volnet*' --no-pager -o cat | sed '1,/^Stopping .*[Gg]uests/d' |
    grep 'remains running' && fail "a hypervisor was left"
volnet delete web mail api still
