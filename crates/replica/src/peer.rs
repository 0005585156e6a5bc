//! What we know of the peer: which run of it speaks, and what that run has confirmed.
//!
//! A peer that starts again has lost its memory, and maybe its table: what we learned
//! from its former run may be the only copy. So nothing is removed because of a
//! restart. Entries note the run that last told of them; until the new run does, they
//! are unconfirmed, counted, and committed with a short timeout.
//!
//! A restart is known from the epoch in the trailer of ALIVE, or, with a peer that
//! sends none, from a HELLO whose numbers begin anew.
//!
//! Absence from a bulk update removes an entry only if everything speaks for it:
//!
//! 1. the peer sends trailers, and this run of it has told of the entry before;
//! 2. it says that the bulk is complete, in a message before which nothing is missing
//!    (FT-FW: we have acknowledged all of the bulk; NOTRACK: nothing was lost since);
//! 3. the number of flows that it has told of is the number that we have heard of since
//!    a point before the bulk: `since`, moved on with each ALIVE while no bulk is open.

use std::time::Duration;

use cache::{Position, Slot};
use wire::v1::{Bulk, BulkState, Control, Epoch, Mode, Role, Seq, StateKind, Trailer};

use crate::receive::Followed;
use crate::{Event, Instant, Replica, marks};

/// What a restart of the peer makes us send or ask for, at most once in this time:
/// anybody can forge a HELLO.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// A point in the peer's sequence from which we count what it tells of.
#[derive(Clone, Copy, Debug)]
struct Since {
    seq: Seq,
    /// Messages lost by then (NOTRACK).
    lost: u64,
}

/// State towards the peer, whatever the mode.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    role: Role,
    /// Counts its runs as far as we noticed; entries note the one that told of them. It
    /// wraps: an entry that 256 runs in a row did not mention counts as confirmed again.
    run: u8,
    /// Entries of the external cache that its present run has told of.
    confirmed: usize,
    since: Option<Since>,
    /// Those of them that it has told of since then.
    heard_since: usize,
    /// Number of its last bulk update that we have drawn the conclusion from.
    handled: u32,
    /// Walk over the external cache for what that bulk did not mention, and `since` then.
    absent: Option<(Position, Seq)>,
    /// The last end of a flow that it told of.
    last_end: Option<Seq>,
    /// It has sent an ALIVE without trailer.
    plain: bool,
    /// A repair is owed, and when the last one was.
    repair_owed: bool,
    repaired_at: Option<Instant>,
}

impl Peer {
    fn restarted(&mut self) {
        self.run = self.run.wrapping_add(1);
        self.handled = 0;
        self.last_end = None;
        self.forget_all();
        self.repair_owed = true;
    }

    /// The external cache has been emptied, or nothing in it is confirmed any more.
    pub(crate) fn forget_all(&mut self) {
        self.confirmed = 0;
        self.heard_since = 0;
        self.since = None;
        self.absent = None;
    }

    pub(crate) fn on_ended(&mut self, seq: Seq) {
        if self.last_end.is_none_or(|last| last.before(seq)) {
            self.last_end = Some(seq);
        }
    }

    /// True if no end of a flow has been told of since `seq`.
    pub(crate) fn ended_before(&self, seq: Seq) -> bool {
        self.last_end.is_none_or(|last| last.before(seq))
    }

    fn is_after_since(&self, seq: Seq) -> bool {
        self.since.is_some_and(|s| s.seq.before(seq))
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        let last = self.repaired_at?;
        self.repair_owed.then_some(last + REPAIR_INTERVAL)
    }
}

impl Replica {
    /// Number of entries of the external cache that the peer has told of since it last started.
    pub fn confirmed(&self) -> usize {
        self.peer.confirmed
    }

    /// Number of entries that only a former run of the peer has told of.
    pub fn unconfirmed(&self) -> usize {
        let live = self.external.len() - self.external.marked(marks::DEAD);
        live.saturating_sub(self.peer.confirmed)
    }

    /// The peer's epoch, if it sends trailers, and what it takes itself for.
    pub fn peer(&self) -> (Option<Epoch>, Role) {
        (self.receiver.epoch(), self.peer.role)
    }

    pub(crate) fn is_confirmed(&self, slot: Slot) -> bool {
        self.is_present_run(self.external.meta(slot).seen)
    }

    /// Which of its runs the peer is in, as entries note it.
    pub(crate) fn present_run(&self) -> u8 {
        self.peer.run
    }

    pub(crate) fn is_present_run(&self, run: u8) -> bool {
        run == self.peer.run
    }

    /// The message `seq` has told of an entry of the external cache.
    pub(crate) fn heard_of(&mut self, slot: Slot, seq: Seq, is_new: bool) {
        let run = self.peer.run;
        let meta = self.external.meta_mut(slot);
        let was_confirmed = !is_new && meta.seen == run;
        let before = Seq(meta.seq);
        meta.seen = run;
        meta.seq = seq.0;
        let peer = &mut self.peer;
        peer.confirmed += usize::from(!was_confirmed);
        let counted = was_confirmed && peer.is_after_since(before);
        peer.heard_since += usize::from(!counted && peer.is_after_since(seq));
        self.age(slot);
    }

    /// An entry of the external cache ends.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if !self.is_confirmed(slot) {
            return;
        }
        let meta = self.external.meta_mut(slot);
        let seq = Seq(meta.seq);
        // An ended entry may still wait for the kernel.
        meta.seen = self.peer.run.wrapping_sub(1);
        self.peer.confirmed -= 1;
        self.peer.heard_since -= usize::from(self.peer.is_after_since(seq));
    }

    /// Removes an entry of the external cache.
    pub(crate) fn remove_external(&mut self, slot: Slot) {
        self.forget(slot);
        self.external.remove(slot);
    }

    /// The peer's numbers have begun anew.
    pub(crate) fn on_new_numbers(&mut self) {
        // With trailers its epoch says whether it has started again.
        if self.receiver.epoch().is_none() {
            self.on_peer_restart();
        }
    }

    fn on_peer_restart(&mut self) {
        self.peer.restarted();
        if let Some(expectations) = &mut self.expectations {
            expectations.on_peer_restart();
        }
        self.stats.peer_restarts += 1;
        self.events.push_back(Event::PeerRestarted {
            unconfirmed: self.unconfirmed(),
        });
        self.repair_peer();
    }

    /// The peer does not have what it should.
    pub(crate) fn owe_repair(&mut self) {
        self.peer.repair_owed = true;
        self.repair_peer();
    }

    /// Sends a peer that has started again, or gone back, what we have told it of before,
    /// and asks it for what it has if we are its backup.
    pub(crate) fn repair_peer(&mut self) {
        let now = self.now;
        let peer = &mut self.peer;
        let recently = |at: Instant| now.since(at) < REPAIR_INTERVAL;
        if !peer.repair_owed || peer.repaired_at.is_some_and(recently) {
            return;
        }
        peer.repair_owed = false;
        peer.repaired_at = Some(now);
        if self.settings.mode == Mode::Alarm {
            return;
        }
        self.start_bulk_of_told();
        if self.role == Role::Backup {
            self.request_resync();
        }
    }

    /// An ALIVE of the peer, with its trailer if it has one.
    pub(crate) fn on_alive(&mut self, trailer: Option<Trailer>, followed: &Followed) {
        let was_plain = std::mem::replace(&mut self.peer.plain, trailer.is_none());
        // Also if another program stands in for the one that sent trailers, or the reverse.
        let is_other = followed.new_run || (was_plain && trailer.is_some());
        if is_other || (followed.anew && trailer.is_some()) {
            self.on_peer_restart();
        }
        let Some(trailer) = trailer else {
            self.peer.role = Role::Unknown;
            return;
        };
        self.peer.role = trailer.role;
        if trailer.capabilities & Trailer::BULKS != 0 {
            self.on_bulk_state(&trailer.bulk, followed);
        }
    }

    /// What a trailer says of a bulk update.
    fn on_bulk_state(&mut self, bulk: &Bulk, followed: &Followed) {
        let seq = followed.seq;
        let lost = self.receiver.stats.lost;
        let peer = &mut self.peer;
        let is_open = bulk.number != peer.handled;
        if !is_open || bulk.first == seq {
            peer.since = Some(Since { seq, lost });
            peer.heard_since = 0;
            return;
        }
        let Some(since) = peer.since else { return };
        if bulk.state != BulkState::Complete || bulk.first.before(since.seq) {
            return;
        }
        let nothing_lost = match self.settings.mode {
            // What is missing before this very message may be what ended a flow.
            Mode::Ftfw => followed.missed.is_none(),
            _ => lost == since.lost,
        };
        if nothing_lost && peer.heard_since == bulk.flows as usize {
            peer.handled = bulk.number;
            if peer.confirmed > peer.heard_since {
                peer.absent = Some((Position::default(), since.seq));
            }
        }
    }

    /// Moves on through what a complete bulk did not mention. True if there is more.
    pub(crate) fn advance_absent(&mut self, items: usize) -> bool {
        // A commit takes what there is.
        if self.commit.is_some() {
            return false;
        }
        let Some((mut position, since)) = self.peer.absent else {
            return false;
        };
        for _ in 0..items {
            let Some((slot, next)) = self.external.walk(position) else {
                self.peer.absent = None;
                return false;
            };
            position = next;
            let seq = Seq(self.external.meta(slot).seq);
            if self.is_confirmed(slot) && !since.before(seq) {
                self.stats.external_absent += 1;
                let flow = self.external.flow(slot);
                self.deliver(StateKind::Delete, flow, seq);
            }
        }
        self.peer.absent = Some((position, since));
        true
    }

    /// What our own ALIVE says; `None` if it is to say nothing.
    pub(crate) fn trailer(&self) -> Option<Trailer> {
        if !self.settings.trailer || self.settings.mode == Mode::Alarm {
            return None;
        }
        Some(Trailer {
            role: self.role,
            capabilities: Trailer::BULKS,
            epoch: self.settings.epoch,
            bulk: self.bulk_state(),
        })
    }

    /// Owes the ALIVE that begins or ends a bulk update.
    pub(crate) fn owe_alive(&mut self) {
        self.outbox.owe(Control::Alive);
    }
}
