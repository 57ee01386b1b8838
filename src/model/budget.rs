//! What the processes of a VM may use of the host: processors, memory, and input and output of
//! disks. The kernel keeps them to it by a control group of version 2.

use serde::{Deserialize, Serialize};

/// The most of `cpu_percent`: 1024 processors.
pub const CPU_PERCENT_MAX: u64 = 102_400;
/// The least of `memory_max_mb` in MiB: no hypervisor runs in less.
pub const MEMORY_MAX_MB_MIN: u64 = 32;
/// The most of a rate of input and output, in MB or in operations a second.
pub const RATE_MAX: u64 = 1_000_000;

/// The period in which processor time is counted, in microseconds (Documentation/admin-guide/
/// cgroup-v2.rst of Linux, `cpu.max`).
const PERIOD_US: u64 = 100_000;
/// The bytes of a MB.
const MB: u64 = 1_000_000;

/// What is named is a limit, and the rest has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Processor time in percent of one processor.
    #[serde(default)]
    pub cpu_percent: Option<u32>,
    /// Memory in MiB, the guest's and the hypervisor's own. A VM that needs more is ended.
    #[serde(default)]
    pub memory_max_mb: Option<u64>,
    /// Input and output of each device that has disks of the VM.
    #[serde(default)]
    pub io: Option<IoRates>,
}

/// Rates of input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoRates {
    /// MB that are read a second.
    #[serde(default)]
    pub read_mb: Option<u32>,
    /// MB that are written a second.
    #[serde(default)]
    pub write_mb: Option<u32>,
    /// Reads a second.
    #[serde(default)]
    pub read_iops: Option<u32>,
    /// Writes a second.
    #[serde(default)]
    pub write_iops: Option<u32>,
}

/// What the processes of a VM have used since they were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Memory in bytes, where the kernel counts it for them.
    pub memory: Option<u64>,
}

/// A controller of the kernel, with the field that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Cpu,
    Memory,
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Io];

    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Io => "io",
        }
    }

    /// The field of a configuration.
    pub fn field(self) -> &'static str {
        match self {
            Controller::Cpu => "resources.cpu_percent",
            Controller::Memory => "resources.memory_max_mb",
            Controller::Io => "resources.io",
        }
    }
}

impl Budget {
    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Budget::default()
    }

    /// What it needs of the kernel.
    pub fn needs(&self) -> impl Iterator<Item = Controller> {
        let needs = [self.cpu_percent.is_some(), self.memory_max_mb.is_some(), self.io.is_some()];
        Controller::ALL.into_iter().zip(needs).filter(|(_, needed)| *needed).map(|(one, _)| one)
    }

    /// What is written to which file of the control group. `devices` are those of the VM's disks,
    /// as `MAJOR:MINOR`.
    pub fn files(&self, devices: &[String]) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if let Some(percent) = self.cpu_percent {
            let quota = u64::from(percent) * PERIOD_US / 100;
            files.push(("cpu.max", format!("{quota} {PERIOD_US}")));
        }
        if let Some(mib) = self.memory_max_mb {
            files.push(("memory.max", (mib << 20).to_string()));
            // A hypervisor without its helper, or the other way around, is of no use.
            files.push(("memory.oom.group", "1".into()));
        }
        for (device, io) in devices.iter().zip(self.io.iter().cycle()) {
            files.push(("io.max", format!("{device}{}", io.words())));
        }
        files
    }
}

impl IoRates {
    fn words(&self) -> String {
        let bytes = |mb: Option<u32>| mb.map(|mb| u64::from(mb) * MB);
        let rates = [
            ("rbps", bytes(self.read_mb)),
            ("wbps", bytes(self.write_mb)),
            ("riops", self.read_iops.map(u64::from)),
            ("wiops", self.write_iops.map(u64::from)),
        ];
        let word = |(name, rate): (&str, Option<u64>)| Some(format!(" {name}={}", rate?));
        rates.into_iter().filter_map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_what_the_kernel_reads() {
        let io = IoRates { read_mb: Some(20), write_iops: Some(100), ..IoRates::default() };
        let budget = Budget { cpu_percent: Some(150), memory_max_mb: Some(640), io: Some(io) };
        let devices = ["8:0".to_string(), "259:1".to_string()];
        let files = [
            ("cpu.max", "150000 100000"),
            ("memory.max", "671088640"),
            ("memory.oom.group", "1"),
            ("io.max", "8:0 rbps=20000000 wiops=100"),
            ("io.max", "259:1 rbps=20000000 wiops=100"),
        ];
        let files = files.map(|(name, text)| (name, text.to_string()));
        assert_eq!(budget.files(&devices), files);
        assert_eq!(Budget::default().files(&devices), []);
        assert!(Budget::default().is_empty() && Budget::default().needs().next().is_none());
        assert_eq!(budget.needs().collect::<Vec<_>>(), Controller::ALL);
    }
}
