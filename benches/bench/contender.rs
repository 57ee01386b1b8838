//! What all that attach VMs have in common here, and the rounds in which they take turns.

use std::time::Duration;

use crate::BURST;
use crate::load::kernel_memory;
use crate::record::Record;

/// How long a detach took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detached {
    /// Until whoever asked for it had an answer.
    pub(crate) answered: Duration,
    /// Until the link was gone.
    pub(crate) gone: Duration,
}

/// Somebody who attaches VMs to a bridge, in a namespace of its own.
pub(crate) trait Contender {
    /// Its name in the tables.
    fn name(&self) -> &str;

    /// The most VMs it is measured with: to bring the slow to more takes too long.
    fn most(&self) -> usize {
        usize::MAX
    }

    /// Whether it needs milliseconds, and so takes part in fewer rounds.
    fn is_slow(&self) -> bool {
        false
    }

    /// Attaches a VM of this name and returns what that took.
    fn attach(&mut self, vm: &str) -> Duration;

    /// Detaches it again. Only when the kernel has let go of the link does this return.
    fn detach(&mut self, vm: &str) -> Detached;

    /// Attaches VMs that stay, `vm0` and on, until there are so many, and returns what that took.
    fn fill(&mut self, vms: usize) -> Duration;
}

/// What [`bring`] measures, for each VM.
const TOGETHER: &str = "attach, a hundred at once";
const MEMORY: &str = "kernel memory of a VM";

/// VMs that a fast contender attaches in its turn, one at a time: the first finds cold caches and a
/// sleeping processor, which is what p99 shows; p50 is that of one who is at work.
const TURN: usize = 5;

/// How often each is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// How many rounds there are.
    pub(crate) all: usize,
    /// In how many of them the slow ones take part, which need tens of milliseconds.
    pub(crate) slow: usize,
}

/// Brings everybody to so many VMs, a hundred in each turn: volnet is asked for these in one write,
/// the others make one after the other.
pub(crate) fn bring(contenders: &mut [&mut dyn Contender], vms: usize, record: &mut Record) {
    let mut times = vec![Vec::new(); contenders.len()];
    let mut memory = vec![0.0; contenders.len()];
    for there in (0..vms).step_by(BURST) {
        for (at, contender) in contenders.iter_mut().enumerate() {
            let before = kernel_memory();
            let took = contender.fill(there + BURST);
            if !took.is_zero() {
                times[at].push(took / BURST as u32);
                memory[at] += kernel_memory() - before;
            }
        }
    }
    for (at, contender) in contenders.iter().enumerate().filter(|(at, _)| !times[*at].is_empty()) {
        record.times(TOGETHER, contender.name(), vms, &times[at]);
        let each = memory[at] / (times[at].len() * BURST) as f64;
        record.value(MEMORY, contender.name(), Some(vms), each, "KiB");
    }
}

/// Lets everybody attach and detach one VM after the other, with `vms` there. They take turns, and
/// each round somebody else begins, so that what disturbs one disturbs all.
pub(crate) fn compete(
    contenders: &mut [&mut dyn Contender],
    vms: usize,
    rounds: Rounds,
    record: &mut Record,
) {
    let mut present: Vec<&mut &mut dyn Contender> =
        contenders.iter_mut().filter(|contender| vms <= contender.most()).collect();
    for contender in &mut present {
        contender.fill(vms);
    }
    let mut attached = vec![Vec::new(); present.len()];
    let mut detached: Vec<Vec<Detached>> = vec![Vec::new(); present.len()];
    let stride = rounds.all.div_ceil(rounds.slow);
    for round in 0..rounds.all {
        let order: Vec<usize> = (0..present.len())
            .map(|at| (at + round) % present.len())
            .filter(|&at| !present[at].is_slow() || round % stride == 0)
            .collect();
        let turn = |contender: &dyn Contender| if contender.is_slow() { 1 } else { TURN };
        for &at in &order {
            for number in 0..turn(*present[at]) {
                attached[at].push(present[at].attach(&format!("new{number}")));
            }
        }
        for &at in &order {
            for number in 0..turn(*present[at]) {
                detached[at].push(present[at].detach(&format!("new{number}")));
            }
        }
    }
    for (at, contender) in present.iter().enumerate() {
        let (name, detached) = (contender.name(), &detached[at]);
        let answered: Vec<Duration> = detached.iter().map(|detached| detached.answered).collect();
        let gone: Vec<Duration> = detached.iter().map(|detached| detached.gone).collect();
        record.times("attach", name, vms, &attached[at]);
        record.times("detach, answered", name, vms, &answered);
        record.times("detach, link gone", name, vms, &gone);
    }
}
