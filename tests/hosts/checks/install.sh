#!/bin/bash
# README's Install to the letter: the unit runs, is restarted with a VM that runs on, and recovers.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
trap '[ $? = 0 ] || journalctl -u volnet --no-pager -n 40' EXIT

step "README, Install"
# Its commands, but for the one that was done where the compiler is.
commands=$(sed -n '/^## Install/,/^## /s/^# \([a-z].*\)/\1/p' README.md | grep -vx 'make dist')
[ -n "$commands" ] || fail "README shows none"
echo "$commands"
mkdir -p /etc/volnet
cp tests/hosts/config.json /etc/volnet/
eval "$commands"
[ "$(systemctl is-active volnet)" = active ] || fail "the unit is not active"
[ "$(systemctl is-enabled volnet)" = enabled ] || fail "the unit is not enabled"
volnet check
[ -z "$(volnet setup --dry-run)" ] || fail "setup --dry-run still has something to do"

step a VM runs as the user of hypervisors, without rights
volnet run web --hypervisor standin --expose udp:5353:53
eventually reaches "$(vm web ip)"
pid=$(vm web pid)
[ "$(stat -c %U "/proc/$pid")" = volnet-vm ] || fail "web does not run as volnet-vm"
grep -q 'CapEff:.*0000000000000000' "/proc/$pid/status" || fail "web has capabilities"

step the unit is restarted: the VM runs on
systemctl restart volnet
[ "$(vm web pid)" = "$pid" ] || fail "web has another process"
reaches "$(vm web ip)" >/dev/null || fail "web does not answer"
echoes 192.168.127.1 5353 || fail "web's port does not answer"

step the daemon is killed: systemd starts it again, the VM runs on
killed=$(systemctl show -P MainPID volnet 2>/dev/null || systemctl show -p MainPID --value volnet)
kill -9 "$killed"
other() { volnet list && [ "$(systemctl show -p MainPID --value volnet)" != "$killed" ]; }
eventually other
[ "$(vm web pid)" = "$pid" ] || fail "web has another process"
volnet delete web
