//! The verbs and their flags: one table.
//!
//! Parsing ([`super::args`]), `volnet help` ([`super::help`]), completion ([`super::completion`])
//! and the lists of the manual come out of it. A new flag is an entry here and its use.

/// A verb of the command line.
pub(super) struct Verb {
    /// How it is called.
    pub(super) name: &'static str,
    /// The words behind it, as usage shows them.
    pub(super) words: &'static str,
    /// What these words name.
    pub(super) complete: Complete,
    /// What it does, in a line without an end; empty: it is not shown.
    pub(super) brief: &'static str,
    /// What it does, in sentences. A line is a paragraph.
    pub(super) text: &'static str,
    /// Its own flags.
    pub(super) flags: &'static [&'static [Flag]],
    /// The settings that it takes as flags.
    pub(super) settings: Settings,
    /// What `--json` does for it; `None`: it does not take that flag.
    pub(super) json: Option<&'static str>,
    /// Commands to try, one on a line.
    pub(super) examples: &'static str,
}

/// A flag.
pub(super) struct Flag {
    /// Its name, without dashes.
    pub(super) name: &'static str,
    /// The name of its value; `None`: it takes none.
    pub(super) value: Option<&'static str>,
    /// What its value names.
    pub(super) complete: Complete,
    /// What it does.
    pub(super) help: &'static str,
    /// The field of the configuration of a VM that it writes.
    pub(super) field: Option<Field>,
}

/// A field of the configuration of a VM.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Its section, by its path; `None`: it is in none.
    pub(super) section: Option<&'static str>,
    /// Its name there.
    pub(super) name: &'static str,
    /// How its value is written.
    pub(super) kind: Kind,
}

/// How the value of a flag is written into a configuration.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// A list of texts, with commas between them.
    Texts,
    Number,
    Yes,
    Path,
    Image,
    Owner,
    Inner,
}

/// What completion can offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Complete {
    Nothing,
    Files,
    Vms,
    Verbs,
    Words(&'static [&'static str]),
}

/// Which settings a verb takes as flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Settings {
    /// None.
    None,
    /// Those by which a client finds the daemon and its files.
    Client,
    /// All that have a flag.
    All,
}

/// The flags of `trace`.
const TRACE: [Flag; 3] = [
    valued(
        "from",
        "VM|ADDRESS|world",
        Complete::Vms,
        "tell of the packets that come to this VM: from another VM, from there, or from anybody",
    ),
    valued("to", "HOST[:PORT]", Complete::Nothing, "tell only of packets for there"),
    valued("seconds", "N", Complete::Nothing, "for how long, at most 600 (default: 10)"),
];

/// The section of a configuration with the limits.
pub(super) const LIMITS: &str = "network.limits";

/// By what `top` sorts; each has another first letter, which is its key.
pub(super) const SORTS: &[&str] =
    &["name", "received", "sent", "packets", "denied", "limited", "cpu", "memory"];

/// A place in [`SORTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort(pub(super) usize);

impl Sort {
    /// By its word.
    pub(super) fn of(word: &str) -> Option<Sort> {
        SORTS.iter().position(|sort| *sort == word).map(Sort)
    }
}

const NETWORK: Option<&str> = Some("network");
const YES_NO: Complete = Complete::Words(&["yes", "no"]);
const HYPERVISORS: Complete = Complete::Words(&["cloud-hypervisor", "qemu", "firecracker"]);
const JSON: Option<&str> = Some("print JSON");
const JSON_LINES: Option<&str> = Some("print JSON, one line per VM");

/// The flags that are settings; the keys of [`crate::config`] say which variables they have.
pub(super) const SETTINGS: [Flag; 12] = [
    valued("socket", "PATH", Complete::Files, "the daemon's socket (default: RUNTIME/volnet.sock)"),
    valued("config-file", "PATH", Complete::Files, "settings (default: /etc/volnet/config.json)"),
    valued(
        "runtime-dir",
        "PATH",
        Complete::Files,
        "files that end with a reboot (default: /run/volnet)",
    ),
    valued("log-dir", "PATH", Complete::Files, "logs of VMs (default: /var/log/volnet)"),
    valued("state-dir", "PATH", Complete::Files, "records of VMs (default: /var/lib/volnet)"),
    valued("bridge", "NAME", Complete::Nothing, "the first network's bridge (default: vbr0)"),
    valued("subnet", "PREFIX", Complete::Nothing, "its prefix (default: 192.168.127.0/24)"),
    valued(
        "host-ip",
        "ADDRESS",
        Complete::Nothing,
        "the host's address in it (default: the first one)",
    ),
    valued(
        "nft-owner",
        "yes|no",
        YES_NO,
        "keep others from changing volnet's nf_tables tables, if the kernel can (default: yes)",
    ),
    valued("kvm", "yes|no", YES_NO, "let hypervisors use KVM if the host has it (default: yes)"),
    valued(
        "backend",
        "linux|noop",
        Complete::Words(&["linux", "noop"]),
        "noop changes nothing (default: linux)",
    ),
    valued(
        "log-format",
        "text|journal",
        Complete::Words(&["text", "journal"]),
        "how the daemon logs; journal has priorities, as sd-daemon(3) says",
    ),
];

const DRY_RUN: [Flag; 1] =
    [switch("dry-run", "change nothing; print each step as a command that does the same")];
const COUNT: [Flag; 1] = [valued(
    "count",
    "N",
    Complete::Nothing,
    "so many VMs at once, NAME-1 to NAME-N; {name} in the path of a disk is the name of each",
)];
const TIMEOUT: [Flag; 1] = [valued(
    "timeout",
    "SECONDS",
    Complete::Nothing,
    "how long a guest has to power off before SIGKILL (default: 30)",
)];
const ALL: [Flag; 1] = [switch("all", "all VMs that run")];
const NIC: [Flag; 1] =
    [valued("nic", "N", Complete::Nothing, "the NIC that is meant, counted from 0")];
const HYPERVISOR: [Flag; 1] = [valued(
    "hypervisor",
    "NAME",
    HYPERVISORS,
    "its name: cloud-hypervisor, qemu, firecracker or a template",
)];
const KERNEL_ARGS: [Flag; 1] =
    [switch("kernel-args", "print what belongs to the guest's kernel command line")];
const PREPARATION: [Flag; 6] = [
    switch("verbose", "print the steps that were done, too"),
    switch("force", "also in the cases that the text names"),
    switch("service", "also the files of the service"),
    switch("resolved", "also the unit that tells systemd-resolved of the names of VMs"),
    switch("cni", "also the plugin and a configuration for engines of containers"),
    valued(
        "root",
        "PATH",
        Complete::Files,
        "the directory that has etc/ and opt/ for these files (default: /)",
    ),
];
const TAKE: [Flag; 1] = [switch("force", "even if a program of the host listens on the port")];
const MORE: [Flag; 1] = [switch("more", "accept more than one reply")];
const LOGS: [Flag; 2] = [
    switch("messages", "what the hypervisor itself says instead"),
    switch("follow", "also show new lines as they are added (-f)"),
];

const VSOCK: [Flag; 1] = [valued(
    "wait",
    "SECONDS",
    Complete::Nothing,
    "how long the guest may be silent after the end of the input (default: 5)",
)];

const WATCH: [Flag; 1] = [switch("watch", "show them again whenever something happens")];
const TOP: [Flag; 3] = [
    switch("once", "print the table once, after one interval, and end"),
    valued("sort", "WORD", Complete::Words(SORTS), "the column to sort by (default: received)"),
    valued("interval", "SECONDS", Complete::Nothing, "the time between two looks (default: 1)"),
];

/// How much a VM may receive and send.
const RATES: [Flag; 4] = [
    number(
        "rx",
        "MBIT",
        LIMITS,
        "rx_mbit",
        "the most it receives, in Mbit/s (default: the network's)",
    ),
    number("tx", "MBIT", LIMITS, "tx_mbit", "the most it sends, in Mbit/s; more is dropped"),
    number("burst", "KIB", LIMITS, "burst_kb", "the burst beyond these rates, 64 to 32768"),
    number("pps", "N", LIMITS, "pps", "the most packets a second it sends"),
];

/// What a VM that is made is like.
const CREATION: [Flag; 3] = [
    text(
        "mode",
        "MODE",
        Complete::Words(&["bridged", "dhcp", "vsock"]),
        NETWORK,
        "mode",
        "bridged: the host gives the address (default); dhcp: the guest asks for its address; \
         vsock: no network, only a vsock context id",
    ),
    valued("manifest", "FILE", Complete::Files, "a plugin manifest"),
    valued(
        "config",
        "FILE",
        Complete::Files,
        "settings of this VM, which win over the manifest; flags win over both",
    ),
];

/// Its networks.
const NETWORKS: [Flag; 1] = [text(
    "network",
    "NAME",
    Complete::Nothing,
    NETWORK,
    "name",
    "the network (default: the first one); given again, the VM gets another NIC, and the flags \
     that follow are about that one",
)];

/// The network of what has one only.
const ONE_NETWORK: [Flag; 1] = [text(
    "network",
    "NAME",
    Complete::Nothing,
    NETWORK,
    "name",
    "the network (default: the first one)",
)];

/// Its place on a network.
const PLACE: [Flag; 8] = [
    text("ip", "ADDRESS", Complete::Nothing, NETWORK, "ip", "the address to lease"),
    text("ip6", "ADDRESS", Complete::Nothing, NETWORK, "ip6", "the IPv6 address"),
    Flag {
        field: Some(Field { section: NETWORK, name: "addresses", kind: Kind::Texts }),
        ..valued(
            "addresses",
            "ADDRESS[,ADDRESS]",
            Complete::Nothing,
            "addresses that it may use besides its own, and that other VMs may name, too",
        )
    },
    text("mac", "ADDRESS", Complete::Nothing, NETWORK, "mac", "the guest's Ethernet address"),
    number("mtu", "BYTES", "network", "mtu", "its MTU (default: the network's)"),
    yes("isolated", NETWORK, "isolated", "keep it from other isolated VMs"),
    text(
        "policy",
        "NAME",
        Complete::Words(&["open", "internet", "none"]),
        NETWORK,
        "policy",
        "what it may send beyond its network: open, internet, none or a policy of the settings \
         (default: the network's)",
    ),
    valued(
        "expose",
        "[PROTOCOL:][[HOST_IP:]HOST_PORT:]PORT",
        Complete::Nothing,
        "let a port of the host lead to the VM; may be given several times",
    ),
];

/// What its guest believes of its addresses.
const INNER: [Flag; 1] = [Flag {
    field: Some(Field { section: NETWORK, name: "inner", kind: Kind::Inner }),
    ..valued(
        "inner",
        "MAC,IP[/LENGTH][,gateway=IP][,gateway_mac=MAC]",
        Complete::Nothing,
        "what its guest takes for its own Ethernet address, address and gateway, if it woke from \
         a snapshot that others woke from, too (default: the network's)",
    )
}];

/// Who opens its tap.
const OWNER: Flag = Flag {
    field: Some(Field { section: None, name: "owner", kind: Kind::Owner }),
    ..valued(
        "owner",
        "UID[:GID]",
        Complete::Nothing,
        "who starts its hypervisor, if volnet does not: its tap and sockets are this user's \
         (default: root's)",
    )
};

/// Its machine.
const MACHINE: [Flag; 28] = [
    Flag {
        field: Some(Field { section: None, name: "from", kind: Kind::Path }),
        ..valued(
            "from",
            "DIRECTORY",
            Complete::Files,
            "the snapshot that its guest wakes from when it is first started; later it boots",
        )
    },
    number("queues", "N", "network", "queues", "queue pairs of its interface (default: 1)"),
    yes("vsock", None, "vsock", "give it vsock beside its networks"),
    yes("rng", None, "rng", "give it random numbers from the host"),
    yes("ephemeral", None, "ephemeral", "forget the VM when the host reboots"),
    yes("autostart", None, "autostart", "start it when the daemon starts"),
    text(
        "restart",
        "POLICY",
        Complete::Words(&["no", "on-failure", "always"]),
        None,
        "restart",
        "what to do if its hypervisor ends by itself: no (default), on-failure or always",
    ),
    OWNER,
    text(
        "run-as",
        "USER",
        Complete::Words(&["shared", "own"]),
        None,
        "run_as",
        "the user of its hypervisor: shared by all, its own, or one of the host (for root)",
    ),
    text(
        "hypervisor",
        "NAME",
        HYPERVISORS,
        None,
        "hypervisor",
        "cloud-hypervisor, qemu, firecracker or a template",
    ),
    valued(
        "arg",
        "TEXT",
        Complete::Nothing,
        "an argument for its hypervisor after volnet's own; may be given several times; for root",
    ),
    file("kernel", "kernel_override", Kind::Path, "the kernel"),
    text(
        "cmdline",
        "TEXT",
        Complete::Nothing,
        None,
        "kernel_cmdline",
        "the kernel command line; volnet adds the network's part",
    ),
    file("initramfs", "initramfs", Kind::Image, "the initial RAM file system"),
    file(
        "rootfs",
        "rootfs",
        Kind::Image,
        "the root file system: raw, or qcow2 if it ends so; FILE,format=FORMAT says which",
    ),
    valued(
        "disk",
        "FILE[,readonly][,format=FORMAT][,cache=CACHE][,mb=N][,iops=N]",
        Complete::Files,
        "one more disk; may be given several times. CACHE is writeback, none or unsafe; mb and \
         iops are the most that is read and written a second",
    ),
    valued(
        "share",
        "TAG=DIRECTORY[,readonly]",
        Complete::Files,
        "a directory of the host that the guest mounts by its tag; may be given several times",
    ),
    Flag {
        field: Some(Field {
            section: Some("cloud_init.user_data"),
            name: "path",
            kind: Kind::Path,
        }),
        ..valued(
            "cloud-init",
            "FILE",
            Complete::Files,
            "a disk for cloud-init, with this user-data and the network of the VM",
        )
    },
    number("cpus", "N", "resources", "cpu_cores", "virtual CPUs (default: 1)"),
    number("memory", "MIB", "resources", "memory_mb", "memory (default: 512)"),
    yes("hugepages", Some("resources"), "hugepages", "take its memory from the host's huge pages"),
    yes("balloon", Some("resources"), "balloon", "let memory that it frees go back to the host"),
    number("cpu-percent", "N", "resources", "cpu_percent", "its processor time, 100 is one CPU"),
    number("memory-max", "MIB", "resources", "memory_max_mb", "its memory with the hypervisor's"),
    number("read-mb", "N", "resources.io", "read_mb", "MB that it reads a second"),
    number("write-mb", "N", "resources.io", "write_mb", "MB that it writes a second"),
    number("read-iops", "N", "resources.io", "read_iops", "its reads a second"),
    number("write-iops", "N", "resources.io", "write_iops", "its writes a second"),
];

/// What a VM in the namespace opens.
const TAP: [Flag; 2] = [
    valued(
        "tap",
        "NAME",
        Complete::Nothing,
        "make a tap of this name in the namespace, for a VM there",
    ),
    OWNER,
];
/// The namespace that is attached or detached.
const NAMESPACE: [Flag; 2] = [
    valued("netns", "PATH", Complete::Files, "the network namespace, such as /run/netns/NAME"),
    valued("ifname", "NAME", Complete::Nothing, "the name of its link (default: eth0)"),
];

/// Every verb, in the order in which `volnet help` shows them.
pub(super) const VERBS: [Verb; 36] = [
    Verb {
        flags: &[&DRY_RUN, &PREPARATION],
        settings: Settings::All,
        text: "Prepare the host: bridge, its address, IPv4 forwarding, rules. The daemon does \
               the same when it starts. A second setup changes nothing. A running daemon uses \
               its own settings.\n\
               With --service, setup also installs the systemd unit, with the settings that are \
               given here, and files that keep systemd-networkd and NetworkManager off volnet's \
               links. With --resolved it installs a unit that has systemd-resolved ask volnet \
               for the names of VMs. With --cni it installs a link to volnet where engines of \
               containers look for plugins, and a first configuration for them.\n\
               With --force, setup goes on if a subnet overlaps with another network of the \
               host. It removes taps that belong to no VM although a process holds them open. It \
               takes a state directory without the records of the host's VMs for the right one. \
               And it replaces files that have other contents.",
        ..verb("setup", "", "prepare the host: bridge, address, forwarding, NAT")
    },
    Verb {
        flags: &[&DRY_RUN, &PREPARATION],
        settings: Settings::All,
        text: "Remove everything that volnet made on this host. It is refused while VMs exist. \
               A running daemon uses its own settings.\n\
               With --service, teardown also removes the files that setup --service and setup \
               --resolved installed. With --resolved or --cni it removes the files of these \
               flags.\n\
               With --force, teardown stops and deletes all VMs first. It removes taps that \
               belong to no VM although a process holds them open. And it removes files that were \
               changed.",
        ..verb("teardown", "", "remove all of that")
    },
    Verb {
        text: "Show the networks: addresses leased and free, bridge ports used.",
        ..verb("networks", "", "show the networks and what is free in them")
    },
    Verb {
        text: "Check the host, and say what keeps VMs from working and how to mend it. Exit \
               status 1 if something does. Root can check without the daemon.",
        ..verb("check", "", "find what keeps VMs from working, and how to mend it")
    },
    Verb {
        complete: Complete::Vms,
        text: "Look a VM over, hop by hop, and say of each that it is well, or what is wrong and \
               how to mend it: its process, its tap, its guest, which is asked for its addresses, \
               the gateway, DHCP and names, policy and firewalls, the way to the world, and what \
               the host has room for. Without a name, look the host over, as check does and \
               further. Exit status 1 unless all is well.",
        examples: "volnet doctor web",
        ..verb("doctor", "[NAME]", "say why a VM reaches nothing, and how to mend it")
    },
    Verb {
        complete: Complete::Vms,
        flags: &[&TRACE],
        text: "Tell of the packets that a VM's guest sends from now on, and of what the rules of \
               this host do with them, also those of other programs: what let them pass, what was \
               translated, and the last word: answered, dropped and by which rule, or left and \
               not answered. With --from, tell of those that come to the VM, for its addresses or \
               by its exposed ports. The way of the answers is told, too. Each is told when that \
               is known, and again if it changes. With --to, or --from a VM or an address, end as \
               soon as it is known of one packet.",
        examples: "volnet trace web --to 192.0.2.7:443\nvolnet trace web --from db\n\
                   volnet trace web --from world",
        ..verb("trace", "NAME", "say what becomes of the packets of its guest")
    },
    Verb {
        settings: Settings::All,
        json: None,
        text: "Run the daemon. It brings the host and the network of every VM to the desired \
               state, and answers on the socket until SIGTERM. VMs run on without it, and the \
               next daemon adopts them. VOLNET_LOG sets how much is logged: error, warn, info \
               (default), debug, trace. At debug, each request has a number, which all lines about \
               it have as id=NUMBER, down to the changes of the kernel.",
        ..verb("serve", "", "run the daemon")
    },
    Verb {
        flags: &[&CREATION, &NETWORKS, &PLACE, &INNER, &MACHINE, &RATES, &DRY_RUN, &COUNT],
        text: MAKES,
        examples: "volnet run web --hypervisor qemu --kernel vmlinux --initramfs initramfs",
        ..verb("run", "NAME", "make a VM's network and start its hypervisor")
    },
    Verb {
        flags: &[&CREATION, &NETWORKS, &PLACE, &INNER, &MACHINE, &RATES, &DRY_RUN],
        text: MAKES,
        ..verb("create", "NAME", "make its network only")
    },
    Verb {
        json: JSON_LINES,
        text: "Start the hypervisors of VMs.",
        ..of_vms("start", "NAME...", "start its hypervisor")
    },
    Verb {
        flags: &[&TIMEOUT, &ALL],
        json: JSON_LINES,
        text: "Ask the guests to power off; then SIGTERM, then SIGKILL. Wait for their end.",
        ..of_vms("stop", "NAME...|--all", "stop its hypervisor")
    },
    Verb {
        flags: &[&TIMEOUT],
        json: JSON_LINES,
        text: "Stop VMs and start them again.",
        ..of_vms("restart", "NAME...", "stop it and start it again")
    },
    Verb {
        json: JSON_LINES,
        text: "Let guests stand still: their processors stop, and their memory and connections \
               stay. A paused guest cannot power off: stop, restart and delete let it go on first.",
        ..of_vms("pause", "NAME...", "let its guest stand still")
    },
    Verb {
        json: JSON_LINES,
        text: "Let paused guests go on.",
        ..of_vms("resume", "NAME...", "let its guest go on")
    },
    Verb {
        text: "Save a VM's guest into a folder that is made for it: its memory, and the disks that \
               it writes to. The guest stands still meanwhile, and then goes on. The user of the \
               hypervisors makes the folder, so this user needs the right to write to the \
               directory that the folder will be in. Guests wake from it by run --from.",
        examples: "install -d -o volnet-vm /var/lib/snapshots\n\
                   volnet snapshot web /var/lib/snapshots/web\n\
                   volnet run web2 --from /var/lib/snapshots/web",
        ..of_vms("snapshot", "NAME DIRECTORY", "save its guest, for others to wake from")
    },
    Verb {
        flags: &[&TIMEOUT],
        json: JSON_LINES,
        text: "Stop VMs and release what they have: address and tap after the process ended.",
        ..of_vms("delete", "NAME...", "stop it and release everything it has")
    },
    Verb {
        flags: &[&NAMESPACE, &TAP, &ONE_NETWORK, &PLACE, &RATES, &TAKE],
        text: "Give a network namespace, such as that of a container, a place on a network, by a \
               pair of links. The end in the namespace gets the address and the default route. It \
               is a VM like any other, NAME.eth0, until it is detached or the namespace ends, and \
               the same rules hold it. With --tap the namespace gets a tap besides, by which a \
               hypervisor there has the network, and the guest has the address. Only root may do \
               so.",
        examples: "ip netns add box\nvolnet attach box --netns /run/netns/box --expose 8080:80",
        ..verb("attach", "NAME", "give a network namespace a place on a network")
    },
    Verb {
        flags: &[&NAMESPACE],
        text: "Take the place of a network namespace away. If there is none, that is no error. \
               With --netns its link is renamed at once, so the next one can have its name.",
        ..verb("detach", "NAME", "take the place of a network namespace away")
    },
    Verb {
        flags: &[&NIC, &TAKE],
        text: "Let HOST_PORT of the host (PORT if it is not given) lead to PORT of the VM. It is \
               reached from outside, from other VMs, and from the host itself by any of its \
               addresses except loopback. It leads to the first NIC of the VM, or to NIC N. \
               PORT is [PROTOCOL:][[HOST_IP:]HOST_PORT:]PORT, with tcp, udp or sctp. An IPv6 \
               address stands in brackets; 0.0.0.0 and [::] are one family. A port may \
               be a range; HOST_PORT 0 is any free port. A port on which a program of the host \
               listens is refused, unless --force.",
        examples: "volnet expose web tcp:8080:80\nvolnet expose dns udp:203.0.113.1:53:53\n\
                   volnet expose web [::]:8080:80\nvolnet expose sip udp:30000-30199",
        ..of_vms("expose", "NAME PORT", "let a port of the host lead to a VM")
    },
    Verb {
        text: "Take an exposed port back. Its connections end.",
        examples: "volnet unexpose web tcp:8080:80",
        ..of_vms("unexpose", "NAME PORT", "take an exposed port back")
    },
    Verb {
        flags: &[&NIC],
        text: "Set what a VM may send beyond its network: open, internet (nothing private, shared \
               or link-local), none, or a policy of the settings. It applies to all NICs of the \
               VM, or to NIC N, counted from 0.",
        ..of_vms("policy", "NAME POLICY", "set what a VM may send beyond its network")
    },
    Verb {
        flags: &[&RATES, &NIC],
        text: "Set how much a VM may receive and send, by each NIC or by NIC N. A limit that is \
               not given stays as it is; 0 removes it.",
        examples: "volnet limit web --rx 100 --tx 50",
        ..of_vms("limit", "NAME", "set how much a VM may receive and send")
    },
    Verb {
        text: "Show one VM: its settings, its network and its status.",
        ..of_vms("get", "NAME", "show one VM")
    },
    Verb {
        flags: &[&WATCH],
        text: "Show all VMs. With --watch again whenever something happens; q ends it.",
        ..verb("list", "", "show all VMs")
    },
    Verb {
        flags: &[&TOP],
        json: None,
        text: "Show what VMs receive and send a second, which packets were denied or more than \
               they may receive or send, and the processor time and memory of their \
               hypervisors. The first letter of a column's word sorts by it: name, received, \
               sent, packets, denied, limited, cpu, memory. q ends it.",
        examples: "volnet top --once --sort sent",
        ..verb("top", "", "show what VMs receive, send and use, live")
    },
    Verb {
        flags: &[&HYPERVISOR, &KERNEL_ARGS],
        text: "Print the network arguments of this VM for a hypervisor that you start yourself, \
               one per line. For firecracker: the network part of its configuration. With \
               --kernel-args print instead what belongs to the guest's kernel command line.",
        ..of_vms("args", "NAME", "print a VM's network as arguments for a hypervisor")
    },
    Verb {
        json: None,
        text: "Run a program of yours with the VM's tap open. Every {fd} in its arguments is \
               replaced by the number of the descriptor; {fds} is all of them with commas, {fd0}, \
               {fd1} ... are those of a tap with several queues. {mac} is the guest's Ethernet \
               address, {kernel_args} what belongs to its kernel command line. The program needs \
               no rights on the tap.",
        examples: "volnet exec web -- qemu-system-x86_64 -netdev tap,id=net0,fd={fd} ...",
        ..of_vms("exec", "NAME -- COMMAND [ARGUMENT]...", "run a program with a VM's tap open")
    },
    Verb {
        json: None,
        text: "Connect the terminal to the VM's serial console. Ctrl-] detaches.",
        ..of_vms("console", "NAME", "connect the terminal to a VM's serial console")
    },
    Verb {
        flags: &[&VSOCK],
        json: None,
        text: "Connect standard input and output to a vsock port of the VM's guest, until the \
               guest ends the connection. Most hypervisors cannot pass on the end of the input \
               alone: they would end the connection, and an answer would be lost. So it ends when \
               the guest has been silent for a while.",
        examples: "echo uptime | volnet vsock web 1024",
        ..of_vms("vsock", "NAME PORT", "connect to a vsock port of a VM's guest")
    },
    Verb {
        flags: &[&LOGS],
        json: None,
        text: "Show the log of the VM's serial console, or with --messages that of its hypervisor.",
        ..of_vms("logs", "NAME", "show the log of a VM's console or of its hypervisor")
    },
    Verb {
        text: "Show the VMs, then every event as it happens.",
        ..verb("monitor", "", "follow the events")
    },
    Verb {
        text: "Print the counters of VMs and of the daemon as OpenMetrics text. The setting \
               metrics lets scrapers read the same by HTTP.",
        ..verb("metrics", "", "print the counters of VMs and of the daemon")
    },
    Verb {
        flags: &[&MORE],
        text: "Call a method of the daemon's interface with these parameters, and print the \
               parameters of the reply. A method without a dot is one of io.volnet.",
        examples: "volnet call List\nvolnet call Get '{\"name\":\"web\"}'\n\
                   volnet call org.varlink.service.GetInfo",
        ..verb("call", "METHOD [JSON]", "call a method of the daemon's interface")
    },
    Verb {
        text: "Show the version of the daemon, of the kernel, and the backend. Without a daemon: \
               the version of this program.",
        ..verb("version", "", "show the versions of volnet and of the kernel")
    },
    Verb {
        settings: Settings::None,
        json: None,
        complete: Complete::Words(&["bash", "zsh", "fish"]),
        text: "Print what lets a shell complete volnet's verbs and flags.",
        examples: "volnet completion bash >/etc/bash_completion.d/volnet",
        ..verb("completion", "bash|zsh|fish", "print the completion of a shell")
    },
    Verb {
        settings: Settings::None,
        json: None,
        complete: Complete::Verbs,
        text: "Explain a verb, or list all verbs.",
        ..verb("help", "[VERB]", "explain a verb: volnet help run")
    },
];

const MAKES: &str = "Make a VM's network: tap, address and rules, as its mode needs; run also \
    starts its hypervisor. If the same VM exists already, show it. Flags win over the \
    configuration. Relative paths in a document begin in the folder of the document.";

/// The verb of that name.
pub(super) fn of(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

impl Verb {
    /// Its flags, without those that are settings.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().flat_map(|flags| flags.iter())
    }
}

const fn verb(name: &'static str, words: &'static str, brief: &'static str) -> Verb {
    Verb {
        name,
        words,
        complete: Complete::Nothing,
        brief,
        text: "",
        flags: &[],
        settings: Settings::Client,
        json: JSON,
        examples: "",
    }
}

const fn of_vms(name: &'static str, words: &'static str, brief: &'static str) -> Verb {
    Verb { complete: Complete::Vms, ..verb(name, words, brief) }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, value: None, complete: Complete::Nothing, help, field: None }
}

const fn valued(
    name: &'static str,
    value: &'static str,
    complete: Complete,
    help: &'static str,
) -> Flag {
    Flag { name, value: Some(value), complete, help, field: None }
}

/// A flag that writes a field as it is given.
const fn text(
    name: &'static str,
    value: &'static str,
    complete: Complete,
    section: Option<&'static str>,
    field: &'static str,
    help: &'static str,
) -> Flag {
    let field = Field { section, name: field, kind: Kind::Text };
    Flag { field: Some(field), ..valued(name, value, complete, help) }
}

/// A flag that writes a number into a section.
const fn number(
    name: &'static str,
    value: &'static str,
    section: &'static str,
    field: &'static str,
    help: &'static str,
) -> Flag {
    let field = Field { section: Some(section), name: field, kind: Kind::Number };
    Flag { field: Some(field), ..valued(name, value, Complete::Nothing, help) }
}

/// A flag that writes `true`.
const fn yes(
    name: &'static str,
    section: Option<&'static str>,
    field: &'static str,
    help: &'static str,
) -> Flag {
    Flag { field: Some(Field { section, name: field, kind: Kind::Yes }), ..switch(name, help) }
}

/// A flag that names a file.
const fn file(name: &'static str, field: &'static str, kind: Kind, help: &'static str) -> Flag {
    let field = Field { section: None, name: field, kind };
    Flag { field: Some(field), ..valued(name, "FILE", Complete::Files, help) }
}
