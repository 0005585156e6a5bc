//! Virtual time: nanoseconds since the replica started. It never goes backwards.

use std::ops::Add;
use std::time::Duration;

use cache::Tick;

/// A point in time, as the driver gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The start.
    pub const START: Instant = Instant(0);

    /// The point `nanos` nanoseconds after the start.
    pub fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// The point `by` before this one, at the earliest the start.
    pub fn before(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The coarse form that caches keep.
    pub fn tick(self) -> Tick {
        Tick(u32::try_from(self.0 / 100_000_000).unwrap_or(u32::MAX))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}
