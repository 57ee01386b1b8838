//! `logs`: shows the log of a VM's console, or of its hypervisor's messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::thread::sleep;
use std::time::Duration;

use crate::hypervisor::bounded::{DROPPED_BYTES, dropped};
use crate::hypervisor::log::Logs;
use crate::model::name::VmName;

use super::session::{Session, file};
use super::{DONE, Trouble};

/// The pause between two looks at a followed log.
const INTERVAL: Duration = Duration::from_millis(200);

/// Prints the log of the console, or with `messages` that of messages. With `follow` it also prints
/// new lines, and begins again if the log was
/// truncated or replaced. A VM that was never started has no log; with `follow`, it waits for one.
/// A long log loses its beginning, and says so in its first line: then new lines are those behind
/// what was printed, wherever they stand now.
pub(super) fn logs(
    session: &mut Session,
    name: &str,
    messages: bool,
    follow: bool,
) -> Result<u8, Trouble> {
    let logs = Logs::of(&session.settings.log_dir, &VmName::new(name)?);
    let path = if messages { logs.messages } else { logs.console };
    // How much of all that was ever written to the log was printed, or is gone.
    let mut done = 0;
    loop {
        match File::open(&path) {
            Ok(mut log) => {
                let cannot = |error| file("cannot read", &path, error);
                let (gone, header) = gone(&mut log).map_err(cannot)?;
                let written = gone + log.metadata().map_err(cannot)?.len().saturating_sub(header);
                if written < done {
                    done = 0;
                }
                if written > done {
                    // At first also the line that says how much is gone.
                    let from = if done == 0 { 0 } else { header + done.saturating_sub(gone) };
                    log.seek(SeekFrom::Start(from)).map_err(cannot)?;
                    let printed = io::copy(&mut log, &mut session.out)?;
                    done = gone + (from + printed).saturating_sub(header);
                    session.out.flush()?;
                }
            }
            Err(error) if follow && error.kind() == io::ErrorKind::NotFound => done = 0,
            Err(error) => return Err(file("cannot read", &path, error)),
        }
        if !follow {
            return Ok(DONE);
        }
        sleep(INTERVAL);
    }
}

/// How much of the beginning of a log is gone, and the length of the line that says so.
fn gone(log: &mut File) -> io::Result<(u64, u64)> {
    let mut beginning = Vec::new();
    log.take(DROPPED_BYTES as u64).read_to_end(&mut beginning)?;
    Ok(dropped(&beginning).map_or((0, 0), |gone| (gone, DROPPED_BYTES as u64)))
}
