//! Expectations, what the peer announces → external table → kernel, by injection or commit.

use cache::{ExpectEntry, Tick};
use flow::{ExpectKey, Expectation};
use wire::{Seq, StateKind};

use crate::commit::{Commit, RUN_DOWN_SECS};
use crate::conversation::STEPS_MAX;
use crate::entry::Theirs;
use crate::event::Event;
use crate::kernel::{KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject};
use crate::receive::PeerId;
use crate::replica::Replica;

impl Replica {
    /// Applies a message about an expectation; `late` if an older one than was applied before.
    pub(crate) fn deliver_expectation(
        &mut self,
        from: PeerId,
        kind: StateKind,
        e: &Expectation,
        seq: Seq,
        late: bool,
    ) {
        if self.settings.expectations.is_none() {
            self.peer_mut(from).receiver.stats.expectations_ignored += 1;
            return;
        }
        let key = e.key();
        let now = self.now.tick();
        let epoch = self.present_epoch(from);
        let owner = self.ledger.find(&key.master());
        let master_is_ours = owner.is_some_and(|s| self.ledger.is_ours(s));
        let caches = self.settings.external_cache;
        let expectations = &mut self.expectations;
        let is_news = match expectations.external.get(&key) {
            Some(known) => {
                let known = &known.note;
                (known.peer, known.epoch) != (from, epoch) || known.seq.before(seq)
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
            entry.note.announced(from, epoch, seq);
        }
        if !caches {
            expectations.owe_to_kernel(key);
        }
    }

    /// The peer has ended an expectation.
    pub(crate) fn end_external_expectation(&mut self, key: &ExpectKey, master_is_ours: bool) {
        let caches = self.settings.external_cache;
        let expectations = &mut self.expectations;
        let Some(entry) = expectations.external.get_mut(key) else {
            return;
        };
        if caches || master_is_ours {
            // What our kernel does with a flow of ours is not the peer's to say.
            self.stats.deletes_refused += u64::from(!caches);
            expectations.external_stats.destroyed += u64::from(caches);
            expectations.external.remove(key);
        } else {
            entry.note.has_ended = true;
            expectations.owe_to_kernel(*key);
        }
    }

    /// The next request about an expectation to be injected, once no flow is owed.
    pub(crate) fn next_expectation_injection(&mut self) -> Option<KernelRequest> {
        let now = self.now.tick();
        let expectations = &mut self.expectations;
        while let Some(key) = expectations.unwritten.pop_front() {
            let Some(entry) = expectations.external.get_mut(&key) else {
                continue;
            };
            entry.note.is_unwritten = false;
            let note = entry.note;
            let op = if note.has_ended {
                expectations.external.remove(&key);
                if !note.is_in_kernel {
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
        let expectations = &self.expectations;
        let mut last = None;
        for entry in expectations.external.behind(behind).take(items) {
            last = Some(entry.expectation.key());
            if entry.left(now) == Some(0) {
                continue;
            }
            // As with flows that a restarted peer has not confirmed.
            let is_confirmed = present.get(entry.note.peer.index()) == Some(&entry.note.epoch);
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
                if !is_commit && let Some(entry) = self.expectations.external.get_mut(&e.key()) {
                    entry.note.is_in_kernel = true;
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
                self.expectations.external_stats.create_failed += u64::from(!is_commit);
                if let Some(commit) = self.commit.as_mut().filter(|_| is_commit) {
                    commit.failed += 1;
                }
                self.events.push_back(Event::ExpectationRefused {
                    expectation: e.key(),
                    error: *error,
                });
            }
            (Op::DeleteExpectation(_), outcome) => {
                let done = u64::from(*outcome == Outcome::Done);
                self.expectations.external_stats.destroyed += done;
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
        let expectations = &mut self.expectations;
        if !is_commit {
            expectations.external_stats.created += 1;
            if let Some(entry) = expectations.external.get_mut(&e.key()) {
                entry.note.is_in_kernel = true;
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
            entry.note.is_found = true;
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

/// What the peer sent, with what is left of its timeout, at most `most` seconds.
fn with_what_is_left(entry: &ExpectEntry<Theirs>, now: Tick, most: Option<u32>) -> Expectation {
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
