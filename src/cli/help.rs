//! The text of `volnet help`. Every line fits 80 columns.

/// `volnet help`.
pub(super) const OVERVIEW: &str = "\
volnet gives the microVMs of one host their network and runs their hypervisors.

Usage: volnet [OPTION]... VERB [ARGUMENT]...

The host
  setup        prepare it: bridge, address, forwarding, NAT
  teardown     remove all of that
  networks     show the networks and what is free in them
  check        find what keeps VMs from working, and how to mend it (doctor)
  serve        run the daemon

VMs
  run          make a VM's network and start its hypervisor
  create       make its network only
  start, stop, restart
               start, stop or restart its hypervisor
  delete       stop it and release everything it has
  expose, unexpose
               let a port of the host lead to a VM, take it back
  policy       set what a VM may send beyond its network
  limit        set how much a VM may receive and send
  get, list    show one VM, show all
  args         print a VM's network as arguments for a hypervisor
  exec         run a program of yours with a VM's tap open
  console      connect the terminal to a VM's serial console
  logs         show the log of a VM's hypervisor
  monitor      follow the events

Other verbs
  call         call a method of the daemon's interface and print the reply
  version      show the versions of volnet and of the kernel
  help         explain a verb: volnet help run

Options
  --json                print JSON instead of tables
  --socket PATH         the daemon's socket, /run/volnet/volnet.sock
  --config-file PATH    settings, /etc/volnet/config.json
  --runtime-dir PATH    where the VMs' sockets are, /run/volnet
  --log-dir PATH        where the logs are, /var/log/volnet
  -h, --help            explain the verb

A flag wins over the environment (VOLNET_SOCKET and so on), the environment over
the file. Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 the daemon
cannot be reached.
";

const SERVE: &str = "\
Usage: volnet serve [OPTION]...

Run the daemon. It brings the host and the network of every VM to the desired
state, and answers on the socket until SIGTERM. VMs run on without it.

  --socket PATH         the socket, RUNTIME/volnet.sock
  --config-file PATH    settings, /etc/volnet/config.json
  --state-dir PATH      records of VMs, /var/lib/volnet
  --runtime-dir PATH    what ends when the host reboots, /run/volnet
  --log-dir PATH        logs of hypervisors, /var/log/volnet
  --bridge NAME         the first network's bridge, vbr0
  --subnet PREFIX       its prefix, 192.168.127.0/24
  --host-ip ADDRESS     the host's address in it, the first one
  --nft-owner yes|no    keep others from changing volnet's nf_tables tables, yes
  --kvm yes|no          let hypervisors use KVM if the host has it, yes
  --backend linux|noop  noop changes nothing, linux

VOLNET_LOG sets how much is logged: error, warn, info (default), debug, trace.
";

const SETUP: &str = "\
Usage: volnet setup [OPTION]...

Prepare the host: bridge, its address, IPv4 forwarding, rules. The daemon does
the same when it starts. A second setup changes nothing.

  --dry-run             change nothing; print each step as the ip, nft or sysctl
                        command that would do the same
  --force               also if a subnet overlaps with another network of the
                        host, and also over files with other contents
  --service             also install the systemd unit, volnet.service, with the
                        settings that are given here, and the files that keep
                        systemd-networkd and NetworkManager off volnet's links
  --root PATH           below which etc/ these files go, /
  --json                print JSON

  --bridge NAME         the first network's bridge, vbr0
  --subnet PREFIX       its prefix, 192.168.127.0/24
  --host-ip ADDRESS     the host's address in it, the first one

and the other options of serve. A running daemon uses its own settings.
";

const TEARDOWN: &str = "\
Usage: volnet teardown [OPTION]...

Remove everything that volnet made on this host. Refused while VMs exist.

  --dry-run             change nothing; print each step as a command
  --force               stop and delete the VMs too
  --service             also remove the files that setup --service installs;
                        --force removes them also if they were changed
  --root PATH           below which etc/ these files are, /
  --json                print JSON

and the options of serve. A running daemon uses its own settings.
";

/// The options that create and run share.
macro_rules! creation {
    () => {
        "\
  --mode MODE           bridged: the host gives the address (default)
                        dhcp: the guest asks for its address
                        vsock: no network, only a vsock context id
  --manifest FILE       a plugin manifest
  --config FILE         settings of this VM, which win over the manifest
  --network NAME        the network, the first one; given again, the VM gets
                        another NIC, and the flags that follow are about it
  --ip ADDRESS          the address to lease
  --mac ADDRESS         the guest's Ethernet address
  --mtu BYTES           its MTU, the network's
  --queues N            queue pairs of its interface, 1
  --isolated            keep it from other isolated VMs
  --policy NAME         what it may send beyond its network: open, internet,
                        none or a policy of the settings, the network's
  --rx MBIT, --tx MBIT  the most it receives and sends, the network's
  --burst KIB           the burst beyond these rates, by the rate
  --pps N               the most packets a second it sends, the network's
  --expose [tcp:|udp:][[HOST_IP:]HOST_PORT:]PORT
                        let a port of the host lead to the VM; may be given
                        several times
  --ephemeral           forget the VM when the host reboots
  --autostart           start it when the daemon starts
  --restart POLICY      no (default), on-failure or always
  --dry-run             change nothing; print each step as a command
  --json                print JSON

  --hypervisor NAME     cloud-hypervisor, qemu, firecracker or a template
  --kernel FILE         the kernel
  --initramfs FILE      the initial RAM file system
  --rootfs FILE         the root file system: raw, or qcow2 if it ends so
  --disk FILE[,readonly]
                        one more disk; may be given several times
  --cpus N              virtual CPUs, 1
  --memory MIB          memory, 512
  --cmdline TEXT        kernel command line; the network's part is added

Flags win over the configuration. Paths in flags may be relative; paths in the
documents are absolute.
"
    };
}

const CREATE: &str = concat!(
    "\
Usage: volnet create NAME [OPTION]...

Make a VM's network: tap, address and rules, as its mode needs. If the same VM
exists already, show it.

",
    creation!()
);

const RUN: &str = concat!(
    "\
Usage: volnet run NAME [OPTION]...

Make a VM's network and start its hypervisor.

",
    creation!()
);

const START: &str = "\
Usage: volnet start NAME...

Start the hypervisors of VMs.

  --json                print JSON, one line per VM
";

const STOP: &str = "\
Usage: volnet stop NAME... [--timeout SECONDS]

Ask the guests to power off; then SIGTERM, then SIGKILL. Wait for their end.

  --timeout SECONDS     how long before SIGKILL, 30
  --json                print JSON, one line per VM
";

const RESTART: &str = "\
Usage: volnet restart NAME... [--timeout SECONDS]

Stop VMs and start them again.

  --timeout SECONDS     how long a guest has to power off, 30
  --json                print JSON, one line per VM
";

const DELETE: &str = "\
Usage: volnet delete NAME... [--timeout SECONDS]

Stop VMs and release what they have: address and tap after the process ended.

  --timeout SECONDS     how long a guest has to power off, 30
  --json                print JSON, one line per VM
";

const EXPOSE: &str = "\
Usage: volnet expose NAME [tcp:|udp:][[HOST_IP:]HOST_PORT:]PORT [--nic N]

Let HOST_PORT of the host (PORT if it is not given) lead to PORT of the VM. It
is reached from outside, from other VMs, and from the host itself by any of its
addresses except 127.0.0.1. It leads to the first NIC of the VM, or to NIC N.

  volnet expose web tcp:8080:80
  volnet expose dns udp:203.0.113.1:53:53
";

const UNEXPOSE: &str = "\
Usage: volnet unexpose NAME [tcp:|udp:][[HOST_IP:]HOST_PORT:]PORT [--json]

Take an exposed port back. Its connections end.

  volnet unexpose web tcp:8080:80
";

const POLICY: &str = "\
Usage: volnet policy NAME POLICY [--nic N] [--json]

Set what a VM may send beyond its network: open, internet (nothing private,
shared or link-local), none, or a policy of the settings. It applies to all
NICs of the VM, or to NIC N, counted from 0.
";

const LIMIT: &str = "\
Usage: volnet limit NAME [OPTION]...

Set how much a VM may receive and send. A limit that is not given stays as it
is; 0 removes it.

  --rx MBIT     the most that it receives, in Mbit/s
  --tx MBIT     the most that it sends, in Mbit/s; more is dropped
  --burst KIB   the burst beyond these rates, 64 to 32768
  --pps N       the most packets a second that it sends
  --nic N       for this NIC, counted from 0; without it for each
  --json        print JSON

  volnet limit web --rx 100 --tx 50
";

const GET: &str = "\
Usage: volnet get NAME [--json]

Show one VM: its settings, its network and its status.
";

const LIST: &str = "\
Usage: volnet list [--json]

Show all VMs.
";

const NETWORKS: &str = "\
Usage: volnet networks [--json]

Show the networks: addresses leased and free, bridge ports used and free.
";

const ARGS: &str = "\
Usage: volnet args NAME [--hypervisor NAME] [--json]

Print the network arguments of this VM for a hypervisor that you start
yourself, one per line. For firecracker: the network part of its configuration.

  --hypervisor NAME     cloud-hypervisor, qemu, firecracker or a template
";

const EXEC: &str = "\
Usage: volnet exec NAME -- COMMAND [ARGUMENT]...

Run a program of yours with the VM's tap open. Every {fd} in its arguments is
replaced by the number of the descriptor. The program needs no rights for it.

  volnet exec web -- qemu-system-x86_64 -netdev tap,id=net0,fd={fd} ...
";

const CALL: &str = "\
Usage: volnet call METHOD [JSON] [--more]

Call a method of the daemon's interface with these parameters, and print the
parameters of the reply. A method without a dot is one of io.volnet.

  --more                accept more than one reply

  volnet call List
  volnet call Get '{\"name\":\"web\"}'
  volnet call org.varlink.service.GetInfo
";

const CONSOLE: &str = "\
Usage: volnet console NAME

Connect the terminal to the VM's serial console. Ctrl-] detaches.
";

const LOGS: &str = "\
Usage: volnet logs NAME [-f]

Show the log of the VM's hypervisor.

  -f, --follow          also show new lines as they are added
";

const MONITOR: &str = "\
Usage: volnet monitor [--json]

Show the VMs, then every event as it happens.
";

const CHECK: &str = "\
Usage: volnet check [--json]        (also: volnet doctor)

Check the host, and say what keeps VMs from working and how to mend it. Exit
status 1 if something does.
";

const VERSION: &str = "\
Usage: volnet version [--json]

Show the version of the daemon, of the kernel, and the backend. Without a
daemon: the version of this program.
";

const HELP: &str = "\
Usage: volnet help [VERB]

Explain a verb, or list all verbs.
";

/// Every verb with its help.
const VERBS: [(&str, &str); 26] = [
    ("serve", SERVE),
    ("setup", SETUP),
    ("teardown", TEARDOWN),
    ("create", CREATE),
    ("run", RUN),
    ("start", START),
    ("stop", STOP),
    ("restart", RESTART),
    ("delete", DELETE),
    ("expose", EXPOSE),
    ("unexpose", UNEXPOSE),
    ("policy", POLICY),
    ("limit", LIMIT),
    ("get", GET),
    ("list", LIST),
    ("networks", NETWORKS),
    ("args", ARGS),
    ("exec", EXEC),
    ("call", CALL),
    ("console", CONSOLE),
    ("logs", LOGS),
    ("monitor", MONITOR),
    ("check", CHECK),
    ("doctor", CHECK),
    ("version", VERSION),
    ("help", HELP),
];

/// The help of a verb.
pub(super) fn of(verb: &str) -> Option<&'static str> {
    VERBS.iter().find(|(name, _)| *name == verb).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CLIENT_KEYS, KEYS};

    #[test]
    fn every_line_fits_80_columns() {
        for text in VERBS.iter().map(|(_, text)| *text).chain([OVERVIEW]) {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
        }
    }

    #[test]
    fn every_verb_and_every_setting_is_in_it() {
        for (verb, text) in VERBS {
            assert!(OVERVIEW.contains(verb), "{verb}");
            assert!(text.contains(&format!("volnet {verb}")), "{verb}");
        }
        for flag in KEYS.iter().filter_map(|key| key.flag) {
            assert!(SERVE.contains(&format!("--{flag} ")), "{flag}");
        }
        for flag in CLIENT_KEYS.iter().filter_map(|key| key.flag) {
            assert!(OVERVIEW.contains(&format!("--{flag} ")), "{flag}");
        }
    }
}
