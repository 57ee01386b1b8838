//! How busy the machine is: with the work of others, and with some of our own.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client;
use crate::contender::Contender;
use crate::daemon::Daemon;
use crate::record::Record;

/// How long a look at the processors takes.
const LOOK: Duration = Duration::from_secs(1);

/// What others take of the processors, seen while the benchmark itself does nothing.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// The largest share that was seen, 0 to 1.
    most: f64,
}

impl Others {
    /// Looks for a second.
    pub(crate) fn look(&mut self) {
        let before = processors();
        std::thread::sleep(LOOK);
        let after = processors();
        let (busy, all) = (after.0 - before.0, after.1 - before.1);
        self.most = self.most.max(busy as f64 / all.max(1) as f64);
    }

    /// The largest share that was seen, in percent.
    pub(crate) fn percent(&self) -> u32 {
        (self.most * 100.0).round() as u32
    }
}

/// Ticks for which the processors were busy, and all of their ticks (proc_stat(5)).
fn processors() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = stat.lines().next().unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let words = line.split_ascii_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    let all = ticks.iter().sum();
    (all - ticks[3] - ticks[4], all)
}

/// What the kernel keeps for itself and cannot give back, in KiB (proc(5)): that of links and
/// namespaces is in it. All else depends on what others do meanwhile.
pub(crate) fn kernel_memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let kib = |line: &str| -> f64 {
        let number = line.split_ascii_whitespace().nth(1);
        number.and_then(|number| number.parse().ok()).expect("a number")
    };
    let is_counted = |line: &&str| line.starts_with("SUnreclaim:") || line.starts_with("Percpu:");
    text.lines().filter(is_counted).map(kib).sum()
}

/// Attaches VMs in bridged and in dhcp mode in turns, while each processor has other work, too.
pub(crate) fn attach_under_load(
    daemon: &mut Daemon,
    vms: usize,
    rounds: usize,
    record: &mut Record,
) {
    let spinners = Spinners::start();
    let modes = ["bridged", "dhcp"];
    let mut times = [const { Vec::new() }; 2];
    for round in 0..rounds {
        for (mode, times) in modes.iter().zip(&mut times) {
            let vm = format!("loaded{round}{mode}");
            let network: Value = json!({ "mode": mode });
            times.push(daemon.timed(&client::create_on(&vm, daemon.ephemeral, network)));
            // A bridge has room for few more than there are.
            daemon.detach(&vm);
        }
    }
    drop(spinners);
    for (mode, times) in modes.iter().zip(&times) {
        let who = format!("{}, {mode}", daemon.name());
        record.times("attach, each processor busy", &who, vms, times);
    }
}

/// A thread for each processor that does nothing but run, until this is dropped.
struct Spinners {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    fn start() -> Spinners {
        let ended = Arc::new(AtomicBool::new(false));
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |ended: Arc<AtomicBool>| {
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..count).map(|_| spin(Arc::clone(&ended))).collect();
        Spinners { ended, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only runs");
        }
    }
}
