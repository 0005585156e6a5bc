//! Direct injection: entries of the external cache → kernel, as they come.
//!
//! [`crate::conversation`] decides what is asked after each outcome. An entry has one request
//! under way at most; what comes meanwhile is noted, and built from the entry's state when
//! the request is over.

use cache::{List, Slot, Ticket};
use flow::{Flow, FlowKey};

use super::{REQUESTS_MAX, Replica};
use crate::conversation::{self, Attempt, Next, NextOfEnd};
use crate::entry::{External, Step};
use crate::event::Event;
use crate::kernel::{KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject};

/// A timeout that is this many seconds longer than what was injected has been
/// refreshed by packets; less may be rounding.
const SLACK_SECS: u32 = 2;
/// Of what our kernel lacks so many are tried at first.
const RETRIES: usize = 16;

impl Replica {
    /// The next request for an owed entry.
    pub(crate) fn next_injection(&mut self) -> Option<KernelRequest> {
        if self.settings.external_cache {
            return None;
        }
        loop {
            let slot = self.external.front(List::Unwritten)?;
            self.external.unlink(slot);
            let flow = Self::aged_flow(&self.external, slot, self.now);
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
            self.sweeps.note(self.now, &flow);
            return Some(self.injection(slot, 0, op));
        }
    }

    fn injection(&self, slot: Slot, step: u8, op: Op) -> KernelRequest {
        KernelRequest {
            purpose: Purpose::Inject,
            subject: Subject::External(self.external.ticket(slot)),
            step,
            op,
        }
    }

    pub(crate) fn on_inject_result(&mut self, ticket: Ticket, result: &KernelResult) {
        if let (Op::Delete(key, _), Outcome::Done) = (&result.request.op, &result.outcome) {
            self.injection_deleted(key);
        }
        let Some(slot) = self.external.redeem(ticket) else {
            return;
        };
        if self.external.note(slot).has_ended() {
            self.after_end(slot, result);
        } else {
            self.after_state(slot, result);
        }
    }

    /// The next request about an entry.
    fn ask(&mut self, slot: Slot, before: &KernelRequest, op: Op) {
        if let Op::Delete(key, _) = &op {
            self.doubt(key);
        }
        let request = self.injection(slot, before.step + 1, op);
        self.requests.push_back(request);
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

    /// An UPDATE of a flow that nothing knows. It may have waited in the socket while we
    /// deleted the flow by injection, and no event of that comes: the kernel is asked.
    pub(crate) fn doubt_late_update(&mut self, flow: &FlowKey) {
        // Beyond the bound, the next look at the table finds it.
        if self.settings.external_cache || self.requests.len() >= REQUESTS_MAX {
            return;
        }
        if let Some(slot) = self.ledger.find(flow) {
            self.verify(slot);
        }
    }

    fn injection_over(&mut self, slot: Slot) {
        if self.external.change(slot, External::answered) {
            self.external.link(slot, List::Unwritten);
        }
    }

    /// Entries that our kernel does not have, although the peers count on them and they have not
    /// run down: it had no room, or somebody has deleted them.
    pub fn lacking(&self) -> usize {
        self.external.listed(List::Lacking)
    }

    pub(crate) fn is_lacking(&self, slot: Slot) -> bool {
        self.external.list(slot) == Some(List::Lacking)
    }

    /// Our kernel does not have an entry that lives. It counts as lacking until it is written, or
    /// the peer sends it again or ends it. What has run down, and what the peer has not mentioned
    /// since it was started again, only a commit writes; without offers it goes. True if it counts.
    fn note_lacking(&mut self, slot: Slot) -> bool {
        let age = (self.now.tick()).seconds_since(self.external.times(slot).updated);
        let timeout = self.external.flow(slot).timeout.unwrap_or(0);
        let has_time_left = timeout > age.saturating_add(SLACK_SECS);
        if self.protocol.expires() {
            // The peer repeats all that it has.
            return false;
        }
        if has_time_left && self.is_mentioned(slot) {
            self.external.link(slot, List::Lacking);
            return true;
        }
        if self.takes_offers() {
            self.external.unlink(slot);
            self.external.change(slot, External::held);
        } else {
            self.remove_external(slot);
        }
        false
    }

    /// A peer has lost its memory: it has not mentioned what is lacking.
    pub(crate) fn keep_all_lacking(&mut self) {
        for _ in 0..self.lacking() {
            if let Some(slot) = self.external.front(List::Lacking) {
                self.note_lacking(slot);
            }
        }
    }

    /// From now on what is lacking is tried once more: a few, and more with each that the kernel
    /// takes. One that is full makes room by dropping others.
    pub(crate) fn retry_lacking(&mut self) {
        self.retries = Some(RETRIES);
    }

    /// Tries what is lacking. True if there is more to do at once.
    pub(crate) fn advance_lacking(&mut self, items: usize) -> bool {
        // A commit tries them itself.
        let Some(retries) = self.retries.filter(|_| self.commit.is_none()) else {
            return false;
        };
        if self.lacking() == 0 {
            self.retries = None;
            return false;
        }
        if self.external.listed(List::Unwritten) >= REQUESTS_MAX / 2 {
            // What the peer sends goes first.
            return false;
        }
        let now = retries.min(items);
        for _ in 0..now {
            let Some(slot) = self.external.front(List::Lacking) else {
                break;
            };
            if self.note_lacking(slot) {
                self.external.change(slot, External::owed_to_kernel);
                self.external.link(slot, List::Unwritten);
            }
        }
        self.retries = Some(retries - now);
        retries > now
    }

    /// The kernel has taken one of what was lacking: it has room.
    fn retry_more(&mut self) {
        if let Some(retries) = &mut self.retries {
            *retries += 2;
        }
    }

    /// The kernel has the entry as the peer sent it when the request was made.
    fn is_written(&mut self, slot: Slot) {
        self.external.change(slot, External::written);
        let round = self.sweeps.round;
        self.external.change(slot, |note| note.seen(round));
    }

    fn after_state(&mut self, slot: Slot, result: &KernelResult) {
        let asked = &result.request;
        let wanted = Self::aged_flow(&self.external, slot, self.now);
        let attempt = Attempt {
            wanted,
            step: asked.step,
            is_taken: self.is_taken(&wanted.key()),
            is_our_copy: self.external.note(slot).is_in_kernel(),
        };
        let next = conversation::next(&attempt, &asked.op, &result.outcome);
        let leaves_timeout = match &next {
            Next::Ask(Op::Update(update)) => update.timeout.is_none(),
            Next::Updated(_) => true,
            _ => false,
        };
        if let Outcome::Found(found) = &result.outcome
            && leaves_timeout
        {
            // It stays the kernel's: nothing distinguishes a longer one from traffic.
            let timeout = found.flow.timeout;
            let kept = Flow { timeout, ..wanted };
            self.external.store(slot, &kept, self.now.tick());
        }
        match next {
            Next::Ask(op) => self.ask(slot, asked, op),
            Next::AskForLess(op) => {
                self.note_lesser(&asked.op, &op);
                self.ask(slot, asked, op);
            }
            Next::Created(_) => {
                self.is_written(slot);
                self.retry_more();
                self.stats.external.created += 1;
                self.injection_over(slot);
            }
            Next::Updated(_) => {
                self.is_written(slot);
                self.stats.external.updated += 1;
                self.injection_over(slot);
            }
            // What the kernel had may have ended since: a flush deletes what its owner has ended.
            Next::Kept(_) if self.external.note(slot).has_changed() => self.injection_over(slot),
            Next::Kept(_) => self.remove_external(slot),
            Next::Clash => {
                self.not_written(slot);
                self.note_clash(wanted.key());
                self.injection_over(slot);
            }
            Next::Refused(error) => {
                self.not_written(slot);
                let flow = wanted.key();
                self.events.push_back(Event::Refused { flow, error });
                self.injection_over(slot);
                let is_missing = !self.external.note(slot).is_in_kernel();
                if error == KernelError::TableFull && is_missing {
                    // Nor is there room for the others.
                    self.retries = None;
                    if self.external.list(slot).is_none() {
                        self.note_lacking(slot);
                    }
                }
            }
            Next::GivenUp => {
                self.not_written(slot);
                self.injection_over(slot);
            }
        }
    }

    fn after_end(&mut self, slot: Slot, result: &KernelResult) {
        let asked = &result.request;
        let flow = self.external.flow(slot);
        let has_seen_traffic = |held: &Flow| self.has_seen_traffic(slot, held);
        let next = conversation::next_of_end(&flow, &asked.op, &result.outcome, has_seen_traffic);
        match next {
            NextOfEnd::WrittenThenAsk(op) => {
                self.is_written(slot);
                return self.ask(slot, asked, op);
            }
            NextOfEnd::Ask(op) => return self.ask(slot, asked, op),
            NextOfEnd::Deleted => self.stats.external.destroyed += 1,
            NextOfEnd::Refused => self.stats.external.destroy_failed += 1,
            NextOfEnd::Spared => self.stats.deletes_refused += 1,
            NextOfEnd::Gone => {}
        }
        self.remove_external(slot);
    }

    /// True if the peer has announced a flow since our kernel last saw traffic of it.
    pub(crate) fn is_taken(&self, flow: &FlowKey) -> bool {
        let own = self.ledger.find(flow);
        own.is_some_and(|slot| self.ledger.note(slot).is_taken())
    }

    /// True if the kernel's entry will live longer than what we injected allows. Of an
    /// entry that is not as the peer sent it last, nothing is known.
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

    /// The kernel has no copy any more, but the peer may have sent something newer since.
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
            // It has run down here before its owner has announced that, who ends it; or somebody
            // has deleted it, perhaps the kernel, to make room for another.
            self.external.change(slot, External::left_kernel);
            if self.note_lacking(slot) {
                self.retries = None;
            }
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
        let slot = if note.is_asked() && !self.settings.external_cache {
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

    /// Another flow has one of the tuples.
    pub(crate) fn note_clash(&mut self, flow: FlowKey) {
        self.stats.clashes += 1;
        self.events.push_back(Event::Clash(flow));
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
    pub(crate) fn note_lesser(&mut self, tried: &Op, lesser: &Op) {
        if let (Op::Create(tried), Op::Create(lesser)) = (tried, lesser)
            && tried.helper != lesser.helper
        {
            self.stats.without_helper += 1;
            self.events.push_back(Event::WithoutHelper(tried.key()));
        }
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
