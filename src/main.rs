//! The `volnet` command.

use std::io::stdout;
use std::process::ExitCode;

use volnet::{cli, daemon};

#[cfg(target_os = "linux")]
#[global_allocator]
static HEAP: volnet_ffi::heap::Heap = volnet_ffi::heap::Heap;

fn main() -> ExitCode {
    let entrances = cli::Daemon { serve: daemon::serve, offline: daemon::offline };
    ExitCode::from(cli::run(std::env::args_os(), &mut stdout(), entrances))
}
