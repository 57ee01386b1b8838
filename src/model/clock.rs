//! The time, which the daemon passes to every decision.

/// The two clocks, which are read once per turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the epoch: for people.
    pub wall: u64,
    /// Milliseconds on a clock that never jumps: for deadlines.
    pub mono: u64,
}
