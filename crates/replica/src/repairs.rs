//! Repairs: a peer that may lack something is sent everything again, but not too often.
//!
//! In each of its epochs a peer is sent once what we have announced, and as offers what we
//! only found in our kernel (see `bulk`). What datagrams cause is bounded, because anybody
//! can forge them: at most one bulk update and one repetition of what is unacknowledged
//! begin in [`INTERVAL`]; a wish that comes earlier waits.

use std::time::Duration;

use crate::time::Instant;

/// The shortest time between two repairs of a kind.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// A bulk update that a datagram has caused and that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// What was announced, and offers of what was found.
    Repair,
    /// Everything, as announcements: the peer's operator wants it (RESYNC).
    Everything,
}

/// What the peers' datagrams have caused and when that was last granted.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    pub(crate) wish: Option<Wish>,
    pub(crate) granted_at: Option<Instant>,
    /// All that is unacknowledged is to be sent again; if true, to a peer that has started
    /// again.
    pub(crate) repeat: Option<bool>,
    pub(crate) repeated_at: Option<Instant>,
}

/// True if what may be caused once in a while has been caused lately.
pub(crate) fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.since(at) < INTERVAL)
}

impl Repairs {
    /// True if a bulk update is wished for.
    pub(crate) fn is_bulk_due(&self) -> bool {
        self.wish.is_some()
    }

    /// When a wish that waits may be granted.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let after = |waits: bool, at: Option<Instant>| {
            let due = at.filter(|_| waits)? + INTERVAL;
            (due > now).then_some(due)
        };
        [
            after(self.wish.is_some(), self.granted_at),
            after(self.repeat.is_some(), self.repeated_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
