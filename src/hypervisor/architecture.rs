//! The architectures that guests can have.
//!
//! An architecture is a value, not a condition of the compiler: the command lines for all of them
//! are tested on each.

/// What a kernel and its processor agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// amd64.
    X86_64,
    /// arm64.
    Aarch64,
}

impl Architecture {
    /// The architecture of this host. For one that volnet describes no machine of, amd64, whose
    /// guests QEMU can emulate anywhere.
    pub const HOST: Architecture =
        if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };

    /// Its name, as uname(1) shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }
}
