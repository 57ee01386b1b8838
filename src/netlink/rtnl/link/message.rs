//! A link as the kernel shows it.

use super::*;
use crate::netlink::Error;
use crate::netlink::attr::{Attr, Attrs};
use crate::netlink::message::{u16_at, u32_at};

/// A link, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMessage<'a> {
    /// The kernel's index.
    pub index: u32,
    /// `ARPHRD_*` (linux/if_arp.h); 1 is Ethernet.
    pub hardware: u16,
    /// `IFF_*`, of which [`UP`] is named here.
    pub flags: u32,
    /// Its name: 1 to 15 bytes, none of them white space, `/` or `:`.
    pub name: &'a [u8],
    /// `ifalias`, where one is set.
    pub alias: Option<&'a [u8]>,
    /// What made it (`bridge`, `tun`, `veth`); none for a hardware link.
    pub kind: Option<&'a [u8]>,
    /// What it is a port of (`bridge`, `bond`).
    pub slave_kind: Option<&'a [u8]>,
    /// Index of the link it is a port of.
    pub master: Option<u32>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its Ethernet address; none where the address is not of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The group it is in; 0 is where all links begin.
    pub group: u32,
    /// Whether it has a carrier. A tap has one while a process holds it open, up or down.
    pub carrier: bool,
    /// The settings of a tun or tap.
    pub tun: Option<Tun>,
    /// The settings of a bridge.
    pub bridge: Bridge,
    /// The settings of a bridge port.
    pub port: Option<BridgePort>,
}

/// The settings of a bridge (net/bridge/br_netlink.c, `br_fill_info`): none of what the kernel
/// cannot do, or what is not to be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Whether it looks at who listens to which group of IPv4 and IPv6, and keeps a table of that.
    pub snooping: Option<bool>,
    /// What it does with bridged frames (CONFIG_BRIDGE_NETFILTER).
    pub filtered: Option<Filtered>,
}

/// Whether frames of a bridge pass the rules for routed packets, too, whatever the host says of all
/// its bridges. It has an effect while the module br_netfilter is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Those with IPv4.
    pub ipv4: bool,
    /// Those with IPv6.
    pub ipv6: bool,
}

/// Whether a TUN device carries packets or frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunKind {
    /// IP packets (`IFF_TUN`).
    Tun,
    /// Ethernet frames (`IFF_TAP`).
    Tap,
}

/// The settings of a TUN device (drivers/net/tun.c, `tun_fill_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tun {
    /// Packets or frames.
    pub kind: TunKind,
    /// A virtio-net header stands before each frame.
    pub vnet_hdr: bool,
    /// More than one queue can be opened.
    pub multi_queue: bool,
    /// It outlives the last descriptor that holds it.
    pub persistent: bool,
    /// The user who may open it; anyone may where none is set.
    pub owner: Option<u32>,
}

/// The settings of a bridge port (net/bridge/br_netlink.c, `br_port_fill_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// `BR_STATE_*` (linux/if_bridge.h): 0 disabled, 3 forwarding.
    pub state: u8,
    /// It does not exchange frames with other isolated ports.
    pub isolated: bool,
    /// Frames may leave by the port that they came by.
    pub hairpin: bool,
    /// BPDUs that it receives shut it (BPDU guard).
    pub guard: bool,
    /// The bridge learns addresses on it.
    pub learning: bool,
    /// A bit for each last byte of the groups 01:80:c2:00:00:00 to :0f: frames to those are
    /// forwarded like others, rather than taken by the host itself past all rules.
    pub group_forward: u16,
}

/// A port as its bridge shows it, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMessage<'a> {
    /// The kernel's index of the link that is the port.
    pub index: u32,
    /// Its name.
    pub name: &'a [u8],
    /// Its settings.
    pub port: BridgePort,
}

/// The parts of IFLA_LINKINFO. Data may stand before the kind that says how to read it.
#[derive(Default)]
struct Info<'a> {
    kind: Option<&'a [u8]>,
    data: Option<Attr<'a>>,
    slave_kind: Option<&'a [u8]>,
    slave_data: Option<Attr<'a>>,
}

impl<'a> LinkMessage<'a> {
    /// Reads the payload of `RTM_NEWLINK` or `RTM_DELLINK` of family `AF_UNSPEC`.
    pub fn read(payload: &'a [u8]) -> Result<LinkMessage<'a>, Error> {
        let mut link = LinkMessage {
            index: u32_at(payload, 4)?,
            hardware: u16_at(payload, 2)?,
            flags: u32_at(payload, 8)?,
            name: &[],
            alias: None,
            kind: None,
            slave_kind: None,
            master: None,
            mtu: 0,
            mac: None,
            group: 0,
            carrier: false,
            tun: None,
            bridge: Bridge::default(),
            port: None,
        };
        for attr in Attrs::new(payload.get(HEADER..).ok_or(Error::Truncated)?) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Ifla::Ifname) => link.name = attr.string(),
                _ if attr.is(Ifla::Ifalias) => link.alias = Some(attr.string()),
                _ if attr.is(Ifla::Address) => link.mac = attr.array().ok(),
                _ if attr.is(Ifla::Mtu) => link.mtu = attr.u32()?,
                _ if attr.is(Ifla::Master) => link.master = Some(attr.u32()?),
                _ if attr.is(Ifla::Group) => link.group = attr.u32()?,
                _ if attr.is(Ifla::Carrier) => link.carrier = attr.u8()? != 0,
                _ if attr.is(Ifla::Linkinfo) => link.take(Info::read(attr)?)?,
                _ => {}
            }
        }
        if link.index == 0 || link.name.is_empty() { Err(Error::Missing) } else { Ok(link) }
    }

    /// Whether it is administratively up.
    pub fn is_up(&self) -> bool {
        self.flags & UP != 0
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind == Some(KIND_BRIDGE.as_bytes())
    }

    /// Whether it is one end of a pair of links.
    pub fn is_veth(&self) -> bool {
        self.kind == Some(KIND_VETH.as_bytes())
    }

    fn take(&mut self, info: Info<'a>) -> Result<(), Error> {
        self.kind = info.kind;
        self.slave_kind = info.slave_kind;
        if let Some(data) = info.data.filter(|_| info.kind == Some(KIND_TUN.as_bytes())) {
            self.tun = Some(Tun::read(data)?);
        }
        let bridge = Some(KIND_BRIDGE.as_bytes());
        if let Some(data) = info.data.filter(|_| info.kind == bridge) {
            self.bridge = Bridge::read(data)?;
        }
        if let Some(data) = info.slave_data.filter(|_| info.slave_kind == bridge) {
            self.port = Some(BridgePort::read(data)?);
        }
        Ok(())
    }
}

impl<'a> PortMessage<'a> {
    /// Reads the payload of `RTM_NEWLINK` of family `AF_BRIDGE`.
    pub fn read(payload: &'a [u8]) -> Result<PortMessage<'a>, Error> {
        let (mut name, mut port) = (None, None);
        for attr in Attrs::new(payload.get(HEADER..).ok_or(Error::Truncated)?) {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(Ifla::Ifname) => name = Some(attr.string()),
                _ if attr.is(Ifla::Protinfo) => port = Some(BridgePort::read(attr)?),
                _ => {}
            }
        }
        let (name, port) = name.zip(port).ok_or(Error::Missing)?;
        Ok(PortMessage { index: u32_at(payload, 4)?, name, port })
    }
}

impl<'a> Info<'a> {
    fn read(linkinfo: Attr<'a>) -> Result<Info<'a>, Error> {
        let mut info = Info::default();
        for attr in linkinfo.nested()? {
            let attr = attr?;
            match attr.kind {
                _ if attr.is(IflaInfo::Kind) => info.kind = Some(attr.string()),
                _ if attr.is(IflaInfo::Data) => info.data = Some(attr),
                _ if attr.is(IflaInfo::SlaveKind) => info.slave_kind = Some(attr.string()),
                _ if attr.is(IflaInfo::SlaveData) => info.slave_data = Some(attr),
                _ => {}
            }
        }
        Ok(info)
    }
}

impl Tun {
    fn read(data: Attr<'_>) -> Result<Tun, Error> {
        let mut kind = None;
        let (mut vnet_hdr, mut multi_queue, mut persistent, mut owner) =
            (false, false, false, None);
        for attr in data.nested()? {
            let attr = attr?;
            match attr.kind {
                TUN_OWNER => owner = Some(attr.u32()?),
                TUN_TYPE => kind = Some(TunKind::read(attr.u8()?)?),
                TUN_VNET_HDR => vnet_hdr = attr.u8()? != 0,
                TUN_PERSIST => persistent = attr.u8()? != 0,
                TUN_MULTI_QUEUE => multi_queue = attr.u8()? != 0,
                _ => {}
            }
        }
        let kind = kind.ok_or(Error::Missing)?;
        Ok(Tun { kind, vnet_hdr, multi_queue, persistent, owner })
    }
}

impl Bridge {
    fn read(data: Attr<'_>) -> Result<Bridge, Error> {
        let (mut snooping, mut ipv4, mut ipv6) = (None, None, None);
        for attr in data.nested()? {
            let attr = attr?;
            match attr.kind {
                BR_MCAST_SNOOPING => snooping = Some(attr.u8()? != 0),
                BR_NF_CALL_IPTABLES => ipv4 = Some(attr.u8()? != 0),
                BR_NF_CALL_IP6TABLES => ipv6 = Some(attr.u8()? != 0),
                _ => {}
            }
        }
        let filtered = ipv4.zip(ipv6).map(|(ipv4, ipv6)| Filtered { ipv4, ipv6 });
        Ok(Bridge { snooping, filtered })
    }
}

impl TunKind {
    /// Reads `IFF_TUN` or `IFF_TAP` (linux/if_tun.h).
    fn read(value: u8) -> Result<TunKind, Error> {
        match value {
            1 => Ok(TunKind::Tun),
            2 => Ok(TunKind::Tap),
            _ => Err(Error::Unknown),
        }
    }
}

impl BridgePort {
    fn read(data: Attr<'_>) -> Result<BridgePort, Error> {
        let mut port = BridgePort::default();
        for attr in data.nested()? {
            let attr = attr?;
            match attr.kind {
                BRPORT_STATE => port.state = attr.u8()?,
                BRPORT_MODE => port.hairpin = attr.u8()? != 0,
                BRPORT_GUARD => port.guard = attr.u8()? != 0,
                BRPORT_LEARNING => port.learning = attr.u8()? != 0,
                BRPORT_GROUP_FWD_MASK => port.group_forward = attr.u16()?,
                BRPORT_ISOLATED => port.isolated = attr.u8()? != 0,
                _ => {}
            }
        }
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::writer::Writer;

    /// A link of this index with these attributes.
    fn payload(index: u32, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&[0; 4]);
        writer.raw(&index.to_ne_bytes());
        writer.raw(&[0; 8]);
        write(&mut writer);
        writer.finish().unwrap().to_vec()
    }

    fn tun(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        payload(2, |writer| {
            writer.attr_text(Ifla::Ifname.into(), "tap0");
            let info = writer.nest(Ifla::Linkinfo.into());
            let data = writer.nest(IflaInfo::Data.into());
            write(writer);
            writer.close(data);
            writer.attr_text(IflaInfo::Kind.into(), KIND_TUN);
            writer.close(info);
        })
    }

    #[test]
    fn data_may_stand_before_its_kind() {
        let bytes = tun(|writer| {
            writer.attr_u8(TUN_TYPE, 2);
            writer.attr_u8(TUN_VNET_HDR, 1);
        });
        let tun = LinkMessage::read(&bytes).unwrap().tun.unwrap();
        assert!(tun.kind == TunKind::Tap && tun.vnet_hdr && !tun.persistent);
    }

    #[test]
    fn data_of_another_kind_is_left_alone() {
        let bytes = payload(2, |writer| {
            writer.attr_text(Ifla::Ifname.into(), "vlan0");
            let info = writer.nest(Ifla::Linkinfo.into());
            writer.attr_text(IflaInfo::Kind.into(), "vlan");
            writer.attr(IflaInfo::Data.into(), &[1, 2, 3]);
            writer.attr_text(IflaInfo::SlaveKind.into(), "bond");
            writer.attr(IflaInfo::SlaveData.into(), &[1, 2, 3]);
            writer.close(info);
        });
        let link = LinkMessage::read(&bytes).unwrap();
        assert_eq!((link.kind, link.tun, link.port), (Some(&b"vlan"[..]), None, None));
    }

    #[test]
    fn odd_links_of_others_can_be_read() {
        let bytes = payload(2, |writer| {
            writer.attr(Ifla::Ifname.into(), b"caf\xe9\0");
            writer.attr(Ifla::Ifalias.into(), b"\xff\xfe");
            writer.attr(Ifla::Address.into(), &[0; 20]);
        });
        let link = LinkMessage::read(&bytes).unwrap();
        assert_eq!((link.name, link.alias), (&b"caf\xe9"[..], Some(&b"\xff\xfe"[..])));
        assert_eq!(link.mac, None);
    }

    #[test]
    fn what_a_link_must_have_is_asked_for() {
        let name = |writer: &mut Writer| writer.attr_text(Ifla::Ifname.into(), "tap0");
        assert!(LinkMessage::read(&payload(2, name)).is_ok());
        assert_eq!(LinkMessage::read(&payload(0, name)), Err(Error::Missing));
        assert_eq!(LinkMessage::read(&payload(2, |_| ())), Err(Error::Missing));
        let empty = payload(2, |writer| writer.attr_text(Ifla::Ifname.into(), ""));
        assert_eq!(LinkMessage::read(&empty), Err(Error::Missing));
        assert_eq!(LinkMessage::read(&[0; 15]), Err(Error::Truncated));
        assert_eq!(LinkMessage::read(&tun(|_| ())), Err(Error::Missing));
    }

    #[test]
    fn wrong_values_are_errors() {
        for (kind, value, error) in [
            (TUN_TYPE, &[3][..], Error::Unknown),
            (TUN_TYPE, &[2, 0], Error::WrongSize),
            (TUN_OWNER, &[1], Error::WrongSize),
        ] {
            let bytes = tun(|writer| writer.attr(kind, value));
            assert_eq!(LinkMessage::read(&bytes), Err(error), "attribute {kind}");
        }
        let bytes = payload(2, |writer| writer.attr_u8(Ifla::Mtu.into(), 1));
        assert_eq!(LinkMessage::read(&bytes), Err(Error::WrongSize));
    }
}
