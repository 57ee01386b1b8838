//! Links: `struct ifinfomsg` and `IFLA_*` (linux/rtnetlink.h, linux/if_link.h).

mod message;
mod request;

use neli::consts::rtnl::{Iff, Ifla, IflaInfo};

pub use message::{Bridge, BridgePort, Filtered, LinkMessage, PortMessage, Tun, TunKind};
pub use request::{
    LinkChange, PortChange, Target, Veth, delete, delete_group, dump, get, new_bridge, new_veth,
    set, set_bridge, set_port,
};

/// Bytes of `struct ifinfomsg`: family, padding, type, index, flags, change mask.
const HEADER: usize = 16;

/// `IFF_UP` (linux/if.h): administratively up.
pub const UP: u32 = Iff::UP.bits();

// IFLA_TUN_*: linux/if_link.h, inside IFLA_INFO_DATA of kind "tun".
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const TUN_VNET_HDR: u16 = 5;
const TUN_PERSIST: u16 = 6;
const TUN_MULTI_QUEUE: u16 = 7;

/// `IFLA_BR_MCAST_SNOOPING` (linux/if_link.h), inside IFLA_INFO_DATA of kind "bridge".
const BR_MCAST_SNOOPING: u16 = 23;
// IFLA_BR_*: linux/if_link.h, inside IFLA_INFO_DATA of kind "bridge".
const BR_NF_CALL_IPTABLES: u16 = 36;
const BR_NF_CALL_IP6TABLES: u16 = 37;

// IFLA_BRPORT_*: linux/if_link.h, inside IFLA_INFO_SLAVE_DATA of kind "bridge", and inside
// IFLA_PROTINFO of family AF_BRIDGE.
const BRPORT_STATE: u16 = 1;
const BRPORT_MODE: u16 = 4;
const BRPORT_GUARD: u16 = 5;
const BRPORT_LEARNING: u16 = 8;
const BRPORT_GROUP_FWD_MASK: u16 = 31;
const BRPORT_ISOLATED: u16 = 33;

/// `IFLA_INET6_ADDR_GEN_MODE` (linux/if_link.h), inside `AF_INET6` of IFLA_AF_SPEC.
const INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h): no address of the kernel's own making.
const ADDR_GEN_MODE_NONE: u8 = 1;
/// `RTEXT_FILTER_SKIP_STATS` (linux/rtnetlink.h): a quarter fewer bytes a link.
const SKIP_STATS: u32 = 1 << 3;

/// `VETH_INFO_PEER` (linux/veth.h), inside IFLA_INFO_DATA of kind "veth": `struct ifinfomsg` and
/// attributes of the other end.
const VETH_INFO_PEER: u16 = 1;

const KIND_BRIDGE: &str = "bridge";
const KIND_TUN: &str = "tun";
const KIND_VETH: &str = "veth";

#[cfg(test)]
mod tests {
    use linux_raw_sys::netlink::*;

    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            TUN_OWNER => IFLA_TUN_OWNER,
            TUN_TYPE => IFLA_TUN_TYPE,
            TUN_VNET_HDR => IFLA_TUN_VNET_HDR,
            TUN_PERSIST => IFLA_TUN_PERSIST,
            TUN_MULTI_QUEUE => IFLA_TUN_MULTI_QUEUE,
            BR_MCAST_SNOOPING => IFLA_BR_MCAST_SNOOPING,
            BR_NF_CALL_IPTABLES => IFLA_BR_NF_CALL_IPTABLES,
            BR_NF_CALL_IP6TABLES => IFLA_BR_NF_CALL_IP6TABLES,
            BRPORT_STATE => IFLA_BRPORT_STATE,
            BRPORT_MODE => IFLA_BRPORT_MODE,
            BRPORT_GUARD => IFLA_BRPORT_GUARD,
            BRPORT_LEARNING => IFLA_BRPORT_LEARNING,
            BRPORT_GROUP_FWD_MASK => IFLA_BRPORT_GROUP_FWD_MASK,
            BRPORT_ISOLATED => IFLA_BRPORT_ISOLATED,
            INET6_ADDR_GEN_MODE => IFLA_INET6_ADDR_GEN_MODE,
            ADDR_GEN_MODE_NONE => in6_addr_gen_mode::IN6_ADDR_GEN_MODE_NONE,
            SKIP_STATS => RTEXT_FILTER_SKIP_STATS,
        }
    }
}
