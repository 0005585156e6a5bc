//! Message of the peer → external cache, or the queue of injections.
//!
//! With injection the external cache is the ledger of what we put into the
//! kernel: what the peer said last, and when. It decides later whether a flow has
//! seen traffic here since, and so is ours (see `inject`).

use cache::{List, Slot};
use flow::{Flow, Status};
use wire::v1::{Seq, StateKind};

use crate::{Replica, marks};

impl Replica {
    /// Applies a state message that is older than one applied before, as far as it is
    /// still news: it must not take a flow back, nor revive one that has ended.
    pub(crate) fn deliver_late(&mut self, kind: StateKind, flow: Flow, seq: Seq) {
        let is_ours = self.internal.find(&flow.key()).is_some_and(|slot| {
            let others = marks::TAKEN | marks::DEAD | marks::SILENT;
            !self.internal.has(slot, others)
        });
        let is_news = match self.external.find(&flow.key()) {
            Some(slot) => {
                let is_of_this_run =
                    self.is_confirmed(slot) || self.external.has(slot, marks::DEAD);
                !is_of_this_run || Seq(self.external.meta(slot).seq).before(seq)
            }
            // No flow at all has ended since this was said.
            None => kind != StateKind::Delete && self.peer.ended_before(seq),
        };
        // Of a flow that is ours only the end matters: what the peer had said is over.
        if is_news && (!is_ours || kind == StateKind::Delete) {
            self.receiver.stats.late_used += 1;
            self.deliver(kind, flow, seq);
        }
    }

    /// Applies one state message about a flow, in the order of sending.
    pub(crate) fn deliver(&mut self, kind: StateKind, mut flow: Flow, seq: Seq) {
        if kind == StateKind::Delete {
            self.peer.on_ended(seq);
        }
        // Says that the peer's entry is about to go, nothing about ours.
        flow.status = flow.status.without(Status::DYING);
        let owned = self.note_ownership(kind, &flow);
        let known = self.external.find(&flow.key());
        if !self.settings.external_cache {
            return match kind {
                StateKind::Delete => self.inject_delete(known, owned, seq),
                StateKind::New | StateKind::Update => self.inject_state(known, &flow, seq),
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
                self.heard_of(slot, seq, false);
                self.stats.external.created += 1;
            }
            (StateKind::Update, Some(slot)) => {
                self.merge_external(slot, &flow);
                self.heard_of(slot, seq, false);
                self.stats.external.updated += 1;
            }
            (StateKind::New | StateKind::Update, None) => {
                if let Some(slot) = self.insert_external(&flow) {
                    self.heard_of(slot, seq, true);
                }
            }
        }
    }

    /// The owner of a flow is the replica whose kernel sees its packets. What the
    /// peer says of a flow makes it the peer's, until our kernel sees traffic again.
    /// Returns true if the flow is ours.
    fn note_ownership(&mut self, kind: StateKind, flow: &Flow) -> bool {
        let Some(slot) = self.internal.find(&flow.key()) else {
            return false;
        };
        if kind == StateKind::Delete {
            return !self.internal.has(slot, marks::TAKEN | marks::DEAD);
        }
        if !self.internal.has(slot, marks::DEAD) {
            let clear = marks::SILENT | marks::BULK;
            self.internal.mark(slot, marks::TAKEN, clear);
            // What we were about to say is older than what the peer says.
            self.internal.unqueue(slot);
        }
        false
    }

    fn merge_external(&mut self, slot: Slot, flow: &Flow) {
        let mut merged = self.external.flow(slot);
        merged.merge(flow);
        self.external.store(slot, &merged, self.now.tick());
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

    fn inject_state(&mut self, known: Option<Slot>, flow: &Flow, seq: Seq) {
        let slot = match known {
            Some(slot) => {
                self.merge_external(slot, flow);
                slot
            }
            None => match self.insert_external(flow) {
                Some(slot) => slot,
                None => return,
            },
        };
        self.heard_of(slot, seq, known.is_none());
        self.external.mark(slot, marks::UNWRITTEN, marks::DEAD);
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
            self.external.mark(slot, marks::DEAD, 0);
            self.external.meta_mut(slot).seq = seq.0;
            self.owe_injection(slot);
        }
    }

    /// Queues an entry for injection, or notes that it changed while a request is under way.
    fn owe_injection(&mut self, slot: Slot) {
        if self.external.has(slot, marks::BUSY) {
            self.external.mark(slot, marks::AGAIN, 0);
        } else if self.external.meta(slot).list() != Some(List::Owed) {
            self.external.queue(slot, List::Owed);
        }
    }
}
