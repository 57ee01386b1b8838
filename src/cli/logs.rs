//! `logs`: shows the log of a VM's hypervisor.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::thread::sleep;
use std::time::Duration;

use crate::model::name::VmName;

use super::session::{Session, file};
use super::{DONE, Trouble};

/// The pause between two looks at a followed log.
const INTERVAL: Duration = Duration::from_millis(200);

/// Prints the log. With `follow` it also prints new lines, and begins again if the log was
/// truncated or replaced. A VM that was never started has no log; with `follow`, it waits for one.
pub(super) fn logs(session: &mut Session, name: &str, follow: bool) -> Result<u8, Trouble> {
    let name = VmName::new(name)?;
    let path = session.settings.log_dir.join(format!("{name}.log"));
    let mut at = 0;
    loop {
        match File::open(&path) {
            Ok(mut log) => {
                let cannot = |error| file("cannot read", &path, error);
                let size = log.metadata().map_err(cannot)?.len();
                if size < at {
                    at = 0;
                }
                if size > at {
                    log.seek(SeekFrom::Start(at)).map_err(cannot)?;
                    at += io::copy(&mut log, &mut session.out)?;
                    session.out.flush()?;
                }
            }
            Err(error) if follow && error.kind() == io::ErrorKind::NotFound => at = 0,
            Err(error) => return Err(file("cannot read", &path, error)),
        }
        if !follow {
            return Ok(DONE);
        }
        sleep(INTERVAL);
    }
}
