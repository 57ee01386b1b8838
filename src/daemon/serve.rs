//! The daemon on Linux: the shell on a real host, behind the event loop.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::event_loop::EventLoop;
use super::launch::Launcher;
use super::listen::SocketFile;
use super::shell::Shell;
use super::{listen, notify, now};
use crate::config::{Backend, Settings};
use crate::engine::crowd::starts_at_once;
use crate::engine::decide::Engine;
use crate::hypervisor::cgroup::Root;
use crate::hypervisor::linux::LinuxProcesses;
use crate::hypervisor::user::{self, User};
use crate::model::error::{Error, Failure, KernelOutcome, Refusal};
use crate::model::record::BootId;
use crate::model::request::{Reply, Request};
use crate::network::Network;
use crate::network::linux::Linux;
use crate::network::linux::monitor::Monitor;
use crate::network::noop::Noop;
use crate::rights;
use crate::store::files::Files;
use crate::store::lock::{self, Lock, NetworkLock};
use crate::store::{Paths, Store};

/// The shell on a real host.
type HostShell = Shell<Box<dyn Network>, Files, LinuxProcesses>;

/// The event loop of the daemon.
type HostLoop = EventLoop<Box<dyn Network>, Files, LinuxProcesses>;

/// Runs the daemon until SIGTERM or SIGINT. VMs run on after it.
pub fn serve(settings: &Settings) -> Result<(), Error> {
    let started = Instant::now();
    volnet_ffi::heap::keep();
    volnet_ffi::descriptors::keep_from_children()
        .map_err(|error| Failure::kernel("keep", "inherited file descriptors", &error))?;
    let user = give_up_rights(settings)?;
    let signals = signals().map_err(|error| Failure::kernel("watch", "signals", &error))?;
    let _locks = lock(settings)?;
    let cgroup = Root::open(settings.cgroup.as_deref())?;
    let (mut shell, monitor) = shell(settings, user, cgroup, raise_limit())?;
    shell.launcher = shell.launcher.at_boot();
    shell.recover(now(started))?;
    shell.sweep_disks();
    let (listener, _path) = listen::listen(&settings.socket)?;
    let failed = |error: std::io::Error| Failure::kernel("wait for", "events", &error);
    let mut event_loop =
        EventLoop::new(shell, Some(listener), monitor, signals, started).map_err(failed)?;
    let _metrics = serve_metrics(settings, &mut event_loop);
    notify::notify("READY=1");
    log::info!("serves on {}", settings.socket.display());
    event_loop.run().map_err(failed)?;
    notify::notify("STOPPING=1");
    Ok(())
}

/// Serves metrics, if the settings say where. VMs need the daemon also if it cannot do that, so it
/// goes on, and `check` says why. Returns the file of the socket, if it has one.
fn serve_metrics(settings: &Settings, event_loop: &mut HostLoop) -> Option<SocketFile> {
    let at = settings.metrics.as_ref()?;
    let served = listen::listen_for_scrapers(at).and_then(|(listener, file)| {
        let added = event_loop.serve_metrics(listener);
        added.map_err(|error| Failure::kernel("wait for", "scrapers", &error))?;
        Ok(file)
    });
    served.unwrap_or_else(|failure| {
        log::error!("metrics are not served: {failure}");
        event_loop.metrics_unserved(failure);
        None
    })
}

/// Answers one request without a daemon. It waits for the processes that it stops. It is refused
/// while a daemon holds the locks.
pub fn offline(settings: &Settings, request: &Request) -> Result<Reply, Error> {
    let started = Instant::now();
    let user = give_up_rights(settings)?;
    let signals = signals().map_err(|error| Failure::kernel("watch", "signals", &error))?;
    let _locks = lock(settings)?;
    let cgroup = Root::found(settings.cgroup.as_deref());
    let (mut shell, _) = shell(settings, user, cgroup, None)?;
    shell.load(now(started))?;
    let failed = |error: std::io::Error| Failure::kernel("wait for", "events", &error);
    EventLoop::new(shell, None, None, signals, started)
        .and_then(|mut event_loop| event_loop.run_one(request))
        .map_err(failed)?
        .unwrap_or_else(|| {
            Err(Failure::Kernel {
                operation: "wait for",
                object: "the request".into(),
                outcome: KernelOutcome::Unknown,
                errno: libc::EINTR,
                message: "interrupted by a signal".into(),
            }
            .into())
        })
}

/// The locks on the files and on the network namespace. They last as long as this value.
fn lock(settings: &Settings) -> Result<([Lock; 2], Option<NetworkLock>), Failure> {
    let directories = [lock::lock(&settings.runtime_dir)?, lock::lock(&settings.state_dir)?];
    let network = match settings.backend {
        Backend::Linux => lock::lock_network()?,
        Backend::Noop => None,
    };
    Ok((directories, network))
}

/// The shell, and the kernel's news. The subscription to the news begins before the kernel is
/// observed.
fn shell(
    settings: &Settings,
    user: Option<User>,
    cgroup: Option<Root>,
    descriptors: Option<rlim_t>,
) -> Result<(HostShell, Option<Monitor>), Error> {
    let engine = Engine::new(
        settings.networks.clone(),
        settings.machine.hypervisor.clone(),
        settings.nft_owner,
    )
    .map_err(|reason| Refusal::InvalidConfig { field: "networks".into(), reason })?
    .with_policies(settings.policies.clone())
    .with_boot(boot_id()?)
    .with_machine(settings.machine_id.clone())
    .with_expose_ports(settings.expose_ports)
    .with_starts_at_once(starts_at_once(
        std::thread::available_parallelism().map_or(1, usize::from),
    ))
    .with_users(settings.vm_uids.clone(), settings.run_as.clone());
    let launcher = Launcher::new(settings, user).with_cgroup(cgroup.clone());
    let owner = launcher.user().map_or(0, |user| user.uid);
    let engine = engine.with_tap_owner(owner, settings.hypervisors.openers());
    let (network, monitor): (Box<dyn Network>, _) = match settings.backend {
        Backend::Linux => {
            let linux = Linux::new(settings.pool)?;
            let monitor = linux.monitor()?;
            (Box::new(linux), Some(monitor))
        }
        Backend::Noop => (Box::new(Noop::new()), None),
    };
    let store = Store::open(Files, Paths::new(&settings.state_dir, &settings.runtime_dir))?;
    let processes = LinuxProcesses::new(&settings.runtime_dir, launcher.user().cloned())?
        .with_descriptors(descriptors)
        .with_cgroup(cgroup)
        .with_keepers(settings.log_bound, super::peer::group());
    let shell = Shell::new(engine, network, store, processes, launcher);
    Ok((shell, monitor))
}

/// The present boot of the host.
fn boot_id() -> Result<BootId, Failure> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let read = std::fs::read_to_string(FILE).and_then(|text| {
        text.parse().map_err(|reason: String| io::Error::new(io::ErrorKind::InvalidData, reason))
    });
    read.map_err(|error| Failure::kernel("read", FILE, &error))
}

/// Raises the soft limit of open descriptors to the hard limit: a VM needs some, and a client one.
/// Returns the former limit, which hypervisors get: programs that use select(2) rely on a low one.
/// `None`: it is as it was.
fn raise_limit() -> Option<rlim_t> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    raised.then_some(soft)
}

/// Keeps the needed rights, and returns the user of the hypervisors; `None`: the daemon's.
fn give_up_rights(settings: &Settings) -> Result<Option<User>, Error> {
    let user = user(settings)?;
    rights::give_up(user.is_none())
        .map_err(|error| Failure::kernel("give up", "capabilities", &error))?;
    Ok(user)
}

/// The user of the hypervisors. If the settings name a user that the daemon may not act as, that is
/// refused. Without such a setting the hypervisors run as the daemon's user: an older unit gives
/// the daemon fewer rights.
fn user(settings: &Settings) -> Result<Option<User>, Refusal> {
    let named = settings.hypervisor_user.as_deref();
    let Some(user) = User::configured(named)? else { return Ok(None) };
    match (user.act(|| ()), named) {
        (Ok(()), _) => Ok(Some(user)),
        (Err(error), None) => {
            log::warn!("hypervisors run as root: cannot act as user {}: {error}", user.name);
            Ok(None)
        }
        (Err(error), Some(_)) => {
            let reason = format!("cannot act as user {}: {error}", user.name);
            Err(Refusal::InvalidConfig { field: user::FIELD.into(), reason })
        }
    }
}

/// A stream that becomes readable when the daemon is asked to end.
fn signals() -> std::io::Result<mio::net::UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    pipe::register(SIGINT, theirs.try_clone()?)?;
    pipe::register(SIGTERM, theirs)?;
    Ok(mio::net::UnixStream::from_std(ours))
}
