//! Saves a guest of QEMU.
//!
//! QEMU saves a guest by a migration (docs/devel/migration.rst of QEMU) into an open file that it
//! is given (`getfd`). `file:` exists since 8.2, and `exec:` needs a shell. Its state then is
//! `postmigrate`, from which it goes on by `cont`, as from a pause.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use super::LOOK;
use crate::hypervisor::linux::power::{self, QMP_HELLO};

/// The most bytes of a line that it writes.
const LINE_MAX: u64 = 1 << 20;
/// How fast it may write, in bytes a second: faster than any disk. By default it holds itself back,
/// because a migration shares the network with others.
const BANDWIDTH: u64 = 1 << 40;

/// A connection to QEMU's machine protocol that waits for answers.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// The number of the last command. Its answer has the same, and an earlier one may come late.
    last: u64,
    /// How long an answer may take.
    answer_max: Duration,
}

impl Qmp {
    pub(super) fn connect(path: &Path, answer_max: Duration) -> Result<Qmp, String> {
        let socket =
            power::send(path, QMP_HELLO).map_err(|error| format!("its socket: {error}"))?;
        let stream = UnixStream::from(OwnedFd::from(socket));
        stream.set_nonblocking(false).map_err(|error| error.to_string())?;
        let mut qmp = Qmp { stream: BufReader::new(stream), last: 0, answer_max };
        qmp.answer("qmp_capabilities", &Value::Null)?;
        Ok(qmp)
    }

    /// Its version, as `--version` says it.
    pub(super) fn version(&mut self) -> Result<String, String> {
        let told = self.ask("query-version", &json!({}))?;
        version(&told).ok_or_else(|| "it does not say its version (query-version)".into())
    }

    /// Saves the guest, which stands still from then on.
    pub(super) fn save(
        &mut self,
        memory: &File,
        is_over: &impl Fn() -> bool,
    ) -> Result<(), String> {
        if self.ask("query-status", &json!({}))?["status"] == "postmigrate" {
            // It refuses a second migration until its guest has gone on.
            return Err("its guest was saved while it was paused: resume it first".into());
        }
        self.ask("stop", &json!({}))?;
        self.give("snapshot", memory)?;
        self.ask("migrate-set-parameters", &json!({ "max-bandwidth": BANDWIDTH }))?;
        self.ask("migrate", &json!({ "uri": "fd:snapshot" }))?;
        loop {
            let told = self.ask("query-migrate", &json!({}))?;
            match told["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = told["error-desc"].as_str().unwrap_or("it does not say why");
                    return Err(format!("it cannot save its guest: {why}"));
                }
                _ if is_over() => return Err("it was told to end".into()),
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Ends a migration, if one goes on.
    pub(super) fn cancel(&mut self) -> Result<(), String> {
        self.ask("migrate_cancel", &json!({})).map(drop)
    }

    /// Lets the guest go on, whatever has become of the snapshot.
    pub(super) fn go_on(&mut self) -> Result<(), String> {
        let end = Instant::now() + self.answer_max;
        loop {
            // While a migration ends, it is refused.
            let refused = self.ask("cont", &json!({})).err();
            if self.ask("query-status", &json!({}))?["running"] == true {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("its guest does not go on: {}", refused.unwrap_or_default()));
            }
            thread::sleep(LOOK);
        }
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let id = self.next();
        let message = json!({ "execute": command, "arguments": arguments, "id": id });
        let message = message.to_string() + "\n";
        let written = self.stream.get_mut().write_all(message.as_bytes());
        written.map_err(|error| format!("{command}: {error}"))?;
        self.answer(command, &id)
    }

    /// The id of the next command.
    fn next(&mut self) -> Value {
        self.last += 1;
        self.last.into()
    }

    /// Gives it an open file under a name.
    fn give(&mut self, name: &str, file: &File) -> Result<(), String> {
        let id = self.next();
        let message = json!({ "execute": "getfd", "arguments": { "fdname": name }, "id": id });
        let message = message.to_string() + "\n";
        let descriptors = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(message.as_bytes())];
        let socket = self.stream.get_ref().as_raw_fd();
        sendmsg::<()>(socket, &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(|error| format!("getfd: {error}"))?;
        self.answer("getfd", &id).map(drop)
    }

    /// The answer to a command. What it tells meanwhile is for others.
    fn answer(&mut self, command: &str, id: &Value) -> Result<Value, String> {
        let end = Instant::now() + self.answer_max;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("it did not answer {command} in time"));
            }
            let mut line = Vec::new();
            let stream = self.stream.get_ref();
            let read = stream
                .set_read_timeout(Some(left))
                .and_then(|()| (&mut self.stream).take(LINE_MAX).read_until(b'\n', &mut line));
            match read {
                Ok(0) => return Err(format!("it has ended the connection ({command})")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(format!("{command}: {error}")),
                Ok(_) => {}
            }
            let mut answer: Value =
                serde_json::from_slice(&line).map_err(|error| format!("{command}: {error}"))?;
            if answer["id"] != *id {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or_default();
                return Err(format!("{command}: {why}"));
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }
}

/// A version (docs/interop/qemu-qmp-ref of QEMU, `VersionInfo`), as the first line of `--version`
/// has it (`version` in softmmu/vl.c of 7.2): with the name of the package, if there is one.
fn version(told: &Value) -> Option<String> {
    let number = |part: &str| told["qemu"][part].as_u64();
    let (major, minor, micro) = (number("major")?, number("minor")?, number("micro")?);
    let package = match told["package"].as_str()?.trim() {
        "" => String::new(),
        package => format!(" ({package})"),
    };
    Some(format!("QEMU emulator version {major}.{minor}.{micro}{package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_the_program_says() {
        let qemu = json!({ "micro": 22, "minor": 2, "major": 7 });
        let told = |package| json!({ "qemu": qemu, "package": package });
        let debian = "Debian 1:7.2+dfsg-7+deb12u18";
        for (package, words) in [
            (debian, "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"),
            ("", "QEMU emulator version 7.2.22"),
        ] {
            assert_eq!(version(&told(package)).as_deref(), Some(words));
        }
        assert_eq!(version(&json!({ "package": debian })), None);
    }
}
