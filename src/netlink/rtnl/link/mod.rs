//! Links: `struct ifinfomsg` and `IFLA_*` (linux/rtnetlink.h, linux/if_link.h).

mod message;
mod request;

pub use message::{BridgePort, LinkMessage, PortMessage, Tun, TunKind};
pub use request::{
    LinkChange, PortChange, Target, delete, delete_group, dump, get, new_bridge, set, set_port,
};

/// Bytes of `struct ifinfomsg`: family, padding, type, index, flags, change mask.
const HEADER: usize = 16;

/// `IFF_UP` (linux/if.h): administratively up.
pub const UP: u32 = 1;
/// `IFF_LOWER_UP` (linux/if.h): has a carrier; for a tap: somebody holds it open.
pub const LOWER_UP: u32 = 1 << 16;

// IFLA_*: linux/if_link.h, enum of the attributes of a link.
const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const PROTINFO: u16 = 12;
const LINKINFO: u16 = 18;
const IFALIAS: u16 = 20;
const AF_SPEC: u16 = 26;
const GROUP: u16 = 27;
const EXT_MASK: u16 = 29;

// IFLA_INFO_*: linux/if_link.h, inside IFLA_LINKINFO.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;

// IFLA_TUN_*: linux/if_link.h, inside IFLA_INFO_DATA of kind "tun".
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const TUN_VNET_HDR: u16 = 5;
const TUN_PERSIST: u16 = 6;
const TUN_MULTI_QUEUE: u16 = 7;

// IFLA_BRPORT_*: linux/if_link.h, inside IFLA_INFO_SLAVE_DATA of kind "bridge", and inside
// IFLA_PROTINFO of family AF_BRIDGE.
const BRPORT_STATE: u16 = 1;
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

const KIND_BRIDGE: &str = "bridge";
const KIND_TUN: &str = "tun";
