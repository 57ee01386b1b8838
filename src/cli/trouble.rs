//! Why a verb failed, as a sentence and as an exit status.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::model::error::{Error, Refusal};
use crate::protocol::client::NoReply;

use super::args::Usage;
use super::{DONE, FAILED, UNREACHABLE, WRONG_USAGE, show};

/// Why a verb failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The command line is wrong.
    Usage(Usage),
    /// Refused or failed here, without the daemon.
    Here(Error),
    /// An error of a file or the terminal, and the operation.
    File { what: String, error: io::Error },
    /// The input makes no sense.
    Input(String),
    /// The daemon refused or failed.
    NoReply(NoReply),
    /// The daemon cannot be reached, or has gone away.
    Unreachable { socket: PathBuf, error: io::Error },
    /// The output could not be written.
    Output(io::Error),
}

impl Trouble {
    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Trouble::Usage(_) => WRONG_USAGE,
            Trouble::Unreachable { .. } => UNREACHABLE,
            Trouble::Here(_) | Trouble::File { .. } | Trouble::Input(_) | Trouble::NoReply(_) => {
                FAILED
            }
            // The reader has seen enough.
            Trouble::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
            Trouble::Output(_) => FAILED,
        }
    }

    /// Prints it on standard error.
    pub(super) fn tell(&self) {
        if self.status() != DONE {
            // There is nobody to report a failure of this to.
            let _ = writeln!(io::stderr(), "volnet: {}", self.words());
        }
    }

    /// The sentence.
    pub(super) fn words(&self) -> String {
        show::printable(&self.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Usage(usage) => usage.fmt(f),
            Trouble::Here(error) => error.fmt(f),
            Trouble::File { what, error } => write!(f, "{what}: {error}"),
            Trouble::Input(reason) => f.write_str(reason),
            Trouble::NoReply(reply) => reply.fmt(f),
            Trouble::Unreachable { socket, error } => {
                write!(f, "cannot reach the daemon at {}: {error}", socket.display())
            }
            Trouble::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Trouble::Here(refusal.into())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Here(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Output(error)
    }
}
