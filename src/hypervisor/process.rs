//! The processes of hypervisors.
//!
//! The daemon uses the trait [`Processes`]. The Linux backend spawns with `vfork`, watches a pidfd
//! and sends signals only through it, so a reused pid is never hit. A VM's process is watched from
//! [`Processes::spawn`] or [`Processes::adopt`] to the [`Processes::reap`] that returns its exit.

use std::collections::BTreeMap;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use super::cgroup::Group;
use super::log::Logs;
use super::user::User;
use super::{Control, HypervisorCommand};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{Exit, Heard, Order, ProcessId, Progress};
use crate::model::spec::Owner;

/// What a new process is given. The descriptors are closed here once the process has them.
#[derive(Debug)]
pub struct Given {
    /// As whom it runs; `None`: as the daemon does.
    pub user: Option<User>,
    /// The control group that it is in from its start; `None`: the daemon's.
    pub cgroup: Option<Group>,
    /// Its standard streams.
    pub streams: Streams,
    /// The VM's open tap, one descriptor per queue, if the hypervisor gets it open.
    pub taps: Vec<OwnedFd>,
    /// The memory of the snapshot from which its guest wakes, open.
    pub memory: Option<OwnedFd>,
}

/// The standard streams of a hypervisor.
#[derive(Debug)]
pub struct Streams {
    /// Its input: what is typed on the console of its guest.
    pub keys: OwnedFd,
    /// Its output: the console of its guest, which goes to the log of that.
    pub console: OwnedFd,
    /// Its errors and all output of its helpers, which go to the log of messages.
    pub messages: OwnedFd,
}

/// Starts, watches and ends the processes of VMs. A VM has at most one.
pub trait Processes {
    /// Opens the logs of a VM for appending, and its console for people. `terminal` says whether
    /// the hypervisor reads what they type only from a terminal.
    fn open_streams(
        &mut self,
        name: &VmName,
        logs: &Logs,
        terminal: bool,
    ) -> Result<Streams, Failure>;

    /// Starts the command in a process group of its own and watches it. Its environment has the
    /// mark by which [`Processes::find`] recognises it. The VM's folder is made anew and has only
    /// the command's files.
    fn spawn(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<ProcessId, Failure>;

    /// Watches a process of an earlier run of the daemon. False if it is gone, is a zombie, or is
    /// another process with the same pid.
    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure>;

    /// Looks for all processes that were started for VMs, whether their ids were recorded or not.
    /// `users` are those of VMs that do not have the user of all hypervisors.
    fn find_all(&mut self, users: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId>;

    /// Looks for the process that was started for this VM.
    fn find(&mut self, name: &VmName) -> Option<ProcessId> {
        self.find_all(&BTreeMap::new()).remove(name)
    }

    /// Asks something of the guest. Does not wait: its end shows by the end of the process, and
    /// whether it is paused by [`Processes::progress`].
    fn ask(&mut self, name: &VmName, control: &Control, order: Order) -> Result<(), Failure>;

    /// How far the start of a process is, or whether its guest is paused, as it says on its control
    /// socket. Does not wait: the caller asks again every few milliseconds.
    fn progress(&mut self, name: &VmName, control: &Control) -> Progress;

    /// Ends the connection to its control socket, because somebody else is about to use that.
    fn hang_up(&mut self, name: &VmName);

    /// Asks the process to end (SIGTERM).
    fn terminate(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Ends the process and its group (SIGKILL).
    fn kill(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Ends the process and its group, waits for that, and stops watching it. This undoes a start.
    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure>;

    /// Makes the folder of a VM whose hypervisor somebody else starts, for the sockets of that, and
    /// gives it to the owner. If it is there, it stays as it is.
    fn lend_folder(&mut self, name: &VmName, owner: Option<Owner>) -> Result<(), Failure>;

    /// Removes what a hypervisor that has ended, or a VM that is gone, leaves outside its logs:
    /// the VM's folder, its console and its control group.
    fn clean(&mut self, name: &VmName);

    /// Ends the helpers that a crash left without their hypervisors, and removes the control groups
    /// of VMs that have no process.
    fn sweep(&mut self);

    /// Removes the folder of a snapshot that did not become whole. If there is none, nothing is to
    /// do.
    fn remove_part(&mut self, part: &Path);

    /// Removes the control group that all of them are in, if it is empty.
    fn leave(&mut self);

    /// Removes the logs of a VM. If there are none, nothing is to do.
    fn remove_logs(&mut self, name: &VmName, logs: &Logs);

    /// What the hypervisor has said of its guest. Does not wait.
    fn hear(&mut self, name: &VmName) -> Heard;

    /// A descriptor that becomes readable when [`Processes::hear`] may have more to tell, for the
    /// event loop; `None` if the hypervisor ends with its guest.
    fn events(&self, name: &VmName) -> Option<RawFd>;

    /// Collects the status of a process that has ended, and stops watching it. Its group ends with
    /// it, and so do its control group and the VM's folder. `None` if it still runs or no process
    /// is watched.
    fn reap(&mut self, name: &VmName) -> Option<Exit>;

    /// A descriptor that becomes readable when the watched process ends, for the event loop. The
    /// [`Processes::reap`] that returns the exit closes it.
    fn pidfd(&self, name: &VmName) -> Option<RawFd>;
}
