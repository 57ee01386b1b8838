# shellcheck shell=bash
# What the checks beside other programs have in common: guests, a machine outside, and a line for
# each step with what reaches what then and what `volnet check` says. If something is cut off,
# `volnet check` has to name it, and the commands that it tells to type have to mend it.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

GATEWAY=192.168.127.1
# The host's address at its uplink, and the machine behind that.
HOST=203.0.113.1
WORLD=203.0.113.2
# Who is asked: the guest web asks the gateway (ping), a service of the host, the world and the
# guest db; the guest db asks for web's port by way of the host; the guest mail asks for an address;
# the world and the host ask for web's port by TCP and UDP.
WAYS=(gateway service world db hairpin dhcp port host)
ROW='%-44s'

within() { # NAMESPACE COMMAND...
    ip netns exec "$@"
}
# Whether somebody answers there. The address that is seen there, if that is given, is ADDRESS.
asks() { # NAMESPACE IP PORT [ADDRESS]
    [[ "$(within "$1" nc -d -w 3 "$2" "$3")" == "you are ${4:-}"* ]]
}
asks_udp() { # NAMESPACE IP PORT
    [[ "$(echo hello | within "$1" timeout 3 nc -u -W 1 "$2" "$3")" == "you are "* ]]
}
pings() { # NAMESPACE IP
    within "$1" ping -q -c 1 -W 3 "$2" >/dev/null
}
reach() { # WAY
    case $1 in
    gateway) pings web $GATEWAY ;;
    service) asks web $GATEWAY 7 ;;
    world) asks web $WORLD 7 $HOST && pings web $WORLD ;;
    db) pings web "$db" && asks web "$db" 80 ;;
    hairpin) asks db $HOST 8080 ;;
    dhcp) within mail busybox udhcpc -i eth0 -f -n -q -t 3 -T 2 -s /bin/true ;;
    port) asks world $HOST 8080 $WORLD && asks_udp world $HOST 5353 ;;
    host) asks host $HOST 8080 && asks_udp host $HOST 5353 && pings host "$web" ;;
    esac >/dev/null 2>&1
}
# What `volnet check` finds, each with what it tells to type. Hosts here have no KVM, and no
# hypervisor.
findings() { found_of '"/dev/kvm", "hypervisors"'; }
found_of() { # CHECKS-THAT-DO-NOT-COUNT
    volnet check --json | jq -r ".findings[] | select(.level != \"ok\") |
        select(.check | IN($1) | not) | \"\(.check): \(.message)\t\(.hint // \"\")\""
}
# Looks, and prints a line: sets `lost`, and `found`.
look() { # STEP
    local way line
    lost=() found=$(findings)
    # shellcheck disable=SC2059 # a format
    line=$(printf "$ROW" "$1")
    for way in "${WAYS[@]}"; do
        # A machine that is emulated beside others is slow at times.
        if reach "$way" || reach "$way"; then
            line+=$(printf ' %-8s' yes)
        else
            line+=$(printf ' %-8s' NO)
            lost+=("$way")
        fi
    done
    echo "$line ${found:+!}" | sed 's/ *$//' | tee -a /run/rows
    [ -z "$found" ] || echo "$found" | sed 's/\t/\n        /; s/^/    /' | tee -a /run/rows
}
# All is well, and `volnet check` says so.
well() { # STEP
    look "$1"
    [ ${#lost[@]} = 0 ] || fail "$1: cut off: ${lost[*]}"
    [ -z "$found" ] || fail "$1: volnet check finds something where nothing is cut off"
}
# These ways are cut off, `volnet check` says so, and what it tells to type mends it.
mended() { # STEP WAYS
    look "$1"
    [ "${lost[*]}" = "$2" ] || fail "$1: cut off: '${lost[*]}' and not '$2'"
    type_hints
    well "  typed"
}
# Types what `volnet check` told to type in the last look.
type_hints() {
    local hint
    [ -n "$found" ] || fail "volnet check finds nothing"
    while read -r hint; do
        echo "  # $hint" | tee -a /run/rows
        bash -c "$hint" || fail "what volnet check tells to type: status $?"
    done < <(cut -f 2 <<<"$found" | grep .)
}

# README's commands.
install_volnet() {
    install -m 755 dist/volnet /usr/local/bin/
    install -m 644 packaging/volnet.sysusers /usr/lib/sysusers.d/volnet.conf
    systemd-sysusers
    mkdir -p /etc/volnet
    echo '{ "networks": [{ "host_services": ["ping", "tcp/7"] }] }' >/etc/volnet/config.json
    # What it tells to type, as far as those programs run here.
    volnet setup --service | sed -n 's/.*; now: \([^,]*\).*/\1/p' | sort -u >/run/typed
    while read -r command; do bash -c "$command" || :; done </run/typed
    systemctl enable --now volnet
    eventually volnet list
}
# A machine behind the host's uplink, and the host itself under a name.
make_world() {
    ip netns attach host $$
    ip netns add world
    ip link add uplink type veth peer name eth0 netns world
    ip addr replace $HOST/24 dev uplink
    ip link set uplink up
    ip -n world addr add $WORLD/24 dev eth0
    ip -n world link set eth0 up
    serve world 7
    serve host 7
}
serve() { # NAMESPACE PORT
    setsid ip netns exec "$1" tests/hosts/answer "$2" >/dev/null 2>&1 </dev/null &
}
# The VM's guest: a namespace of its name behind its tap.
plug() { # VM [IP]
    [ -e "/run/netns/$1" ] || ip netns add "$1"
    setsid tests/hosts/cable "$(vm "$1" tap)" "$1" >/dev/null 2>&1 </dev/null &
    eventually ip -n "$1" link show dev eth0
    ip -n "$1" link set eth0 address "$(vm "$1" mac)"
    ip -n "$1" link set lo up
    ip -n "$1" link set eth0 up
    if [ -n "${2:-}" ]; then
        ip -n "$1" addr add "$2/24" dev eth0
        ip -n "$1" route add default via $GATEWAY
        eventually pings "$1" $GATEWAY
    fi
}
make_guests() {
    volnet create web --expose tcp:8080:80 --expose udp:5353:80 >/dev/null
    volnet create db >/dev/null
    volnet create mail --mode dhcp >/dev/null
    web=$(vm web ip) db=$(vm db ip)
    plug web "$web"
    plug db "$db"
    plug mail
    serve web 80
    serve db 80
    eventually asks host "$web" 80
    eventually asks host "$db" 80
}
# volnet goes, its network as well.
remove_volnet() {
    volnet delete web db mail
    ip netns del web && ip netns del db && ip netns del mail
    systemctl stop volnet
    volnet teardown
}
install_later() {
    local out
    export DEBIAN_FRONTEND=noninteractive
    out=$(dpkg -i --skip-same-version /var/lib/later/*.deb 2>&1) || fail "$out"
}
# What came to the journal, when it went wrong.
trap '[ $? = 0 ] || { journalctl -u "volnet*" --no-pager -n 60; nft list ruleset; ip addr; }' EXIT

: >/run/rows
# shellcheck disable=SC2059 # a format
{ printf "$ROW" "" && printf ' %-8s' "${WAYS[@]}" && echo "check"; } | tee -a /run/rows
