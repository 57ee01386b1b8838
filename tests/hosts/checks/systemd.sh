#!/bin/bash
# volnet under systemd: what the journal has, what `check` says when the daemon does not run, and
# what the sandbox of the unit gives away. Comes after install.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
trap '[ $? = 0 ] || journalctl -b -u "volnet*" --no-pager -n 40 -o short-monotonic' EXIT
# The most that `systemd-analyze security` may find, in tenths.
EXPOSURE_MAX=44

step the journal has levels, and no word of the source
volnet run web --hypervisor standin
tap=$(vm web tap) web=$(vm web ip)
ip link set "$tap" down
warned() { journalctl -u volnet -p warning --no-pager | grep "$tap"; }
eventually warned
journalctl -u volnet -o cat --no-pager | grep -e 'volnet::' -e '^\[' -e '^<' &&
    fail "not for operators"

step a check without the daemon
systemctl stop volnet
status=0
volnet check >/run/found || status=$?
cat /run/found
[ $status = 1 ] || fail "check ends with status $status"
grep -q '^error  *daemon: ' /run/found || fail "it does not say that there is no daemon"
eventually reaches "$web"
systemctl start volnet
volnet check | grep '^error' && fail "an error with the daemon"
volnet delete web

# On arm64, KVM is no module.
if [ "$(uname -m)" = x86_64 ]; then
    step a device that came after the daemon can be used
    modprobe -r kvm_amd kvm || :
    [ ! -e /dev/kvm ] || fail "/dev/kvm is still there"
    sed -i.before 's/"kvm": false/"kvm": true/' /etc/volnet/config.json
    systemctl restart volnet
    modprobe kvm_amd
    usable() { volnet check | grep '^ok  */dev/kvm: it can be opened'; }
    eventually usable
    mv /etc/volnet/config.json.before /etc/volnet/config.json
    # A fast host comes to the bound of starts here, five in ten seconds (systemd.unit(5)).
    systemctl reset-failed volnet
    systemctl restart volnet
fi

step what the sandbox gives away
systemd-analyze security volnet --no-pager | tail -n 60
tenths=$(systemd-analyze security volnet --no-pager |
    sed -n 's/.*exposure level.*: \([0-9]*\)\.\([0-9]\).*/\1\2/p')
[ "$tenths" -le "$EXPOSURE_MAX" ] || fail "exposure $tenths tenths"
