//! Questions about the host and the daemon itself: Version, Check, Args, Verify, Ready.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use super::doubt;
use super::shell::Shell;
use crate::doctor::host;
use crate::engine::attachment::refuse_attachment;
use crate::hypervisor::process::Processes;
use crate::hypervisor::user::KVM;
use crate::model::attachment::AttachmentId;
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::expose::{Expose, HostPort};
use crate::model::name::VmName;
use crate::model::request::Reply;
use crate::model::spec::NetworkSpec;
use crate::model::view::{Finding, Level};
use crate::network::Network;
use crate::network::features::Features;
use crate::plan::drift;
use crate::plan::reconcile::{Link, reconcile};
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// The versions and the features of volnet and its kernel.
    pub(super) fn version(&mut self) -> Result<Reply, Error> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let missing = self.features()?.missing();
        Ok(Reply::Version {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: kernel.trim().into(),
            backend: self.network.backend().into(),
            missing: missing.into_iter().map(String::from).collect(),
        })
    }

    /// The network arguments of a VM, for people who start their own hypervisor.
    /// The folder of the sockets that they name is there afterwards, whoever has removed it.
    pub(super) fn args(&mut self, name: &VmName, hypervisor: Option<&str>) -> Result<Reply, Error> {
        let record = Rc::clone(&self.engine.placed_vm(name)?.record);
        refuse_attachment(&record)?;
        let networks = self.engine.networks_of(&record);
        let args = self.launcher.args(&record, &networks, hypervisor, self.store.paths())?;
        let kernel_args = self.engine.kernel_args(&record);
        self.lend_folder(&record)?;
        Ok(Reply::Args { args, kernel_args })
    }

    /// Compares an attachment with the host: its link, its rules, and what all VMs need.
    pub(super) fn verify(&mut self, id: &AttachmentId) -> Result<Reply, Error> {
        let name = self.engine.attachment(id)?.record.name.clone();
        let vm = Box::new(self.engine.show(self.engine.placed_vm(&name)?));
        let observed = self.network.observe()?;
        let desired = self.engine.desired();
        let is_there = |link: &Link| vm.tap.as_ref().is_some_and(|tap| tap.as_str() == link.name);
        let gone = (!observed.links.iter().any(is_there)).then(|| "its link is gone".to_string());
        let reconciled = reconcile(&desired, &observed);
        let drifts = drift::name(&reconciled.plan, &desired.ports).into_iter();
        let concerns = drifts.filter(|drift| drift.vm.as_ref().is_none_or(|vm| *vm == name));
        let problems = reconciled.problems.iter().filter(|problem| !problem.is_left_over());
        let differences = gone
            .into_iter()
            .chain(concerns.map(|drift| drift.message))
            .chain(problems.map(ToString::to_string))
            .collect();
        Ok(Reply::Verified { vm, differences })
    }

    /// Whether something that wants this can be attached to a network, and whether what is attached
    /// may lack something. Who asks that has a use for the network.
    pub(super) fn ready(&mut self, wanted: &NetworkSpec, now: Now) -> Result<Reply, Error> {
        let doubt = self.state.doubt().map(String::from);
        let unready = doubt.or(self.engine.unready(wanted, now)?);
        let limited = self.host.is_some() && (!self.sound || self.engine.has_problems());
        let words = "the host differs from what volnet wants, which `volnet check` shows";
        let reason = unready.clone().or(limited.then(|| words.into()));
        Ok(Reply::Ready { ready: unready.is_none(), limited, reason })
    }

    /// Checks the host: first the devices, then the objects of others that are in the way, then the
    /// differences from the desired state.
    pub(super) fn check(&mut self) -> Result<Reply, Error> {
        Ok(Reply::Findings { findings: self.check_findings()? })
    }

    /// What [`Shell::check`] answers.
    pub(super) fn check_findings(&mut self) -> Result<Vec<Finding>, Error> {
        let surroundings = self.network.surroundings()?;
        self.engine.names_kept(&surroundings);
        let mut findings = self.launcher.check_devices();
        findings.extend(self.slow());
        findings.extend(self.launcher.check());
        findings.extend(self.name_servers());
        findings.extend(self.state.doubt().map(|doubt| {
            finding("state_dir", Level::Error, doubt.into(), Some(doubt::REMEDY.into()))
        }));
        findings.extend(self.stray_findings());
        findings.extend(self.unserved.as_ref().map(|failure| {
            let message = format!("metrics are not served: {failure}");
            let hint = "set metrics to another address, or end who has it; then restart the daemon";
            finding("metrics", Level::Warning, message, Some(hint.into()))
        }));
        #[cfg(target_os = "linux")]
        findings.extend(self.short_of_space());
        findings.extend(self.engine.firewalls(&surroundings));
        findings.extend(self.ways_to_peers()?);
        findings.extend(self.unheard(None));
        findings.extend(self.engine.stranded().map(|(name, reason)| {
            let message = format!("VM {name} cannot be taken over: {reason}");
            let hint = format!("undo that and start the daemon again, or volnet delete {name}");
            finding("network", Level::Error, message, Some(hint))
        }));
        findings.extend(self.disputed());
        findings.extend(self.set_aside());
        findings.extend(self.kernel_findings()?);
        Ok(findings)
    }

    /// What the kernel lacks, and what it has that volnet does not want.
    fn kernel_findings(&mut self) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let observed = self.network.observe()?;
        // Ask again: a module may have been loaded since.
        self.features = None;
        let features = self.features()?;
        let desired = self.engine.desired();
        findings.extend(host::antispoof(&desired, &observed));
        findings.push(host::limits(features.token_buckets, &desired));
        findings.extend(kernel(&features));
        let reconciled = reconcile(&desired, &observed);
        let plan = if self.state.doubt().is_some() { &[][..] } else { &reconciled.plan };
        let drift = plan.iter().flat_map(|op| op.commands());
        findings.extend(
            reconciled
                .problems
                .iter()
                .map(|problem| finding("network", Level::Error, problem.to_string(), None)),
        );
        findings.extend(drift.map(|command| {
            let message = "the host differs from what volnet wants".into();
            finding(
                "drift",
                Level::Warning,
                message,
                Some(format!("volnet setup would run: {command}")),
            )
        }));
        if reconciled.plan.is_empty() && reconciled.problems.is_empty() {
            let message = "bridge, addresses, taps and rules are as they should be".into();
            findings.push(finding("network", Level::Ok, message, None));
        }
        Ok(findings)
    }

    /// Directories of ours whose file systems are nearly full.
    #[cfg(target_os = "linux")]
    pub(super) fn short_of_space(&self) -> Vec<Finding> {
        use crate::store::space::Space;
        let paths = self.store.paths();
        let directories = [paths.state(), paths.runtime(), self.launcher.logs()];
        let short = |path: &&std::path::Path| {
            let space = Space::of_path(path).ok().filter(|space| space.is_short())?;
            let room = match space.lacks_inodes {
                true => "few inodes are free".to_string(),
                false => format!("{} KiB are free", space.available >> 10),
            };
            let message = format!(
                "the disk with {} is nearly full, {room}: logs of VMs do not grow, and soon no \
                 change of a VM can be written down",
                path.display()
            );
            Some(finding("disk", Level::Warning, message, Some("free some space".into())))
        };
        directories.iter().filter_map(short).collect()
    }

    /// Programs of the host that get no connections any more, because their port leads to a guest:
    /// of one VM, or of any.
    pub(super) fn unheard(&mut self, of: Option<&VmName>) -> Vec<Finding> {
        let vms = self.engine.vms().filter(|vm| of.is_none_or(|name| vm.record.name == *name));
        // Both are in the order of the ports.
        let ports: Vec<_> = vms
            .flat_map(|vm| {
                let ports = vm.record.host_ports().zip(vm.record.exposed());
                ports.map(|(at, port)| (at, port, &vm.record.name))
            })
            .collect();
        let wanted: Vec<HostPort> = ports.iter().map(|(at, _, _)| *at).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        // A program that listens on IPv4 and on IPv6 is reported once.
        let mut unheard = BTreeMap::new();
        for listener in self.network.listeners(&wanted) {
            let leads = |(at, _, _): &&(HostPort, _, _)| at.meets(&listener.at);
            let Some((_, port, vm)) = ports.iter().find(leads) else { continue };
            let ip = listener.at.ip.filter(|ip| !ip.is_unspecified());
            let message = format!(
                "{} listens on {}, which leads to VM {vm}: it gets no connection from outside",
                listener.who,
                HostPort { ip, ..listener.at }
            );
            unheard.insert(message, take_back(vm, port));
        }
        let told = |(message, hint)| finding("ports", Level::Warning, message, Some(hint));
        unheard.into_iter().map(told).collect()
    }

    /// The VMs that run without the KVM that the settings want.
    fn slow(&self) -> impl Iterator<Item = Finding> {
        let vms = self.engine.vms().filter(|vm| vm.life.pid().is_some());
        let slow = vms.filter(|vm| self.launcher.is_slow(vm.record.kvm));
        slow.map(|vm| {
            let name = &vm.record.name;
            let message = format!("VM {name} was started without KVM and is slow");
            let hint = format!("when the host has {KVM}: volnet restart {name}");
            finding("kvm", Level::Warning, message, Some(hint))
        })
    }

    /// Files that an earlier start of the daemon could not use.
    fn set_aside(&mut self) -> Vec<Finding> {
        let files = self.store.set_aside().into_iter();
        let told = files.map(|path| {
            let message = format!("{} could not be used: its VM is not known", path.display());
            let hint = "mend it, stop the daemon, give the file its name without .bad, and start \
                        the daemon; or delete it";
            finding("state", Level::Warning, message, Some(hint.into()))
        });
        told.collect()
    }

    /// Movable addresses whose VMs have different policies.
    fn disputed(&self) -> Vec<Finding> {
        let finding_of = |(ip, vms): (Ipv4Addr, Vec<&VmName>)| {
            let names: Vec<&str> = vms.iter().map(|name| name.as_str()).collect();
            let message = format!(
                "nothing is forwarded from {ip}: the VMs {} have different policies",
                names.join(" and ")
            );
            let hint = "give them the same one: volnet policy NAME POLICY".into();
            finding("network", Level::Warning, message, Some(hint))
        };
        self.engine.disputed().into_iter().map(finding_of).collect()
    }
}

/// The command that takes an exposed port back.
fn take_back(vm: &VmName, port: &Expose) -> String {
    let ip = match port.host_ip {
        Some(IpAddr::V6(ip)) => format!("[{ip}]:"),
        Some(IpAddr::V4(ip)) => format!("{ip}:"),
        None => String::new(),
    };
    format!("volnet unexpose {vm} {}:{ip}{}:{}", port.protocol, port.host_port, port.port)
}

fn finding(check: &str, level: Level, message: String, hint: Option<String>) -> Finding {
    Finding { check: check.into(), level, message, hint }
}

/// The features that this kernel lacks, and what volnet does instead.
fn kernel(features: &Features) -> Vec<Finding> {
    let missing = features.missing().into_iter();
    let mut findings: Vec<Finding> =
        missing.map(|words| finding("kernel", Level::Warning, words.into(), None)).collect();
    if findings.is_empty() {
        let message = "it can do all that volnet uses".into();
        findings.push(finding("kernel", Level::Ok, message, None));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Reason;
    use crate::model::request::NOBODY;
    use crate::network::Network;
    use crate::network::execute::execute_all;
    use crate::network::fake::{Fake, KernelFault};
    use crate::plan::reconcile::Desired;
    use crate::plan::ruleset;

    #[test]
    fn guests_that_cannot_be_held_are_told_of() {
        let flags = crate::config::Flags::default();
        let levels = |configuration: &str, fault: Option<KernelFault>| -> Vec<Level> {
            let settings =
                crate::config::resolve(&flags, &Default::default(), Some(configuration), "host");
            let networks = settings.expect("a configuration").networks;
            let networks: Vec<_> = networks.iter().collect();
            let tables = ruleset::tables(&networks, &[], Vec::new(), false);
            let desired = Desired { networks, tables, ..Desired::default() };
            let mut fake = Fake::new();
            let plan = reconcile(&desired, &fake.observe().expect("a kernel")).plan;
            let of_bridges = plan.iter().position(|op| op.describe().1 == "bridge volnet");
            if let (Some(at), Some(fault)) = (of_bridges, fault) {
                fake.fail(at, fault);
            }
            execute_all(&mut fake, &plan, NOBODY);
            let observed = fake.observe().expect("a kernel");
            host::antispoof(&desired, &observed).iter().map(|finding| finding.level).collect()
        };
        assert_eq!(levels("{}", None), [Level::Ok]);
        assert_eq!(levels("{}", Some(KernelFault::Refused(Reason::Unsupported))), [Level::Error]);
        let open = r#"{"networks": [{"antispoof": false}]}"#;
        assert_eq!(levels(open, None), [Level::Warning]);
        let both = r#"{"networks": [{"antispoof": false},
            {"name": "lab", "bridge": "vbr1", "subnet": "10.0.0.0/24"}]}"#;
        assert_eq!(levels(both, None), [Level::Warning, Level::Ok]);
    }
}
