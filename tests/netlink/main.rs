//! The netlink codec against messages between real programs and the kernel, against another codec,
//! and against noise.

mod conntrack;
mod golden;
mod hostile;
#[cfg(target_os = "linux")]
mod oracle;
mod rtnl;
