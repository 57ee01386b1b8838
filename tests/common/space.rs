//! Network namespaces in addition to the test's own: a world behind the host's uplink, and the
//! guest's side of a VM's tap. Instead of a hypervisor, a pump copies frames between tap and
//! namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{read, write};
use serde_json::{Value, json};
use volnet_ffi::tun::{self, NO_PI, TAP, Tun, VNET_HDR};

use super::daemon::Daemon;
use super::{eventually, run, try_run};

/// The address of the world, which has no way back to the guests.
pub(crate) const WORLD_IP: &str = "203.0.113.2";
/// The longest frame with its header, in bytes.
const FRAME_MAX: usize = 65_536;
/// How often a pump looks whether it is over, in milliseconds.
const LOOK_MS: u16 = 20;

/// A network namespace, kept by a process that sleeps in it.
pub(crate) struct Space(Child);

/// A guest's side of its tap. The link there is `eth0`.
pub(crate) struct Guest {
    pub(crate) space: Space,
    over: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Space {
    pub(crate) fn new() -> Space {
        let child = Command::new("unshare")
            .args(["-n", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare starts");
        let space = Space(child);
        let ours = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        eventually("a namespace of its own", || {
            std::fs::read_link(space.file()).is_ok_and(|theirs| theirs != ours)
        });
        space.run("ip link set lo up");
        space
    }

    /// A machine behind an uplink of the host's.
    pub(crate) fn world() -> Space {
        let world = Space::new();
        run(&format!("ip link add uplink type veth peer name eth0 netns {}", world.0.id()));
        run("ip addr add 203.0.113.1/24 dev uplink");
        run("ip link set uplink up");
        world.run(&format!("ip addr add {WORLD_IP}/24 dev eth0"));
        world.run("ip link set eth0 up");
        world
    }

    /// Runs a command line in it, which must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&self.inside(line))
    }

    /// Runs a command line in it, whatever becomes of that, and gives what it printed.
    pub(crate) fn run_any(&self, line: &str) -> String {
        try_run(&self.inside(line)).1
    }

    /// Moves the calling thread into it.
    pub(crate) fn enter(&self) {
        let file = File::open(self.file()).expect("a namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("to enter it");
    }

    /// Whether an address answers from here.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        try_run(&self.inside(&format!("ping -q -c 2 -i 0.2 -W 2 {address}"))).0
    }

    /// A command in it that is yet to be run.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", program]);
        command
    }

    fn inside(&self, line: &str) -> String {
        format!("nsenter -t {} -n {line}", self.0.id())
    }

    fn file(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// Plays the guest of a bridged VM, which is as `Create` answers. If it has an inner identity,
    /// the guest has that. With IPv6 alone, it finds its address and its router by itself.
    pub(crate) fn of(vm: &Value) -> Guest {
        let inner = &vm["inner"];
        let known = |field: &str| if inner.is_null() { &vm[field] } else { &inner[field] };
        let text = |field: &str| {
            let of = if field == "tap" { &vm[field] } else { known(field) };
            of.as_str().unwrap_or_else(|| panic!("{field} of {vm}"))
        };
        let prefix = inner["prefix"].as_u64().unwrap_or(24);
        let (space, over) = (Space::new(), Arc::new(AtomicBool::new(false)));
        let (host, file) = (attach(text("tap")), File::open(space.file()).expect("a namespace"));
        let pump = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("to enter it");
                pump(&host, &attach("eth0"), &over);
            }
        });
        eventually("the guest's link", || try_run(&space.inside("ip link show dev eth0")).0);
        space.run(&format!("ip link set eth0 address {}", text("mac")));
        if vm["ip"].is_null() {
            space.run("ip link set eth0 up");
            let guest = Guest { space, over, pump: Some(pump) };
            eventually("an address and a router", || {
                let addresses = guest.space.run("ip -6 -o addr show dev eth0 scope global");
                let routes = guest.space.run("ip -6 route show default");
                let own = text("ip6");
                addresses.contains(own) && !addresses.contains("tentative") && !routes.is_empty()
            });
            return guest;
        }
        space.run(&format!("ip addr add {}/{prefix} dev eth0", text("ip")));
        space.run("ip link set eth0 up");
        space.run(&format!("ip route add default via {}", text("gateway")));
        let guest = Guest { space, over, pump: Some(pump) };
        // A bridge opens a port some time after its tap has found a reader.
        eventually("the host answers", || guest.reaches(text("gateway")));
        guest
    }

    /// Gives it the IPv6 address of its VM, and this router, whatever it was told before.
    pub(crate) fn with_ipv6(self, vm: &Value, router: &str) -> Guest {
        let ip6 = vm["ip6"].as_str().unwrap_or_else(|| panic!("ip6 of {vm}"));
        self.space.run("sysctl -qw net.ipv6.conf.eth0.accept_ra=0");
        self.space.run(&format!("ip addr replace {ip6}/64 dev eth0 nodad"));
        self.space.run(&format!("ip route replace default via {router}"));
        eventually("its addresses", || {
            let addresses = self.space.run("ip -6 addr show dev eth0");
            addresses.contains("fe80") && !addresses.contains("tentative")
        });
        self
    }

    /// Whether an address answers the guest.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        self.space.reaches(address)
    }
}

/// A host with a way to the world, and a daemon whose guests ask nobody for names.
pub(crate) fn host(network: Value) -> (Space, Daemon) {
    let world = Space::world();
    run("ip link set lo up");
    run("ip route add default via 203.0.113.2");
    let mut settings = json!({ "name": "default", "dns": "off" });
    for (field, value) in network.as_object().expect("fields of a network") {
        settings[field] = value.clone();
    }
    (world, Daemon::configured(&json!({ "networks": [settings] })))
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.pump.take().map(JoinHandle::join);
    }
}

/// Opens a tap, and does not wait for frames.
pub(crate) fn attach(tap: &str) -> Tun {
    Tun::attach(tun::open().expect("tun"), tap, TAP | NO_PI | VNET_HDR).expect("a tap")
}

/// Carries frames between two taps.
fn pump(one: &Tun, other: &Tun, over: &AtomicBool) {
    let mut frame = vec![0; FRAME_MAX];
    while !over.load(Ordering::Relaxed) {
        let mut both = [one, other].map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut both, PollTimeout::from(LOOK_MS));
        for (from, to) in [(one, other), (other, one)] {
            while let Ok(length) = read(from.as_fd(), &mut frame) {
                // What a link that is down does not take is lost, as on a wire.
                let _ = write(to.as_fd(), &frame[..length]);
            }
        }
    }
}
