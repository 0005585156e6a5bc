//! Which of its epochs the peer is in: a peer that starts again names another one.
//!
//! Hard cases: late copies of a former epoch's messages come between those of the present
//! one, and anybody can forge a message that names none.

use std::time::Duration;

use wire::{Epoch, Seq};

use crate::time::Instant;

/// A peer names its epoch every second: after this long without, it is another program.
const STALE_MAX: Duration = Duration::from_secs(3);

/// What the peer's messages have named.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs {
    /// The epoch that the peer is in, if it names them, and the one before.
    present: Option<Epoch>,
    former: Option<Epoch>,
    /// When the former one was first named since the present one last was.
    former_at: Option<Instant>,
    /// When the present one was last named.
    named_at: Option<Instant>,
    /// The highest number of an ALIVE that named the present one.
    named: Option<Seq>,
    /// The highest number in a datagram that named the present one: surely of this epoch.
    named_to: Option<Seq>,
    /// This datagram has named an epoch. One with HELLO of a peer that names them begins so.
    datagram_names: bool,
    /// The epoch that it has named is the present one.
    datagram_is_current: bool,
}

/// What an ALIVE names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) epoch: Option<Epoch>,
    /// Not the epoch that the last ALIVE named.
    pub(super) is_new: bool,
}

impl Epochs {
    pub(super) fn begin_datagram(&mut self) {
        self.datagram_names = false;
        self.datagram_is_current = false;
    }

    pub(super) fn present(&self) -> Option<Epoch> {
        self.present
    }

    pub(super) fn datagram_names(&self) -> bool {
        self.datagram_names
    }

    /// The highest number that is surely of the present epoch.
    pub(super) fn surely_up_to(&self) -> Option<Seq> {
        self.named_to
    }

    /// True while the peer names its epoch as often as it should: what comes without is a
    /// late copy or forged, and no evidence of another program in its place.
    pub(super) fn is_named_lately(&self, now: Instant) -> bool {
        let lately = |at: Instant| now.since(at) < STALE_MAX;
        self.present.is_some() && self.named_at.is_some_and(lately)
    }

    /// An ALIVE has come, and names `epoch` or none; `None` if it is to be passed over.
    pub(super) fn name(&mut self, now: Instant, epoch: Option<Epoch>) -> Option<Named> {
        if epoch.is_none() && self.is_named_lately(now) {
            return None;
        }
        self.datagram_names |= epoch.is_some();
        if epoch.is_some() && epoch == self.former && self.is_stale(now) {
            return None;
        }
        self.former_at = None;
        // After a program that names none, whoever names one is another.
        let named_before = self.present.is_some() || self.former.is_some();
        Some(Named {
            epoch,
            is_new: named_before && epoch != self.present,
        })
    }

    /// True if a message that names the former epoch is a late copy, which those of the
    /// present one come between. If none does, it was the other one that was late.
    fn is_stale(&mut self, now: Instant) -> bool {
        now.since(*self.former_at.get_or_insert(now)) < STALE_MAX
    }

    /// Another program stands in for the one that named epochs.
    pub(super) fn name_no_more(&mut self) {
        if self.present.is_some() {
            self.former = self.present.take();
            self.named = None;
            self.named_to = None;
        }
    }

    /// That ALIVE had the number `seq`. True if no ALIVE of its epoch had a higher one.
    pub(super) fn numbered(&mut self, now: Instant, named: Named, seq: Seq, late: bool) -> bool {
        let is_fresh = named.is_new || self.named.is_none_or(|before| before.before(seq));
        if is_fresh {
            self.named = named.epoch.map(|_| seq);
        }
        if named.is_new {
            self.named_to = None;
        }
        let is_present = named.is_new || named.epoch == self.present;
        self.datagram_is_current = named.epoch.is_some() && is_present;
        if self.datagram_is_current && !late {
            self.named_at = Some(now);
        }
        self.note(seq);
        is_fresh
    }

    /// Notes the number of a message, in case its datagram names the present epoch.
    pub(super) fn note(&mut self, seq: Seq) {
        if self.datagram_is_current && self.named_to.is_none_or(|to| to.before(seq)) {
            self.named_to = Some(seq);
        }
    }

    /// That ALIVE is taken: its epoch is the present one.
    pub(super) fn enter(&mut self, named: Named) {
        if named.is_new {
            self.former = self.present;
        }
        self.present = named.epoch;
    }
}
