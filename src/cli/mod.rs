//! The verbs, the socket client, tables for people and JSON for scripts.
//!
//! [`args`] parses the command line, and [`run`] calls the verb. Verbs that ask the daemon share a
//! [`Session`]. [`show`] shows its replies, or they are printed as JSON with `--json`. An error
//! goes to standard error as one sentence, and the exit status shows its kind. `cni` is the other
//! way in, for engines of containers. `fuzz` has the bodies of the fuzz targets.

mod args;
#[cfg(target_os = "linux")]
mod attach;
mod call;
#[cfg(target_os = "linux")]
mod cni;
mod command;
mod completion;
mod connection;
#[cfg(target_os = "linux")]
mod console;
mod document;
#[cfg(target_os = "linux")]
mod exec;
mod files;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod help;
mod host;
mod journal;
mod logs;
#[cfg(test)]
mod manual;
mod paths;
mod plugin;
#[cfg(target_os = "linux")]
mod rates;
mod resolved;
mod service;
mod session;
mod show;
mod table;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod top;
mod trouble;
mod verbs;
mod vm;
#[cfg(target_os = "linux")]
mod vsock;

use std::ffi::OsString;
use std::io::Write;

use crate::config::{self, Settings};
use crate::model::error::Error;
use crate::model::request::{Reply, Request};

use command::{Command, Invocation};
use session::Session;
use trouble::Trouble;

/// Exit status: done.
pub const DONE: u8 = 0;
/// Exit status: refused or failed.
pub const FAILED: u8 = 1;
/// Exit status: wrong usage.
pub const WRONG_USAGE: u8 = 2;
/// Exit status: the daemon cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// The functions of the daemon, for the verbs that are not clients of it.
#[derive(Clone, Copy, Debug)]
pub struct Daemon {
    /// Runs the daemon until it is asked to end.
    pub serve: fn(&Settings) -> Result<(), Error>,
    /// Answers one request without a daemon.
    pub offline: fn(&Settings, &Request) -> Result<Reply, Error>,
}

/// Runs a command line, and returns the exit status. The first of `argv` is the program's name.
/// Output goes to `out`, and errors to standard error.
pub fn run(argv: impl IntoIterator<Item = OsString>, out: &mut dyn Write, daemon: Daemon) -> u8 {
    let argv: Vec<OsString> = argv.into_iter().collect();
    #[cfg(target_os = "linux")]
    if let ([program], true) = (&argv[..], std::env::var_os(cni::COMMAND).is_some()) {
        return cni::run(program, std::io::stdin().lock(), out);
    }
    let outcome = args::parse(argv).map_err(Trouble::Usage).and_then(|invocation| {
        let status = invoke(invocation, out, daemon)?;
        out.flush()?;
        Ok(status)
    });
    match outcome {
        Ok(status) => status,
        Err(trouble) => {
            trouble.tell();
            trouble.status()
        }
    }
}

fn invoke(invocation: Invocation, out: &mut dyn Write, daemon: Daemon) -> Result<u8, Trouble> {
    let Invocation { flags, json, command } = invocation;
    if let Command::Help { verb } = &command {
        let verb = verb.as_deref().and_then(verbs::of);
        out.write_all(verb.map_or_else(help::overview, help::of).as_bytes())?;
        return Ok(DONE);
    }
    if let Command::Completion { shell } = &command {
        out.write_all(completion::of(shell).unwrap_or_default().as_bytes())?;
        return Ok(DONE);
    }
    if let Command::ExecAs { words } = &command {
        return exec_as(words);
    }
    if let Command::KeepLog { words } = &command {
        return keep_log(words);
    }
    let settings = config::read(&flags)?;
    let mut session = Session { settings, json, out, daemon };
    match command {
        Command::Serve => host::serve(&session),
        Command::Setup(setup) => host::setup(&mut session, &setup, &flags),
        Command::Teardown(teardown) => host::teardown(&mut session, &teardown, &flags),
        Command::Create(create) => vm::create(&mut session, &create),
        Command::VmVerb { change, vms, timeout_ms } => {
            vm::change(&mut session, change, vms, timeout_ms)
        }
        Command::Snapshot { name, folder } => vm::snapshot(&mut session, &name, &folder),
        Command::Adjust { method, parameters } => vm::adjust(&mut session, method, parameters),
        #[cfg(target_os = "linux")]
        Command::Attach(attach) => attach::attach(&mut session, &attach),
        #[cfg(target_os = "linux")]
        Command::Detach(detach) => attach::detach(&mut session, &detach),
        #[cfg(not(target_os = "linux"))]
        Command::Attach(_) | Command::Detach(_) => {
            Err(Trouble::Input("a network namespace needs Linux".into()))
        }
        Command::Get { name } => vm::get(&mut session, &name),
        Command::List { watch: false } => vm::list(&mut session),
        #[cfg(target_os = "linux")]
        Command::List { watch: true } => top::list(&mut session),
        #[cfg(target_os = "linux")]
        Command::Top { once, interval_s, sort } => top::top(&mut session, once, interval_s, sort),
        #[cfg(not(target_os = "linux"))]
        Command::List { watch: true } | Command::Top { .. } => {
            Err(Trouble::Input("a table that changes needs Linux".into()))
        }
        Command::Networks => host::networks(&mut session),
        Command::Args { name, hypervisor, kernel_args } => {
            vm::args(&mut session, &name, hypervisor, kernel_args)
        }
        Command::Call { method, parameters, more } => {
            call::call(&mut session, &method, parameters.as_deref(), more)
        }
        #[cfg(target_os = "linux")]
        Command::Console { name } => console::console(&session.settings, &name),
        #[cfg(not(target_os = "linux"))]
        Command::Console { .. } => Err(Trouble::Input("a console needs Linux".into())),
        #[cfg(target_os = "linux")]
        Command::Vsock { name, port, wait } => vsock::vsock(&session, &name, port, wait),
        #[cfg(not(target_os = "linux"))]
        Command::Vsock { .. } => Err(Trouble::Input("vsock needs Linux".into())),
        #[cfg(target_os = "linux")]
        Command::Exec { name, program, args } => exec::exec(&session, &name, &program, &args),
        #[cfg(not(target_os = "linux"))]
        Command::Exec { .. } => Err(Trouble::Input("a tap needs Linux".into())),
        Command::Logs { name, messages, follow } => {
            logs::logs(&mut session, &name, messages, follow)
        }
        Command::Monitor => call::monitor(&mut session),
        Command::Metrics => host::metrics(&mut session),
        Command::Check => host::check(&mut session),
        Command::Trace { name, from, to, seconds } => {
            vm::trace(&mut session, &name, from.as_ref(), to.as_deref(), seconds)
        }
        Command::Doctor { name } => host::doctor(&mut session, name),
        Command::Version => host::version(&mut session),
        Command::Help { .. }
        | Command::Completion { .. }
        | Command::ExecAs { .. }
        | Command::KeepLog { .. } => Ok(DONE),
    }
}

#[cfg(target_os = "linux")]
fn exec_as(words: &[String]) -> Result<u8, Trouble> {
    match crate::hypervisor::linux::confine::exec(words) {
        Ok(never) => match never {},
        Err(error) => {
            let program = words.get(6).map_or("nothing", String::as_str);
            Err(Trouble::File { what: format!("cannot start {program}"), error })
        }
    }
}

#[cfg(target_os = "linux")]
fn keep_log(words: &[String]) -> Result<u8, Trouble> {
    let what = || "cannot keep a log".to_string();
    crate::hypervisor::linux::keeper::keep(words)
        .map_err(|error| Trouble::File { what: what(), error })?;
    Ok(DONE)
}

#[cfg(not(target_os = "linux"))]
fn keep_log(_: &[String]) -> Result<u8, Trouble> {
    Err(Trouble::Input("the keeper of a log needs Linux".into()))
}

#[cfg(not(target_os = "linux"))]
fn exec_as(_: &[String]) -> Result<u8, Trouble> {
    Err(Trouble::Input("a hypervisor needs Linux".into()))
}
