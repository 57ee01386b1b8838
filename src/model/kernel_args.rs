//! volnet's part of a guest's kernel command line.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::name::VmName;
use crate::model::prefix::Prefix;

/// The `ip=` parameter, by which a guest configures itself: its address, no NFS server, the
/// gateway, the mask, its host name, its link, no autoconfiguration, and up to two name servers
/// (Documentation/admin-guide/nfs/nfsroot.rst of Linux). The guest finds those in /proc/net/pnp.
///
/// The link is `eth` and the index of the interface, as the guest's kernel names it before anything
/// renames it.
pub fn kernel_args(
    vm: &VmName,
    index: usize,
    ip: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    subnet: Prefix,
    servers: &[IpAddr],
) -> String {
    let mut text = format!("ip={ip}::");
    // Writing to a String does not fail.
    if let Some(gateway) = gateway {
        let _ = write!(text, "{gateway}");
    }
    let _ = write!(text, ":{}:{}:eth{index}:off", subnet.netmask(), host_name(vm));
    for server in servers.iter().filter(|server| server.is_ipv4()).take(2) {
        let _ = write!(text, ":{server}");
    }
    text
}

/// A VM's name as a label of a host name. A label has letters, digits and hyphens, and does not end
/// with a hyphen (RFC 1123, 2.1). It is never empty, because a VM's name begins with a letter or a
/// digit.
pub fn host_name(vm: &VmName) -> String {
    let mut label = vm.as_str().replace(['.', '_'], "-");
    label.truncate(label.trim_end_matches('-').len());
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_all_it_needs() {
        let args = kernel_args(
            &VmName::new("web-1").unwrap(),
            0,
            Ipv4Addr::new(192, 168, 127, 2),
            Some(Ipv4Addr::new(192, 168, 127, 1)),
            "192.168.127.0/24".parse().unwrap(),
            &[],
        );
        assert_eq!(args, "ip=192.168.127.2::192.168.127.1:255.255.255.0:web-1:eth0:off");
        let vm = VmName::new("web-1").unwrap();
        let second = [10, 9, 0, 2].into();
        let servers = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let args = kernel_args(&vm, 1, second, None, "10.9.0.0/24".parse().unwrap(), &servers);
        assert_eq!(args, "ip=10.9.0.2:::255.255.255.0:web-1:eth1:off:192.0.2.1:192.0.2.2");
    }

    #[test]
    fn host_names_are_legal() {
        for (vm, host) in [("web-1", "web-1"), ("WEB_1.test", "WEB-1-test"), ("a._-", "a")] {
            assert_eq!(host_name(&VmName::new(vm).unwrap()), host);
        }
    }
}
