//! The netlink codec against what real programs and the kernel say to each other, against another
//! codec, and against noise.

mod conntrack;
mod golden;
mod hostile;
#[cfg(target_os = "linux")]
mod oracle;
mod rtnl;
