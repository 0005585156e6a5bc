//! Kernel event → internal cache → owed to the peer.
//!
//! Hard cases: a DESTROY can come after the NEW of the flow that took its tuple
//! (the kernel's id distinguishes them); two processors may report changes of one flow in the
//! wrong order; a flow that the peer has taken over ends in our kernel too, and that must not
//! be announced; our own requests cause events.

use cache::Slot;
use flow::{Flow, FlowKey, Status, TcpState};
use wire::StateKind;
use wire::v1::check_carried;

use super::Replica;
use crate::entry::{Effect, External, Step};
use crate::event::Event;
use crate::kernel::{Change, KernelEvent, Origin};
use crate::sweep::Heard;

impl Replica {
    pub(crate) fn on_kernel_event(&mut self, event: &KernelEvent) {
        self.stats.events_received += 1;
        let flow = &event.flow;
        if event.change == Change::Destroy
            && let Some((packets, bytes)) = flow.traffic
        {
            self.stats.traffic_packets += packets;
            self.stats.traffic_bytes += bytes;
        }
        let heard = match (event.change, event.origin) {
            (Change::Destroy, _) => Heard::Ended,
            (_, Origin::Traffic) => Heard::Changed,
            (_, Origin::Commit | Origin::Inject) => Heard::Written,
        };
        self.sweeps.hear(flow.key(), heard);
        let known = self.ledger.find(&flow.key());
        // The end of a flow that is known always counts, whatever a filter of
        // states makes of its last state: its entry would stay for ever.
        let ends_known = event.change == Change::Destroy && known.is_some();
        if !ends_known && !self.settings.filter.keeps(flow) {
            self.stats.events_filtered += 1;
            return;
        }
        self.sweeps.note(self.now, flow);
        if event.change == Change::Destroy {
            self.ended_while_asked(&flow.key(), event.origin);
        }
        if event.origin != Origin::Traffic && !self.protocol.is_alone() {
            self.stats.events_own += 1;
            return self.on_own_event(event, known);
        }
        if !self.protocol.is_alone() && check_carried(flow).is_err() {
            self.stats.not_carried += 1;
            return;
        }
        let is_unheard_of = known.is_none() && self.external.find(&flow.key()).is_none();
        if event.change == Change::Destroy {
            self.injected_ended(&flow.key());
        } else {
            self.disown(&flow.key());
        }
        if !self.settings.internal_cache {
            let (kind, counter) = match event.change {
                Change::New => (StateKind::New, &mut self.stats.internal.created),
                Change::Update => (StateKind::Update, &mut self.stats.internal.updated),
                Change::Destroy => (StateKind::Delete, &mut self.stats.internal.destroyed),
            };
            *counter += 1;
            return self.owe_directly(kind, *flow);
        }
        match (event.change, known) {
            (Change::Destroy, None) => {}
            (Change::Destroy, Some(slot)) => self.on_destroy(slot, flow),
            (Change::New, Some(slot)) => self.reuse_entry(slot, flow),
            (Change::New | Change::Update, None) => {
                self.insert_internal(flow, Step::Created);
                if event.change == Change::Update && is_unheard_of {
                    self.doubt_late_update(&flow.key());
                }
            }
            (Change::Update, Some(slot)) => {
                let held = self.ledger.flow(slot);
                if self.is_overtaken(slot, &held, flow) {
                    self.on_late_update(slot, &held, flow);
                } else {
                    self.on_update(slot, &held, flow);
                }
            }
        }
    }

    /// True if a live flow of ours is shown as it was before what we hold. Packets take back neither
    /// steps of its status nor of a TCP connection, but for a new handshake. Should the kernel have
    /// done so all the same, the next look through the table finds it. What the peer has taken or
    /// what has ended may begin anew.
    pub(crate) fn is_overtaken(&self, slot: Slot, held: &Flow, flow: &Flow) -> bool {
        if held.is_other_entry(flow) || !self.ledger.is_ours(slot) {
            return false;
        }
        let steps = Status::SEEN_REPLY.with(Status::ASSURED);
        let lacks_steps = held.status.0 & !flow.status.0 & steps.0 != 0;
        let handshake = TcpState::SYN_RECV.progress();
        let states = held.tcp_state().zip(flow.tcp_state());
        let goes_back = states.is_some_and(|(before, now)| {
            (handshake + 1..before.progress()).contains(&now.progress())
        });
        goes_back || lacks_steps
    }

    /// A change that a later one has overtaken. Labels and sequence adjustments stand only in the
    /// event that changes them.
    pub(crate) fn on_late_update(&mut self, slot: Slot, held: &Flow, flow: &Flow) {
        self.stats.events_late += 1;
        let merged = Flow {
            labels: flow.labels.or(held.labels),
            seq_adj: flow.seq_adj.or(held.seq_adj),
            ..*held
        };
        if merged != *held {
            self.ledger.store(slot, &merged, self.now.tick());
            self.ledger.step(slot, Step::Updated);
        }
    }

    /// A flow has ended in our kernel. The result of a request about it that is under way may
    /// be older. What an injection deletes and what runs down under it, it notices itself.
    fn ended_while_asked(&mut self, flow: &FlowKey, origin: Origin) {
        let is_noticed = !self.settings.external_cache && origin != Origin::Commit;
        let slot = self.external.find(flow).filter(|_| !is_noticed);
        if let Some(slot) = slot.filter(|slot| self.external.note(*slot).is_asked()) {
            self.external.change(slot, External::changed);
        }
    }

    /// A committed flow is ours from now on, but the peer knows it; an injected one is not
    /// ours. The driver may leave the events of injections out: their results suffice.
    fn on_own_event(&mut self, event: &KernelEvent, known: Option<Slot>) {
        match (event.change, known) {
            _ if event.origin == Origin::Inject => {}
            (Change::Destroy, Some(slot)) => self.remove_internal(slot),
            (Change::New | Change::Update, _) if event.origin == Origin::Commit => {
                // With injection the request's result tells whose it is.
                let is_copy = !self.settings.external_cache
                    && self.external.find(&event.flow.key()).is_some();
                if !is_copy {
                    self.own_committed(&event.flow);
                }
            }
            _ => {}
        }
    }

    /// Enters a committed flow into the internal cache, without announcing it.
    pub(crate) fn own_committed(&mut self, flow: &Flow) {
        if !self.settings.internal_cache {
            return;
        }
        match self.ledger.find(&flow.key()) {
            Some(slot) => {
                let mut merged = self.ledger.flow(slot);
                merged.merge(flow);
                self.ledger.store(slot, &merged, self.now.tick());
                self.ledger.step(slot, Step::Committed);
            }
            None => self.insert_internal(flow, Step::Adopted),
        }
    }

    /// Adds an entry by the step that makes it; counts it if the cache is full.
    pub(crate) fn insert_internal(&mut self, flow: &Flow, step: Step) {
        match self.ledger.insert(flow, self.now.tick(), step) {
            Ok(_) => self.stats.internal.created += 1,
            Err(cache::Full) => {
                self.stats.internal.create_failed += 1;
                self.sweeps.note_missing();
            }
        }
    }

    /// A new flow under the key of one that we hold: its end was lost, or is on its way.
    fn reuse_entry(&mut self, slot: Slot, flow: &Flow) {
        self.ledger.store(slot, flow, self.now.tick());
        self.ledger.step(slot, Step::Reused);
        self.stats.internal.created += 1;
    }

    /// A flow of which we hold `held` has changed.
    pub(crate) fn on_update(&mut self, slot: Slot, held: &Flow, flow: &Flow) {
        let mut merged = *held;
        if held.is_other_entry(flow) || self.ledger.note(slot).has_ended() {
            return self.reuse_entry(slot, flow);
        }
        merged.merge(flow);
        self.ledger.store(slot, &merged, self.now.tick());
        self.ledger.step(slot, Step::Updated);
        self.stats.internal.updated += 1;
    }

    /// Our kernel has seen traffic of a flow: it is ours, and we announce it.
    pub(crate) fn claim(&mut self, slot: Slot) {
        self.ledger.step(slot, Step::Traffic);
    }

    pub(crate) fn on_destroy(&mut self, slot: Slot, flow: &Flow) {
        let held = self.ledger.flow(slot);
        if held.is_other_entry(flow) {
            self.stats.events_late += 1;
            return;
        }
        self.end_entry(slot, flow);
    }

    /// Removes an entry; its end is not announced.
    pub(crate) fn remove_internal(&mut self, slot: Slot) {
        let flow = self.ledger.flow(slot);
        self.forget_expectations_of(&flow);
        self.ledger.remove(slot);
    }

    /// The flow of an entry has ended in our kernel. `last`: how it was at the end, as far
    /// as that is known.
    pub(crate) fn end_entry(&mut self, slot: Slot, last: &Flow) {
        let note = self.ledger.note(slot);
        if note.has_ended() {
            return;
        }
        if self.protocol.is_alone() {
            self.events.push_back(Event::Ended(Box::new(*last)));
        }
        self.stats.internal.destroyed += 1;
        if note.is_taken() {
            self.stats.ends_not_announced += 1;
            let flow = self.ledger.flow(slot);
            self.forget_expectations_of(&flow);
        }
        let effect = self.ledger.step(slot, Step::Ended);
        debug_assert!(matches!(effect, Effect::Announce | Effect::Remove));
    }

    pub(crate) fn on_overrun(&mut self) {
        self.stats.overruns += 1;
        self.sweeps.set_whole(false);
        let already = self.sweeps.is_repair_due();
        if let Some(after) = self.settings.overrun_resync {
            self.sweeps.schedule_repair(self.now + after);
        }
        if !already {
            self.events
                .push_back(Event::Overrun(self.settings.overrun_resync));
        }
    }
}
