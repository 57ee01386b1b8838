//! What is remembered across a crash, a restart and a reboot.
//!
//! | what | where | written |
//! |---|---|---|
//! | record of a durable VM | `STATE/vms/NAME.json` | temp file, fsync, rename, fsync of the directory |
//! | record of an ephemeral VM | `RUNTIME/vms/NAME.json` | temp file, rename |
//! | intent: a change of this VM is under way | `RUNTIME/intents/NAME.json` | temp file, rename |
//! | process of a VM | `RUNTIME/processes/NAME.json` | temp file, rename |
//! | what the host was before us | `RUNTIME/host.json` | temp file, rename |
//!
//! What describes kernel objects or processes needs no fsync: it has to outlive the daemon, and a
//! reboot ends both it and what it describes. Only what must outlive the host is synced.

pub mod disk;
