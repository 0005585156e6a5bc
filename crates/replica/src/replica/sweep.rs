//! Dumps: what each entry means for the internal cache, by the reason of the dump.

use cache::{Position, Slot, Ticket};
use flow::{Flow, FlowKey, Labels};
use wire::v1::check_carried;
use wire::{Role, StateKind};

use super::{REQUESTS_MAX, Replica};
use crate::command::Objects;
use crate::entry::Step;
use crate::event::{Answer, Event};
use crate::kernel::{
    DumpEnd, DumpScope, KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject,
};
use crate::sweep::{Dump, Heard, Reason, SLACK_SECS};

impl Replica {
    pub(crate) fn start_resync(&mut self, objects: Objects) -> Answer {
        if !self.settings.internal_cache {
            return Answer::NoInternalCache;
        }
        self.events.push_back(Event::Resync);
        if objects.has_flows() {
            self.claimed_at = (self.role == Role::Primary).then_some(self.now);
            self.sweeps.owe(Reason::Resync, DumpScope::All);
        } else if self.settings.expectations.is_some() {
            self.sweeps.owe(Reason::Resync, DumpScope::Expectations);
        }
        Answer::Done
    }

    /// Owes the sweeps whose time has come.
    pub(crate) fn sweeps_due(&mut self) {
        let now = self.now;
        let flows = self.flows_held();
        let sweeps = &mut self.sweeps;
        if sweeps.repair_at.is_some_and(|at| at <= now) {
            sweeps.repair_at = None;
            sweeps.rounds.begin_whole(now);
            sweeps.rounds.doubt();
            sweeps.owe(Reason::Repair, DumpScope::All);
        }
        for scope in sweeps.rounds.take_due(now, flows) {
            sweeps.owe(Reason::Sweep, scope);
        }
        if sweeps.expire_at <= now {
            sweeps.expire_at = now + sweeps.expire_interval;
            let limit = self
                .protocol
                .expires()
                .then_some(self.settings.cache_timeout);
            if self.commit.is_none() {
                let limit = limit.map(|l| l.as_secs());
                self.expectations.expire(now.tick(), limit);
            }
            self.retry_lacking();
        }
    }

    /// Flows of both caches. The kernel's table holds no more of what is known; a replica that
    /// only keeps the peer's flows has little to find in it.
    pub(crate) fn flows_held(&self) -> usize {
        self.ledger.len() + self.external.len()
    }

    pub(crate) fn next_dump(&mut self) -> Option<DumpScope> {
        let sweeps = &mut self.sweeps;
        if sweeps.running.is_some() || sweeps.gone.is_some() || sweeps.copies.is_some() {
            return None;
        }
        let dump = sweeps.owed.pop_front()?;
        sweeps.running = Some(dump);
        sweeps.number = sweeps.number.wrapping_add(1);
        sweeps.began = self.now;
        sweeps.dumped = 0;
        sweeps.missing = false;
        let is_look = matches!(dump.reason, Reason::Start | Reason::Sweep | Reason::Repair);
        if is_look && dump.scope == DumpScope::All {
            sweeps.rounds.begin_whole(self.now);
        }
        (sweeps.found, sweeps.ended) = (0, 0);
        if self.looks_for_copies(dump) {
            self.sweeps.round = !self.sweeps.round;
        }
        Some(dump.scope)
    }

    pub(crate) fn on_dumped(&mut self, flow: &Flow) {
        let Some(dump) = self.sweeps.running else {
            return;
        };
        self.sweeps.dumped += 1;
        match dump.reason {
            Reason::Flush(_) => return self.flush_dumped(flow),
            Reason::Purge => return self.purge_dumped(flow),
            Reason::CalledOff => return,
            _ => {}
        }
        if self.looks_for_copies(dump)
            && let Some(slot) = self.external.find(&flow.key())
        {
            let round = self.sweeps.round;
            self.external.change(slot, |note| note.seen(round));
        }
        if !self.settings.filter.keeps(flow) {
            return;
        }
        let is_filling = matches!(dump.reason, Reason::Start | Reason::Resync);
        match self.sweeps.heard(&flow.key()) {
            None => {}
            // Whether it is there counts, and not how old it looks.
            Some(Heard::Written) if is_filling => {}
            Some(Heard::Changed) => return self.complete(flow),
            Some(Heard::Written | Heard::Ended) => return self.seen(&flow.key()),
        }
        if !self.protocol.is_alone() && check_carried(flow).is_err() {
            self.stats.not_carried += 1;
            return;
        }
        self.sweeps.note(self.now, flow);
        match dump.reason {
            Reason::Start | Reason::Resync => self.fill(flow, dump.reason),
            Reason::Sweep | Reason::Repair if self.settings.internal_cache => self.compare(flow),
            // Nothing to compare with: say it again.
            Reason::Sweep | Reason::Repair => self.owe_directly(StateKind::Update, *flow),
            Reason::Bulk => self.owe_directly(StateKind::New, *flow),
            Reason::Offer if self.is_copy(flow) => {}
            Reason::Offer => self.offer_directly(*flow),
            Reason::Flush(_) | Reason::Purge | Reason::CalledOff => {}
        }
    }

    /// True if a dump shows which copies of the peer's flows our kernel has.
    fn looks_for_copies(&self, dump: Dump) -> bool {
        let compares = matches!(dump.reason, Reason::Sweep | Reason::Repair);
        !self.settings.external_cache && compares && dump.scope == DumpScope::All
    }

    /// The dump under way has shown a flow.
    fn seen(&mut self, flow: &FlowKey) {
        if let Some(slot) = self.ledger.find(flow) {
            self.ledger.seen_by_sweep(slot, self.sweeps.number);
        }
    }

    /// Takes of a dumped flow what its events have not told: they name what has changed.
    fn complete(&mut self, flow: &Flow) {
        self.seen(&flow.key());
        let Some(slot) = self.ledger.find(&flow.key()) else {
            return;
        };
        let held = self.ledger.flow(slot);
        let is_ended = self.ledger.note(slot).has_ended();
        if held.is_other_entry(flow) || is_ended || !self.ledger.is_ours(slot) {
            return;
        }
        let mut merged = *flow;
        merged.merge(&held);
        (merged.timeout, merged.traffic) = (held.timeout, held.traffic);
        if !held.is_unchanged_by(&merged) {
            self.ledger.store(slot, &merged, self.now.tick());
            self.ledger.step(slot, Step::Updated);
        }
    }

    fn fill(&mut self, flow: &Flow, reason: Reason) {
        let theirs = self.external.find(&flow.key()).filter(|slot| {
            let note = self.external.note(*slot);
            !note.is_held() && !note.is_ours()
        });
        if let Some(slot) = theirs {
            let note = self.external.note(slot);
            let is_newer = self.external.times(slot).updated >= self.sweeps.began.tick()
                && !self.was_primary_before_us(note.peer);
            let tells_whose_it_is = !self.settings.external_cache || !self.only_repeats();
            if reason == Reason::Resync && is_newer && tells_whose_it_is {
                return self.leave_to_peer(flow);
            }
            if !self.settings.external_cache {
                if reason == Reason::Start || note.has_ended() {
                    // It is a copy; what the peer has ended is about to go.
                    return;
                }
                // The operator has decided that this replica is the one that knows.
                self.disown(&flow.key());
            }
        }
        match self.ledger.find(&flow.key()) {
            // An event has brought something newer while the dump was read.
            Some(_) if reason == Reason::Start => {}
            Some(slot) => {
                if self.ledger.note(slot).has_ended() {
                    return;
                }
                let mut merged = self.ledger.flow(slot);
                merged.merge(&with_cleared_labels(flow, &merged));
                self.ledger.store(slot, &merged, self.now.tick());
                self.ledger.step(slot, Step::FoundAgain);
            }
            None => self.insert_internal(flow, Step::Adopted),
        }
    }

    /// What the peer has announced since a resync began is the peer's, also if our kernel has it.
    fn leave_to_peer(&mut self, flow: &Flow) {
        // With injection the external cache tells that.
        if !self.settings.external_cache || self.ledger.find(&flow.key()).is_some() {
            return;
        }
        self.insert_internal(flow, Step::Adopted);
        if let Some(slot) = self.ledger.find(&flow.key()) {
            self.ledger.step(slot, Step::TakenByPeer);
        }
    }

    /// Compares a dumped flow with what we hold.
    fn compare(&mut self, flow: &Flow) {
        let Some(slot) = self.ledger.find(&flow.key()) else {
            return self.on_silent_flow(flow);
        };
        let number = self.sweeps.number;
        let tick = self.now.tick();
        self.ledger.seen_by_sweep(slot, number);
        let note = self.ledger.note(slot);
        if note.has_ended() || self.is_copy(flow) {
            return;
        }
        let age = tick.seconds_since(self.ledger.times(slot).updated);
        let held = self.ledger.flow(slot);
        let flow = &with_cleared_labels(flow, &held);
        let mut merged = held;
        merged.merge(flow);
        let left = held.timeout.unwrap_or(0).saturating_sub(age);
        let refreshed = flow.timeout.unwrap_or(0) > left.saturating_add(SLACK_SECS);
        let same = held.is_unchanged_by(flow);
        // Below a quarter the copy is young: the next sweep is in time. But if packets have
        // passed here of a flow that was not known to be ours, it is.
        let old = age >= held.timeout.unwrap_or(0) / 4;
        let is_news = note.is_found() || note.is_taken();
        if self.is_first_look(slot) {
            self.ledger.step(slot, Step::Noted);
            self.ledger.store(slot, &merged, tick);
            return;
        }
        if same && !(refreshed && (old || is_news)) {
            return;
        }
        if same {
            self.stats.timeouts_refreshed += 1;
        }
        self.sweeps.rounds.found(&flow.key());
        self.disown(&flow.key());
        self.on_update(slot, &held, flow);
    }

    /// True if this is the first look at our copy since the peer has taken the flow: its
    /// timeout is that of our own time with it, and no evidence.
    fn is_first_look(&self, slot: cache::Slot) -> bool {
        let note = self.ledger.note(slot);
        let is_new = note.is_taken() && !note.is_noted();
        // What we have injected since is known better.
        let is_injected = || {
            let written = self.external.find(&self.ledger.key(slot));
            !self.settings.external_cache && written.is_some()
        };
        is_new && !is_injected()
    }

    /// A flow that no event has reported.
    fn on_silent_flow(&mut self, flow: &Flow) {
        if self.is_copy(flow) {
            return;
        }
        self.disown(&flow.key());
        self.sweeps.rounds.found(&flow.key());
        self.sweeps.found += 1;
        self.stats.silent_flows += 1;
        self.insert_internal(flow, Step::Noticed);
        if let Some(slot) = self.ledger.find(&flow.key()) {
            self.ledger.seen_by_sweep(slot, self.sweeps.number);
        }
    }

    pub(crate) fn on_dump_end(&mut self, end: DumpEnd) {
        let Some(dump) = self.sweeps.take_running() else {
            return;
        };
        if end == DumpEnd::Failed {
            self.events.push_back(Event::DumpFailed);
            self.sweeps.rounds.failed(self.now, dump.scope);
        }
        // Every dump of flows is followed by one of the expectations, whose masters are then known.
        let is_flush = matches!(
            dump.reason,
            Reason::Flush(_) | Reason::Purge | Reason::CalledOff
        );
        if dump.scope == DumpScope::All && self.settings.expectations.is_some() && !is_flush {
            self.sweeps.owed.push_front(Dump {
                scope: DumpScope::Expectations,
                ..dump
            });
        }
        if dump.scope == DumpScope::Expectations {
            if end == DumpEnd::Complete && matches!(dump.reason, Reason::Sweep | Reason::Repair) {
                let (number, began) = (self.sweeps.number, self.sweeps.began.tick());
                self.end_unseen_expectations(number, began);
            }
            return;
        }
        if self.looks_for_copies(dump) && end == DumpEnd::Complete {
            self.sweeps.copies = Some(Position::default());
        }
        if dump.scope == DumpScope::All {
            self.sweeps.rounds.dumped(self.now, self.sweeps.dumped);
            if dump.reason == Reason::Start && self.ledger.is_empty() {
                self.sweeps.rounds.trust_events();
            }
        }
        match dump.reason {
            Reason::Sweep | Reason::Repair
                if end == DumpEnd::Complete && self.settings.internal_cache =>
            {
                self.sweeps.gone = Some((Position::default(), dump));
            }
            Reason::Start | Reason::Resync => {
                // The claim goes on until what was found is announced.
                self.claimed_at = self.claimed_at.map(|_| self.now);
                self.stats.resyncs += 1;
                self.sweeps.whole |= end == DumpEnd::Complete && !self.sweeps.missing;
            }
            Reason::Flush(id) => self.flush_dump_over(id, end),
            Reason::Purge => self.purge_dump_over(end),
            _ => {}
        }
    }

    /// Looks up entries that the last comparison should have seen and did not.
    /// True if there is more to do at once.
    pub(crate) fn advance_gone(&mut self, items: usize) -> bool {
        let Some((mut position, dump)) = self.sweeps.gone else {
            return false;
        };
        for _ in 0..items {
            if self.requests.len() >= REQUESTS_MAX {
                self.sweeps.gone = Some((position, dump));
                return false;
            }
            let Some((slot, next)) = self.ledger.walk(position) else {
                self.comparison_over(dump);
                return false;
            };
            position = next;
            let note = self.ledger.note(slot);
            let unseen = note.sweep != self.sweeps.number
                && self.ledger.times(slot).updated < self.sweeps.began.tick()
                && !note.has_ended();
            if unseen && dump.scope.covers(&self.ledger.key(slot)) {
                self.verify(slot);
                self.sweeps.rounds.found(&self.ledger.key(slot));
                self.sweeps.ended += 1;
            }
        }
        self.sweeps.gone = Some((position, dump));
        true
    }

    /// Looks for copies that the last whole comparison should have seen and did not: the event of
    /// their end was lost, or left out. True if there is more to do at once.
    pub(crate) fn advance_copies(&mut self, items: usize) -> bool {
        let Some(mut position) = self.sweeps.copies else {
            return false;
        };
        for _ in 0..items {
            let Some((slot, next)) = self.external.walk(position) else {
                self.sweeps.copies = None;
                return false;
            };
            position = next;
            let note = self.external.note(slot);
            let is_at_rest = note.is_in_kernel() && !note.is_unwritten() && !note.is_asked();
            let is_older = self.external.times(slot).updated < self.sweeps.began.tick();
            if is_at_rest && is_older && !note.has_ended() && !note.is_seen(self.sweeps.round) {
                self.injected_ended(&self.external.key(slot));
            }
        }
        self.sweeps.copies = Some(position);
        true
    }

    /// Asks the kernel whether it still has a flow of the internal cache.
    pub(crate) fn verify(&mut self, slot: Slot) {
        self.ledger.step(slot, Step::Doubted);
        self.requests.push_back(KernelRequest {
            purpose: Purpose::Verify,
            subject: Subject::Internal(self.ledger.ticket(slot)),
            step: 0,
            op: Op::Get(self.ledger.key(slot)),
        });
    }

    fn comparison_over(&mut self, dump: Dump) {
        self.sweeps.gone = None;
        if dump.scope == DumpScope::All {
            self.sweeps.whole |= !self.sweeps.missing;
            self.sweeps.rounds.compared();
        }
        if dump.reason == Reason::Repair {
            self.stats.resyncs += 1;
            self.events.push_back(Event::Repaired {
                found: self.sweeps.found,
                gone: self.sweeps.ended,
            });
        }
    }

    pub(crate) fn on_verify_result(&mut self, ticket: Ticket, result: &KernelResult) {
        let slot = self.ledger.redeem(ticket);
        // An event that came meanwhile is newer than the answer.
        let Some(slot) = slot.filter(|s| self.ledger.note(*s).is_doubted()) else {
            return;
        };
        self.ledger.step(slot, Step::Answered);
        if let Outcome::Found(found) = &result.outcome {
            self.sweeps.note(self.now, &found.flow);
        }
        let gone = match &result.outcome {
            Outcome::Failed(KernelError::NotFound) => true,
            // The kernel finds a tuple in both directions: it may be another flow.
            Outcome::Found(found) => found.flow.key() != self.ledger.key(slot),
            _ => false,
        };
        if gone {
            self.stats.silent_ends += 1;
            self.end_entry(slot, &self.ledger.flow(slot));
        }
    }
}

/// A dumped flow without labels has none, though the kernel does not say so; its events
/// do not say either that the last one has been cleared.
fn with_cleared_labels(dumped: &Flow, held: &Flow) -> Flow {
    Flow {
        labels: dumped.labels.or(held.labels.map(|_| Labels::default())),
        ..*dumped
    }
}
