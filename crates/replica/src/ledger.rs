//! The ledger: the flows of our kernel, in the order of their versions.
//!
//! ```text
//!   oldest                                                    newest
//!   ├── sent ──────────────────────────┤├── owed ──────────────────┤
//!      ▲ bulk    ▲ catch-up             ▲ live
//! ```
//!
//! A change gives an entry the next version and moves it to the end, unless nobody has been
//! sent its last one: then one message carries both. So each flow stands in the list once,
//! at its latest version, and what a listener lacks is what stands behind a cursor. The
//! live cursor sends what is new. The bulk cursor goes through everything once more. The
//! catch-up cursor goes through what was sent and left the ring of messages under way
//! without an acknowledgement (see [`crate::under_way`]). An entry that moves takes no
//! cursor with it: the cursor goes on to the one behind.
//!
//! An end leaves a tombstone, which is removed when the peer knows, or when there are too
//! many of them (`ResendQueueSize`).
//!
//! What was found in the kernel at the start, or committed, is adopted: it waits in a list
//! of its own until traffic or a bulk update gives it its first version. What the peer
//! has taken has no version, so nothing sends it.

use std::collections::VecDeque;
use std::ops::Deref;

use cache::{Cache, Full, List, Slot, Tick, Ticket};
use flow::Flow;

use crate::entry::{Effect, Internal, Life, Step};

/// A second way through the list, up to a version.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// The next entry; `None` at the end of the list.
    next: Option<Slot>,
    to: u64,
}

/// The internal cache and its order.
///
/// Invariants: the list `Ledger` ascends strictly by version; `live` is its first entry
/// whose version is above `sent`, and `owed` the number of those; entries outside it have
/// version 0.
#[derive(Debug)]
pub(crate) struct Ledger {
    flows: Cache<Internal>,
    /// The latest version.
    head: u64,
    /// Everything up to this version has been sent.
    sent: u64,
    live: Option<Slot>,
    owed: usize,
    bulk: Option<Walk>,
    catch_up: Option<Walk>,
    /// Tombstones, oldest first. Some of them have been removed since, or live again.
    tombstones: VecDeque<Ticket>,
}

impl Deref for Ledger {
    type Target = Cache<Internal>;

    fn deref(&self) -> &Cache<Internal> {
        &self.flows
    }
}

impl Ledger {
    pub(crate) fn new(limit: usize) -> Ledger {
        Ledger {
            flows: Cache::new(limit),
            head: 0,
            sent: 0,
            live: None,
            owed: 0,
            bulk: None,
            catch_up: None,
            tombstones: VecDeque::new(),
        }
    }

    // ---- entries ----

    /// Adds a flow that is not there yet.
    pub(crate) fn insert(&mut self, flow: &Flow, now: Tick, step: Step) -> Result<Slot, Full> {
        let slot = self.flows.insert(flow, now)?;
        self.step(slot, step);
        Ok(slot)
    }

    /// Overwrites a flow; nothing is owed for that.
    pub(crate) fn store(&mut self, slot: Slot, flow: &Flow, now: Tick) {
        self.flows.store(slot, flow, now);
    }

    /// Notes the sweep that has seen an entry.
    pub(crate) fn seen_by_sweep(&mut self, slot: Slot, number: u8) {
        self.flows.change(slot, |note| note.sweep = number);
    }

    /// Takes an entry one step further in its life. On [`Effect::Remove`] it is gone.
    pub(crate) fn step(&mut self, slot: Slot, step: Step) -> Effect {
        let effect = self.flows.change(slot, |note| note.step(step));
        match effect {
            Effect::Nothing => {}
            Effect::Announce => self.announce(slot),
            Effect::Withdraw => self.leave(slot),
            Effect::Adopt => {
                self.leave(slot);
                self.flows.link(slot, List::Adopted);
            }
            Effect::Remove => self.remove(slot),
        }
        effect
    }

    /// Owes an entry to the peer.
    pub(crate) fn announce(&mut self, slot: Slot) {
        if !self.is_owed(slot) {
            self.stamp(slot);
            self.owed += 1;
            self.live = self.live.or(Some(slot));
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.leave(slot);
        self.flows.remove(slot);
    }

    pub(crate) fn clear(&mut self) {
        self.flows.clear();
        self.sent = self.head;
        self.live = None;
        self.owed = 0;
        self.bulk = None;
        self.catch_up = None;
        self.tombstones.clear();
    }

    /// Frees some of the memory of cleared entries; true if there is more.
    pub(crate) fn tidy(&mut self) -> bool {
        self.flows.tidy()
    }

    /// Gives an entry the next version and its place at the end.
    fn stamp(&mut self, slot: Slot) {
        self.leave(slot);
        self.head += 1;
        let version = self.head;
        self.flows.change(slot, |note| note.set_version(version));
        self.flows.link(slot, List::Ledger);
    }

    /// Takes an entry out of the list that it is in.
    fn leave(&mut self, slot: Slot) {
        if self.flows.list(slot) == Some(List::Ledger) {
            self.owed -= usize::from(self.is_owed(slot));
            self.move_cursors_on(slot);
            self.flows.change(slot, |note| note.set_version(0));
        }
        self.flows.unlink(slot);
    }

    fn move_cursors_on(&mut self, slot: Slot) {
        let behind = self.flows.behind(slot);
        let walks = [&mut self.bulk, &mut self.catch_up];
        let walks = walks.into_iter().flatten().map(|walk| &mut walk.next);
        for next in walks.chain([&mut self.live]) {
            if *next == Some(slot) {
                *next = behind;
            }
        }
    }

    // ---- what is owed ----

    /// Number of entries that the live cursor has before it.
    pub(crate) fn owed(&self) -> usize {
        self.owed
    }

    fn is_owed(&self, slot: Slot) -> bool {
        self.note(slot).version() > self.sent
    }

    /// The next entry that is owed.
    pub(crate) fn next_owed(&self) -> Option<Slot> {
        self.live
    }

    /// A message about an entry, as it is now, has been sent. Whichever cursor stands on it
    /// moves on. Returns the version that was sent.
    pub(crate) fn sent(&mut self, slot: Slot) -> u64 {
        self.step(slot, Step::Sent);
        if self.flows.list(slot) != Some(List::Ledger) {
            // Its first version: nothing else is owed, or it is sent once more.
            self.stamp(slot);
            if self.live.is_none() {
                self.sent = self.head;
            } else {
                self.owed += 1;
            }
        } else if self.live == Some(slot) {
            self.sent = self.note(slot).version();
            self.owed -= 1;
        }
        let version = self.note(slot).version();
        self.move_cursors_on(slot);
        version
    }

    /// The entry of a message that was sent, if it has not changed since.
    pub(crate) fn unchanged(&self, ticket: Ticket, version: u64) -> Option<Slot> {
        let slot = self.redeem(ticket)?;
        (self.note(slot).version() == version).then_some(slot)
    }

    // ---- the second cursors ----

    /// Puts the bulk cursor before everything that has been sent.
    pub(crate) fn begin_bulk(&mut self) {
        self.bulk = Some(Walk {
            next: self.front(List::Ledger),
            to: self.sent,
        });
    }

    pub(crate) fn end_bulk(&mut self) {
        self.bulk = None;
    }

    /// The entry at the bulk cursor. Behind those with a version come the adopted ones, if
    /// they are wanted.
    pub(crate) fn next_in_bulk(&self, adopted: bool) -> Option<Slot> {
        let listed = self.bulk.and_then(|walk| self.next_of(walk));
        listed.or_else(|| self.front(List::Adopted).filter(|_| adopted))
    }

    /// Moves the bulk cursor past an entry that is not to be sent.
    pub(crate) fn pass_in_bulk(&mut self, slot: Slot) {
        let behind = self.flows.behind(slot);
        if let Some(walk) = self.bulk.as_mut().filter(|w| w.next == Some(slot)) {
            walk.next = behind;
        }
    }

    /// True while some of what was sent has left the ring unacknowledged.
    pub(crate) fn has_to_catch_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// A message left the ring of those under way, and nobody acknowledged it. The
    /// catch-up cursor goes back to the entry, if that has not changed since.
    pub(crate) fn forget_message(&mut self, ticket: Ticket, version: u64) {
        let Some(slot) = self.unchanged(ticket, version) else {
            return;
        };
        match &mut self.catch_up {
            None => {
                self.catch_up = Some(Walk {
                    next: Some(slot),
                    to: version,
                });
            }
            Some(walk) => {
                walk.to = walk.to.max(version);
                let at = walk.next.map(|next| self.flows.note(next).version());
                if at.is_none_or(|at| version < at) {
                    walk.next = Some(slot);
                }
            }
        }
    }

    /// The entry at the catch-up cursor. At its end there is nothing to catch up with.
    pub(crate) fn next_to_catch_up(&mut self) -> Option<Slot> {
        let next = self.next_of(self.catch_up?);
        if next.is_none() {
            self.catch_up = None;
        }
        next
    }

    fn next_of(&self, walk: Walk) -> Option<Slot> {
        walk.next
            .filter(|next| self.note(*next).version() <= walk.to)
    }

    // ---- tombstones ----

    /// A tombstone has been sent for the first time and waits for its acknowledgement. For an absent peer
    /// they would fill the cache: beyond `max` of them the oldest go. Returns how many have.
    pub(crate) fn bury(&mut self, slot: Slot, max: usize) -> u64 {
        let ticket = self.ticket(slot);
        self.tombstones.push_back(ticket);
        let mut lost = 0;
        while let Some(oldest) = self.tombstones.front() {
            let oldest = self.redeem(*oldest);
            let oldest = oldest.filter(|s| self.note(*s).has_ended() && !self.is_owed(*s));
            if let Some(slot) = oldest {
                if self.members(Internal::ENDED) <= max {
                    break;
                }
                self.remove(slot);
                lost += 1;
            }
            self.tombstones.pop_front();
        }
        lost
    }

    // ---- numbers ----

    /// Number of flows that we announce, once nothing is owed.
    pub(crate) fn announced(&self) -> usize {
        self.members(Internal::OURS)
    }

    /// Number of flows that we have offered.
    pub(crate) fn offered(&self) -> usize {
        self.members(Internal::OFFERED)
    }

    /// True if the flow of an entry is ours.
    pub(crate) fn is_ours(&self, slot: Slot) -> bool {
        self.note(slot).is_ours()
    }

    pub(crate) fn life(&self, slot: Slot) -> Life {
        self.note(slot).life()
    }
}

#[cfg(test)]
mod tests;
