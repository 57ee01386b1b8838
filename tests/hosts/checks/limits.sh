#!/bin/bash
# What VMs may use of the host, with the unit that is shipped: volnet-vms.service has their control
# groups, and the kernel keeps each VM to its limits. Comes after install. The hypervisors are
# programs that use much of one thing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
trap '[ $? = 0 ] || journalctl -b -u "volnet*" --no-pager -n 40 -o short-monotonic' EXIT
GROUPS_OF_VMS=/sys/fs/cgroup/system.slice/volnet-vms.service
DISK=/var/lib/limited.img

step the unit has the groups, with all controllers
[ "$(systemctl is-active volnet-vms)" = active ] || fail "volnet-vms.service does not run"
cgroup() { volnet check --json | jq -r '.findings[] | select(.check == "cgroup").message'; }
[ "$(cgroup)" = "VMs have control groups in $GROUPS_OF_VMS: cpu, memory, io" ] ||
    fail "$(cgroup)"

# Each waits for its file in /run, so that it runs before it does what it is for.
hypervisor() { # NAME COMMAND
    jq --arg name "$1" --arg command "until [ -e /run/go-$1 ]; do sleep 0.1; done; $2" \
        '.hypervisors[$name] = { program: "sh", args: ["-c", $command] }' \
        /etc/volnet/config.json >/run/config.json
    cp /run/config.json /etc/volnet/config.json
}
cp /etc/volnet/config.json /run/config.before
hypervisor busy 'while :; do :; done'
hypervisor hungry "exec python3 -c 'import time; bytearray(400 << 20); time.sleep(9999)'"
hypervisor writes "dd if=/dev/zero of=$DISK bs=1M count=16 oflag=direct conv=notrunc; sleep 9999"
systemctl restart volnet
status_is() { [ "$(vm "$1" status)" = "$2" ]; }
in_group() { # VM FILE TEXT
    grep -q "$3" "$GROUPS_OF_VMS/vm-$1/$2"
}

step processor time
volnet run busy --hypervisor busy --cpu-percent 20
in_group busy cpu.max '^20000 100000$'
grep -qx "$(vm busy pid)" "$GROUPS_OF_VMS/vm-busy/cgroup.procs"
touch /run/go-busy
eventually in_group busy cpu.stat '^nr_throttled [1-9]'

step memory
volnet run hungry --hypervisor hungry --memory-max 64
in_group hungry memory.max '^67108864$'
touch /run/go-hungry
eventually status_is hungry crashed
[ "$(vm hungry exit_signal)" = 9 ] || fail "it ended otherwise: $(volnet get hungry)"
vm hungry last_error | grep 'was killed because it had too little memory'
journalctl -b -u volnet --no-pager | grep 'hungry: it was killed because it had too little memory'
[ ! -e "$GROUPS_OF_VMS/vm-hungry" ] || fail "its group is still there"
status_is busy running || fail "another VM has ended with it"
[ "$(systemctl is-active volnet-vms)" = active ] || fail "the unit has ended with it"

step input and output
truncate -s 64M "$DISK"
chown volnet-vm "$DISK"
volnet run writes --hypervisor writes --disk "$DISK" --write-mb 4
in_group writes io.max ' wbps=4000000 '
touch /run/go-writes
said=/var/log/volnet/hypervisor/writes.log
eventually grep -q '16777216 bytes' $said
# At 4 MB/s it takes four seconds. The kernel lets a slice of time's worth through at once.
took=$(sed -n 's/^16777216 bytes.* copied, \([0-9]*\).* s, .*/\1/p' $said)
[ "$took" -ge 3 ] || fail "16 MiB were written in $took seconds"

step limits outlive the daemon, and end with their VMs
systemctl restart volnet
in_group busy cpu.max '^20000 100000$'
status_is busy running
# What ends the unit ends the VMs.
systemctl stop volnet-vms
eventually status_is busy crashed
systemctl start volnet-vms
systemctl restart volnet
volnet delete busy hungry writes
left=$(find "$GROUPS_OF_VMS" -name 'vm-*')
[ -z "$left" ] || fail "groups are left: $left"
cp /run/config.before /etc/volnet/config.json
rm -f "$DISK"
systemctl reset-failed volnet
systemctl restart volnet
