//! Message of the peer → external cache, or the queue of injections.
//!
//! With injection the external cache is the ledger of what we put into the
//! kernel: what the peer said last, and when. It decides later whether a flow has
//! seen traffic here since, and so is ours (see `inject`).

use cache::{List, Slot};
use flow::{Flow, Status};
use wire::v1::StateKind;

use crate::{Replica, marks};

impl Replica {
    /// Applies one state message about a flow.
    pub(crate) fn deliver(&mut self, kind: StateKind, mut flow: Flow) {
        // Says that the peer's entry is about to go, nothing about ours.
        flow.status = flow.status.without(Status::DYING);
        let owned = self.note_ownership(kind, &flow);
        let known = self.external.find(&flow.key());
        if !self.settings.external_cache {
            return match kind {
                StateKind::Delete => self.inject_delete(known, owned),
                StateKind::New | StateKind::Update => self.inject_state(known, &flow),
            };
        }
        match (kind, known) {
            (StateKind::Delete, Some(slot)) => {
                self.external.remove(slot);
                self.stats.external.destroyed += 1;
            }
            (StateKind::Delete, None) => {}
            (StateKind::New, Some(slot)) => {
                self.external.store(slot, &flow, self.now.tick());
                self.heard_of(slot);
                self.stats.external.created += 1;
            }
            (StateKind::Update, Some(slot)) => {
                self.merge_external(slot, &flow);
                self.heard_of(slot);
                self.stats.external.updated += 1;
            }
            (StateKind::New | StateKind::Update, None) => {
                if let Some(slot) = self.insert_external(&flow) {
                    self.heard_of(slot);
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
        let meta = self.internal.meta_mut(slot);
        if kind == StateKind::Delete {
            return meta.marks & (marks::TAKEN | marks::DEAD) == 0;
        }
        if meta.marks & marks::DEAD == 0 {
            meta.marks |= marks::TAKEN;
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

    fn inject_state(&mut self, known: Option<Slot>, flow: &Flow) {
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
        self.external.meta_mut(slot).marks &= !marks::DEAD;
        self.owe_injection(slot);
    }

    fn inject_delete(&mut self, known: Option<Slot>, owned: bool) {
        if owned {
            self.stats.deletes_refused += 1;
            if let Some(slot) = known {
                self.external.remove(slot);
            }
            return;
        }
        if let Some(slot) = known {
            self.external.meta_mut(slot).marks |= marks::DEAD;
            self.owe_injection(slot);
        }
    }

    /// Queues an entry for injection, or notes that it changed while a request is under way.
    fn owe_injection(&mut self, slot: Slot) {
        let meta = self.external.meta_mut(slot);
        if meta.marks & marks::BUSY != 0 {
            meta.marks |= marks::AGAIN;
        } else if meta.list() != Some(List::Owed) {
            self.external.queue(slot, List::Owed);
        }
    }
}
