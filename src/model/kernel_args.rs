//! What volnet adds to a guest's kernel command line.

use std::net::Ipv4Addr;

use crate::model::name::VmName;
use crate::model::prefix::Prefix;

/// The link's name as the guest's kernel gives it before anything renames it.
const GUEST_LINK: &str = "eth0";

/// The `ip=` word by which a guest configures itself without asking anybody: its address, no NFS
/// server, the gateway, the mask, its host name, its link, and no autoconfiguration
/// (Documentation/admin-guide/nfs/nfsroot.rst of Linux).
pub fn kernel_args(vm: &VmName, ip: Ipv4Addr, gateway: Ipv4Addr, subnet: Prefix) -> String {
    format!("ip={ip}::{gateway}:{}:{}:{GUEST_LINK}:off", subnet.netmask(), host_name(vm))
}

/// A VM's name as the label of a host name, which holds letters, digits and hyphens and ends with
/// no hyphen (RFC 1123, 2.1). It is never empty: a VM's name begins with a letter or a digit.
pub fn host_name(vm: &VmName) -> String {
    let label = vm.as_str().replace(['.', '_'], "-");
    label.trim_end_matches('-').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_all_it_needs() {
        let args = kernel_args(
            &VmName::new("web-1").unwrap(),
            Ipv4Addr::new(192, 168, 127, 2),
            Ipv4Addr::new(192, 168, 127, 1),
            "192.168.127.0/24".parse().unwrap(),
        );
        assert_eq!(args, "ip=192.168.127.2::192.168.127.1:255.255.255.0:web-1:eth0:off");
    }

    #[test]
    fn host_names_are_legal() {
        for (vm, host) in [("web-1", "web-1"), ("WEB_1.test", "WEB-1-test"), ("a._-", "a")] {
            assert_eq!(host_name(&VmName::new(vm).unwrap()), host);
        }
    }
}
