//! Message of the peer → external cache, or the queue of injections.
//!
//! With injection the external cache is the ledger of what we put into the
//! kernel: what the peer sent last, and when. It decides later whether a flow has
//! seen traffic here since, and so is ours (see `inject`).
//!
//! An offer is a flow that the peer has only found in its kernel. It never takes a flow
//! of ours, and our kernel, if it has kept its table, is not given it: the offer may be
//! the old copy of a flow that has ended here while our daemon was down.

use std::time::Duration;

use cache::{List, Slot};
use flow::{Flow, Status};
use wire::{Role, Seq, StateKind};

use super::Replica;
use super::inject::with_timeout;
use crate::entry::{External, Step};
use crate::receive::PeerId;
use crate::time::Instant;

/// Two take-overs cross only if ours was this recent: an older claim that is still on its
/// way, after an outage, may be of a former life of the flow.
const CROSSING_MAX: Duration = Duration::from_secs(2);

impl Replica {
    /// Applies a state message that is older than one applied before, as far as it is
    /// still news: it must not take a flow back, nor revive one that has ended.
    pub(crate) fn deliver_late(&mut self, from: PeerId, kind: StateKind, flow: Flow, seq: Seq) {
        let own = self.ledger.find(&flow.key());
        let is_ours = own.is_some_and(|slot| self.ledger.is_ours(slot));
        let is_news = match self.external.find(&flow.key()) {
            Some(slot) => {
                let note = self.external.note(slot);
                let is_of_this_epoch = self.is_mentioned(slot) || note.has_ended();
                !is_of_this_epoch || note.seq.before(seq)
            }
            // No flow at all has ended since this was sent.
            None => kind != StateKind::Delete && self.peer_mut(from).ended_before(seq),
        };
        // Of a flow that is ours only the end matters: what the peer had announced is over.
        if is_news && (!is_ours || kind == StateKind::Delete) {
            self.peer_mut(from).receiver.stats.late_used += 1;
            self.deliver(from, kind, flow, seq);
        }
    }

    /// Applies the offer of a flow.
    pub(crate) fn deliver_offer(&mut self, from: PeerId, mut flow: Flow, seq: Seq, late: bool) {
        self.stats.offers_received += 1;
        flow.status = flow.status.without(Status::DYING);
        if !self.settings.external_cache {
            flow = with_timeout(flow);
        }
        let own = self.ledger.find(&flow.key());
        let own = own.filter(|slot| self.ledger.is_ours(*slot));
        if let Some(own) = own {
            // That it is ours is the answer. Until the peer has it, the offer stands.
            self.ledger.announce(own);
        }
        let Some(slot) = self.external.find(&flow.key()) else {
            // No flow at all has ended since this was sent.
            if late && !self.peer_mut(from).ended_before(seq) {
                return;
            }
            if let Some(slot) = self.insert_external(&flow) {
                self.heard_of(slot, from, seq, true, true);
                if own.is_some() {
                    self.external.change(slot, External::offered_ours);
                } else if !self.settings.external_cache {
                    self.keep_offer(slot);
                }
            }
            return;
        };
        let note = self.external.note(slot);
        if note.has_ended() {
            if !late {
                self.revive_as_offer(from, slot, &flow, seq);
            }
            return;
        }
        let is_told = self.is_confirmed(slot);
        if late && (is_told || !note.seq.before(seq)) {
            return;
        }
        // What the peer announced in a former epoch is now known to live.
        if !is_told && !note.is_ours() {
            self.merge_external(slot, &flow);
            if !self.settings.external_cache && !note.is_held() {
                self.external.change(slot, External::owed_to_kernel);
                self.owe_injection(slot);
            }
        }
        self.heard_of(slot, from, seq, false, note.is_offer());
    }

    /// With injection: an offer of a flow whose former life is on its way out of our kernel.
    fn revive_as_offer(&mut self, from: PeerId, slot: Slot, flow: &Flow, seq: Seq) {
        let slot = self.renew(slot);
        self.external.store(slot, flow, self.now.tick());
        self.heard_of(slot, from, seq, true, true);
        self.keep_offer(slot);
    }

    /// With injection: an offer goes to the kernel only if that has lost its table, and so
    /// knows nothing better.
    fn keep_offer(&mut self, slot: Slot) {
        if self.has_new_table(self.external.note(slot).peer) {
            self.external.change(slot, External::owed_to_kernel);
            self.owe_injection(slot);
        } else {
            self.external.change(slot, External::held);
        }
    }

    /// Applies one state message about a flow, in the order of sending.
    pub(crate) fn deliver(&mut self, from: PeerId, kind: StateKind, mut flow: Flow, seq: Seq) {
        if kind == StateKind::Delete {
            self.peer_mut(from).on_ended(seq);
        }
        // Says that the peer's entry is about to go, nothing about ours.
        flow.status = flow.status.without(Status::DYING);
        let owned = self.note_ownership(from, kind, &flow);
        let known = self.external.find(&flow.key());
        if owned && kind != StateKind::Delete {
            return self.keep_for_the_peer(from, known, &flow, seq);
        }
        if !self.settings.external_cache {
            return match kind {
                StateKind::Delete => self.inject_delete(known, owned, seq),
                StateKind::New | StateKind::Update => self.inject_state(from, known, &flow, seq),
            };
        }
        match (kind, known) {
            (StateKind::Delete, Some(slot)) => {
                self.remove_external(slot);
                self.stats.external.destroyed += 1;
            }
            (StateKind::Delete, None) => {}
            (StateKind::New, Some(slot)) => {
                self.external.store(slot, &flow, self.now.tick());
                self.announced(from, slot, seq, false);
                self.stats.external.created += 1;
            }
            (StateKind::Update, Some(slot)) => {
                self.merge_external(slot, &flow);
                self.announced(from, slot, seq, false);
                self.stats.external.updated += 1;
            }
            (StateKind::New | StateKind::Update, None) => {
                if let Some(slot) = self.insert_external(&flow) {
                    self.announced(from, slot, seq, true);
                }
            }
        }
    }

    /// The owner of a flow is the replica whose kernel sees its packets. What the
    /// peer announces of a flow makes it the peer's, until our kernel sees traffic again.
    /// Returns true if the flow is ours.
    fn note_ownership(&mut self, from: PeerId, kind: StateKind, flow: &Flow) -> bool {
        let Some(slot) = self.ledger.find(&flow.key()) else {
            return false;
        };
        if kind == StateKind::Delete {
            let note = self.ledger.note(slot);
            self.ledger.step(slot, Step::EndedByPeer);
            return !note.is_taken() && !note.has_ended();
        }
        if self.only_repeats() || self.wins(from, slot) {
            return true;
        }
        // What we were about to send is older than what the peer sends.
        self.ledger.step(slot, Step::TakenByPeer);
        false
    }

    /// True if the peer's announcement says nothing of whose the flow is: ALARM repeats all that
    /// a cache holds, so an old primary, or a conntrackd, goes on repeating what we have taken
    /// over. Whether we are told to be primary decides.
    pub(super) fn only_repeats(&self) -> bool {
        self.protocol.expires() && self.role == Role::Primary
    }

    /// True if the peer's announcement crosses our take-over, and the flow stays ours: the peer
    /// was primary before us, or both were made to take over at once. Then their bulk updates
    /// cross, and the higher epoch keeps the flow; otherwise each would take the other one for
    /// its owner.
    fn wins(&self, from: PeerId, own: Slot) -> bool {
        let note = self.ledger.note(own);
        if self.was_primary_before_us(from) {
            return note.is_ours() || note.is_found();
        }
        let theirs = self.peer(from).receiver.epoch();
        let is_higher = theirs.is_some_and(|theirs| theirs.0 < self.settings.epoch.0);
        note.is_ours() && note.is_in_bulk() && is_higher && self.is_just_now(self.took_over_at)
    }

    /// True if a peer was primary when we took over, or beside us for a moment, and we are
    /// claiming what it had: what it sends now is late, in answer to an earlier request for
    /// instance.
    pub(crate) fn was_primary_before_us(&self, peer: PeerId) -> bool {
        self.is_claiming() && self.peer(peer).was_primary
    }

    /// True while a take-over reads the kernel and announces what is there.
    pub(crate) fn is_claiming(&self) -> bool {
        let reads = self.claimed_at.is_some() && self.sweeps.is_resync_owed();
        reads || self.is_just_now(self.claimed_at)
    }

    fn is_just_now(&self, at: Option<Instant>) -> bool {
        at.is_some_and(|at| self.now.since(at) < CROSSING_MAX)
    }

    /// What the peer announces of a flow that stays ours: it counts on the entry until it
    /// has received our announcement.
    fn keep_for_the_peer(&mut self, from: PeerId, known: Option<Slot>, flow: &Flow, seq: Seq) {
        if known.is_some_and(|slot| self.external.note(slot).has_ended()) {
            return;
        }
        let Some(slot) = self.merge_or_insert_external(known, flow) else {
            return;
        };
        self.heard_of(slot, from, seq, known.is_none(), false);
        self.disown(&flow.key());
    }

    /// The message `seq` has announced an entry of the external cache: it is the peer's.
    fn announced(&mut self, from: PeerId, slot: Slot, seq: Seq, is_new: bool) {
        let late = self.is_commit_open();
        let was_late = self.external.note(slot).is_late();
        self.external.change(slot, |note| note.announced(late));
        if late && !was_late {
            self.late.note(self.external.ticket(slot));
        }
        self.heard_of(slot, from, seq, is_new, false);
    }

    fn merge_external(&mut self, slot: Slot, flow: &Flow) {
        let mut merged = self.external.flow(slot);
        merged.merge(flow);
        self.external.store(slot, &merged, self.now.tick());
    }

    /// `None` and a count if the cache is full.
    fn merge_or_insert_external(&mut self, known: Option<Slot>, flow: &Flow) -> Option<Slot> {
        let Some(slot) = known else {
            return self.insert_external(flow);
        };
        self.merge_external(slot, flow);
        Some(slot)
    }

    fn insert_external(&mut self, flow: &Flow) -> Option<Slot> {
        match self.external.insert(flow, self.now.tick()) {
            Ok(slot) => {
                if self.settings.external_cache {
                    self.stats.external.created += 1;
                }
                Some(slot)
            }
            Err(cache::Full) => {
                self.stats.external.create_failed += 1;
                None
            }
        }
    }

    fn inject_state(&mut self, from: PeerId, known: Option<Slot>, flow: &Flow, seq: Seq) {
        let flow = &with_timeout(*flow);
        let Some(slot) = self.merge_or_insert_external(known, flow) else {
            return;
        };
        self.announced(from, slot, seq, known.is_none());
        self.external.change(slot, External::revived);
        self.owe_injection(slot);
    }

    fn inject_delete(&mut self, known: Option<Slot>, owned: bool, seq: Seq) {
        if owned {
            self.stats.deletes_refused += 1;
            if let Some(slot) = known {
                self.remove_external(slot);
            }
            return;
        }
        if let Some(slot) = known {
            self.forget(slot);
            self.external.change(slot, |note| note.ended(seq));
            self.owe_injection(slot);
        }
    }

    /// Queues an entry for injection, or notes that it changed while a request is under way.
    fn owe_injection(&mut self, slot: Slot) {
        let is_free = self.external.change(slot, External::changed);
        if is_free && self.external.list(slot) != Some(List::Unwritten) {
            self.external.link(slot, List::Unwritten);
        }
    }
}
