#!/bin/bash
# volnet under OpenRC, which is process 1: docs/INSTALL.md, With OpenRC, to the letter; restarted
# with a VM that runs on, killed, and a reboot that asks the guests first.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
log=/var/log/volnet.log
trap 'case $? in
0 | 75) ;;
*) { volnet list; tail -n 40 $log /var/log/rc.log; rc-status; } || : ;;
esac' EXIT

# Alpine's commands, which Debian does not have.
addgroup() { groupadd -r "${@: -1}"; }
adduser() { useradd -r -M -d /nonexistent -s /usr/sbin/nologin -g "${@: -2:1}" "${@: -1}"; }

daemon() { pgrep -x -f '/usr/local/bin/volnet serve'; }
is_another() { volnet list && [ "$(daemon)" != "$killed" ]; }

# The host as OpenRC's: Debian's package has no services that mount and load.
prepare() {
    cat >/etc/init.d/agent <<'EOT'
#!/sbin/openrc-run
supervisor=supervise-daemon
command=/usr/local/sbin/agent
output_log=/dev/console
error_log=/dev/console
depend() {
    provide localmount
}
start_pre() {
    mount -o remount,rw /
    mountpoint -q /sys || mount -t sysfs sys /sys
    mountpoint -q /src || mount /src
    ip link set lo up
}
EOT
    chmod 755 /etc/init.d/agent
    rc-update add agent default
    sed -i 's/^#*rc_logger=.*/rc_logger="YES"/' /etc/rc.conf
    ln -sf openrc-init /usr/sbin/init
}

if [ "${1:-}" != after ]; then
    step OpenRC is process 1 from the next boot on
    prepare
    exit 75
fi

process=$(readlink /proc/1/exe)
[[ "$process" == */openrc-init ]] || fail "process 1 is $process"
if [ ! -e /root/before ]; then
    step "docs/INSTALL.md, With OpenRC"
    commands=$(sed -n '/^## With OpenRC/,/^## /s/^# \([a-z].*\)/\1/p' docs/INSTALL.md)
    [ -n "$commands" ] || fail "docs/INSTALL.md shows none"
    echo "$commands"
    mkdir -p /etc/volnet
    cp tests/hosts/config.json /etc/volnet/
    eval "$commands"
    volnet list >/dev/null || fail "it started and does not answer"
    rc-service volnet status
    volnet check

    step a VM runs as the user of hypervisors, without rights
    echo '{ "autostart": true }' >/root/vm.json
    volnet run web --hypervisor standin --config /root/vm.json --expose udp:5353:53
    volnet run mail --hypervisor standin --mode dhcp
    eventually reaches "$(vm web ip)"
    pid=$(vm web pid)
    [ "$(stat -c %U "/proc/$pid")" = volnet-vm ] || fail "web does not run as volnet-vm"

    step the service is restarted: the VM runs on
    rc-service volnet restart
    [ "$(vm web pid)" = "$pid" ] || fail "web has another process"
    reaches "$(vm web ip)" >/dev/null || fail "web does not answer"

    step the daemon is killed: OpenRC starts it again, the VM runs on
    killed=$(daemon)
    kill -9 "$killed"
    eventually is_another
    [ "$(vm web pid)" = "$pid" ] || fail "web has another process"
    eventually echoes 192.168.127.1 5353
    echo "$(vm web ip) $(vm web mac)" >/root/before
    exit 75
fi

step the guests were asked before the host went down
for name in web mail; do
    grep -q 'guest: asked to end' /var/log/volnet/$name.log || fail "$name was not asked"
done

step the VM with autostart is back
eventually volnet list
read -r ip mac </root/before
eventually reaches "$ip"
echo "web answers $(cut -d' ' -f1 /proc/uptime) s after the kernel began"
[ "$(vm web ip) $(vm web mac)" = "$ip $mac" ] || fail "web is another"
eventually echoes 192.168.127.1 5353
[ "$(vm mail status)" = stopped ] || fail "mail runs"
volnet delete web mail

step it is removed
rc-service volnet stop
volnet teardown
rc-update del volnet default
