//! Expectations, events and dumps of the kernel → peer. What the peer announces of them is in
//! `expect/write.rs`.

mod write;

use cache::{ExpectTable, Slot, Tick};
use flow::{ExpectKey, Expectation, Flow, FlowKey};
use wire::StateKind;
use wire::v1::{check_expectation_carried, encode_expectation};

use super::{REQUESTS_MAX, Replica};
use crate::command::{Age, Which};
use crate::entry::{Internal, Ours, Theirs};
use crate::expectations::{Expectations, Owed};
use crate::kernel::{
    Change, ExpectationEvent, KernelRequest, KernelResult, Op, Origin, Outcome, Purpose, Subject,
};
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
        let (ours, theirs) = (&self.expectations.internal, &self.expectations.external);
        match which {
            Which::Internal => ours.behind(None).filter(|e| !e.note.has_ended).count(),
            Which::External => theirs.behind(None).filter(|e| !e.note.has_ended).count(),
        }
    }

    /// Counters of the two caches of expectations; `None` if they are not replicated.
    pub fn expectation_stats(&self) -> Option<(CacheStats, CacheStats)> {
        self.settings.expectations.as_ref()?;
        let e = &self.expectations;
        Some((e.internal_stats, e.external_stats))
    }

    /// Calls `see` for up to `items` expectations of a cache behind a key. `None` at its end.
    pub fn walk_expectations(
        &self,
        which: Which,
        behind: Option<ExpectKey>,
        items: usize,
        see: impl FnMut(&Expectation, Age),
    ) -> Option<ExpectKey> {
        let Expectations {
            internal, external, ..
        } = &self.expectations;
        match which {
            Which::Internal => {
                let is_announced = |n: &Ours| (!n.has_ended).then_some(!n.is_found);
                self.walk_table(internal, behind, items, is_announced, see)
            }
            Which::External => {
                let is_announced = |n: &Theirs| {
                    let is_present = self.is_present_epoch(n.peer, n.epoch);
                    (!n.has_ended).then_some(is_present)
                };
                self.walk_table(external, behind, items, is_announced, see)
            }
        }
    }

    /// `is_announced`: `None` for one that has ended.
    fn walk_table<N: Default>(
        &self,
        table: &ExpectTable<N>,
        behind: Option<ExpectKey>,
        items: usize,
        is_announced: impl Fn(&N) -> Option<bool>,
        mut see: impl FnMut(&Expectation, Age),
    ) -> Option<ExpectKey> {
        let now = self.now.tick();
        let mut last = None;
        for entry in table.behind(behind).take(items) {
            last = Some(entry.expectation.key());
            if let Some(is_announced) = is_announced(&entry.note) {
                let age = Age {
                    active_secs: now.seconds_since(entry.created),
                    expires_secs: None,
                    is_announced,
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
        if self.settings.expectations.is_none() || !self.is_replicated(e) {
            return;
        }
        if event.origin != Origin::Traffic {
            self.stats.events_own += 1;
            if event.change == Change::Destroy {
                self.expectations.remove_internal(&e.key());
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
            // The peer announces the expectations of a master that it has taken over.
            let is_ours = slot.is_none_or(|s| !self.ledger.note(s).is_taken());
            self.expectations.end(&e.key(), is_ours);
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
        if self.expectations.store_internal(e, now) {
            self.expectations.owe(e.key());
        }
    }

    /// A master is not ours to announce any more. Nor is what it has predicted, which the
    /// kernel is about to end.
    pub(crate) fn forget_expectations_of(&mut self, master: &Flow) {
        // Only a helper predicts.
        let expectations = &mut self.expectations;
        if master.helper.is_none() || expectations.internal.is_empty() {
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
        let expectations = &mut self.expectations;
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
        let found = &found.flow;
        if !self.settings.internal_cache {
            return self.owe_directly(StateKind::Update, *found);
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
        // The answer may be older than what events or the peer have reported since.
        let held = self.ledger.flow(slot);
        let has_ended = self.ledger.note(slot).has_ended();
        if held.is_other_entry(found) || has_ended || !self.ledger.is_ours(slot) {
            return;
        }
        if self.is_overtaken(slot, &held, found) {
            return self.on_late_update(slot, &held, found);
        }
        // Of FTP also if nothing has changed: an update lets the helper in the peer's kernel take
        // up the connection where it is now, and not where that kernel saw it last.
        let takes_up = held.helper.is_some_and(|name| name.as_str() == "ftp");
        if takes_up || !held.is_unchanged_by(found) {
            self.on_update(slot, &held, found);
        }
    }

    fn on_dumped_expectation(&mut self, e: &Expectation) {
        let Some(dump) = self.sweeps.running() else {
            return;
        };
        if self.settings.expectations.is_none() || !self.is_replicated(e) {
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
        let is_found = self.ledger.note(slot).is_found();
        let now = self.now.tick();
        let expectations = &mut self.expectations;
        let key = e.key();
        let known = expectations.internal.get(&key).copied();
        if known.is_some_and(|k| k.note.has_ended) || !expectations.store_internal(e, now) {
            return;
        }
        let announce = dump.compares && !is_found;
        if let Some(entry) = expectations.internal.get_mut(&key) {
            entry.note.sweep = dump.number;
            entry.note.is_found |= known.is_none();
        }
        if announce && known.is_none_or(|k| k.note.is_found) {
            expectations.owe(key);
        }
    }

    /// Ends what two comparisons in a row have not seen: a dump may miss one.
    pub(crate) fn end_unseen_expectations(&mut self, number: u8, began: Tick) {
        let (flows, expectations) = (&self.ledger, &mut self.expectations);
        let mut gone = Vec::new();
        for entry in expectations.internal.all_mut() {
            let note = &mut entry.note;
            if note.sweep == number || entry.updated >= began || note.has_ended {
                note.is_doubted = false;
            } else if note.is_doubted {
                gone.push(entry.expectation.key());
            } else {
                note.is_doubted = true;
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
        self.expectations.next_owed()
    }

    /// Appends the message about one that is owed; false if the datagram is full.
    pub(crate) fn push_expectation(&mut self, owed: Owed) -> bool {
        let flags = self.flags();
        let with_timeout = self.settings.commit_timeout.is_none();
        let now = self.now;
        let expectations = &mut self.expectations;
        let Some(entry) = expectations.internal.get(&owed.key) else {
            return true;
        };
        let has_ended = entry.note.has_ended;
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
        if expectations.on_sent(owed) {
            self.repairs.sent_anew();
        }
        self.count_sent();
        let message = Message {
            about: About::Expectation,
            version: owed.version,
        };
        let is_settled = self.message_sent(seq, message);
        let max = self.settings.resend_queue;
        if is_settled {
            self.expectations.acknowledged(owed.version);
        } else if has_ended && self.expectations.bound_ended(max) {
            self.note_ends_lost();
        }
        true
    }
}
