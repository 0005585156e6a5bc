//! Direct injection: entries of the external cache → kernel, as they come.
//!
//! ```text
//!  new or update ──▶ Create ──Exists──▶ Get ──same reply tuple──▶ Update
//!                      ▲  │ done         │ └─other reply tuple──▶ Delete ─▶ Create
//!                      │  ▼              └───nothing, or another flow: a clash, counted
//!               NotFound─Update (it is there) ──refused──▶ Get
//!
//!  delete ──▶ Get ──ran down as injected──▶ Delete
//!               └───seen traffic since, or not ours: not obeyed, counted
//! ```
//!
//! An entry has one request under way at most; what comes meanwhile is noted, and built
//! from the entry's state when the request is over.

use cache::{List, Slot};
use flow::{Flow, FlowKey};

use crate::commit::{Reconciled, STEPS_MAX};
use crate::entry::{External, Step};
use crate::kernel::{KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose};
use crate::{Event, Replica};

/// A timeout that is this many seconds longer than what was injected has been
/// refreshed by packets; less may be rounding.
const SLACK_SECS: u32 = 2;

impl Replica {
    /// The next request for an owed entry.
    pub(crate) fn next_injection(&mut self) -> Option<KernelRequest> {
        if self.settings.external_cache {
            return None;
        }
        loop {
            let slot = self.external.front(List::Unwritten)?;
            self.external.unlink(slot);
            let flow = self.external.flow(slot);
            let note = self.external.note(slot);
            let op = match (note.has_ended(), note.is_in_kernel()) {
                (true, true) => Op::Get(flow.key()),
                (true, false) => {
                    // It ended before the kernel heard of it.
                    self.remove_external(slot);
                    continue;
                }
                (false, true) => Op::Update(flow),
                (false, false) => Op::Create(flow),
            };
            self.external.change(slot, External::asked);
            return Some(self.injection(slot, 0, op));
        }
    }

    fn injection(&self, slot: Slot, step: u8, op: Op) -> KernelRequest {
        KernelRequest {
            purpose: Purpose::Inject,
            ticket: Some(self.external.ticket(slot)),
            step,
            op,
        }
    }

    pub(crate) fn on_inject_result(&mut self, result: &KernelResult) {
        if let (Op::Delete(key, _), Outcome::Done) = (&result.request.op, &result.outcome) {
            self.injection_deleted(key);
        }
        let slot = result.request.ticket.and_then(|t| self.external.redeem(t));
        let Some(slot) = slot else { return };
        let step = result.request.step + 1;
        let next = if self.external.note(slot).has_ended() {
            self.after_delete_step(slot, result)
        } else {
            self.after_state_step(slot, result)
        };
        match next {
            Next::Ask(op) if step < STEPS_MAX => {
                if let Op::Delete(key, _) = &op {
                    self.doubt(key);
                }
                let request = self.injection(slot, step, op);
                self.requests.push_back(request);
            }
            Next::Ask(_) => {
                self.not_written(slot);
                self.injection_over(slot);
            }
            Next::Over => self.injection_over(slot),
            Next::Forget => self.remove_external(slot),
        }
    }

    /// An injection is about to delete a flow: an entry that we hold of it ends with it,
    /// unless an event comes first.
    fn doubt(&mut self, flow: &FlowKey) {
        if let Some(slot) = self.ledger.find(flow) {
            self.ledger.step(slot, Step::Doubted);
        }
    }

    /// An injection has deleted a flow.
    fn injection_deleted(&mut self, flow: &FlowKey) {
        let Some(slot) = self.ledger.find(flow) else {
            return;
        };
        if self.ledger.note(slot).is_doubted() {
            self.remove_internal(slot);
        } else {
            // What came meanwhile may have been about this flow, or about the next one.
            self.verify(slot);
        }
    }

    fn injection_over(&mut self, slot: Slot) {
        if self.external.change(slot, External::answered) {
            self.external.link(slot, List::Unwritten);
        }
    }

    /// The kernel has the entry as the peer said it when the request was made.
    fn is_written(&mut self, slot: Slot) {
        self.external.change(slot, External::written);
    }

    fn after_state_step(&mut self, slot: Slot, result: &KernelResult) -> Next {
        let flow = self.external.flow(slot);
        match (result.request.op, &result.outcome) {
            (Op::Create(_), Outcome::Done) => {
                self.is_written(slot);
                self.stats.external.created += 1;
                Next::Over
            }
            (Op::Update(_), Outcome::Done) => {
                self.is_written(slot);
                self.stats.external.updated += 1;
                Next::Over
            }
            (Op::Create(_), Outcome::Failed(KernelError::Exists)) => Next::Ask(Op::Get(flow.key())),
            (Op::Create(tried), Outcome::Failed(error)) => {
                match without_what_fails(tried, *error) {
                    Some(lesser) => {
                        self.note_lesser(&tried, &lesser);
                        Next::Ask(Op::Create(lesser))
                    }
                    None => self.refuse(slot, *error),
                }
            }
            (Op::Update(_), Outcome::Failed(KernelError::NotFound)) => Next::Ask(Op::Create(flow)),
            (Op::Update(_), Outcome::Failed(_)) => Next::Ask(Op::Get(flow.key())),
            (Op::Get(_), Outcome::Found(held)) if held.key() != flow.key() => self.clash(slot),
            (Op::Get(_), Outcome::Found(held)) => match self.reconcile(held, &flow) {
                Reconciled::Update(update) => {
                    if update.timeout.is_none() {
                        // It stays the kernel's: nothing tells a longer one from traffic.
                        let timeout = held.timeout;
                        let kept = Flow { timeout, ..flow };
                        self.external.store(slot, &kept, self.now.tick());
                    }
                    Next::Ask(Op::Update(update))
                }
                Reconciled::Replace => Next::Ask(Op::Delete(flow.key(), held.id)),
                // It is what we once injected, of a former life of the flow.
                Reconciled::Keep if self.external.note(slot).is_in_kernel() => {
                    Next::Ask(Op::Delete(flow.key(), held.id))
                }
                Reconciled::Keep => Next::Forget,
            },
            (Op::Get(_), Outcome::Failed(KernelError::NotFound)) if result.request.step > 1 => {
                self.clash(slot)
            }
            (Op::Get(_), Outcome::Failed(_)) if result.request.step <= 1 => {
                // It may have gone between the two requests: try once more.
                Next::Ask(Op::Create(flow))
            }
            (Op::Delete(..), _) => Next::Ask(Op::Create(flow)),
            (_, Outcome::Failed(error)) => self.refuse(slot, *error),
            _ => Next::Over,
        }
    }

    fn after_delete_step(&mut self, slot: Slot, result: &KernelResult) -> Next {
        let flow = self.external.flow(slot);
        match (result.request.op, &result.outcome) {
            (Op::Get(_), Outcome::Found(held)) => {
                if held.key() != flow.key() || held.reply != flow.reply {
                    return Next::Forget;
                }
                if self.has_seen_traffic(slot, held) {
                    self.stats.deletes_refused += 1;
                    return Next::Forget;
                }
                Next::Ask(Op::Delete(flow.key(), held.id))
            }
            (Op::Delete(..), Outcome::Done) => {
                self.stats.external.destroyed += 1;
                Next::Forget
            }
            (Op::Delete(..), Outcome::Failed(error)) if *error != KernelError::NotFound => {
                self.stats.external.destroy_failed += 1;
                Next::Forget
            }
            (Op::Create(_) | Op::Update(_), outcome) => {
                // The delete came while the flow was being written.
                if *outcome == Outcome::Done {
                    self.is_written(slot);
                }
                Next::Ask(Op::Get(flow.key()))
            }
            _ => Next::Forget,
        }
    }

    /// True if the kernel's entry will live longer than what we injected allows. Of an
    /// entry that is not as the peer said it last, nothing can be said.
    pub(crate) fn has_seen_traffic(&self, slot: Slot, held: &Flow) -> bool {
        let note = self.external.note(slot);
        if note.is_ours() || note.is_unwritten() {
            return note.is_ours();
        }
        let injected = self.external.flow(slot).timeout.unwrap_or(0);
        let age = (self.now.tick()).seconds_since(self.external.times(slot).updated);
        let allowed = injected.saturating_sub(age).saturating_add(SLACK_SECS);
        held.timeout.is_some_and(|t| t > allowed)
    }

    /// True if an entry of our kernel is a copy that we injected, at rest.
    pub(crate) fn is_copy(&self, held: &Flow) -> bool {
        let injected = self.external.find(&held.key());
        let injected = injected.filter(|s| !self.external.note(*s).is_held());
        !self.settings.external_cache && injected.is_some_and(|s| !self.has_seen_traffic(s, held))
    }

    /// The kernel has no copy any more, but the peer may have said something newer since.
    pub(crate) fn injected_ended(&mut self, flow: &FlowKey) {
        if self.settings.external_cache {
            return;
        }
        let Some(slot) = self.external.find(flow) else {
            return;
        };
        let note = self.external.note(slot);
        if note.is_unwritten() || note.is_asked() {
            self.external.change(slot, External::left_kernel);
        } else if note.is_ours() || note.is_held() {
            // The peer counts on it.
        } else if self.takes_offers() {
            // It has run down here before its owner has announced that: its owner ends it.
            self.external.change(slot, External::left_kernel);
        } else {
            self.remove_external(slot);
        }
    }

    /// Our kernel has seen traffic of a flow: it is ours now, and we announce it. What the
    /// peer announced is kept until the peer has received that: it counts on it.
    pub(crate) fn disown(&mut self, flow: &FlowKey) {
        let Some(slot) = self.external.find(flow) else {
            return;
        };
        // Without an internal cache nothing remembers what we announce.
        let note = self.external.note(slot);
        if !self.settings.internal_cache || note.has_ended() {
            return self.remove_external(slot);
        }
        let slot = if note.is_asked() {
            self.renew(slot)
        } else {
            slot
        };
        if !self.settings.external_cache {
            self.external.unlink(slot);
        }
        self.external.change(slot, External::claimed);
    }

    /// The same entry in another slot: the result of the request that is under way is
    /// about nothing any more.
    pub(crate) fn renew(&mut self, slot: Slot) -> Slot {
        let (flow, note) = (self.external.flow(slot), self.external.note(slot));
        let times = self.external.times(slot);
        self.external.remove(slot);
        // One has just been removed.
        let slot = self
            .external
            .insert(&flow, times.updated)
            .expect("there is room");
        self.external.set_times(slot, times);
        self.external.change(slot, |new| *new = note.renewed());
        slot
    }

    fn clash(&mut self, slot: Slot) -> Next {
        self.stats.clashes += 1;
        self.not_written(slot);
        let key = self.external.key(slot);
        self.events.push_back(Event::Clash(key));
        Next::Over
    }

    fn refuse(&mut self, slot: Slot, error: KernelError) -> Next {
        self.not_written(slot);
        let flow = self.external.key(slot);
        self.events.push_back(Event::Refused { flow, error });
        Next::Over
    }

    /// Counts an entry that the kernel does not take as the peer sent it.
    fn not_written(&mut self, slot: Slot) {
        let stats = &mut self.stats.external;
        let note = self.external.note(slot);
        if note.has_ended() {
            stats.destroy_failed += 1;
        } else if note.is_in_kernel() {
            stats.update_failed += 1;
        } else {
            stats.create_failed += 1;
        }
    }

    /// Counts what was left out of a flow to make the kernel take it.
    pub(crate) fn note_lesser(&mut self, tried: &Flow, lesser: &Flow) {
        if tried.helper != lesser.helper {
            self.stats.without_helper += 1;
            self.events.push_back(Event::WithoutHelper(tried.key()));
        }
    }
}

/// What follows a result.
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
enum Next {
    /// Another request about the same entry.
    Ask(Op),
    /// Nothing for now.
    Over,
    /// The entry is not needed any more.
    Forget,
}

/// The flow without the part that made the kernel refuse it; `None` if nothing is left to try.
pub(crate) fn without_what_fails(tried: Flow, error: KernelError) -> Option<Flow> {
    match error {
        KernelError::Unsupported if tried.helper.is_some() => Some(Flow {
            helper: None,
            ..tried
        }),
        // Its master has gone; the flow itself lives.
        KernelError::NotFound if tried.master.is_some() => Some(Flow {
            master: None,
            ..tried
        }),
        _ => None,
    }
}

/// The kernel needs a timeout to create a flow; a peer with a `CommitTimeout` sends none.
/// The ledger keeps it: without, the kernel's own would look like traffic.
pub(crate) fn with_timeout(flow: Flow) -> Flow {
    const WITHOUT_ANY_SECS: u32 = 60;
    Flow {
        timeout: flow.timeout.or(Some(WITHOUT_ANY_SECS)),
        ..flow
    }
}
