//! Expectations: events and dumps of the kernel → peer, and what the peer announces → kernel.

use cache::{ExpectEntry, Slot, Tick};
use flow::{ExpectKey, Expectation, Flow, FlowKey};
use wire::v1::{Seq, StateKind, check_expectation_carried, encode_expectation};

use super::{REQUESTS_MAX, Replica};
use crate::command::{Age, Which};
use crate::commit::{Commit, RUN_DOWN_SECS};
use crate::conversation::STEPS_MAX;
use crate::entry::Internal;
use crate::event::Event;
use crate::expectations::{Owed, marks};
use crate::kernel::{
    Change, ExpectationEvent, KernelError, KernelRequest, KernelResult, Op, Origin, Outcome,
    Purpose, Subject,
};
use crate::receive::PeerId;
use crate::stats::CacheStats;
use crate::time::Instant;
use crate::under_way::{About, Message};

impl Replica {
    /// An event of the kernel about an expectation, in the order in which the kernel sent
    /// it among the events about flows.
    pub fn handle_expectation(&mut self, now: Instant, event: &ExpectationEvent) {
        self.now = now;
        self.stats.events_received += 1;
        self.on_expectation_event(event);
    }

    /// Expectations of the dump that [`Replica::poll_dump`] asked for.
    pub fn handle_dumped_expectations(&mut self, now: Instant, all: &[Expectation]) {
        self.now = now;
        for expectation in all {
            self.on_dumped_expectation(expectation);
        }
    }

    /// Number of expectations in a cache that have not ended; 0 if they are not replicated.
    pub fn expectations_len(&self, which: Which) -> usize {
        let Some(expectations) = &self.expectations else {
            return 0;
        };
        let all = expectations.table(which).behind(None);
        all.filter(|e| !e.has(marks::DEAD)).count()
    }

    /// Counters of the two caches of expectations; `None` if they are not replicated.
    pub fn expectation_stats(&self) -> Option<(CacheStats, CacheStats)> {
        let e = self.expectations.as_ref()?;
        Some((e.internal_stats, e.external_stats))
    }

    /// Calls `see` for up to `items` expectations of a cache behind a key. `None` at its end.
    pub fn walk_expectations(
        &self,
        which: Which,
        behind: Option<ExpectKey>,
        items: usize,
        mut see: impl FnMut(&Expectation, Age),
    ) -> Option<ExpectKey> {
        let table = self.expectations.as_ref()?.table(which);
        let now = self.now.tick();
        let mut last = None;
        for entry in table.behind(behind).take(items) {
            last = Some(entry.expectation.key());
            if !entry.has(marks::DEAD) {
                let age = Age {
                    active_secs: now.seconds_since(entry.created),
                    expires_secs: None,
                    is_announced: match which {
                        Which::Internal => !entry.has(marks::SILENT),
                        Which::External => self.is_present_epoch(PeerId(entry.peer), entry.seen),
                    },
                };
                let expectation = Expectation {
                    timeout: entry.left(now),
                    ..entry.expectation
                };
                see(&expectation, age);
            }
        }
        last
    }

    // ---- kernel → peer ----

    fn has_wanted_helper(&self, e: &Expectation) -> bool {
        let Some(names) = &self.settings.expectations else {
            return false;
        };
        let helper = e.helper.as_ref().map_or(&[][..], flow::Name::as_bytes);
        let begins = |n: &String| {
            let begin = helper.get(..n.len());
            begin.is_some_and(|b| b.eq_ignore_ascii_case(n.as_bytes()))
        };
        names.is_empty() || names.iter().any(begins)
    }

    /// False, and a count, if it is not replicated.
    fn is_replicated(&mut self, e: &Expectation) -> bool {
        if !self.has_wanted_helper(e) {
            self.stats.events_filtered += 1;
            return false;
        }
        let is_carried = check_expectation_carried(e).is_ok();
        self.stats.not_carried += u64::from(!is_carried);
        is_carried
    }

    fn on_expectation_event(&mut self, event: &ExpectationEvent) {
        let e = &event.expectation;
        if self.expectations.is_none() || !self.is_replicated(e) {
            return;
        }
        if event.origin != Origin::Traffic {
            self.stats.events_own += 1;
            if event.change == Change::Destroy
                && let Some(expectations) = &mut self.expectations
            {
                expectations.remove_internal(&e.key());
            }
            return;
        }
        let master = e.key().master();
        if !self.settings.internal_cache {
            let kind = match event.change {
                Change::Destroy => StateKind::Delete,
                _ => StateKind::New,
            };
            if kind == StateKind::New {
                self.read_again(None, master);
            }
            return self.owe_expectation_directly(kind, *e);
        }
        let slot = self.ledger.find(&master);
        let slot = slot.filter(|s| !self.ledger.note(*s).has_ended());
        if event.change == Change::Destroy {
            // Of a master that the peer has taken over, the peer speaks.
            let is_ours = slot.is_none_or(|s| !self.ledger.note(s).is_taken());
            if let Some(expectations) = &mut self.expectations {
                expectations.end(&e.key(), is_ours);
            }
            return;
        }
        let Some(slot) = slot else {
            self.stats.masterless += 1;
            return;
        };
        // A packet of the master has passed here.
        if !self.ledger.is_ours(slot) {
            self.claim(slot);
            self.disown(&master);
        }
        self.read_again(Some(slot), master);
        let now = self.now.tick();
        if let Some(expectations) = &mut self.expectations
            && expectations.store_internal(e, now)
        {
            expectations.owe(e.key());
        }
    }

    /// A master is no longer ours to speak of: nor is what it has predicted, which the
    /// kernel is about to end.
    pub(crate) fn forget_expectations_of(&mut self, master: &Flow) {
        let Some(expectations) = self
            .expectations
            .as_mut()
            .filter(|e| !e.internal.is_empty())
        else {
            return;
        };
        // Only a helper predicts.
        if master.helper.is_none() {
            return;
        }
        let master = master.key();
        let of = expectations.internal.of(&master);
        for key in of.map(|e| e.expectation.key()).collect::<Vec<_>>() {
            expectations.remove_internal(&key);
        }
    }

    /// The peer has received that a flow is ours. What it announced of the flow's expectations
    /// is over, as far as our kernel has them: nobody would announce their end.
    pub(crate) fn forget_expectations_of_peer(&mut self, own: Slot) {
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        if expectations.external.is_empty() {
            return;
        }
        let master = self.ledger.key(own);
        let internal = &expectations.internal;
        let theirs = expectations.external.of(&master);
        let both = theirs.map(|e| e.expectation.key());
        let both: Vec<_> = both.filter(|key| internal.get(key).is_some()).collect();
        for key in both {
            expectations.external.remove(&key);
        }
    }

    /// Asks the kernel for a master: it may have got a sequence adjustment.
    fn read_again(&mut self, slot: Option<Slot>, master: FlowKey) {
        // The next sweep sees it, too.
        if self.requests.len() >= REQUESTS_MAX {
            return;
        }
        self.requests.push_back(KernelRequest {
            purpose: Purpose::ReadAgain,
            subject: slot.map_or(Subject::Table, |s| Subject::Internal(self.ledger.ticket(s))),
            step: 0,
            op: Op::Get(master),
        });
    }

    pub(crate) fn on_read_again(&mut self, result: &KernelResult) {
        let Outcome::Found(found) = &result.outcome else {
            return;
        };
        if !self.settings.internal_cache {
            return self.owe_directly(StateKind::Update, **found);
        }
        let Subject::Internal(ticket) = result.request.subject else {
            return;
        };
        let Some(slot) = self.ledger.redeem(ticket) else {
            return;
        };
        if self.ledger.key(slot) != found.key() {
            return;
        }
        let held = self.ledger.flow(slot);
        let changed = Flow {
            seq_adj: found.seq_adj.or(held.seq_adj),
            helper: found.helper.or(held.helper),
            status: found.status,
            ..held
        };
        if changed != held {
            self.on_update(slot, found);
        }
    }

    fn on_dumped_expectation(&mut self, e: &Expectation) {
        let Some(dump) = self.sweeps.running() else {
            return;
        };
        if self.expectations.is_none() || !self.is_replicated(e) {
            return;
        }
        if !self.settings.internal_cache {
            return self.owe_expectation_directly(StateKind::New, *e);
        }
        let slot = self.ledger.find(&e.key().master());
        let is_ours_or_found = |note: Internal| note.is_ours() || note.is_found();
        let Some(slot) = slot.filter(|s| is_ours_or_found(self.ledger.note(*s))) else {
            return;
        };
        let is_silent = self.ledger.note(slot).is_found();
        let now = self.now.tick();
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        let key = e.key();
        let known = expectations.internal.get(&key).copied();
        if known.is_some_and(|k| k.has(marks::DEAD)) || !expectations.store_internal(e, now) {
            return;
        }
        let announce = dump.compares && !is_silent;
        if let Some(entry) = expectations.internal.get_mut(&key) {
            entry.seen = dump.number;
            if known.is_none() {
                entry.mark(marks::SILENT, 0);
            }
        }
        if announce && known.is_none_or(|k| k.has(marks::SILENT)) {
            expectations.owe(key);
        }
    }

    /// Ends what two comparisons in a row have not seen: a dump may miss one.
    pub(crate) fn end_unseen_expectations(&mut self, number: u8, began: Tick) {
        let Replica {
            ledger: flows,
            expectations: Some(expectations),
            ..
        } = self
        else {
            return;
        };
        let mut gone = Vec::new();
        for entry in expectations.internal.all_mut() {
            if entry.seen == number || entry.updated >= began || entry.has(marks::DEAD) {
                entry.mark(0, marks::DOUBTED);
            } else if entry.has(marks::DOUBTED) {
                gone.push(entry.expectation.key());
            } else {
                entry.mark(marks::DOUBTED, 0);
            }
        }
        for key in gone {
            let master = flows.find(&key.master());
            let is_ours = master.is_none_or(|s| !flows.note(s).is_taken());
            expectations.end(&key, is_ours);
        }
    }

    /// The next expectation that is owed to the peer.
    pub(crate) fn next_owed_expectation(&mut self) -> Option<Owed> {
        self.expectations.as_mut()?.next_owed()
    }

    /// Appends the message about one that is owed; false if the datagram is full.
    pub(crate) fn push_expectation(&mut self, owed: Owed) -> bool {
        let flags = self.protocol.flags();
        let with_timeout = self.settings.commit_timeout.is_none();
        let now = self.now;
        let Some(expectations) = &mut self.expectations else {
            return true;
        };
        let Some(entry) = expectations.internal.get(&owed.key) else {
            return true;
        };
        let has_ended = entry.has(marks::DEAD);
        let kind = if has_ended {
            StateKind::Delete
        } else {
            StateKind::New
        };
        let sent = Expectation {
            timeout: entry.left(now.tick()).map(|t| t.max(1)),
            ..entry.expectation
        };
        let encode = |out: &mut Vec<u8>, seq| {
            encode_expectation(out, kind, flags, seq, &sent, with_timeout);
        };
        let Some(seq) = self.stream.push(encode) else {
            return false;
        };
        expectations.on_sent(owed);
        self.count_sent();
        let message = Message {
            about: About::Expectation,
            version: owed.version,
        };
        let is_settled = self.message_sent(seq, message);
        let max = self.settings.resend_queue;
        if let Some(expectations) = &mut self.expectations {
            if is_settled {
                expectations.acknowledged(owed.version);
            } else if has_ended && expectations.bound_ended(max) {
                self.note_ends_lost();
            }
        }
        true
    }

    // ---- peer → kernel ----

    /// Applies a message about an expectation; `late` if an older one than was applied before.
    pub(crate) fn deliver_expectation(
        &mut self,
        from: PeerId,
        kind: StateKind,
        e: &Expectation,
        seq: Seq,
        late: bool,
    ) {
        if self.expectations.is_none() {
            self.peer_mut(from).receiver.stats.expectations_ignored += 1;
            return;
        }
        let key = e.key();
        let now = self.now.tick();
        let epoch = self.present_epoch(from);
        let owner = self.ledger.find(&key.master());
        let master_is_ours = owner.is_some_and(|s| self.ledger.is_ours(s));
        let caches = self.settings.external_cache;
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        let is_news = match expectations.external.get(&key) {
            Some(known) => {
                (known.peer, known.seen) != (from.0, epoch) || Seq(known.number as u32).before(seq)
            }
            None => expectations.last_end.is_none_or(|end| end.before(seq)),
        };
        if late && !is_news {
            return;
        }
        let peer = &mut self.peers[from.index()];
        peer.receiver.stats.late_used += u64::from(late);
        if kind == StateKind::Delete {
            if expectations.last_end.is_none_or(|end| end.before(seq)) {
                expectations.last_end = Some(seq);
            }
            return self.end_external_expectation(&key, master_is_ours);
        }
        match expectations.external.store(e, now) {
            Ok(new) if caches => {
                let stats = &mut expectations.external_stats;
                *(if new {
                    &mut stats.created
                } else {
                    &mut stats.updated
                }) += 1;
            }
            Ok(_) => {}
            Err(cache::Full) => {
                expectations.external_stats.create_failed += 1;
                return;
            }
        }
        if let Some(entry) = expectations.external.get_mut(&key) {
            entry.peer = from.0;
            entry.seen = epoch;
            entry.number = u64::from(seq.0);
            entry.mark(0, marks::DEAD);
        }
        if !caches {
            expectations.owe_to_kernel(key);
        }
    }

    fn end_external_expectation(&mut self, key: &ExpectKey, master_is_ours: bool) {
        let caches = self.settings.external_cache;
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        let Some(entry) = expectations.external.get_mut(key) else {
            return;
        };
        if caches || master_is_ours {
            // What our kernel does with a flow of ours is not the peer's to say.
            self.stats.deletes_refused += u64::from(!caches);
            expectations.external_stats.destroyed += u64::from(caches);
            expectations.external.remove(key);
        } else {
            entry.mark(marks::DEAD, 0);
            expectations.owe_to_kernel(*key);
        }
    }

    /// The next request about an expectation to be injected, once no flow is owed.
    pub(crate) fn next_expectation_injection(&mut self) -> Option<KernelRequest> {
        let now = self.now.tick();
        let expectations = self.expectations.as_mut()?;
        while let Some(key) = expectations.unwritten.pop_front() {
            let Some(entry) = expectations.external.get_mut(&key) else {
                continue;
            };
            entry.mark(0, marks::OWED);
            let in_kernel = entry.has(marks::IN_KERNEL);
            let op = if entry.has(marks::DEAD) {
                expectations.external.remove(&key);
                if !in_kernel {
                    continue;
                }
                Op::DeleteExpectation(key)
            } else {
                Op::CreateExpectation(with_what_is_left(entry, now, None))
            };
            return Some(request(Purpose::Inject, 0, op));
        }
        None
    }

    /// The next requests of a commit about expectations, for up to `items` of them behind a
    /// key. Returns the last key, `None` at the end.
    pub(crate) fn commit_expectations(
        &mut self,
        commit: &mut Commit,
        behind: Option<ExpectKey>,
        items: usize,
    ) -> Option<ExpectKey> {
        let now = self.now.tick();
        let present: Vec<u8> = self.peers.iter().map(|p| p.epoch).collect();
        let expectations = self.expectations.as_ref()?;
        let mut last = None;
        for entry in expectations.external.behind(behind).take(items) {
            last = Some(entry.expectation.key());
            if entry.left(now) == Some(0) {
                continue;
            }
            // As with flows that a restarted peer has not confirmed.
            let is_confirmed = present.get(usize::from(entry.peer)) == Some(&entry.seen);
            let most = (!is_confirmed).then_some(RUN_DOWN_SECS);
            let op = Op::CreateExpectation(with_what_is_left(entry, now, most));
            commit.in_flight += 1;
            self.requests.push_back(request(Purpose::Commit, 0, op));
        }
        last
    }

    /// The result of a request about an expectation.
    pub(crate) fn on_expectation_result(&mut self, result: &KernelResult) {
        let asked = &result.request;
        let is_commit = asked.purpose == Purpose::Commit;
        let mut next = None;
        match (&asked.op, &result.outcome) {
            (Op::CreateExpectation(e), Outcome::Done) => {
                self.on_expectation_created(e, is_commit);
                next = e.timeout.map(|_| Op::UpdateExpectation(*e));
            }
            (Op::CreateExpectation(e), Outcome::Failed(KernelError::Exists)) => {
                if let Some(commit) = self.commit.as_mut().filter(|_| is_commit) {
                    commit.updated += 1;
                }
                if !is_commit
                    && let Some(expectations) = &mut self.expectations
                    && let Some(entry) = expectations.external.get_mut(&e.key())
                {
                    entry.mark(marks::IN_KERNEL, 0);
                }
                // One that packets have made is left alone; ours gets its new timeout.
                next = (!is_commit && e.timeout.is_some()).then_some(Op::UpdateExpectation(*e));
            }
            // Its master may still be on its way.
            (Op::CreateExpectation(_), Outcome::Failed(KernelError::NotFound))
                if asked.step + 1 < STEPS_MAX =>
            {
                next = Some(asked.op);
            }
            (Op::CreateExpectation(e), Outcome::Failed(error)) => {
                if let Some(expectations) = &mut self.expectations {
                    expectations.external_stats.create_failed += u64::from(!is_commit);
                }
                if let Some(commit) = self.commit.as_mut().filter(|_| is_commit) {
                    commit.failed += 1;
                }
                self.events.push_back(Event::ExpectationRefused {
                    expectation: e.key(),
                    error: *error,
                });
            }
            (Op::DeleteExpectation(_), outcome) => {
                if let Some(expectations) = &mut self.expectations
                    && *outcome == Outcome::Done
                {
                    expectations.external_stats.destroyed += 1;
                }
            }
            _ => {}
        }
        match next {
            Some(op) => {
                let step = asked.step + 1;
                self.requests.push_back(request(asked.purpose, step, op));
            }
            None => {
                if let Some(commit) = self.commit.as_mut().filter(|_| is_commit) {
                    commit.in_flight -= 1;
                }
            }
        }
    }

    fn on_expectation_created(&mut self, e: &Expectation, is_commit: bool) {
        let now = self.now.tick();
        let caches = self.settings.internal_cache;
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        if !is_commit {
            expectations.external_stats.created += 1;
            if let Some(entry) = expectations.external.get_mut(&e.key()) {
                entry.mark(marks::IN_KERNEL, 0);
            }
            return;
        }
        if let Some(commit) = &mut self.commit {
            commit.created += 1;
        }
        // It is ours from now on; the peer knows it.
        if caches
            && expectations.store_internal(e, now)
            && let Some(entry) = expectations.internal.get_mut(&e.key())
        {
            entry.mark(marks::SILENT, 0);
        }
    }
}

fn request(purpose: Purpose, step: u8, op: Op) -> KernelRequest {
    KernelRequest {
        purpose,
        subject: Subject::Expectation,
        step,
        op,
    }
}

/// What the peer said, with what is left of its timeout, at most `most` seconds.
fn with_what_is_left(entry: &ExpectEntry, now: Tick, most: Option<u32>) -> Expectation {
    let left = entry.left(now).map(|t| t.max(1));
    let most = most.unwrap_or(u32::MAX);
    let timeout = match left {
        Some(left) => Some(left.min(most)),
        None => (most != u32::MAX).then_some(most),
    };
    Expectation {
        timeout,
        ..entry.expectation
    }
}
