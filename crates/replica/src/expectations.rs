//! Expectations: what helpers predict, from the kernel to the peer and back.
//!
//! They follow the flows in everything: an expectation is kept only while its master is
//! known, is sent after the flows that are owed, committed and injected after them. They
//! are few, so walks over all of them are at once.
//!
//! Hard cases: the helper that predicts a flow may change the length of a segment of the
//! master, and no event tells of the sequence adjustment that follows: the master is read
//! again whenever an expectation appears. The kernel's messages name no zone: a master is
//! looked for in the default zone, and version 1 could not carry another one. The kernel
//! gives what it creates the timeout of the helper's policy: what is left is set after.

use std::collections::{HashSet, VecDeque};

use cache::{ExpectEntry, ExpectTable, Slot, Tick};
use flow::{ExpectKey, Expectation, Flow, FlowKey};
use wire::v1::{Seq, StateKind, check_expectation_carried, encode_expectation};

use crate::commit::{Commit, RUN_DOWN_SECS, STEPS_MAX};
use crate::kernel::{
    Change, ExpectationEvent, KernelError, KernelRequest, KernelResult, Op, Origin, Outcome,
    Purpose,
};
use crate::{Age, CacheStats, Event, Instant, REQUESTS_MAX, Replica, Settings, Which};

/// Keys of removed entries that may wait in a short queue.
const STALE_MAX: usize = 64;

/// What is noted in the marks of an entry.
mod marks {
    /// It has ended; the entry waits until that has been said.
    pub(super) const DEAD: u8 = 1;
    /// It is in the queue of what is owed, to the peer or to the kernel.
    pub(super) const OWED: u8 = 2;
    /// Found in the kernel at the start or committed: nobody is told before a bulk update.
    pub(super) const SILENT: u8 = 4;
    /// The last comparison with the kernel did not see it.
    pub(super) const DOUBTED: u8 = 8;
    /// Our kernel has it from us.
    pub(super) const IN_KERNEL: u8 = 16;
}

/// Both tables and their queues.
#[derive(Debug)]
pub(crate) struct Expectations {
    internal: ExpectTable,
    external: ExpectTable,
    /// Of the internal table, owed to the peer. A key whose entry has been removed
    /// meanwhile is passed over; so is the second one of an entry that came back.
    owed: VecDeque<ExpectKey>,
    /// Number of such keys.
    stale: usize,
    /// Of the internal table, in the order in which they were sent (FT-FW).
    sent: VecDeque<(Seq, ExpectKey)>,
    /// Of the external table, owed to the kernel.
    unwritten: VecDeque<ExpectKey>,
    /// The last end that the peer told of.
    last_end: Option<Seq>,
    pub(crate) internal_stats: CacheStats,
    pub(crate) external_stats: CacheStats,
}

impl Expectations {
    /// `None` unless expectations are replicated.
    pub(crate) fn new(settings: &Settings) -> Option<Expectations> {
        settings.expectations.as_ref().map(|_| Expectations {
            internal: ExpectTable::new(settings.limit),
            external: ExpectTable::new(settings.limit),
            owed: VecDeque::new(),
            stale: 0,
            sent: VecDeque::new(),
            unwritten: VecDeque::new(),
            last_end: None,
            internal_stats: CacheStats::default(),
            external_stats: CacheStats::default(),
        })
    }

    fn owe(&mut self, key: ExpectKey) {
        if let Some(entry) = self.internal.get_mut(&key)
            && !entry.has(marks::OWED)
        {
            entry.mark(marks::OWED, marks::SILENT);
            self.owed.push_back(key);
        }
    }

    fn owe_to_kernel(&mut self, key: ExpectKey) {
        if let Some(entry) = self.external.get_mut(&key)
            && !entry.has(marks::OWED)
        {
            entry.mark(marks::OWED, 0);
            self.unwritten.push_back(key);
        }
    }

    /// Stores an expectation of our kernel.
    fn store_internal(&mut self, e: &Expectation, now: Tick) -> bool {
        match self.internal.store(e, now) {
            Ok(true) => self.internal_stats.created += 1,
            Ok(false) => self.internal_stats.updated += 1,
            Err(cache::Full) => {
                self.internal_stats.create_failed += 1;
                return false;
            }
        }
        if let Some(entry) = self.internal.get_mut(&e.key()) {
            entry.mark(0, marks::DEAD | marks::DOUBTED);
        }
        true
    }

    fn end(&mut self, key: &ExpectKey, is_announced: bool) {
        let Some(entry) = self.internal.get_mut(key) else {
            return;
        };
        if entry.has(marks::DEAD) {
            return;
        }
        self.internal_stats.destroyed += 1;
        // Nobody has been told of a silent one.
        if is_announced && !entry.has(marks::SILENT) {
            entry.mark(marks::DEAD, 0);
            self.owe(*key);
        } else {
            self.remove_internal(key);
        }
    }

    /// Owes all that have not ended; of the silent ones only if `silent`.
    pub(crate) fn owe_all(&mut self, silent: bool) {
        let skip = if silent {
            marks::DEAD
        } else {
            marks::DEAD | marks::SILENT
        };
        let all = self.internal.behind(None).filter(|e| !e.has(skip));
        for key in all.map(|e| e.expectation.key()).collect::<Vec<_>>() {
            self.owe(key);
        }
    }

    /// Number of those that wait to be sent.
    pub(crate) fn owed(&self) -> usize {
        self.owed.len() - self.stale
    }

    /// Removes an entry of the internal table.
    fn remove_internal(&mut self, key: &ExpectKey) {
        let entry = self.internal.get(key);
        self.stale += usize::from(entry.is_some_and(|e| e.has(marks::OWED)));
        self.internal.remove(key);
        if self.stale > STALE_MAX.max(self.owed.len() / 2) {
            let mut seen = HashSet::new();
            let internal = &self.internal;
            self.owed.retain(|key| {
                let is_owed = internal.get(key).is_some_and(|e| e.has(marks::OWED));
                is_owed && seen.insert(*key)
            });
            self.stale = 0;
        }
    }

    /// Number of those that are sent and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sent.len()
    }

    /// Takes the sent ones whose number is in the range out of their queue.
    fn take_sent(&mut self, from: Seq, to: Seq) -> Vec<ExpectKey> {
        let is_within = |seq: Seq| !seq.before(from) && !to.before(seq);
        let is_current = |internal: &ExpectTable, seq: Seq, key: &ExpectKey| {
            let entry = internal.get(key);
            entry.is_some_and(|e| e.seq == seq.0 && !e.has(marks::OWED))
        };
        let mut taken = Vec::new();
        self.sent.retain(|(seq, key)| {
            if is_within(*seq) && is_current(&self.internal, *seq, key) {
                taken.push(*key);
            }
            !is_within(*seq)
        });
        taken
    }

    pub(crate) fn on_ack(&mut self, from: Seq, to: Seq) {
        for key in self.take_sent(from, to) {
            if self.internal.get(&key).is_some_and(|e| e.has(marks::DEAD)) {
                self.remove_internal(&key);
            }
        }
    }

    pub(crate) fn on_nack(&mut self, from: Seq, to: Seq) {
        for key in self.take_sent(from, to) {
            self.owe(key);
        }
    }

    /// Owes again what has been sent and not acknowledged.
    pub(crate) fn owe_all_sent(&mut self) {
        for (_, key) in std::mem::take(&mut self.sent) {
            self.owe(key);
        }
    }

    /// An expectation of the internal table has been sent. True if the word about another
    /// one had to be given up for it.
    fn on_sent(&mut self, key: ExpectKey, seq: Seq, is_acknowledged: bool, max: usize) -> bool {
        self.owed.pop_front();
        let Some(entry) = self.internal.get_mut(&key) else {
            return false;
        };
        entry.mark(0, marks::OWED);
        entry.seq = seq.0;
        let is_dead = entry.has(marks::DEAD);
        if !is_acknowledged {
            if is_dead {
                self.internal.remove(&key);
            }
            return false;
        }
        self.sent.push_back((seq, key));
        if self.sent.len() <= max {
            return false;
        }
        // For an absent peer they would fill the table.
        let oldest = self.sent.pop_front().map(|(_, key)| key);
        let is_dead = |key: &ExpectKey| {
            let entry = self.internal.get(key);
            entry.is_some_and(|e| e.has(marks::DEAD) && !e.has(marks::OWED))
        };
        if let Some(oldest) = oldest.filter(is_dead) {
            self.remove_internal(&oldest);
        }
        true
    }

    pub(crate) fn clear(&mut self, which: Which) {
        match which {
            Which::Internal => {
                self.internal.clear();
                self.owed.clear();
                self.stale = 0;
                self.sent.clear();
            }
            Which::External => {
                self.external.clear();
                self.unwritten.clear();
            }
        }
    }

    fn table(&self, which: Which) -> &ExpectTable {
        match which {
            Which::Internal => &self.internal,
            Which::External => &self.external,
        }
    }

    /// Drops what the peer said of expectations whose time is over.
    pub(crate) fn expire(&mut self, now: Tick, cache_timeout: Option<u64>) {
        self.external.retain(|e| {
            let age = u64::from(now.seconds_since(e.updated));
            let is_stale = cache_timeout.is_some_and(|max| age >= max);
            let has_run_down = e.left(now) == Some(0);
            // What is on its way to the kernel stays until it is there.
            e.has(marks::OWED) || !(is_stale || has_run_down)
        });
    }

    /// The peer's numbers have begun anew.
    pub(crate) fn on_peer_restart(&mut self) {
        self.last_end = None;
    }
}

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
                        Which::External => self.is_present_run(entry.seen),
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
        let slot = self.internal.find(&master);
        let slot = slot.filter(|s| !self.internal.has(*s, crate::marks::DEAD));
        if event.change == Change::Destroy {
            // Of a master that the peer has taken over, the peer speaks.
            let is_ours = slot.is_none_or(|s| !self.internal.has(s, crate::marks::TAKEN));
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
        let copy = crate::marks::TAKEN | crate::marks::SILENT;
        if self.internal.has(slot, copy) {
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

    /// Asks the kernel for a master: it may have got a sequence adjustment.
    fn read_again(&mut self, slot: Option<Slot>, master: FlowKey) {
        // The next sweep sees it, too.
        if self.requests.len() >= REQUESTS_MAX {
            return;
        }
        self.requests.push_back(KernelRequest {
            purpose: Purpose::ReadAgain,
            ticket: slot.map(|s| self.internal.ticket(s)),
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
        let slot = result.request.ticket.and_then(|t| self.internal.redeem(t));
        let Some(slot) = slot else { return };
        if self.internal.key(slot) != found.key() {
            return;
        }
        let held = self.internal.flow(slot);
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
        let slot = self.internal.find(&e.key().master());
        let copy = crate::marks::TAKEN | crate::marks::DEAD;
        let Some(slot) = slot.filter(|s| !self.internal.has(*s, copy)) else {
            return;
        };
        let is_silent = self.internal.has(slot, crate::marks::SILENT);
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
            internal: flows,
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
            let is_ours = master.is_none_or(|s| !flows.has(s, crate::marks::TAKEN));
            expectations.end(&key, is_ours);
        }
    }

    /// The next expectation that is owed to the peer.
    pub(crate) fn next_owed_expectation(&mut self) -> Option<ExpectKey> {
        let expectations = self.expectations.as_mut()?;
        while let Some(key) = expectations.owed.front() {
            if (expectations.internal.get(key)).is_some_and(|e| e.has(marks::OWED)) {
                return Some(*key);
            }
            expectations.owed.pop_front();
            expectations.stale -= 1;
        }
        None
    }

    /// Appends the message about one that is owed; false if the datagram is full.
    pub(crate) fn push_expectation(&mut self, key: ExpectKey) -> bool {
        let flags = self.greeting();
        let says_timeout = self.settings.commit_timeout.is_none();
        let max = self.settings.resend_queue;
        let now = self.now;
        let Some(expectations) = &mut self.expectations else {
            return true;
        };
        let Some(entry) = expectations.internal.get(&key) else {
            return true;
        };
        let kind = if entry.has(marks::DEAD) {
            StateKind::Delete
        } else {
            StateKind::New
        };
        let said = Expectation {
            timeout: entry.left(now.tick()).map(|t| t.max(1)),
            ..entry.expectation
        };
        let encode = |out: &mut Vec<u8>, seq| {
            encode_expectation(out, kind, flags, seq, &said, says_timeout);
        };
        let Some(seq) = self.outbox.push(encode) else {
            return false;
        };
        self.stats.messages_sent += 1;
        let gave_up = expectations.on_sent(key, seq, self.ftfw.is_some(), max);
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(now, seq, None);
            if gave_up {
                ftfw.give_up();
            }
        }
        true
    }

    // ---- peer → kernel ----

    /// Applies a message about an expectation; `late` if an older one than was applied before.
    pub(crate) fn deliver_expectation(
        &mut self,
        kind: StateKind,
        e: &Expectation,
        seq: Seq,
        late: bool,
    ) {
        if self.expectations.is_none() {
            self.receiver.stats.expectations_ignored += 1;
            return;
        }
        let key = e.key();
        let now = self.now.tick();
        let run = self.present_run();
        let owner = self.internal.find(&key.master());
        let others = crate::marks::TAKEN | crate::marks::SILENT | crate::marks::DEAD;
        let master_is_ours = owner.is_some_and(|s| !self.internal.has(s, others));
        let caches = self.settings.external_cache;
        let Some(expectations) = &mut self.expectations else {
            return;
        };
        let is_news = match expectations.external.get(&key) {
            Some(known) => known.seen != run || Seq(known.seq).before(seq),
            None => expectations.last_end.is_none_or(|end| end.before(seq)),
        };
        if late && !is_news {
            return;
        }
        self.receiver.stats.late_used += u64::from(late);
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
            entry.seen = run;
            entry.seq = seq.0;
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
        let run = self.present_run();
        let expectations = self.expectations.as_ref()?;
        let mut last = None;
        for entry in expectations.external.behind(behind).take(items) {
            last = Some(entry.expectation.key());
            if entry.left(now) == Some(0) {
                continue;
            }
            // As with flows that a restarted peer has not confirmed.
            let most = (entry.seen != run).then_some(RUN_DOWN_SECS);
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
        ticket: None,
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
