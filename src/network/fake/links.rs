//! Links and addresses of the kernel in memory.

use std::net::IpAddr;

use super::{BRIDGE_PORTS_MAX, Kernel};
use crate::model::error::Reason;
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::model::name::LINK_NAME_MAX;
use crate::model::prefix::Prefix;
use crate::plan::op::{Filtered, GuestRoute, InnerLink, LinkSettings, PortSettings, Switch};
use crate::plan::reconcile::{Link, LinkKind};

/// The valid MTUs of a tap and a bridge, in bytes (drivers/net/tun.c, net/bridge/br_device.c).
const MTU: std::ops::RangeInclusive<u16> = 68..=65521;

/// A new link.
pub(super) fn new(index: u32, name: &str, kind: LinkKind) -> Link {
    let [a, b, c, d] = index.to_be_bytes();
    Link {
        index,
        name: name.to_string(),
        alias: None,
        kind,
        master: None,
        up: false,
        carrier: false,
        mtu: 1500,
        mac: Mac([0xfe, 0, a, b, c, d]),
        filtered: (kind == LinkKind::Bridge).then(Filtered::default),
        port: PortSettings::default(),
        state: None,
        snooping: kind == LinkKind::Bridge,
        shaping: None,
        unfinished: false,
    }
}

impl Kernel {
    pub(super) fn add_bridge(
        &mut self,
        index: u32,
        name: &str,
        mac: Mac,
        mtu: u16,
        alias: &str,
    ) -> Result<(), Reason> {
        check_name(name)?;
        check_mtu(mtu)?;
        if self.position(name).is_ok() {
            return Err(Reason::Exists);
        }
        let made = Link { snooping: false, ..new(index, name, LinkKind::Bridge) };
        let alias = Some(alias.to_string());
        self.observed.links.push(Link { mac, mtu: mtu.into(), alias, ..made });
        Ok(())
    }

    pub(super) fn add_tap(
        &mut self,
        index: u32,
        name: &str,
        owner: Option<u32>,
        multi_queue: bool,
        alias: &str,
    ) -> Result<(), Reason> {
        check_name(name)?;
        if self.position(name).is_ok() {
            return Err(Reason::Busy);
        }
        let kind = LinkKind::Tap { vnet_hdr: true, multi_queue, persistent: true, owner };
        let alias = Some(alias.to_string());
        self.observed.links.push(Link { alias, ..new(index, name, kind) });
        Ok(())
    }

    /// Its inner end is in the namespace that the caller calls so; a namespace has each name once.
    pub(super) fn add_veth(
        &mut self,
        index: u32,
        name: &str,
        mac: Mac,
        mtu: u16,
        alias: &str,
        inner: &InnerLink,
    ) -> Result<(), Reason> {
        check_name(name)?;
        check_name(&inner.name)?;
        check_mtu(mtu)?;
        let named = (&inner.netns, &inner.name);
        let others = || self.inner.values().filter(|other| other.netns == inner.netns);
        if self.position(name).is_ok() || others().any(|other| (&other.netns, &other.name) == named)
        {
            return Err(Reason::Exists);
        }
        if let Some(tap) = &inner.tap {
            check_name(&tap.name)?;
            let has = |other: &InnerLink| {
                other.name == tap.name || other.tap.as_ref().is_some_and(|it| it.name == tap.name)
            };
            if tap.name == inner.name || others().any(has) {
                return Err(Reason::Busy);
            }
        }
        let made = new(index, name, LinkKind::Veth);
        let alias = Some(alias.to_string());
        self.observed.links.push(Link { mac, mtu: mtu.into(), alias, ..made });
        self.inner.insert(index, inner.clone());
        Ok(())
    }

    /// Applies the settings of the link in the order of Linux, up to the one that is refused, and
    /// then those of the bridge and of the port in any case: they are messages of one send. A
    /// missing bridge is reported before all settings. A kernel without rules for bridged frames
    /// ignores what is said of them.
    pub(super) fn set_link(&mut self, name: &str, set: &LinkSettings) -> Result<(), Reason> {
        if set.is_empty() {
            return Ok(());
        }
        let at = self.position(name)?;
        let master = match &set.master {
            Some(Some(bridge)) => Some(Some(self.position(bridge)?)),
            Some(None) => Some(None),
            None => None,
        };
        let of_link = self.set_itself(at, set, master);
        let link = &mut self.observed.links[at];
        let about_bridge = set.snooping.is_some() || set.filtered.is_some();
        let of_bridge = match about_bridge && link.kind != LinkKind::Bridge {
            true => Err(Reason::Unsupported),
            false => {
                link.snooping = set.snooping.unwrap_or(link.snooping);
                link.filtered = link.filtered.map(|filtered| set.filtered.unwrap_or(filtered));
                Ok(())
            }
        };
        let of_port = match (set.port, link.master) {
            (Some(_), None) => Err(Reason::Unsupported),
            (Some(port), Some(_)) => {
                link.port = port;
                Ok(())
            }
            (None, _) => Ok(()),
        };
        of_link.and(of_bridge).and(of_port)
    }

    fn set_itself(
        &mut self,
        at: usize,
        set: &LinkSettings,
        master: Option<Option<usize>>,
    ) -> Result<(), Reason> {
        if let Some(mac) = set.mac {
            self.observed.links[at].mac = mac;
        }
        if let Some(mtu) = set.mtu {
            check_mtu(mtu)?;
            self.observed.links[at].mtu = mtu.into();
        }
        if let Some(alias) = &set.alias {
            self.observed.links[at].alias = (!alias.is_empty()).then(|| alias.clone());
        }
        let link = &mut self.observed.links[at];
        link.up = set.up.unwrap_or(link.up);
        // A link that is down has no IPv6 addresses (net/ipv6/addrconf.c, `addrconf_ifdown`).
        if !link.up {
            let index = link.index;
            self.observed.addresses.retain(|(of, address, _)| *of != index || address.is_ipv4());
            self.drop_routes(index, |_| true);
        }
        match master {
            Some(master) => self.set_master(at, master),
            None => Ok(()),
        }
    }

    /// Detaches a link and then attaches it: if this is refused, it stays detached. A link that is
    /// attached already is left alone.
    fn set_master(&mut self, at: usize, master: Option<usize>) -> Result<(), Reason> {
        let wanted = master.map(|at| self.observed.links[at].index);
        if wanted == self.observed.links[at].master {
            return Ok(());
        }
        self.observed.links[at].leave();
        let Some(master) = master.map(|at| &self.observed.links[at]) else {
            return Ok(());
        };
        let (index, kind) = (master.index, master.kind);
        let ports = self.observed.links.iter().filter(|link| link.master == Some(index)).count();
        match kind {
            LinkKind::Tap { .. } | LinkKind::Veth | LinkKind::Other => {
                return Err(Reason::Unsupported);
            }
            LinkKind::Bridge if self.observed.links[at].kind == LinkKind::Bridge => {
                return Err(Reason::Loop);
            }
            LinkKind::Bridge if ports >= BRIDGE_PORTS_MAX => return Err(Reason::Full),
            LinkKind::Bridge => {}
        }
        self.observed.links[at].master = Some(index);
        Ok(())
    }

    /// Sets or removes the limit of a link. A link that is gone has no limit.
    pub(super) fn shape_link(&mut self, name: &str, to: Option<Shaping>) -> Result<(), Reason> {
        match (self.position(name), to) {
            (Ok(at), to) => self.observed.links[at].shaping = to,
            (Err(reason), Some(_)) => return Err(reason),
            (Err(_), None) => {}
        }
        Ok(())
    }

    /// Removes a link if it has that name and, if given, that index.
    pub(super) fn delete_link(&mut self, name: &str, index: Option<u32>) {
        let Ok(at) = self.position(name) else { return };
        let gone = self.observed.links[at].index;
        if index.is_some_and(|index| index != gone) {
            return;
        }
        let link = self.observed.links.remove(at);
        self.inner.remove(&gone);
        self.observed.switches.remove(&Switch::AcceptRa(link.name));
        self.observed.addresses.retain(|(link, ..)| *link != gone);
        self.observed.routes.retain(|(link, _)| *link != gone);
        self.drop_routes(gone, |_| true);
        self.neighbours.retain(|(link, _)| *link != gone);
        for port in self.observed.links.iter_mut().filter(|link| link.master == Some(gone)) {
            port.leave();
        }
    }

    pub(super) fn add_address(
        &mut self,
        link: &str,
        address: IpAddr,
        length: u8,
    ) -> Result<(), Reason> {
        let index = self.observed.links[self.position(link)?].index;
        let entry = (index, address, length);
        if !self.observed.addresses.contains(&entry) {
            self.observed.addresses.push(entry);
        }
        Ok(())
    }

    /// Removes an address, and with the first IPv4 address of a prefix all others in it
    /// (`net.ipv4.conf.*.promote_secondaries` is off unless set).
    pub(super) fn remove_address(
        &mut self,
        link: &str,
        address: IpAddr,
        length: u8,
    ) -> Result<(), Reason> {
        let Ok(at) = self.position(link) else { return Ok(()) };
        let index = self.observed.links[at].index;
        let prefix = Prefix::containing(address, length).ok_or(Reason::Invalid)?;
        let in_prefix = |&(at, other, other_length): &(u32, IpAddr, u8)| {
            at == index && Prefix::containing(other, other_length) == Some(prefix)
        };
        let addresses = &mut self.observed.addresses;
        let before = addresses.len();
        let entry = (index, address, length);
        let first = addresses.iter().copied().find(in_prefix) == Some(entry);
        if first && address.is_ipv4() {
            addresses.retain(|other| !in_prefix(other));
        } else {
            addresses.retain(|other| *other != entry);
        }
        let of_family = |&(at, other, _): &(u32, IpAddr, u8)| {
            at == index && other.is_ipv4() == address.is_ipv4()
        };
        if addresses.len() < before && !addresses.iter().any(of_family) {
            self.drop_routes(index, |to| to.is_ipv4() == address.is_ipv4());
        }
        Ok(())
    }

    /// Adds a route, or replaces one to the same address, by whatever link.
    pub(super) fn add_route(&mut self, route: &GuestRoute) -> Result<(), Reason> {
        let link = &self.observed.links[self.position(&route.link)?];
        if !link.up {
            return Err(Reason::Other);
        }
        let index = link.index;
        self.observed.guest_routes.retain(|(_, to, _)| *to != route.to);
        self.observed.guest_routes.push((index, route.to, route.mtu));
        Ok(())
    }

    pub(super) fn remove_route(&mut self, route: &GuestRoute) {
        if let Ok(at) = self.position(&route.link) {
            self.drop_routes(self.observed.links[at].index, |to| to == route.to);
        }
    }

    /// The routes of a link go with it, when it goes down, and with its last address of a family.
    pub fn drop_routes(&mut self, index: u32, goes: impl Fn(IpAddr) -> bool) {
        self.observed.guest_routes.retain(|(link, to, _)| *link != index || !goes(*to));
    }

    /// Deletes the neighbour entry of an address on a link, and its connections.
    pub(super) fn forget_address(&mut self, link: &str, address: IpAddr) {
        if let Ok(at) = self.position(link) {
            self.neighbours.remove(&(self.observed.links[at].index, address));
        }
        self.flows.retain(|(began, answers)| *began != address && *answers != address);
    }

    fn position(&self, name: &str) -> Result<usize, Reason> {
        self.observed.links.iter().position(|link| link.name == name).ok_or(Reason::NoLink)
    }
}

fn check_name(name: &str) -> Result<(), Reason> {
    if (1..=LINK_NAME_MAX).contains(&name.len()) { Ok(()) } else { Err(Reason::OutOfRange) }
}

fn check_mtu(mtu: u16) -> Result<(), Reason> {
    if MTU.contains(&mtu) { Ok(()) } else { Err(Reason::Invalid) }
}
