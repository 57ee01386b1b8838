//! The metrics: one table, of which the text, the manual page `docs/METRICS.md` and its test are
//! made. Names that have been published are not changed.
//!
//! A text is made in parts, each when the last one is sent: with a thousand VMs it has a megabyte.
//! The numbers are those of one [`Snapshot`].

use std::fmt::Display;
use std::rc::Rc;

use super::numbers::{NicNumbers, Snapshot, VmNumbers};
use super::tally::{Histogram, LENGTH_BOUNDS, TIME_BOUNDS};
use crate::model::view::Status;
use crate::protocol::exposition::{Family, Format, Kind, Seconds};

/// A family, and where its samples come from.
struct Metric {
    family: Family,
    /// The names of its labels.
    labels: &'static [&'static str],
    samples: Samples,
}

/// Writes samples of a family.
struct Sampler<'a> {
    metric: &'a Metric,
    out: &'a mut Vec<u8>,
}

/// Where samples come from.
enum Samples {
    /// From the host and the daemon, a few.
    Host(fn(&mut Sampler<'_>, &Snapshot)),
    /// From each VM.
    Vms(fn(&mut Sampler<'_>, &VmNumbers)),
    /// From each interface of each VM, which has a number.
    Nics(fn(&mut Sampler<'_>, &Of<'_>, &NicNumbers)),
}

/// The labels of an interface.
struct Of<'a> {
    vm: &'a dyn Display,
    nic: usize,
}

impl Sampler<'_> {
    fn put(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(self.metric.labels));
        self.metric.family.sample(self.out, labels, value);
    }

    fn of(&mut self, of: &Of<'_>, value: Option<u64>) {
        if let Some(value) = value {
            self.put(&[("vm", of.vm), ("nic", &of.nic)], value);
        }
    }

    /// The packets of an interface that were dropped for a reason.
    fn dropped(&mut self, of: &Of<'_>, reason: &str, packets: Option<u64>) {
        if let Some(packets) = packets {
            self.put(&[("vm", of.vm), ("nic", &of.nic), ("reason", &reason)], packets);
        }
    }

    /// What a policy did to the packets or bytes of a VM: the sum of its interfaces.
    fn verdicts(&mut self, vm: &VmNumbers, part: fn((u64, u64)) -> u64) {
        type Counts = fn(&NicNumbers) -> Option<(u64, u64)>;
        let counts: [(&str, Counts); 2] =
            [("denied", |nic| nic.denied), ("allowed", |nic| nic.allowed)];
        for (verdict, counts) in counts {
            let sum = vm.nics.iter().filter_map(counts).map(part).reduce(|a, b| a + b);
            if let Some(sum) = sum {
                self.put(&[("vm", &vm.name), ("verdict", &verdict)], sum);
            }
        }
    }

    fn histogram<const N: usize>(
        &mut self,
        labels: &[(&str, &dyn Display)],
        bounds: &[(u64, &'static str); N],
        counts: &Histogram<N>,
        sum: impl Display,
    ) {
        let within = bounds.iter().zip(counts.within);
        let mut buckets: Vec<(&dyn Display, u64)> =
            within.map(|((_, bound), count)| (bound as &dyn Display, count)).collect();
        buckets.push((&"+Inf", counts.above));
        self.metric.family.histogram(self.out, labels, &buckets, sum);
    }
}

const fn counter(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, unit, help }
}

const fn gauge(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, unit, help }
}

const fn histogram(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, unit, help }
}

/// The labels of an interface.
const NIC: &[&str] = &["vm", "nic"];

/// Every metric, in the order of the text.
const METRICS: [Metric; 27] = [
    Metric {
        family: gauge("volnet_build_info", None, "1, with the version of the daemon."),
        labels: &["version"],
        samples: Samples::Host(|to, _| to.put(&[("version", &env!("CARGO_PKG_VERSION"))], 1)),
    },
    Metric {
        family: gauge("volnet_vms", None, "VMs, by status."),
        labels: &["status"],
        samples: Samples::Host(|to, all| {
            for status in Status::ALL {
                let count = all.vms.iter().filter(|vm| vm.status == status).count();
                to.put(&[("status", &status)], count);
            }
        }),
    },
    Metric {
        family: gauge("volnet_leases", None, "Addresses of a network that VMs have."),
        labels: &["network"],
        samples: Samples::Host(|to, all| {
            all.networks.iter().for_each(|it| to.put(&[("network", &it.name)], it.leased));
        }),
    },
    Metric {
        family: gauge("volnet_addresses_free", None, "Addresses of a network that are free."),
        labels: &["network"],
        samples: Samples::Host(|to, all| {
            all.networks.iter().for_each(|it| to.put(&[("network", &it.name)], it.free));
        }),
    },
    Metric {
        family: gauge("volnet_ports", None, "Ports of a network's bridge that are used."),
        labels: &["network"],
        samples: Samples::Host(|to, all| {
            all.networks.iter().for_each(|it| to.put(&[("network", &it.name)], it.ports));
        }),
    },
    Metric {
        family: gauge("volnet_ports_free", None, "Ports of a network's bridge that are free."),
        labels: &["network"],
        samples: Samples::Host(|to, all| {
            all.networks.iter().for_each(|it| to.put(&[("network", &it.name)], it.ports_free));
        }),
    },
    Metric {
        family: counter(
            "volnet_sent_packets",
            Some("packets"),
            "Packets from a VM to other networks that its policy allowed or denied.",
        ),
        labels: &["vm", "verdict"],
        samples: Samples::Vms(|to, vm| to.verdicts(vm, |(packets, _)| packets)),
    },
    Metric {
        family: counter(
            "volnet_sent_bytes",
            Some("bytes"),
            "Bytes from a VM to other networks that its policy allowed or denied.",
        ),
        labels: &["vm", "verdict"],
        samples: Samples::Vms(|to, vm| to.verdicts(vm, |(_, bytes)| bytes)),
    },
    Metric {
        family: counter(
            "volnet_vm_cpu_seconds",
            Some("seconds"),
            "Processor time of a VM's processes since its start, if it has a control group.",
        ),
        labels: &["vm"],
        samples: Samples::Vms(|to, vm| {
            if let Some(usage) = vm.usage {
                to.put(&[("vm", &vm.name)], Seconds(usage.cpu_us));
            }
        }),
    },
    Metric {
        family: gauge(
            "volnet_vm_memory_bytes",
            Some("bytes"),
            "Memory of a VM's processes, if it has a control group.",
        ),
        labels: &["vm"],
        samples: Samples::Vms(|to, vm| {
            if let Some(memory) = vm.usage.and_then(|usage| usage.memory) {
                to.put(&[("vm", &vm.name)], memory);
            }
        }),
    },
    Metric {
        family: gauge("volnet_vm_status", None, "1, with the status that a VM has now."),
        labels: &["vm", "status"],
        samples: Samples::Vms(|to, vm| {
            to.put(&[("vm", &vm.name), ("status", &vm.status)], 1);
        }),
    },
    Metric {
        family: counter(
            "volnet_vm_restarts",
            None,
            "Restarts of a VM by its policy since it was last started by request.",
        ),
        labels: &["vm"],
        samples: Samples::Vms(|to, vm| to.put(&[("vm", &vm.name)], vm.restarts)),
    },
    Metric {
        family: counter(
            "volnet_vm_leases",
            None,
            "Leases that the guest of a VM was given by DHCP since the daemon started.",
        ),
        labels: &["vm"],
        samples: Samples::Vms(|to, vm| to.put(&[("vm", &vm.name)], vm.leases)),
    },
    Metric {
        family: counter(
            "volnet_vm_receive_bytes",
            Some("bytes"),
            "Bytes that a guest received by an interface since its tap was made.",
        ),
        labels: NIC,
        samples: Samples::Nics(|to, of, nic| to.of(of, nic.passed.map(|it| it.bytes[1]))),
    },
    Metric {
        family: counter(
            "volnet_vm_receive_packets",
            Some("packets"),
            "Packets that a guest received by an interface since its tap was made.",
        ),
        labels: NIC,
        samples: Samples::Nics(|to, of, nic| to.of(of, nic.passed.map(|it| it.packets[1]))),
    },
    Metric {
        family: counter(
            "volnet_vm_transmit_bytes",
            Some("bytes"),
            "Bytes that a guest sent by an interface since its tap was made, whatever became of \
             them.",
        ),
        labels: NIC,
        samples: Samples::Nics(|to, of, nic| to.of(of, nic.passed.map(|it| it.bytes[0]))),
    },
    Metric {
        family: counter(
            "volnet_vm_transmit_packets",
            Some("packets"),
            "Packets that a guest sent by an interface since its tap was made, whatever became of \
             them.",
        ),
        labels: NIC,
        samples: Samples::Nics(|to, of, nic| to.of(of, nic.passed.map(|it| it.packets[0]))),
    },
    Metric {
        family: counter(
            "volnet_vm_dropped_packets",
            Some("packets"),
            "Packets from or to a guest that were dropped: policy (it may not send them), \
             antispoof (they are not from its own addresses, or no guest may send them), \
             send_limit and receive_limit (more than it may send or receive), unread (it does not \
             read fast enough).",
        ),
        labels: &["vm", "nic", "reason"],
        samples: Samples::Nics(|to, of, nic| {
            to.dropped(of, "policy", nic.denied.map(|(packets, _)| packets));
            to.dropped(of, "antispoof", nic.antispoof());
            to.dropped(of, "send_limit", nic.overrun);
            to.dropped(of, "receive_limit", nic.passed.map(|it| it.shaped));
            to.dropped(of, "unread", nic.passed.map(|it| it.unread));
        }),
    },
    Metric {
        family: counter(
            "volnet_requests",
            None,
            "Requests to the daemon that were answered, by method and outcome: done, refused or \
             failed.",
        ),
        labels: &["method", "outcome"],
        samples: Samples::Host(|to, all| {
            for ((method, outcome), count) in &all.tally.requests {
                to.put(&[("method", method), ("outcome", &outcome.as_str())], count);
            }
        }),
    },
    Metric {
        family: histogram(
            "volnet_request_seconds",
            Some("seconds"),
            "Time until a request was answered, by method.",
        ),
        labels: &["method"],
        samples: Samples::Host(|to, all| {
            for (method, times) in &all.tally.times {
                to.histogram(&[("method", method)], &TIME_BOUNDS, times, Seconds(times.sum));
            }
        }),
    },
    Metric {
        family: histogram(
            "volnet_plan_operations",
            None,
            "Changes of the kernel in each plan that was run: its length.",
        ),
        labels: &[],
        samples: Samples::Host(|to, all| {
            let plans = &all.tally.plans;
            to.histogram(&[], &LENGTH_BOUNDS, plans, plans.sum);
        }),
    },
    Metric {
        family: counter("volnet_operations", None, "Changes of the kernel, by operation."),
        labels: &["operation"],
        samples: Samples::Host(|to, all| {
            for (operation, count) in &all.kernel.changes {
                to.put(&[("operation", operation)], count);
            }
        }),
    },
    Metric {
        family: counter(
            "volnet_repairs",
            None,
            "Repairs of what others had changed, by operation.",
        ),
        labels: &["operation"],
        samples: Samples::Host(|to, all| {
            for (operation, count) in &all.tally.repairs {
                to.put(&[("operation", operation)], count);
            }
        }),
    },
    Metric {
        family: counter(
            "volnet_observations",
            None,
            "How often everything was read from the kernel, to find differences.",
        ),
        labels: &[],
        samples: Samples::Host(|to, all| to.put(&[], all.kernel.observations)),
    },
    Metric {
        family: counter(
            "volnet_observation_seconds",
            Some("seconds"),
            "Time that these observations took.",
        ),
        labels: &[],
        samples: Samples::Host(|to, all| to.put(&[], Seconds(all.kernel.observing_us))),
    },
    Metric {
        family: counter(
            "volnet_kernel_errors",
            None,
            "Errors of the kernel, by operation and by the name of the error.",
        ),
        labels: &["operation", "errno"],
        samples: Samples::Host(|to, all| {
            for ((operation, errno), count) in &all.kernel.errors {
                to.put(&[("operation", operation), ("errno", &errno_name(*errno))], count);
            }
        }),
    },
    Metric {
        family: counter("volnet_events", None, "Events since the daemon started."),
        labels: &[],
        samples: Samples::Host(|to, all| to.put(&[], all.events)),
    },
];

/// The name of an error, as errno(3) has it.
#[cfg(target_os = "linux")]
fn errno_name(errno: i32) -> String {
    use nix::errno::Errno;
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => errno.to_string(),
        known => format!("{known:?}"),
    }
}

/// Elsewhere there is no kernel to ask.
#[cfg(not(target_os = "linux"))]
fn errno_name(errno: i32) -> String {
    errno.to_string()
}

/// A text that is made in parts.
#[derive(Debug)]
pub struct Text {
    numbers: Rc<Snapshot>,
    format: Format,
    /// The next family, and the next VM in it.
    at: (usize, usize),
}

impl Text {
    /// The text of these numbers.
    pub fn new(numbers: Rc<Snapshot>, format: Format) -> Text {
        Text { numbers, format, at: (0, 0) }
    }

    /// The VMs whose numbers are kept for it.
    pub fn vms(&self) -> usize {
        self.numbers.vms.len()
    }

    /// Appends the next part, which ends after `most` bytes, with the VM that reaches them. Returns
    /// whether it is the last.
    pub fn part(&mut self, out: &mut Vec<u8>, most: usize) -> bool {
        let end = out.len() + most;
        while let Some(metric) = METRICS.get(self.at.0) {
            if self.at.1 == 0 {
                metric.family.head(out, self.format);
            }
            let of_host = matches!(metric.samples, Samples::Host(_));
            let length = if of_host { 1 } else { self.numbers.vms.len() };
            while self.at.1 < length {
                self.write(metric, out);
                self.at.1 += 1;
                if out.len() >= end {
                    return false;
                }
            }
            self.at = (self.at.0 + 1, 0);
        }
        self.format.end(out);
        true
    }

    /// Writes the samples of the host, or of the next VM.
    fn write(&self, metric: &Metric, out: &mut Vec<u8>) {
        let to = &mut Sampler { metric, out };
        match metric.samples {
            Samples::Host(write) => write(to, &self.numbers),
            Samples::Vms(write) => write(to, &self.numbers.vms[self.at.1]),
            Samples::Nics(write) => {
                let vm = &self.numbers.vms[self.at.1];
                for (nic, numbers) in vm.nics.iter().enumerate() {
                    write(to, &Of { vm: &vm.name, nic }, numbers);
                }
            }
        }
    }

    /// All of it.
    #[cfg(any(test, not(target_os = "linux")))]
    pub fn whole(mut self) -> String {
        let mut out = Vec::new();
        self.part(&mut out, usize::MAX / 2);
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests;
