//! `call` and `monitor`: they print replies as they arrive.

use serde_json::{Map, Value, json};

use super::session::Session;
use super::{DONE, Trouble, show};

/// `call`.
pub(super) fn call(
    session: &mut Session,
    method: &str,
    parameters: Option<&str>,
    more: bool,
) -> Result<u8, Trouble> {
    let parameters = match parameters {
        None => json!({}),
        Some(text) => serde_json::from_str::<Map<String, Value>>(text)
            .map(Value::Object)
            .map_err(|error| Trouble::Input(format!("{text:?} is not a JSON object: {error}")))?,
    };
    let method = if method.contains('.') { method.into() } else { format!("io.volnet.{method}") };
    let mut connection = session.connect()?;
    connection.send(&method, parameters, more)?;
    loop {
        let reply = connection.receive()?;
        session.print_json(&reply.parameters)?;
        session.out.flush()?;
        if !reply.continues {
            return Ok(DONE);
        }
    }
}

/// `monitor`.
pub(super) fn monitor(session: &mut Session) -> Result<u8, Trouble> {
    let mut connection = session.connect()?;
    connection.send("io.volnet.Monitor", json!({}), true)?;
    loop {
        let reply = connection.receive()?;
        session.show(&reply.parameters, |reply| match (reply.get("vms"), reply.get("event")) {
            (Some(vms), _) if !vms.is_null() => show::vms(vms),
            (_, Some(event)) => show::event(event),
            (_, None) => String::new(),
        })?;
        session.out.flush()?;
        if !reply.continues {
            return Ok(DONE);
        }
    }
}
