#!/bin/bash
# The static binary does its job on this host: everything that a user does with it, once.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
PATH=/src/dist:$PATH
VOLNET_CONFIG=/src/tests/hosts/config.json
export VOLNET_CONFIG
log=/run/smoke.log
serve() {
    setsid volnet serve >>$log 2>&1 </dev/null &
    daemon=$!
    eventually volnet list
}
finish() {
    local status=$?
    [ $status = 0 ] || {
        echo "-- the daemon:"
        tail -n 40 $log
        nft list ruleset
        ip -d addr
        # Later checks find the host as it was.
        volnet delete web mail vault db --timeout 1
        kill -9 $daemon
        volnet teardown --force
    }
    exit $status
}
trap finish EXIT

step the daemon makes the host ready
before=$(network)
serve
volnet version
volnet check
ip -j addr show dev vbr0 | jq -e '.[0].addr_info[] | select(.local == "192.168.127.1")' >/dev/null
ip -d -j link show dev vbr0 | jq -e '.[0].ifalias | startswith("volnet")' >/dev/null ||
    fail "the bridge has no mark"
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || fail "no forwarding"
[ -z "$(volnet setup --dry-run)" ] || fail "setup --dry-run still has something to do"

step VMs in each mode, with a port, a policy and limits
volnet run web --hypervisor standin --expose udp:5353:53 --policy internet --rx 100 --tx 50
volnet run mail --hypervisor standin --mode dhcp
volnet create vault --mode vsock
volnet create db --ip 192.168.127.10 --ephemeral
volnet list
for name in web mail db; do
    ip -d -j link show dev "$(vm $name tap)" |
        jq -e '.[0] | .master == "vbr0" and (.ifalias | startswith("volnet:"))' >/dev/null ||
        fail "the tap of $name is not as it should be"
done
tap=$(vm web tap) web=$(vm web ip)
tc qdisc show dev "$tap" | grep -q tbf || fail "no limit on $tap"
tc qdisc show dev "$(vm mail tap)" | grep -q tbf && fail "a limit on mail's tap"

step guests answer
eventually reaches "$web"
eventually vm mail ip
mail=$(vm mail ip)
eventually reaches "$mail"
eventually echoes 192.168.127.1 5353
# What forwards is told from what is of the host by a namespace behind an uplink.
ip netns add world
ip link add uplink type veth peer name eth0 netns world
ip addr add 203.0.113.1/24 dev uplink
ip link set uplink up
ip -n world addr add 203.0.113.2/24 dev eth0
ip -n world link set eth0 up
echoes_world() { [ "$(echo hello | ip netns exec world nc -u -w 2 203.0.113.1 5353)" = hello ]; }
eventually echoes_world

step the way of a packet from the world is told
volnet trace web --from world --to 203.0.113.1:5353 --seconds 600 >/run/trace &
trace=$!
is_told() { echoes_world; grep -q 'delivered, and answered' /run/trace; }
eventually is_told
wait $trace
cat /run/trace
for words in 'udp from 203.0.113.2 to 203.0.113.1:5353' \
    "translated: its destination 203.0.113.1:5353 became $web:53" 'passed: an exposed port' \
    'the answer passed: antispoof: the guest sends from its own addresses'; do
    grep -q "$words" /run/trace || fail "the trace does not say: $words"
done
ip netns del world

step others change the network: it is put right
ip link set "$tap" down
up() { ip -j link show dev "$tap" | jq -e '.[0].flags | index("UP")'; }
eventually up
eventually reaches "$web"
rules_before=$(rules)
echo "flush: $(nft flush ruleset 2>&1 && echo 'done')"
same_rules() { [ -z "$(volnet setup --dry-run)" ] && diff <(echo "$rules_before") <(rules); }
eventually same_rules
eventually echoes 192.168.127.1 5353
volnet list --json | jq -e '[.vms[] | select(.status == "running")] | length == 2' >/dev/null

step the daemon is killed and started again: guests run on
pid=$(vm web pid)
kill -9 $daemon
wait $daemon || :
reaches "$web" >/dev/null || fail "no answer without the daemon"
serve
[ "$(vm web pid)" = "$pid" ] || fail "web has another process"
eventually reaches "$web"
eventually reaches "$mail"
eventually echoes 192.168.127.1 5353
[ "$(vm db ip)" = 192.168.127.10 ] || fail "the ephemeral VM is not as it was"

step everything is given back
volnet unexpose web udp:5353:53
volnet delete web mail vault db
[ "$(volnet list --json | jq '.vms | length')" = 0 ] || fail "VMs are left"
volnet teardown
kill $daemon
wait $daemon || fail "the daemon ended with status $?"
diff <(echo "$before") <(network) || fail "the host is not as it was"
[ -z "$(find /var/lib/volnet /run/volnet -name '*.json' 2>/dev/null)" ] || fail "records are left"
