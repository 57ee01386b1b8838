use super::*;
use crate::plan::reconcile::tests::{Host, bare_kernel};
use crate::plan::reconcile::{Desired, DesiredPort, attach_plan, reconcile, release_plan};

fn commands(plan: &[Op]) -> Vec<String> {
    plan.iter().flat_map(Op::commands).collect()
}

#[test]
fn a_host_is_set_up_and_taken_down() {
    let mut host = Host::new();
    host.networks.truncate(1);
    let plan = reconcile(&host.desired(), &bare_kernel().kernel.observed).plan;
    let mac = host.networks[0].mac;
    let add_bridge = format!("ip link add name vbr0 address {mac} type bridge mcast_snooping 0");
    let expected = [
        &*add_bridge,
        "ip link set dev vbr0 mtu 1499",
        "ip link set dev vbr0 mtu 1500 alias volnet:",
        "ip link set dev vbr0 up",
        "ip address add 10.0.0.1/16 dev vbr0",
        "nft 'create table ip volnet
table ip volnet {
\tset guests {
\t\ttype ipv4_addr
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority 100; policy accept
\t\tmasquerade
\t}
}'",
        "sysctl -q -w net.ipv4.ip_forward=1",
        "nft 'insert rule ip filter DOCKER-USER iifname \"vbr0\" accept comment \"volnet\"'",
        "nft 'insert rule ip filter DOCKER-USER oifname \"vbr0\" accept comment \"volnet\"'",
    ];
    assert_eq!(commands(&plan), expected);

    let down = Desired { forwarding: Some(false), ..Desired::default() };
    let plan = reconcile(&down, &host.kernel().kernel.observed).plan;
    let handles = |direction| {
        format!(
            "nft -a list chain ip filter DOCKER-USER | \
             sed -n '/{direction} \"vbr0\" accept comment \"volnet\"/s/.*# handle //p' | \
             xargs -r -n1 nft delete rule ip filter DOCKER-USER handle"
        )
    };
    let expected = [
        &handles("iifname"),
        &handles("oifname"),
        "nft 'add table ip volnet\ndelete table ip volnet'",
        "sysctl -q -w net.ipv4.ip_forward=0",
        "ip link delete dev vbr0",
    ];
    assert_eq!(commands(&plan), expected);
}

#[test]
fn a_vm_is_attached_and_released() {
    let host = Host::with_vms(2);
    let plan = attach_plan(&[host.port(1)], vec![], host.elements(1));
    let forget = [
        "ip neighbour delete 10.1.0.3 dev vbr1 >/dev/null 2>&1 || :",
        "conntrack -D -s 10.1.0.3 >/dev/null 2>&1 || :",
        "conntrack -D -r 10.1.0.3 >/dev/null 2>&1 || :",
    ];
    let expected = [
        "nft 'add element ip volnet guests { 10.1.0.3 }'",
        "ip tuntap add dev vttap-vm1 mode tap user 0 vnet_hdr multi_queue",
        "ip link set dev vttap-vm1 alias volnet:vm1",
        "ip link set dev vttap-vm1 addrgenmode none",
        "ip link set dev vttap-vm1 master vbr1 mtu 1400 up",
        "ip link set dev vttap-vm1 type bridge_slave isolated on hairpin on group_fwd_mask 65533",
        "ip route replace 10.1.0.3 dev vbr1 mtu 1400 proto 118",
    ];
    assert_eq!(commands(&plan), [&forget[..], &expected].concat());
    let expected = [
        "ip link delete dev vttap-vm1",
        "ip route delete 10.1.0.3 dev vbr1 proto 118 >/dev/null 2>&1 || :",
        "nft 'add element ip volnet guests { 10.1.0.3 }\n\
             delete element ip volnet guests { 10.1.0.3 }'",
    ];
    let made = DesiredPort { index: Some(7), ..host.port(1) };
    let plan = release_plan(&[made], host.elements(1), vec![]);
    assert_eq!(commands(&plan), [&expected[..], &forget].concat());
}

#[test]
fn every_setting_has_its_words() {
    let set = LinkSettings {
        master: Some(None),
        up: Some(false),
        mtu: Some(1280),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        alias: Some(String::new()),
        no_ipv6: false,
        snooping: Some(true),
        filtered: Some(Filtered { ipv4: true, ipv6: false }),
        port: Some(PortSettings { isolated: false, hairpin: true, group_forward: 8 }),
    };
    let expected = [
        "ip link set dev eth0 nomaster mtu 1280 address 02:00:00:00:00:01 alias '' down",
        "ip link set dev eth0 type bridge mcast_snooping 1",
        "ip link set dev eth0 type bridge nf_call_iptables 1 nf_call_ip6tables 0",
        "ip link set dev eth0 type bridge_slave isolated off hairpin on group_fwd_mask 8",
    ];
    assert_eq!(settings("eth0", &set), expected);
}

#[test]
fn sh_reads_words_as_they_were() {
    for (word, expected) in [
        ("vbr0", "vbr0"),
        ("volnet:web-1", "volnet:web-1"),
        ("", "''"),
        ("a b", "'a b'"),
        ("$(reboot)", "'$(reboot)'"),
        ("it's; rm", "'it'\\''s; rm'"),
        ("a\nb", "'a\nb'"),
        ("~root", "'~root'"),
    ] {
        assert_eq!(quoted(word), expected);
    }
}
