//! Repairs: a peer that may lack something is sent everything again, but not too often.
//!
//! In each of its epochs a peer is sent once what we have announced, and as offers what we
//! only found in our kernel (see `bulk`). What datagrams cause is bounded, because anybody
//! can forge them: at most one bulk update, before which a claim reads the kernel, and one
//! repetition of what is unacknowledged begin in [`INTERVAL`]; a wish that comes earlier waits. A
//! request for what was missed is answered at once, but each message is sent again
//! [`AGAIN_EACH`] times at most on average, and a few more: what is asked for beyond waits for the
//! next request, or for the repetition.

use std::time::Duration;

use crate::time::Instant;

/// The shortest time between two repairs of a kind.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// How often a message is sent again because it was missed, on average. A link that loses a third
/// of the datagrams needs half of one.
const AGAIN_EACH: usize = 2;
/// So many messages more may be sent again in a second, and at once.
const AGAIN_A_SECOND: usize = 100;
const AGAIN_AT_ONCE: usize = 1000;

/// A bulk update that a datagram has caused and that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// What was announced, and offers of what was found.
    Repair,
    /// Everything, as announcements: the peer's operator wants it (RESYNC).
    Everything,
    /// The same, and before it what the peer had announced while it was primary beside us.
    Claim,
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
    /// Messages that may be sent again because they were missed.
    again: usize,
    /// Those that have been sent beyond, and when time has last taken from them.
    beyond: usize,
    beyond_at: Instant,
}

/// True if what may be caused once in a while has been caused lately.
pub(crate) fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.since(at) < INTERVAL)
}

impl Repairs {
    /// A message about a flow or an expectation has been sent that was not missed.
    pub(crate) fn sent_anew(&mut self) {
        self.again = self.again.saturating_add(AGAIN_EACH);
    }

    /// Most messages that may now be sent again because they were missed, of so many that are
    /// under way.
    pub(crate) fn again(&mut self, now: Instant, under_way: usize) -> usize {
        // What has been acknowledged is sent again no more.
        self.again = self.again.min(under_way.saturating_mul(AGAIN_EACH));
        let millis = usize::try_from(now.since(self.beyond_at).as_millis()).unwrap_or(usize::MAX);
        let less = millis.saturating_mul(AGAIN_A_SECOND) / 1000;
        if less > 0 {
            self.beyond_at = now;
            self.beyond = self.beyond.saturating_sub(less);
        }
        self.again + AGAIN_AT_ONCE.saturating_sub(self.beyond)
    }

    /// So many messages are sent again because they were missed.
    pub(crate) fn sent_again(&mut self, messages: usize) {
        self.beyond += messages.saturating_sub(self.again);
        self.again = self.again.saturating_sub(messages);
    }

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
