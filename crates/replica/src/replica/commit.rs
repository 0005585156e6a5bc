//! Commit: the requests of a pass over the external cache, and what follows their results.

use cache::{List, Position, Slot, Ticket};
use flow::{Flow, FlowKey};
use wire::Role;

use super::{REQUESTS_MAX, Replica};
use crate::command::{CommandId, Objects};
use crate::commit::{At, Commit, Late, Pass, ROUNDS_MAX, RUN_DOWN_SECS, SCRIPT_MAX};
use crate::conversation::{self, Attempt, Next};
use crate::entry::External;
use crate::event::{Answer, Event};
use crate::kernel::{KernelRequest, KernelResult, Op, Outcome, Purpose, Subject};
use crate::time::Instant;

impl Replica {
    pub(crate) fn start_commit(&mut self, id: CommandId, objects: Objects) {
        self.call_purge_off();
        self.take_over();
        if self.is_committing_late() && self.commit_next.is_none() {
            self.commit_next = Some((id, objects));
            return;
        }
        if self.commit.is_some() {
            self.events
                .push_back(Event::Done(id, Answer::CommitRunning));
            return;
        }
        self.events.push_back(Event::CommitStarted);
        let kept_back = self.external.members(External::HELD) + self.lacking();
        if !self.settings.external_cache && kept_back == 0 {
            self.events
                .push_back(Event::Done(id, Answer::NothingToCommit));
            return;
        }
        if self.external.members(External::LATE) == 0 {
            // Of former commits.
            self.late = Late::default();
        }
        self.commit_opened_at = self.settings.external_cache.then_some(self.now);
        self.commit = Some(Commit {
            id: Some(id),
            round: 0,
            objects,
            pass: Pass::WithoutMaster,
            at: objects.has_flows().then(At::first_flow),
            in_flight: 0,
            size: if self.settings.external_cache {
                self.external.len()
            } else {
                kept_back
            },
            created: 0,
            updated: 0,
            failed: 0,
            began: self.now,
        });
    }

    fn take_over(&mut self) {
        self.role = Role::Primary;
        self.took_over_at = Some(self.now);
        self.claimed_at = None;
        for peer in &mut self.peers {
            peer.was_primary = peer.role == Role::Primary;
            peer.is_beside = false;
        }
    }

    /// Commits what was announced since the commit that the script has just ended, and
    /// drops it from the external cache, as the script has dropped everything else.
    pub(crate) fn commit_late(&mut self) {
        self.sweeps.call_purge_off();
        self.commit = Some(Commit {
            id: None,
            round: 1,
            objects: Objects::Flows,
            pass: Pass::WithoutMaster,
            at: Some(At::first_flow()),
            in_flight: 0,
            size: self.external.members(External::LATE),
            created: 0,
            updated: 0,
            failed: 0,
            began: self.now,
        });
    }

    /// True while what the peer announces is late for a commit.
    pub(crate) fn is_commit_open(&self) -> bool {
        let lately = |at: Instant| self.now.since(at) < SCRIPT_MAX;
        self.commit.is_some() || self.commit_opened_at.is_some_and(lately)
    }

    /// True while what was late is committed, which no client waits for.
    pub(crate) fn is_committing_late(&self) -> bool {
        self.commit.as_ref().is_some_and(|c| c.id.is_none())
    }

    /// True if there is more to do at once.
    pub(crate) fn advance_commit(&mut self, items: usize) -> bool {
        let Some(mut commit) = self.commit.take() else {
            return false;
        };
        if self.requests.len() < REQUESTS_MAX {
            commit.at = match commit.at {
                Some(At::Flows(position)) => self.commit_flows(&mut commit, position, items),
                Some(At::Expectations(behind)) => {
                    let last = self.commit_expectations(&mut commit, behind, items);
                    last.map(|key| At::Expectations(Some(key)))
                }
                None => None,
            };
        }
        let pass_over = commit.at.is_none() && commit.in_flight == 0;
        match (pass_over, commit.pass) {
            (true, Pass::WithoutMaster) => {
                commit.pass = Pass::WithMaster;
                commit.at = commit.objects.has_flows().then(At::first_flow);
            }
            (true, Pass::WithMaster) if self.is_another_round_due(&commit) => {
                commit.round += 1;
                commit.pass = Pass::WithoutMaster;
                commit.at = Some(At::first_flow());
            }
            (true, Pass::WithMaster)
                if commit.objects.has_expectations() && self.settings.external_cache =>
            {
                commit.pass = Pass::Expectations;
                commit.at = Some(At::Expectations(None));
            }
            (true, _) if commit.id.is_none() => {
                self.hear_again(&commit);
                if let Some((id, objects)) = self.commit_next.take() {
                    self.start_commit(id, objects);
                }
                return self.commit.is_some();
            }
            (true, Pass::WithMaster | Pass::Expectations) => {
                self.hear_again(&commit);
                let answer = Answer::Committed {
                    created: commit.created,
                    updated: commit.updated,
                    failed: commit.failed,
                    took: self.now.since(commit.began),
                };
                self.events
                    .extend(commit.id.map(|id| Event::Done(id, answer)));
                return false;
            }
            (false, _) => {}
        }
        let walks = commit.at.is_some() && self.requests.len() < REQUESTS_MAX;
        self.commit = Some(commit);
        pass_over || walks
    }

    /// A commit is over. During a large one the driver leaves the group of NEW events.
    fn hear_again(&mut self, commit: &Commit) {
        if commit.is_large() {
            self.sweeps.events_left_out(self.now);
        }
    }

    /// The next requests about flows, for up to `items` entries from a position on.
    fn commit_flows(
        &mut self,
        commit: &mut Commit,
        mut position: Position,
        items: usize,
    ) -> Option<At> {
        for _ in 0..items {
            if self.requests.len() >= REQUESTS_MAX {
                break;
            }
            let (slot, next) = self.external.walk(position)?;
            position = next;
            if !self.is_to_be_committed(slot, commit.round) {
                continue;
            }
            let flow = self.external.flow(slot);
            if flow.master.is_some() != (commit.pass == Pass::WithMaster) {
                continue;
            }
            let flow = self.with_commit_timeout(slot, flow);
            // What our kernel has is read at once: a create would only be refused.
            let op = if self.is_in_kernel(&flow.key()) {
                Op::Get(flow.key())
            } else {
                Op::Create(flow)
            };
            self.external.change(slot, External::committing);
            self.external.change(slot, External::asked);
            commit.in_flight += 1;
            self.requests.push_back(KernelRequest {
                purpose: Purpose::Commit,
                subject: Subject::External(self.external.ticket(slot)),
                step: 0,
                op,
            });
        }
        Some(At::Flows(position))
    }

    /// True if our kernel has a flow, as far as its events and looks at it have shown.
    fn is_in_kernel(&self, key: &FlowKey) -> bool {
        let own = self.ledger.find(key);
        own.is_some_and(|own| !self.ledger.note(own).has_ended())
    }

    /// Calls `see` for what a commit would now put into the kernel, among up to `items` entries
    /// of the external cache from `position` on: a flow with the timeout that it would get, and
    /// whether the peer has announced it since our kernel last saw traffic of it. `None` at the
    /// end of the cache. A commit puts flows with a master last.
    pub fn walk_to_commit(
        &self,
        mut position: Position,
        items: usize,
        mut see: impl FnMut(&Flow, bool),
    ) -> Option<Position> {
        for _ in 0..items {
            let (slot, next) = self.external.walk(position)?;
            position = next;
            if self.is_to_be_committed(slot, 0) {
                let flow = self.with_commit_timeout(slot, self.external.flow(slot));
                see(&flow, self.is_taken(&flow.key()));
            }
        }
        Some(position)
    }

    fn is_another_round_due(&self, commit: &Commit) -> bool {
        let late = self.external.members(External::LATE);
        late > 0 && commit.objects.has_flows() && commit.round < ROUNDS_MAX
    }

    /// With injection only what was kept back or is lacking; otherwise all but what lives here with
    /// traffic.
    fn is_to_be_committed(&self, slot: Slot, round: u32) -> bool {
        let note = self.external.note(slot);
        if round > 0 && !note.is_late() {
            return false;
        }
        if !self.settings.external_cache {
            return note.is_held() || self.is_lacking(slot);
        }
        !(note.is_ours() && self.is_in_kernel(&self.external.key(slot)))
    }

    /// A flow of the external cache with what is left of its timeout.
    fn with_commit_timeout(&self, slot: Slot, flow: Flow) -> Flow {
        let age = (self.now.tick()).seconds_since(self.external.times(slot).updated);
        let left = match (self.settings.commit_timeout, flow.timeout) {
            (Some(fixed), _) => fixed,
            (None, Some(secs)) if secs > age => secs - age,
            (None, Some(secs)) => secs.clamp(1, RUN_DOWN_SECS),
            (None, None) => RUN_DOWN_SECS,
        };
        // What a restarted peer has not confirmed may have ended: traffic has this long
        // to show that it lives.
        let most = if self.is_confirmed(slot) {
            u32::MAX
        } else {
            RUN_DOWN_SECS
        };
        Flow {
            timeout: Some(left.min(most)),
            ..flow
        }
    }

    pub(crate) fn on_commit_result(&mut self, ticket: Ticket, result: &KernelResult) {
        let Some(mut commit) = self.commit.take() else {
            return;
        };
        let slot = self.external.redeem(ticket);
        match self.next_of_commit(slot, result) {
            Next::Ask(op) | Next::AskForLess(op) => self.requests.push_back(KernelRequest {
                step: result.request.step + 1,
                op,
                ..result.request
            }),
            Next::Created(flow) => {
                commit.created += 1;
                commit.in_flight -= 1;
                self.is_committed(&commit, slot, &flow);
                self.commit_answered(ticket);
            }
            Next::Updated(flow) | Next::Kept(flow) => {
                commit.updated += 1;
                commit.in_flight -= 1;
                self.is_committed(&commit, slot, &flow);
                self.commit_answered(ticket);
            }
            Next::Clash | Next::Refused(_) | Next::GivenUp => {
                commit.failed += 1;
                commit.in_flight -= 1;
                self.commit_answered(ticket);
            }
        }
        self.commit = Some(commit);
    }

    /// The last request of a commit about an entry is over: what waited for that follows.
    fn commit_answered(&mut self, ticket: Ticket) {
        let Some(slot) = self.external.redeem(ticket) else {
            return;
        };
        if !self.external.change(slot, External::answered) {
            return;
        }
        if !self.settings.external_cache {
            self.external.link(slot, List::Unwritten);
        } else if self.external.note(slot).is_ours() {
            // The peer has acknowledged that the flow is ours.
            self.remove_external(slot);
        }
    }

    /// What follows a result about the entry `slot`; counts and reports what is noteworthy.
    fn next_of_commit(&mut self, slot: Option<Slot>, result: &KernelResult) -> Next {
        let asked = &result.request;
        let Some(slot) = slot else {
            // The peer has ended it meanwhile.
            return match (&asked.op, &result.outcome) {
                (Op::Create(flow), Outcome::Done) => Next::Created(*flow),
                (Op::Update(flow), Outcome::Done) => Next::Updated(*flow),
                _ => Next::GivenUp,
            };
        };
        let wanted = self.with_commit_timeout(slot, self.external.flow(slot));
        let flow = wanted.key();
        let attempt = Attempt {
            wanted,
            step: asked.step,
            is_taken: self.is_taken(&flow),
            is_our_copy: false,
        };
        let next = conversation::next(&attempt, &asked.op, &result.outcome);
        match &next {
            Next::AskForLess(lesser) => self.note_lesser(&asked.op, lesser),
            Next::Clash => self.note_clash(flow),
            Next::Refused(error) => {
                let error = *error;
                self.events.push_back(Event::Refused { flow, error });
            }
            _ => {}
        }
        next
    }

    /// Our kernel has the flow of an entry from us.
    fn is_committed(&mut self, commit: &Commit, slot: Option<Slot>, flow: &Flow) {
        if !slot.is_some_and(|slot| self.is_lacking(slot)) {
            self.own_committed(flow);
        }
        // No event of it may come: it is looked at before its timeout has run down.
        self.sweeps.note(self.now, flow);
        // The flow may have ended before the result came, and its end is read already.
        let is_doubtful = slot.is_none_or(|slot| self.external.note(slot).has_changed());
        if let Some(own) = self.ledger.find(&flow.key()).filter(|_| is_doubtful) {
            self.verify(own);
        }
        let Some(slot) = slot else { return };
        if !self.settings.external_cache {
            self.external.change(slot, External::committed);
            self.external.unlink(slot);
            // The kernel keeps a longer one of its own; the copy keeps the peer's.
            if flow.timeout.is_some() {
                let timeout = flow.timeout;
                let held = self.external.flow(slot);
                let committed = Flow { timeout, ..held };
                self.external.store(slot, &committed, self.now.tick());
            }
        } else if commit.id.is_none() && !self.external.note(slot).is_late() {
            self.remove_external(slot);
        }
    }
}
