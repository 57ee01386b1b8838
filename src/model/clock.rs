//! The time, as the daemon hands it to everything that decides.

/// The two clocks, read once a turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the epoch: for people.
    pub wall: u64,
    /// Milliseconds on a clock that never jumps: for deadlines.
    pub mono: u64,
}
