//! The netlink codec against messages between real programs and the kernel, against another codec,
//! and against noise.

// The golden messages are of a machine with the least significant byte first.
#[cfg(target_endian = "little")]
mod conntrack;
#[cfg(target_endian = "little")]
mod golden;
mod hostile;
#[cfg(target_os = "linux")]
mod oracle;
#[cfg(target_endian = "little")]
mod rtnl;
