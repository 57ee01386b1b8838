//! A machine with an engine: the daemon, the plugin where engines look for it, and a room for the
//! engine's processes.
//!
//! The room is a namespace of processes and mounts in the test's network namespace. It ends with
//! the test, however the test ends, and whatever an engine has left running ends with it. The
//! folders of the machine that engines use are empty in it and go with it. What stays of engines
//! that were killed is empty control groups.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::Daemon;
use crate::common::space::Space;
use crate::common::{PATIENCE, eventually, run};

/// The image of all containers: busybox alone.
pub(crate) const IMAGE: &str = "volnet.test/box:1";
/// The address of the host that the world sees.
pub(crate) const HOST: &str = "203.0.113.1";
/// The plugin and its configuration, where engines look for them.
const PLUGIN: &str = "/opt/cni/bin/volnet";
const CONFIGURATION: &str = "/etc/cni/net.d/10-volnet.conflist";
/// What a container does that is told nothing: it waits until it is killed.
const WAIT: [&str; 3] = ["busybox", "sleep", "1000000"];
/// What has it answer on port 80.
pub(crate) const SERVE: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/srv"];
/// What it answers.
const SERVED: &str = "served";
/// Folders of engines, each with nothing in it.
const FOLDERS: [&str; 4] = ["/run", "/opt", "/etc/cni", "/var/lib"];
/// The file with the time after which a plugin is killed, in seconds.
const LIFE: &str = "/run/life";
/// Where the kernel's control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The room of an engine. It ends when this is dropped, or if the test is killed.
struct Quarters {
    child: Child,
    /// Its first process.
    first: String,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) daemon: Daemon,
    pub(crate) world: Space,
    quarters: Option<Quarters>,
}

impl Machine {
    /// A machine in the test's namespace, with an uplink.
    pub(crate) fn new() -> Machine {
        run("ip link set lo up");
        // Those of the machine are below the test's own /sys.
        let cgroups = fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
        mount_cgroups(&cgroups);
        FOLDERS.iter().for_each(|folder| drop(run(&format!("mount -t tmpfs none {folder}"))));
        for folder in ["/run/lock", "/run/netns"] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let world = Space::world();
        let daemon = Daemon::start(&[]);
        world.run("ip route add default via 203.0.113.1");
        let installed = daemon.volnet(&["setup", "--cni"]);
        assert!(installed.status.success(), "{installed:?}");
        let mut machine = Machine { daemon, world, quarters: None };
        machine.make_image();
        machine.boot();
        machine
    }

    /// Takes the configuration away from engines.
    pub(crate) fn take_configuration(&self) -> Value {
        let text = fs::read(CONFIGURATION).expect("it is there");
        fs::remove_file(CONFIGURATION).expect("it is there");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Makes a new room for the engine.
    pub(crate) fn boot(&mut self) {
        let script = "echo; read -r _";
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let first = fs::read_to_string(children).expect("it has one").trim().to_string();
        self.quarters = Some(Quarters { child, first });
    }

    /// Ends all at once and starts the daemon again, as after a reboot: /run is empty, the kernel
    /// knows of no link and no rule, and what engines keep on the disk is there.
    pub(crate) fn reboot(&mut self) {
        self.quarters = None;
        self.daemon.crash();
        fs::remove_dir_all(self.daemon.folder.join("run")).expect("it is there");
        run("mount -t tmpfs none /run");
        run("ip link delete vbr0");
        run("nft flush ruleset");
        eventually("no link is left", || !run("ip -o link show").contains("vttap-"));
        self.daemon.start_again();
        self.boot();
    }

    /// Has each plugin killed after some time.
    pub(crate) fn kill_plugins(&self) {
        let program = self.daemon.program.display();
        let script = format!("#!/bin/sh\nexec timeout -s KILL $(cat {LIFE}) {program}\n");
        fs::remove_file(PLUGIN).expect("it is there");
        fs::write(PLUGIN, script).expect("a script");
        fs::set_permissions(PLUGIN, Permissions::from_mode(0o755)).expect("a mode");
    }

    /// After which time.
    pub(crate) fn plugins_live(&self, time: Duration) {
        fs::write(LIFE, format!("{:.4}", time.as_secs_f64().max(0.0005))).expect("a file");
    }

    /// STATUS succeeds: something can be added.
    pub(crate) fn expect_ready(&self) {
        let conf = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "volnet", "socket": self.daemon.socket()
        });
        let file = self.daemon.folder.join("status.json");
        fs::write(&file, conf.to_string()).expect("a file");
        let output = self
            .command(PLUGIN)
            .env("CNI_COMMAND", "STATUS")
            .stdin(fs::File::open(file).expect("it is there"))
            .output()
            .expect("nsenter runs");
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }

    /// A command in the room.
    pub(crate) fn command(&self, program: &str) -> Command {
        let quarters = self.quarters.as_ref().expect("it is there");
        let mut command = Command::new("nsenter");
        command.args(["-t", &quarters.first, "--pid", "--mount", program]);
        command
    }

    /// Runs a command line of words without spaces in the room, and says whether it succeeded, and
    /// what it printed.
    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let mut words = line.split_ascii_whitespace();
        let output = self.command(words.next().expect("a program")).args(words).output();
        let output = output.expect("nsenter runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
    }

    /// Runs one that must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let (done, printed) = self.try_run(line);
        assert!(done, "{line}: {printed}");
        printed
    }

    /// The image, as a file that engines read.
    pub(crate) fn image(&self) -> PathBuf {
        self.daemon.folder.join("image.tar")
    }

    /// Makes the image, in the form of `docker save`.
    fn make_image(&self) {
        let folder = self.daemon.folder.join("image");
        fs::create_dir_all(folder.join("root/bin")).expect("a folder");
        fs::create_dir_all(folder.join("root/srv")).expect("a folder");
        fs::write(folder.join("root/srv/index.html"), SERVED).expect("a file");
        let shown = folder.display();
        let busybox = run("which busybox");
        run(&format!("cp -L {} {shown}/root/bin/busybox", busybox.trim()));
        run(&format!("tar -cf {shown}/layer.tar -C {shown}/root ."));
        let sum = run(&format!("sha256sum {shown}/layer.tar"));
        let layer = sum.split(' ').next().expect("a sum");
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Cmd": WAIT, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] }
        });
        let manifest = json!([
            { "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }
        ]);
        fs::write(folder.join("config.json"), config.to_string()).expect("a file");
        fs::write(folder.join("manifest.json"), manifest.to_string()).expect("a file");
        let parts = "manifest.json config.json layer.tar";
        run(&format!("tar -cf {} -C {shown} {parts}", self.image().display()));
    }

    /// Whether a caller out there is served at this port of the host.
    pub(crate) fn is_served(&self, port: u16) -> bool {
        let address = SocketAddr::new(HOST.parse().expect("an address"), port);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                self.world.enter();
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_| answer.ends_with(SERVED))
            });
            let answer: io::Result<bool> = caller.join().expect("it does not panic");
            answer.unwrap_or(false)
        })
    }

    /// The VMs of the daemon.
    pub(crate) fn vms(&self) -> Vec<Value> {
        let mut list = self.daemon.call("List", json!({}));
        match list["parameters"]["vms"].take() {
            Value::Array(vms) => vms,
            other => panic!("{other}"),
        }
    }

    /// The only VM.
    pub(crate) fn vm(&self) -> Value {
        let mut vms = self.vms();
        assert_eq!(vms.len(), 1, "{vms:?}");
        vms.remove(0)
    }

    /// Waits until nothing is left of any container: VMs, leases, links, rules.
    pub(crate) fn expect_clean(&self) {
        eventually("no VM is left", || self.vms().is_empty());
        let networks = self.daemon.call("Networks", json!({}));
        let network = &networks["parameters"]["networks"][0];
        assert_eq!(network["leased"], 0, "{network}");
        eventually("no link is left", || !run("ip -o link show type veth").contains("vttap-"));
        let rules = run("nft list ruleset");
        let is_kept = |line: &&str| line.contains("vttap-") && !line.contains("expires");
        let left: Vec<&str> = rules.lines().filter(is_kept).collect();
        assert!(left.is_empty(), "{left:?}\n{rules}");
    }
}

impl Drop for Quarters {
    fn drop(&mut self) {
        // Its first process ends with its input, and all others with that.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Mounts the control groups of the machine, which are among these mounts, over the test's /sys.
fn mount_cgroups(mounts: &str) {
    let fields = |line: &'_ str| {
        <[String; 4]>::try_from(line.split(' ').take(4).map(String::from).collect::<Vec<_>>()).ok()
    };
    let of_cgroups = |[_, folder, kind, _]: &[String; 4]| {
        folder.starts_with(CGROUPS) && kind.starts_with("cgroup")
    };
    let mounts: Vec<_> = mounts.lines().filter_map(fields).filter(of_cgroups).collect();
    if mounts.iter().all(|[_, folder, ..]| folder != CGROUPS) {
        run(&format!("mount -t tmpfs none {CGROUPS}"));
    }
    for [_, folder, kind, options] in &mounts {
        let of_all = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "nsdelegate"];
        let own = options.split(',').filter(|option| !of_all.contains(option));
        let mut own: Vec<&str> = own.filter(|option| !option.starts_with("release")).collect();
        if let Some(name) = own.iter().find(|option| option.starts_with("name=")) {
            own = vec!["none", name];
        }
        let own = if own.is_empty() { String::new() } else { format!("-o {}", own.join(",")) };
        fs::create_dir_all(folder).expect("a folder");
        run(&format!("mount -t {kind} {own} none {folder}"));
    }
}
