//! Commit: the external cache → kernel, at a takeover.
//!
//! A cursor walks the external cache twice: first the flows without a master, then the
//! others, whose masters then exist; expectations come last. `EEXIST` is a question, not
//! an order: the kernel's entry is read, and brought up to date if it is the same flow,
//! so that a second commit changes nothing.

use cache::{Position, Slot};
use flow::{ExpectKey, Flow, Status};
use wire::v1::Role;

use crate::inject::without_what_fails;
use crate::kernel::{KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose};
use crate::{CommandId, Event, Instant, Objects, REQUESTS_MAX, Replica, marks};

/// Most requests about one entry: create, get, delete, create and two lesser creates.
pub(crate) const STEPS_MAX: u8 = 8;

/// Seconds that a flow gets whose timeout has run down without word of its end, and
/// the most that one gets which a restarted peer has not confirmed.
pub(crate) const RUN_DOWN_SECS: u32 = 60;

/// From this many flows on, the group of NEW events is left meanwhile.
const LARGE: usize = 256;

/// What a pass commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    WithoutMaster,
    WithMaster,
    Expectations,
}

/// Where a pass goes on.
#[derive(Clone, Copy, Debug)]
enum At {
    Flows(Position),
    /// Behind this one.
    Expectations(Option<ExpectKey>),
}

impl At {
    fn first_flow() -> At {
        At::Flows(Position::default())
    }
}

/// A commit under way.
#[derive(Debug)]
pub(crate) struct Commit {
    id: CommandId,
    objects: Objects,
    pass: Pass,
    /// `None` once the pass has seen all.
    at: Option<At>,
    pub(crate) in_flight: usize,
    size: usize,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) failed: u64,
    began: Instant,
}

impl Commit {
    pub(crate) fn is_large(&self) -> bool {
        self.size >= LARGE
    }
}

impl Replica {
    pub(crate) fn start_commit(&mut self, id: CommandId, objects: Objects) {
        self.purge_at = None;
        self.role = Role::Primary;
        if self.commit.is_some() {
            self.events.push_back(Event::CommitRunning);
            self.events.push_back(Event::Done(id));
            return;
        }
        self.events.push_back(Event::CommitStarted);
        if !self.settings.external_cache {
            // Everything is in the kernel already.
            self.events.push_back(Event::Done(id));
            return;
        }
        self.commit = Some(Commit {
            id,
            objects,
            pass: Pass::WithoutMaster,
            at: objects.has_flows().then(At::first_flow),
            in_flight: 0,
            size: self.external.len(),
            created: 0,
            updated: 0,
            failed: 0,
            began: self.now,
        });
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
            (true, Pass::WithMaster) if commit.objects.has_expectations() => {
                commit.pass = Pass::Expectations;
                commit.at = Some(At::Expectations(None));
            }
            (true, Pass::WithMaster | Pass::Expectations) => {
                self.events.push_back(Event::Committed {
                    created: commit.created,
                    updated: commit.updated,
                    failed: commit.failed,
                    took: self.now.since(commit.began),
                });
                self.events.push_back(Event::Done(commit.id));
                return false;
            }
            (false, _) => {}
        }
        let walks = commit.at.is_some() && self.requests.len() < REQUESTS_MAX;
        self.commit = Some(commit);
        pass_over || walks
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
            let flow = self.external.flow(slot);
            if flow.master.is_some() != (commit.pass == Pass::WithMaster) {
                continue;
            }
            let flow = self.with_commit_timeout(slot, flow);
            commit.in_flight += 1;
            self.requests.push_back(KernelRequest {
                purpose: Purpose::Commit,
                ticket: Some(self.external.ticket(slot)),
                step: 0,
                op: Op::Create(flow),
            });
        }
        Some(At::Flows(position))
    }

    /// A flow of the external cache with what is left of its timeout.
    fn with_commit_timeout(&self, slot: Slot, flow: Flow) -> Flow {
        let age = (self.now.tick()).seconds_since(self.external.meta(slot).updated);
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

    pub(crate) fn on_commit_result(&mut self, result: &KernelResult) {
        let Some(mut commit) = self.commit.take() else {
            return;
        };
        let request = &result.request;
        let next = match (&request.op, &result.outcome) {
            (Op::Create(flow), Outcome::Done) => {
                commit.created += 1;
                self.own_committed(flow);
                None
            }
            (Op::Update(flow), Outcome::Done) => {
                commit.updated += 1;
                self.own_committed(flow);
                None
            }
            (Op::Get(_), Outcome::Found(held)) if self.is_kept(request, held) => {
                commit.updated += 1;
                self.own_committed(held);
                None
            }
            (op, outcome) => {
                let wanted = self.wanted(request);
                let next =
                    wanted.and_then(|w| self.next_commit_step(request.step, op, outcome, &w));
                if next.is_none() {
                    commit.failed += 1;
                }
                next
            }
        };
        match next {
            Some(op) => self.requests.push_back(KernelRequest {
                step: request.step + 1,
                op,
                ..*request
            }),
            None => commit.in_flight -= 1,
        }
        self.commit = Some(commit);
    }

    /// True if the kernel's entry is to stay as it is.
    fn is_kept(&self, request: &KernelRequest, held: &Flow) -> bool {
        let wanted = self.wanted(request).filter(|w| w.key() == held.key());
        wanted.is_some_and(|w| matches!(self.reconcile(held, &w), Reconciled::Keep))
    }

    /// The flow that a commit request is about, as it was to be committed.
    fn wanted(&self, request: &KernelRequest) -> Option<Flow> {
        let slot = request.ticket.and_then(|t| self.external.redeem(t))?;
        Some(self.with_commit_timeout(slot, self.external.flow(slot)))
    }

    /// The next request after one that did not finish the matter; `None` gives up.
    fn next_commit_step(
        &mut self,
        step: u8,
        op: &Op,
        outcome: &Outcome,
        wanted: &Flow,
    ) -> Option<Op> {
        let key = wanted.key();
        if step + 1 >= STEPS_MAX {
            return None;
        }
        match (op, outcome) {
            (Op::Create(_), Outcome::Failed(KernelError::Exists)) => Some(Op::Get(key)),
            (Op::Create(tried), Outcome::Failed(error)) => {
                let lesser = without_what_fails(*tried, *error);
                match &lesser {
                    Some(lesser) => self.note_lesser(tried, lesser),
                    None => self.events.push_back(Event::Refused {
                        flow: key,
                        error: *error,
                    }),
                }
                lesser.map(Op::Create)
            }
            (Op::Get(_), Outcome::Found(held)) if held.key() == key => {
                match self.reconcile(held, wanted) {
                    Reconciled::Update(update) => Some(Op::Update(update)),
                    Reconciled::Replace => Some(Op::Delete(key, held.id)),
                    // Counted and owned where the result is taken.
                    Reconciled::Keep => None,
                }
            }
            // It has gone meanwhile: once more. Otherwise the reply tuple is what is taken.
            (Op::Get(_), Outcome::Failed(KernelError::NotFound)) if step <= 1 => {
                Some(Op::Create(*wanted))
            }
            (Op::Get(_), _) => {
                self.stats.clashes += 1;
                self.events.push_back(Event::Clash(key));
                None
            }
            (Op::Delete(..), _) => Some(Op::Create(*wanted)),
            (Op::Update(_), Outcome::Failed(KernelError::NotFound)) => Some(Op::Create(*wanted)),
            (Op::Update(_), Outcome::Failed(error)) => {
                self.events.push_back(Event::Refused {
                    flow: key,
                    error: *error,
                });
                None
            }
            _ => None,
        }
    }
}

/// What is to be done with an entry of the kernel for which the peer said something else.
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
pub(crate) enum Reconciled {
    /// It is brought up to date.
    Update(Flow),
    /// It is another flow, or a former life of this one.
    Replace,
    /// The kernel has seen more.
    Keep,
}

/// Status bits that only packets set, and that nothing can take back.
const STEPS: u32 = Status::SEEN_REPLY.0 | Status::ASSURED.0;

impl Replica {
    /// Compares an entry of the kernel with what the peer said of the same original tuple.
    ///
    /// What packets have done here is never taken back. But an entry whose flow the peer
    /// has told of since is a copy, or a former life of the flow: the peer knows better.
    pub(crate) fn reconcile(&self, held: &Flow, said: &Flow) -> Reconciled {
        if held.reply != said.reply {
            return Reconciled::Replace;
        }
        let progress = |f: &Flow| f.tcp_state().map(flow::TcpState::progress);
        let has_more_steps = held.status.0 & !said.status.0 & STEPS != 0;
        if progress(held) > progress(said) || has_more_steps {
            let own = self.internal.find(&said.key());
            let is_copy = own.is_some_and(|slot| self.internal.has(slot, marks::TAKEN));
            return if is_copy {
                Reconciled::Replace
            } else {
                Reconciled::Keep
            };
        }
        let mut update = *said;
        update.status = Status(held.status.0 | said.status.0 & STEPS);
        if progress(held) == progress(said) && held.timeout >= said.timeout {
            update.timeout = None;
        }
        Reconciled::Update(update)
    }
}
