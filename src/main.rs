//! The `volnet` command.

use std::io::stdout;
use std::process::ExitCode;

use volnet::{cli, daemon};

fn main() -> ExitCode {
    let entrances = cli::Daemon { serve: daemon::serve, offline: daemon::offline };
    ExitCode::from(cli::run(std::env::args_os(), &mut stdout(), entrances))
}
