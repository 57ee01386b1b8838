//! The `volnet` command.

fn main() {}
