//! The link of one NIC: it exists as its kind wants it, is attached to its bridge and up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::kind::{Behind, InnerAddress, NicKind, VethEnds, remove};
use super::problem::describe;
use super::{ALIAS, Link, Problem};
use crate::model::attachment::Attachment;
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::model::name::{TapName, VmName};
use crate::model::net::NetworkConfig;
use crate::model::nic::{Nic, NicName, is_routed};
use crate::model::spec::NetworkSpec;
use crate::model::traffic::InForce;
use crate::plan::op::{GuestRoute, Handover, LinkSettings, Op, Plan, PortSettings};
use crate::plan::ruleset::Element;

/// The link that a NIC should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredPort<'a> {
    /// The VM.
    pub vm: &'a VmName,
    /// The index of its interface.
    pub nic: usize,
    /// The link's name.
    pub tap: &'a TapName,
    /// The link's index, once it was made: a link that has both is ours whatever its alias.
    pub index: Option<u32>,
    /// The bridge it is attached to.
    pub bridge: &'a str,
    /// The VM's IPv4 address, if it has one.
    pub address: Option<IpAddr>,
    /// The movable addresses that it may use besides.
    pub movable: &'a [Ipv4Addr],
    /// Its IPv6 address, if it has one.
    pub address6: Option<IpAddr>,
    /// The IPv6 addresses that its guest made for itself.
    pub claimed: &'a [Ipv6Addr],
    /// Its own Ethernet address, where that matters when it is made. A bridge without an address of
    /// its own takes the lowest of its ports (net/bridge/br_stp_if.c,
    /// `br_stp_recalculate_bridge_id`). One that volnet does not manage must not take that of a
    /// tap.
    pub own_mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether the host has to be told of that: it is below the MTU of a bridge on which the host
    /// has an address of ours.
    pub is_narrow: bool,
    /// Whether it is kept from other isolated ports.
    pub isolated: bool,
    /// Whether frames may leave by the port that they came by: a guest reaches itself by a service.
    pub hairpin: bool,
    /// What kind of link it is.
    pub kind: NicKind<'a>,
    /// Whether it is made anew if it is gone. If not, its end is the end of its VM.
    pub is_remade: bool,
    /// To what the guest's receiving is held back.
    pub shaping: Option<Shaping>,
}

/// All link-local groups, but for that of PAUSE frames, which no bridge forwards
/// (net/bridge/br_private.h, `BR_GROUPFWD_MACPAUSE`).
pub const GROUP_FORWARD: u16 = !(1 << 1);

/// A link as it was observed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The link.
    pub link: &'a Link,
    /// The name of the link that it is attached to.
    pub master: Option<&'a str>,
}

impl<'a> DesiredPort<'a> {
    /// The tap of an interface, on its network, with its traffic. It belongs to root until
    /// [`DesiredPort::opened_by`] says otherwise.
    pub fn new(
        name: NicName<'a>,
        nic: &'a Nic,
        spec: &'a NetworkSpec,
        network: &'a NetworkConfig,
        traffic: InForce<'_>,
    ) -> DesiredPort<'a> {
        DesiredPort {
            vm: name.vm,
            nic: name.index,
            tap: &nic.tap,
            index: nic.ifindex,
            bridge: &network.bridge,
            address: nic.address().map(IpAddr::V4),
            movable: &spec.addresses,
            address6: nic.ip6.map(IpAddr::V6),
            claimed: &nic.claimed,
            own_mac: (!network.managed).then(|| nic.mac.highest()),
            mtu: spec.mtu.unwrap_or(network.mtu),
            is_narrow: network.managed && spec.mtu.is_some_and(|mtu| mtu < network.mtu),
            isolated: traffic.isolated,
            hairpin: network.services,
            kind: NicKind::Tap { multi_queue: spec.queues.unwrap_or(1) > 1, owner: Some(0) },
            is_remade: true,
            shaping: traffic.limits.shaping(),
        }
    }

    /// Lets this user open the link, if it is one that is opened.
    pub fn opened_by(&mut self, user: u32) {
        if let NicKind::Tap { owner, .. } = &mut self.kind {
            *owner = Some(user);
        }
    }

    /// Makes it the link of an attachment. If that is for the host's own namespace, it is a tap as
    /// any. Else it leads into the namespace. A tap there is for whom a tap here would be.
    pub fn attached(&mut self, attachment: &'a Attachment, nic: &Nic, network: &NetworkConfig) {
        self.is_remade = false;
        if attachment.host {
            // Who has attached it is told of this address.
            self.own_mac = Some(nic.mac.highest());
            return;
        }
        let four = self.address.zip(network.ipv4).map(|(address, ipv4)| InnerAddress {
            address,
            length: ipv4.prefix.length(),
            gateway: network.gateway.unwrap_or(ipv4.host).into(),
        });
        let six = self.address6.zip(network.ipv6).map(|(address, ipv6)| InnerAddress {
            address,
            length: ipv6.prefix.length(),
            gateway: ipv6.host.into(),
        });
        let behind = match (&attachment.tap, self.kind) {
            (Some(tap), NicKind::Tap { owner, .. }) => Behind::Tap(tap, owner.unwrap_or(0)),
            (Some(tap), NicKind::Veth(_)) => Behind::Tap(tap, 0),
            (None, _) => Behind::Namespace([four, six]),
        };
        self.own_mac = None;
        self.kind = NicKind::Veth(VethEnds {
            mtu: self.mtu,
            outer: nic.mac.highest(),
            netns: &attachment.netns,
            ifname: &attachment.id.ifname,
            mac: nic.mac,
            behind,
        });
    }

    /// What the tap is as a port of its bridge.
    pub fn port_settings(&self) -> PortSettings {
        let DesiredPort { isolated, hairpin, .. } = *self;
        PortSettings { isolated, hairpin, group_forward: GROUP_FORWARD }
    }

    fn alias(&self) -> String {
        format!("{ALIAS}{}", NicName { vm: self.vm, index: self.nic })
    }

    fn owns(&self, link: &Link) -> bool {
        let known = self.index == Some(link.index) && link.kind.is_of_nics();
        known || link.is_of_nic()
    }

    /// Whether a link is all that this one should be, but for how fast it sends.
    pub fn is_right(&self, seen: Seen<'_>) -> bool {
        self.owns(seen.link) && self.kind.fits(seen.link.kind) && self.settings(seen).is_none()
    }

    /// Makes the link and attaches it.
    fn make(&self) -> Plan {
        let name = self.tap.to_string();
        let set = LinkSettings {
            master: Some(Some(self.bridge.to_string())),
            up: Some(true),
            mac: self.own_mac,
            mtu: Some(self.mtu),
            no_ipv6: true,
            port: Some(self.port_settings()),
            ..LinkSettings::default()
        };
        let made = [
            self.kind.make(name.clone(), self.alias()),
            Op::SetLink { name, set, former: LinkSettings::default() },
        ];
        made.into_iter().chain(self.shape(None)).collect()
    }

    /// What has the link send as fast as it should, where it does not.
    pub fn shape(&self, former: Option<Shaping>) -> Option<Op> {
        let name = self.tap.to_string();
        (self.shaping != former).then_some(Op::ShapeLink { name, to: self.shaping, former })
    }

    /// The addresses of the VM, but for the movable ones.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let claimed = self.claimed.iter().copied().map(IpAddr::V6);
        self.address.into_iter().chain(self.address6).chain(claimed)
    }

    /// The routes by which the host knows the guest's MTU. Movable addresses have none: the next VM
    /// that uses one may have another MTU.
    pub fn routes(&self) -> Vec<GuestRoute> {
        let (link, mtu) = (self.bridge, self.mtu);
        let route = |to| GuestRoute { link: link.to_string(), to, mtu };
        self.addresses().filter(|to| self.is_narrow && is_routed(*to)).map(route).collect()
    }

    /// What has the kernel forget the addresses of the VM that it does not have as `other`.
    pub fn forget(&self, other: &DesiredPort<'_>, at: Handover) -> impl Iterator<Item = Op> {
        let lost = self.addresses().filter(|own| !other.addresses().any(|it| it == *own));
        lost.map(move |address| forget(self.bridge, address, at))
    }

    /// What has the kernel forget all addresses of the VM.
    fn forget_all(&self, at: Handover) -> impl Iterator<Item = Op> {
        self.addresses().map(move |address| forget(self.bridge, address, at))
    }

    /// One change of all settings that are wrong.
    fn settings(&self, Seen { link, master }: Seen<'_>) -> Option<Op> {
        let mut set = LinkSettings::default();
        let mut former = LinkSettings::default();
        if master != Some(self.bridge) {
            set.master = Some(Some(self.bridge.to_string()));
            former.master = Some(master.map(str::to_string));
            // A port that moves takes none of its port settings along.
            set.port = Some(self.port_settings());
            former.port = master.map(|_| link.port);
        } else if link.port != self.port_settings() {
            (set.port, former.port) = (Some(self.port_settings()), Some(link.port));
        }
        if !link.up {
            (set.up, former.up) = (Some(true), Some(false));
        }
        if link.mtu != u32::from(self.mtu) {
            (set.mtu, former.mtu) = (Some(self.mtu), u16::try_from(link.mtu).ok());
        }
        if link.alias.as_deref() != Some(self.alias().as_str()) {
            set.alias = Some(self.alias());
            former.alias = Some(link.alias.clone().unwrap_or_default());
        }
        (!set.is_empty()).then(|| Op::SetLink { name: link.name.clone(), set, former })
    }
}

/// What gives a VM its place on its networks: addresses without a past, its elements in our sets,
/// for some of which others go, and then taps on their bridges.
pub fn attach_plan(ports: &[DesiredPort<'_>], gone: Vec<Element>, new: Vec<Element>) -> Plan {
    let past = ports.iter().flat_map(|port| port.forget_all(Handover::Assigned));
    let mut plan: Plan = past.collect();
    plan.extend(Op::exchange(gone, new));
    plan.extend(ports.iter().flat_map(DesiredPort::make));
    plan.extend(ports.iter().flat_map(DesiredPort::routes).map(Op::AddRoute));
    plan
}

/// What takes it away again: first the taps, because a process may have them open.
pub fn release_plan(ports: &[DesiredPort<'_>], gone: Vec<Element>, new: Vec<Element>) -> Plan {
    // Without an index it was never seen to be ours.
    let made = |port: &DesiredPort<'_>| port.index.map(|index| remove(port.tap.as_str(), index));
    let mut plan: Plan = ports.iter().filter_map(made).collect();
    plan.extend(ports.iter().flat_map(DesiredPort::routes).map(Op::RemoveRoute));
    plan.extend(Op::exchange(gone, new));
    // Last, when no packet of the VM's or to it brings back what was deleted.
    plan.extend(ports.iter().flat_map(|port| port.forget_all(Handover::Released)));
    plan
}

/// What has the kernel forget the addresses of a port whose tap will be made: what is kept of them
/// is of somebody else, or of a guest that lost its link.
pub(super) fn forget_past(port: &DesiredPort<'_>, seen: Option<Seen<'_>>) -> Plan {
    let is_remade = |Seen { link, .. }: Seen<'_>| {
        port.owns(link) && !port.kind.fits(link.kind) && !link.is_open()
    };
    match seen.map_or(port.is_remade, |seen| port.kind.can_be_remade() && is_remade(seen)) {
        true => port.forget_all(Handover::Assigned).collect(),
        false => Plan::new(),
    }
}

/// What brings a VM's link to where it should be. One that is gone and is not made anew is the end
/// of its VM, which is not decided here.
pub(super) fn attach(port: &DesiredPort<'_>, seen: Option<Seen<'_>>) -> Result<Plan, Problem> {
    let Some(seen) = seen else {
        return Ok(if port.is_remade { port.make() } else { Plan::new() });
    };
    let link = seen.link;
    let (vm, tap) = (port.vm.to_string(), link.name.clone());
    let fits = port.kind.fits(link.kind);
    if !port.owns(link) || !fits && !port.kind.can_be_remade() {
        return Err(Problem::TapTaken { vm, tap, found: describe(link) });
    }
    if fits {
        return Ok(port.settings(seen).into_iter().chain(port.shape(link.shaping)).collect());
    }
    if link.is_open() {
        return Err(Problem::TapInUse { vm, tap, found: describe(link) });
    }
    let mut plan = vec![remove(&link.name, link.index)];
    plan.append(&mut port.make());
    Ok(plan)
}

/// Whether nothing can be sent by a link.
pub fn is_parked(link: &Link) -> bool {
    link.master.is_none() && !link.up
}

/// What takes a link off its bridge and down. It keeps all else, and whoever has it open.
pub(super) fn park(Seen { link, master }: Seen<'_>) -> Option<Op> {
    let (set, former) = (LinkSettings::default(), LinkSettings::default());
    let detached = link.master.is_some().then_some(None);
    let set = LinkSettings { master: detached, up: link.up.then_some(false), ..set };
    let attached = master.map(|master| Some(master.to_string()));
    let former = LinkSettings {
        master: attached,
        up: link.up.then_some(true),
        port: master.map(|_| link.port),
        ..former
    };
    (!is_parked(link)).then(|| Op::SetLink { name: link.name.clone(), set, former })
}

/// What has the kernel forget an address behind a bridge.
pub(super) fn forget(bridge: &str, address: IpAddr, at: Handover) -> Op {
    Op::ForgetAddress { link: bridge.to_string(), address, at }
}
