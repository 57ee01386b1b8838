//! The time, which the daemon passes to every decision.

/// The clocks, which are read once per turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the epoch: for people. Anybody can set this clock.
    pub wall: u64,
    /// Milliseconds on a clock that never jumps and stands still while the host is suspended: for
    /// deadlines.
    pub mono: u64,
    /// Milliseconds since the host was booted, with those in which it was suspended: for what was
    /// promised to others, such as leases (`CLOCK_BOOTTIME`, clock_gettime(2)).
    pub boot: u64,
}
