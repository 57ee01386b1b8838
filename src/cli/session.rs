//! The session that the verbs share: settings, output, and connections.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::Settings;

use super::connection::Connection;
use super::{Daemon, Trouble};

/// One run of a client verb.
pub(super) struct Session<'a> {
    pub(super) settings: Settings,
    pub(super) json: bool,
    pub(super) out: &'a mut dyn Write,
    pub(super) daemon: Daemon,
}

impl Session<'_> {
    /// Connects to the daemon.
    pub(super) fn connect(&self) -> Result<Connection, Trouble> {
        Connection::open(&self.settings.socket)
    }

    /// Calls a method on a new connection.
    pub(super) fn call(
        &self,
        method: &str,
        parameters: Value,
    ) -> Result<Map<String, Value>, Trouble> {
        Ok(self.connect()?.call(method, parameters)?.parameters)
    }

    /// Prints the parameters of a reply as JSON with `--json`, or as the text of `text`.
    pub(super) fn show(
        &mut self,
        parameters: &Map<String, Value>,
        text: impl FnOnce(&Map<String, Value>) -> String,
    ) -> Result<(), Trouble> {
        if self.json { self.print_json(parameters) } else { self.print(&text(parameters)) }
    }

    /// Prints a text as it is.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Trouble> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints JSON on one line.
    pub(super) fn print_json(&mut self, parameters: &Map<String, Value>) -> Result<(), Trouble> {
        serde_json::to_writer(&mut *self.out, parameters).map_err(std::io::Error::from)?;
        self.print("\n")
    }
}

/// An error of a file: the operation, the path and the error.
pub(super) fn file(doing: &str, path: &Path, error: std::io::Error) -> Trouble {
    Trouble::File { what: format!("{doing} {}", path.display()), error }
}
