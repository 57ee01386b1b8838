//! The floor: the bare system calls that attach a VM, and nothing else.
//!
//! No daemon, no socket to it, no decision. The netlink sockets live long, the bridge's index is
//! known, requests are written by volnet's own codec. Whoever attaches VMs one at a time on this
//! kernel pays at least this.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use volnet::config::{self, Flags};
use volnet::model::limits::Limits;
use volnet::model::mac::Mac;
use volnet::model::name::{TapName, VmName};
use volnet::model::net::{Ipv4Network, NetworkConfig};
use volnet::model::nic::NicName;
use volnet::model::policy::Policy;
use volnet::netlink::rtnl::link::{self, LinkChange, PortChange, Target};
use volnet::netlink::writer::{Sequence, Writer};
use volnet::network::linux::nft::Nft;
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::network::linux::{addresses, links, sysctl};
use volnet::plan::reconcile::GROUP_FORWARD;
use volnet::plan::ruleset::{self, Element, GuestPort};
use volnet_ffi::tun::{self, EXCLUSIVE, NO_PI, TAP, Tun, VNET_HDR};

use crate::SUBNET;
use crate::contender::{Contender, Detached};
use crate::stage::Stage;

/// Bytes of a record as volnet writes them, for the file of the durable floor.
const RECORD_BYTES: usize = 700;

/// What a VM is to the kernel.
pub(crate) struct Vm {
    name: String,
    pub(crate) tap: String,
    pub(crate) alias: String,
    elements: Vec<Element>,
}

/// The floor, with or without a file that survives a power cut.
pub(crate) struct Floor {
    name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) links: Socket,
    rules: Nft,
    pub(crate) bridge: u32,
    /// How many VMs it has ever attached, which is where addresses come from.
    attached: u32,
    /// How many of those stay.
    filled: usize,
    there: BTreeMap<String, Vm>,
    /// Where the files go, if any are written.
    files: Option<PathBuf>,
}

impl Floor {
    /// Makes the bridge and the table. With `files` each VM is a file there.
    pub(crate) fn new(name: &'static str, stage: Stage, files: Option<PathBuf>) -> Floor {
        stage.enter();
        let network = network();
        let (bridge, mtu) = (network.bridge.as_str(), network.mtu);
        let mut links = Socket::open(NetlinkFamily::Route).expect("rtnetlink");
        let index = links::create_bridge(&mut links, bridge, network.mac, mtu, "").expect("bridge");
        let address = (ipv4().host, ipv4().prefix.length());
        addresses::add(&mut links, bridge, address.0.into(), address.1).expect("its address");
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        links
            .request(1, |writer, sequence| {
                link::set(writer, sequence.take(), Target::Index(index), &up);
            })
            .expect("a bridge that is up");
        let mut rules = Nft::new().expect("nf_tables");
        for table in ruleset::tables(&[&network], &Policy::built_in(), Vec::new(), true) {
            rules.create_table(&table).expect("a table");
        }
        sysctl::set_forwarding(true).expect("to forward");
        if let Some(files) = &files {
            fs::create_dir_all(files).expect("a directory on disk");
        }
        Floor {
            name,
            stage,
            links,
            rules,
            bridge: index,
            attached: 0,
            filled: 0,
            there: BTreeMap::new(),
            files,
        }
    }

    /// What a VM is; `number` gives it its address.
    pub(crate) fn vm(&self, name: &str, number: u32) -> Vm {
        Vm::new(name, number)
    }

    /// The last part of an attach: its elements. It is there from now on.
    pub(crate) fn add(&mut self, vm: Vm) {
        self.rules.add_elements(&vm.elements).expect("to add elements");
        self.there.insert(vm.name.clone(), vm);
    }

    /// The first half: a persistent tap of ours.
    fn make_tap(name: &str) {
        let file = tun::open().expect("to open /dev/net/tun");
        let tap = Tun::attach(file, name, TAP | NO_PI | VNET_HDR | EXCLUSIVE).expect("a tap");
        tap.set_owner(0).expect("to set its owner");
        tap.set_persistent(true).expect("to make it persistent");
    }

    /// The second half: on the bridge, up, marked; then the settings of its port, in the same send.
    fn attach_tap(&mut self, name: &str, alias: &str) {
        let change = LinkChange {
            master: Some(self.bridge),
            up: Some(true),
            mtu: Some(1500),
            alias: Some(alias),
            no_ipv6: true,
            ..LinkChange::default()
        };
        let port = PortChange {
            isolated: Some(false),
            group_forward: Some(GROUP_FORWARD),
            ..PortChange::default()
        };
        let build = |writer: &mut Writer, sequence: &mut Sequence| {
            link::set(writer, sequence.take(), Target::Name(name), &change);
            link::set_port(writer, sequence.take(), Target::Name(name), &port);
        };
        self.links.request(2, build).expect("to attach");
    }
}

impl Contender for Floor {
    fn name(&self) -> &str {
        self.name
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.stage.enter();
        self.attached += 1;
        let vm = Vm::new(vm, self.attached);
        let record = vec![b'x'; RECORD_BYTES];
        let start = Instant::now();
        Self::make_tap(&vm.tap);
        self.attach_tap(&vm.tap, &vm.alias);
        self.rules.add_elements(&vm.elements).expect("to add elements");
        if let Some(files) = &self.files {
            write_file(files, &vm.tap, &record);
        }
        let took = start.elapsed();
        self.there.insert(vm.name.clone(), vm);
        took
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.stage.enter();
        let vm = self.there.remove(vm).expect("a VM that is there");
        let start = Instant::now();
        self.rules.remove_elements(&vm.elements).expect("to remove elements");
        let delete = |writer: &mut Writer, sequence: &mut Sequence| {
            link::delete(writer, sequence.take(), Target::Name(&vm.tap));
        };
        self.links.request(1, delete).expect("to delete");
        if let Some(files) = &self.files {
            fs::remove_file(files.join(&vm.tap)).expect("to remove a file");
            sync(files);
        }
        let gone = start.elapsed();
        Detached { answered: gone, gone }
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let numbers = self.filled..vms;
        self.filled = self.filled.max(vms);
        numbers.map(|number| self.attach(&format!("vm{number}"))).sum()
    }
}

impl Vm {
    /// What a VM of this name is to the kernel; `number` gives it its address.
    fn new(name: &str, number: u32) -> Vm {
        let network = network();
        let ip = Ipv4Addr::from_bits(ipv4().prefix.network().to_bits() + 1 + number);
        let vm = VmName::new(name).expect("a name");
        let tap = TapName::choose(NicName { vm: &vm, index: 0 }, |_| false);
        Vm {
            name: name.into(),
            alias: format!("volnet:{name}"),
            elements: ruleset::elements(&GuestPort {
                tap: &tap,
                mac: Mac::of_guest(&network.name, name),
                ip: Some(ip),
                addresses: &[],
                asks_others: false,
                antispoof: true,
                ip6: None,
                claimed: &[],
                isolated: false,
                limits: Limits::default(),
                inner: None,
            }),
            tap: tap.to_string(),
        }
    }
}

/// The network that volnet has by default, but large enough.
pub(crate) fn network() -> NetworkConfig {
    let environment = BTreeMap::from([("VOLNET_SUBNET".to_owned(), SUBNET.to_owned())]);
    let settings = config::resolve(&Flags::default(), &environment, None, "bench");
    settings.expect("the defaults").networks.remove(0)
}

/// The IPv4 side of that network.
pub(crate) fn ipv4() -> Ipv4Network {
    network().ipv4.expect("the default subnet")
}

/// A temporary file, synced, renamed, and the rename synced.
fn write_file(files: &Path, vm: &str, record: &[u8]) {
    let temporary = files.join(format!(".{vm}.tmp"));
    let mut file = File::create(&temporary).expect("a temporary file");
    file.write_all(record).expect("to write");
    file.sync_all().expect("to sync");
    fs::rename(&temporary, files.join(vm)).expect("to rename");
    sync(files);
}

fn sync(directory: &Path) {
    File::open(directory).and_then(|file| file.sync_all()).expect("to sync a directory");
}
