//! The daemon on systems other than Linux: the noop backend behind a plain socket.
//!
//! It answers as the real daemon would (names, addresses, plans), but changes nothing. So tools can
//! be written and tried anywhere. Its state does not outlive it, because no object exists that must
//! be found again. It serves one connection at a time, and starts no hypervisors.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use super::launch::Launcher;
use super::now;
use super::shell::{Output, Shell};
use crate::config::Settings;
use crate::engine::decide::Engine;
use crate::hypervisor::log::Logs;
use crate::hypervisor::process::{Given, Processes, Streams};
use crate::hypervisor::{Control, HypervisorCommand};
use crate::metrics::text::Text;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Exit, Heard, Order, ProcessId, Progress};
use crate::model::request::{Reply, Request};
use crate::model::spec::Owner;
use crate::network::noop::Noop;
use crate::protocol::exposition::Format;
use crate::protocol::frame::{Decoder, Terminator};
use crate::protocol::request::{Body, CallFault, Rejected};
use crate::protocol::text::TextReply;
use crate::protocol::vms::VmsReply;
use crate::protocol::{reply, request, service};
use crate::store::memory::Memory;
use crate::store::{Paths, Store};

/// Bytes read from a connection at a time.
const READ: usize = 16 * 1024;

/// The runtime directory of the store in memory.
const RUNTIME: &str = "/runtime";

/// The shell without a real world.
type NoopShell = Shell<Noop, Memory, NoProcesses>;

/// Serves until the process is ended.
pub fn serve(settings: &Settings) -> Result<(), Error> {
    let started = Instant::now();
    let failed = |error: io::Error| {
        Failure::kernel("listen on", settings.socket.display().to_string(), &error)
    };
    let mut shell = shell(settings)?;
    let _ = std::fs::remove_file(&settings.socket);
    let listener = UnixListener::bind(&settings.socket).map_err(failed)?;
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(|stream| converse(stream, &mut shell, started)) {
            log::info!("a connection ended: {error}");
        }
    }
    Ok(())
}

/// Answers one request without serving others.
pub fn offline(settings: &Settings, request: &Request) -> Result<Reply, Error> {
    ask(&mut shell(settings)?, request, Instant::now())
}

fn shell(settings: &Settings) -> Result<NoopShell, Error> {
    let engine = Engine::new(
        settings.networks.clone(),
        settings.machine.hypervisor.clone(),
        settings.nft_owner,
    )
    .map_err(|reason| Refusal::InvalidConfig { field: "networks".into(), reason })?
    .with_policies(settings.policies.clone())
    .with_expose_ports(settings.expose_ports);
    let store = Store::open(Memory::new(Path::new(RUNTIME)), Paths::new("/state", RUNTIME))?;
    Ok(Shell::new(engine, Noop::new(), store, NoProcesses, Launcher::new(settings, None)))
}

/// Answers the requests of one connection, one after the other.
fn converse(mut stream: UnixStream, shell: &mut NoopShell, started: Instant) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = [0; READ];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        decoder.push(&buffer[..length]);
        loop {
            let mut out = Vec::new();
            let message = decoder.take().map(|message| message.map(<[u8]>::to_vec));
            let end = decoder.terminator();
            let last = match message {
                Ok(None) => break,
                Ok(Some(message)) => answer(&mut out, &message, end, shell, started),
                Err(error) => {
                    reply::fault(&mut out, &CallFault::Message { reason: error.to_string() }, end);
                    true
                }
            };
            stream.write_all(&out)?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Appends the answer to a message; true if it is the last of the connection.
fn answer(
    out: &mut Vec<u8>,
    message: &[u8],
    end: Terminator,
    shell: &mut NoopShell,
    started: Instant,
) -> bool {
    match request::decode(message) {
        Err(Rejected { fault, oneway }) => {
            if !oneway {
                reply::fault(out, &fault, end);
            }
            return fault.ends_connection();
        }
        Ok(call) => match (call.body, call.oneway) {
            (Body::Service(call), false) => service::answer(out, &call, end),
            (Body::Service(_), true) => {}
            (Body::Volnet(asked), oneway) => match (ask(shell, &asked, started), oneway) {
                (_, true) => {}
                (Ok(given), false) => write(out, &given, shell, end),
                (Err(error), false) => reply::error(out, &error, end),
            },
        },
    }
    false
}

/// Appends a reply, with what the daemon on Linux sends in parts.
fn write(out: &mut Vec<u8>, given: &Reply, shell: &NoopShell, end: Terminator) {
    match given {
        Reply::Vms => VmsReply::default().whole(out, shell.engine().list(None), false, end),
        Reply::Usage { .. } | Reply::Metrics => match (shell.last_numbers(), given) {
            (Ok(numbers), Reply::Usage { at_ms }) => {
                VmsReply::usage(*at_ms).whole(out, numbers.usage_after(None), false, end);
            }
            (Ok(numbers), _) => {
                let text = Text::new(numbers, Format::OpenMetrics).whole();
                TextReply::default().whole(&text, out, end);
            }
            (Err(error), _) => reply::error(out, &error, end),
        },
        given => reply::reply(out, given, false, end),
    }
}

fn ask(shell: &mut NoopShell, request: &Request, started: Instant) -> Result<Reply, Error> {
    shell.request(1, request, now(started));
    while shell.is_reading() {
        shell.read_on(now(started));
    }
    let outputs = shell.take_outputs().into_iter();
    let answers = outputs.filter_map(|output| match output {
        Output::Reply { result, .. } => Some(result),
        Output::More { .. } | Output::Event(_) => None,
    });
    // Every request is answered at once: without processes there is no end to wait for.
    answers.last().unwrap_or_else(|| Err(refused("the request was not answered").into()))
}

/// No process is ever started here.
struct NoProcesses;

fn refused(reason: &str) -> Failure {
    let (name, reason) = (String::new(), reason.into());
    Failure::Hypervisor { name, reason, log: None }
}

fn no_hypervisor(vm: &VmName) -> Failure {
    let reason = "a hypervisor needs Linux".into();
    Failure::Hypervisor { name: vm.to_string(), reason, log: None }
}

impl Processes for NoProcesses {
    fn open_streams(&mut self, name: &VmName, _: &Logs, _: bool) -> Result<Streams, Failure> {
        Err(no_hypervisor(name))
    }

    fn spawn(
        &mut self,
        name: &VmName,
        _: &HypervisorCommand,
        _: Given,
    ) -> Result<ProcessId, Failure> {
        Err(no_hypervisor(name))
    }

    fn adopt(&mut self, _: &VmName, _: &ProcessId) -> Result<bool, Failure> {
        Ok(false)
    }

    fn find_all(&mut self, _: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId> {
        BTreeMap::new()
    }

    fn ask(&mut self, _: &VmName, _: &Control, _: Order) -> Result<(), Failure> {
        Ok(())
    }

    fn hang_up(&mut self, _: &VmName) {}

    fn hear(&mut self, _: &VmName) -> Heard {
        Heard::default()
    }

    fn events(&self, _: &VmName) -> Option<RawFd> {
        None
    }

    fn progress(&mut self, _: &VmName, _: &Control) -> Progress {
        Progress::Untold
    }

    fn terminate(&mut self, _: &VmName) -> Result<(), Failure> {
        Ok(())
    }

    fn kill(&mut self, _: &VmName) -> Result<(), Failure> {
        Ok(())
    }

    fn kill_and_reap(&mut self, _: &VmName) -> Result<(), Failure> {
        Ok(())
    }

    fn lend_folder(&mut self, _: &VmName, _: Option<Owner>) -> Result<(), Failure> {
        Ok(())
    }

    fn clean(&mut self, _: &VmName) {}

    fn sweep(&mut self) {}

    fn remove_part(&mut self, _: &Path) {}

    fn leave(&mut self) {}

    fn remove_logs(&mut self, _: &VmName, _: &Logs) {}

    fn reap(&mut self, _: &VmName) -> Option<Exit> {
        None
    }

    fn pidfd(&self, _: &VmName) -> Option<RawFd> {
        None
    }
}
