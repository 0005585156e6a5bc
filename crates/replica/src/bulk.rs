//! Bulk update: all our flows are sent to the peer once more, a little each turn.
//!
//! A second cursor of the ledger goes through everything that has been sent; live updates
//! go in between. Begin and end are sent in the trailer of ALIVE: the end once everything
//! of it is acknowledged, or sent where nothing is acknowledged. Without an internal cache
//! the kernel table is dumped and passed on (see `sweep`), and nothing is claimed of it.
//!
//! Of flows that were only found in our kernel nobody knows whose they are: an
//! operator's bulk update announces them, a repair offers them. The peer takes of an
//! offer what it does not own itself, and does not take it for certain.

use cache::Slot;
use wire::Seq;

/// The latest bulk update.
#[derive(Debug, Default)]
pub(crate) struct BulkUpdate {
    pub(crate) number: u32,
    /// Sequence number of the ALIVE before it, once that is sent.
    pub(crate) first: Option<Seq>,
    /// While its cursor is on its way: what becomes of the flows that were only found.
    pub(crate) found: Option<Found>,
    /// The last number that belongs to it, once all of it is sent.
    pub(crate) last: Option<Seq>,
    /// Its end has been sent, or there is none to be sent.
    pub(crate) is_end_sent: bool,
    /// It was broken off: nothing is claimed of it.
    pub(crate) given_up: bool,
}

/// What becomes of flows that were only found in our kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// The peer cannot tell an offer from an announcement: they are left out.
    LeftOut,
    Offered,
    Announced,
}

/// What the bulk cursor has come upon.
pub(crate) enum Passed {
    /// An entry that is to be sent; the cursor stays on it.
    Send(Slot),
    /// An entry that the cursor has passed.
    Another,
    /// The end, or nothing for now.
    Nothing,
}

impl BulkUpdate {
    /// Something that may belong to it is sent again, under a later number.
    pub(crate) fn reopen(&mut self) {
        self.last = None;
    }

    /// An ALIVE has been sent.
    pub(crate) fn on_alive_sent(&mut self, seq: Seq) {
        self.first = self.first.or(Some(seq));
    }
}
