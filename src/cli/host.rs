//! The verbs about the host. If a daemon runs, it does `setup` and `teardown`, because it would
//! repair changes by others. Otherwise they are done here.

use serde_json::{Map, Value, json};

use crate::config::Flags;
use crate::model::request::{Change, Query, Request};
use crate::protocol::frame::Terminator;
use crate::protocol::{client, reply};

use super::command::Preparation;
use super::connection::Connection;
use super::files::Files;
use super::journal;
use super::session::Session;
use super::{DONE, FAILED, Trouble, resolved, show};

/// `serve`.
pub(super) fn serve(session: &Session) -> Result<u8, Trouble> {
    journal::log(session.settings.log_format);
    (session.daemon.serve)(&session.settings)?;
    Ok(DONE)
}

/// `setup`.
pub(super) fn setup(
    session: &mut Session,
    setup: &Preparation,
    flags: &Flags,
) -> Result<u8, Trouble> {
    let Preparation { dry_run, verbose, force, .. } = *setup;
    if setup.resolved {
        resolved::check(&session.settings)?;
    }
    let files = Files::look(setup, flags, &session.settings)?;
    let mut reply = through_daemon_or_here(
        session,
        "io.volnet.Setup",
        json!({ "dry_run": dry_run, "force": force }),
        Change::Setup { dry_run, force },
    )?;
    let done = files.install()?;
    reply.insert("files".into(), done.files.into());
    session.show(&reply, |reply| {
        let plan = show::plan(reply.get("plan"));
        match (dry_run, verbose) {
            (true, _) => plan + &done.text,
            (false, true) => plan + "the host is ready\n" + &done.text,
            (false, false) => "the host is ready\n".to_string() + &done.text,
        }
    })?;
    Ok(DONE)
}

/// `teardown`.
pub(super) fn teardown(
    session: &mut Session,
    teardown: &Preparation,
    flags: &Flags,
) -> Result<u8, Trouble> {
    let Preparation { dry_run, verbose, force, .. } = *teardown;
    let files = Files::look(teardown, flags, &session.settings)?;
    let mut reply = through_daemon_or_here(
        session,
        "io.volnet.Teardown",
        json!({ "dry_run": dry_run, "force": force }),
        Change::Teardown { dry_run, force },
    )?;
    let done = files.remove()?;
    reply.insert("files".into(), done.files.into());
    session.show(&reply, |reply| {
        let plan = show::plan(reply.get("plan"));
        let result = match (dry_run, plan.is_empty(), done.text.is_empty()) {
            (true, _, _) | (false, true, false) => "",
            (false, true, true) => "nothing of volnet is here\n",
            (false, false, _) => "the host is as it was before\n",
        };
        let steps = if dry_run || verbose { plan } else { String::new() };
        steps + result + &done.text
    })?;
    Ok(DONE)
}

fn through_daemon_or_here(
    session: &Session,
    method: &str,
    parameters: Value,
    change: Change,
) -> Result<Map<String, Value>, Trouble> {
    if let Some(mut connection) = Connection::open_if_served(&session.settings.socket)? {
        return Ok(connection.call(method, parameters)?.parameters);
    }
    here(session, &change.into())
}

/// The reply of this program, where no daemon runs.
fn here(session: &Session, request: &Request) -> Result<Map<String, Value>, Trouble> {
    let answer = (session.daemon.offline)(&session.settings, request)?;
    // These are the same bytes that the daemon would send, so that there is one way to show them.
    let mut bytes = Vec::new();
    reply::reply(&mut bytes, &answer, false, Terminator::Nul);
    bytes.pop();
    Ok(client::decode(&bytes).map_err(Trouble::NoReply)?.parameters)
}

/// `networks`.
pub(super) fn networks(session: &mut Session) -> Result<u8, Trouble> {
    let reply = session.call("io.volnet.Networks", json!({}))?;
    let networks = reply.get("networks").unwrap_or(&Value::Null);
    session.show(&reply, |_| show::networks(networks))?;
    Ok(DONE)
}

/// `metrics`.
pub(super) fn metrics(session: &mut Session) -> Result<u8, Trouble> {
    let reply = session.call("io.volnet.Metrics", json!({}))?;
    let text = reply.get("text").and_then(Value::as_str).unwrap_or_default();
    session.show(&reply, |_| show::printable(text))?;
    Ok(DONE)
}

/// `check`.
pub(super) fn check(session: &mut Session) -> Result<u8, Trouble> {
    let findings = look(session, "io.volnet.Check", json!({}), &Query::Check)?;
    Ok(if findings.iter().any(|finding| finding["level"] == "error") { FAILED } else { DONE })
}

/// `doctor`. Without a daemon, the host is looked over.
pub(super) fn doctor(session: &mut Session, vm: Option<String>) -> Result<u8, Trouble> {
    let parameters = json!({ "name": vm });
    let findings = look(session, "io.volnet.Doctor", parameters, &Query::Doctor { name: None })?;
    Ok(if findings.iter().any(|finding| finding["level"] != "ok") { FAILED } else { DONE })
}

/// Has the daemon look, and shows what it found. Root needs no daemon: then this program looks.
fn look(
    session: &mut Session,
    method: &str,
    parameters: Value,
    without: &Query,
) -> Result<Vec<Value>, Trouble> {
    let socket = &session.settings.socket;
    let daemon = match is_root() {
        true => Connection::open_if_served(socket)?,
        false => Some(Connection::open(socket)?),
    };
    let mut reply = match daemon {
        Some(mut connection) => connection.call(method, parameters)?.parameters,
        None => look_here(session, without)?,
    };
    session.show(&reply, |reply| show::findings(reply.get("findings").unwrap_or(&Value::Null)))?;
    match reply.remove("findings") {
        Some(Value::Array(findings)) => Ok(findings),
        _ => Ok(Vec::new()),
    }
}

/// Whether the caller can look at the host without the daemon.
#[cfg(target_os = "linux")]
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// No daemon runs elsewhere, so this program answers everybody.
#[cfg(not(target_os = "linux"))]
fn is_root() -> bool {
    true
}

/// The findings where no daemon runs, and first of them that none does.
fn look_here(session: &Session, query: &Query) -> Result<Map<String, Value>, Trouble> {
    let mut reply = here(session, &query.clone().into())?;
    let daemon = json!({
        "check": "daemon",
        "level": "error",
        "message": "volnet serve does not run: nothing repairs the network or watches VMs",
        "hint": "systemctl start volnet; if that fails, journalctl -u volnet says why",
    });
    if let Some(Value::Array(findings)) = reply.get_mut("findings") {
        findings.insert(0, daemon);
    }
    Ok(reply)
}

/// `version`: the daemon's, or this program's own without a daemon.
pub(super) fn version(session: &mut Session) -> Result<u8, Trouble> {
    let Some(mut connection) = Connection::open_if_served(&session.settings.socket)? else {
        let own = env!("CARGO_PKG_VERSION");
        let reply = Map::from_iter([("version".into(), own.into())]);
        session.show(&reply, |_| format!("volnet {own}, no daemon\n"))?;
        return Ok(DONE);
    };
    let reply = connection.call("io.volnet.Version", json!({}))?.parameters;
    session.show(&reply, show::version)?;
    Ok(DONE)
}
