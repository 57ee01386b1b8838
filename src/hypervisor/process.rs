//! The processes of hypervisors.
//!
//! [`Processes`] is what the daemon asks for; the Linux backend spawns with `vfork`, watches by
//! pidfd and signals only through it, so a reused pid is never hit. A VM's process is watched from
//! [`Processes::spawn`] or [`Processes::adopt`] to the [`Processes::reap`] that gives its exit.

use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use super::{Command, Control};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{Exit, ProcessId};

/// What is open for a process that is started. It is closed here once that has it.
#[derive(Debug)]
pub struct Descriptors {
    /// The VM's log, to be added to.
    pub log: OwnedFd,
    /// The VM's tap, one descriptor a queue, where the hypervisor is handed it open.
    pub taps: Vec<OwnedFd>,
}

/// Starting, watching and ending the processes of VMs. At most one a VM.
pub trait Processes {
    /// Opens a VM's log to be added to.
    fn open_log(&mut self, name: &VmName, path: &Path) -> Result<OwnedFd, Failure>;

    /// Starts the command in a process group of its own, its output in the log, with the
    /// environment mark by which [`Processes::find`] knows it again, and watches it. The VM's
    /// folder is made anew for it, empty but for the command's files.
    fn spawn(
        &mut self,
        name: &VmName,
        command: &Command,
        given: Descriptors,
    ) -> Result<ProcessId, Failure>;

    /// Watches a process of an earlier run of the daemon. False when it is gone, is a zombie, or
    /// is another process that has the same pid; what it left, a helper and its folder, is ended
    /// and removed then.
    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure>;

    /// Looks for a process that was started for this VM but whose id was never recorded. Where
    /// there is none, what such a start left is ended and removed.
    fn find(&mut self, name: &VmName) -> Option<ProcessId>;

    /// Asks the guest to power off. Does not wait for it.
    fn ask(&mut self, name: &VmName, control: &Control) -> Result<(), Failure>;

    /// Whether a process that was just started answers on its control socket, and so has got
    /// through its arguments: QEMU has sent its greeting, the others accept a connection. Does not
    /// wait; asked again every few milliseconds. False where there is no such socket.
    fn is_ready(&mut self, name: &VmName, control: &Control) -> bool;

    /// Asks the process to end (SIGTERM).
    fn terminate(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Ends the process and its group (SIGKILL).
    fn kill(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Ends the process and its group, waits for that, and stops watching it: how a start is undone.
    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Removes what the processes of a VM that is gone left behind: its folder.
    fn clean(&mut self, name: &VmName);

    /// Collects the status of a process that has ended, and stops watching it. Its group and its
    /// folder end with it. `None` while it still runs or when none is watched.
    fn reap(&mut self, name: &VmName) -> Option<Exit>;

    /// A descriptor that becomes readable when the watched process ends, for the event loop. It is
    /// closed by the [`Processes::reap`] that gives the exit.
    fn pidfd(&self, name: &VmName) -> Option<RawFd>;
}
