//! What a replica must hold of the peer's live flows: at each step, when the primary
//! dies, and in the end after restarts that nobody repaired by a command.

use std::collections::BTreeSet;
use std::time::Duration;

use flow::{Expectation, FlowKey};
use replica::{Command, Objects, Verdict, Which, verdict};
use wire::v1::{Control, decode_expectation, decode_flow, messages};
use wire::{ObjectKind, StateKind};

use crate::check::{Check, Violation, predicted};
use crate::kept::{Subject, Told};
use crate::network::{Datagram, Edge};
use crate::plan::Fault;

use super::{Failure, Finished, World};

/// Time in which the backup must have committed after the primary's death.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// What is under way in the backup when its commit is over, shows within this time.
const AFTER_COMMIT: Duration = Duration::from_secs(1);

impl World {
    /// Replica `n` has sent a datagram.
    pub(super) fn note_sent(&mut self, n: usize, bytes: &[u8]) {
        let now = self.now;
        for message in messages(bytes).flatten() {
            let seq = message.header.seq;
            match verdict(self.plan.mode, &message.header) {
                Verdict::Data(ObjectKind::Flow, kind) => {
                    if let Ok(decoded) = decode_flow(message.body) {
                        let flow = &decoded.object;
                        let is_own = self.lives.get(&flow.key()) == Some(&n);
                        self.kept.on_sent(now, n, kind, flow, seq, is_own);
                        self.note_claimed(n, kind, Subject::Flow(flow.key()), is_own);
                    }
                }
                Verdict::Data(ObjectKind::Expectation, kind) => {
                    if let Ok(decoded) = decode_expectation(message.body) {
                        let e = &decoded.object;
                        let is_own = self.lives.get(&e.key().master()) == Some(&n);
                        self.kept.on_sent(now, n, kind, e, seq, is_own);
                        self.note_claimed(n, kind, Subject::Expectation(e.key()), is_own);
                    }
                }
                _ => {}
            }
        }
    }

    /// A backup that the HA manager has made primary beside the primary announces what is not its
    /// own.
    fn note_claimed(&mut self, n: usize, kind: StateKind, of: Subject, is_own: bool) {
        let is_claim = kind != StateKind::Delete && !is_own;
        if is_claim && n != self.primary && self.is_beside(n) {
            self.kept.on_claimed(n, of);
        }
    }

    /// A datagram of the sender's present epoch was read at the end of an edge.
    pub(super) fn note_received(&mut self, edge: Edge, datagram: &Datagram) {
        let back = Edge {
            from: edge.to,
            to: edge.from,
        };
        for message in messages(&datagram.bytes).flatten() {
            match verdict(self.plan.mode, &message.header) {
                Verdict::Control(Control::Ack(from, to)) if !self.nodes[edge.from].is_dead => {
                    self.kept.on_acknowledged(self.now, back, from, to);
                }
                _ => self.kept.on_received(self.now, edge, message.header.seq),
            }
        }
    }

    /// The message on which the sender of an edge, which owns a flow, may rely. Scripts of the
    /// HA manager claim what is theirs; an operator claims at any moment, also copies.
    fn promise(&self, edge: Edge, key: &FlowKey) -> Option<&Told> {
        let is_operated = self.plan.has(Fault::Operator);
        let is_claimed = is_operated && self.truth.is_claimed(edge.to, key);
        let told = self.kept.promise(self.now, edge, Subject::Flow(*key));
        told.filter(|_| !is_claimed)
    }

    /// Acknowledged means kept, given the last look at the external caches.
    pub(super) fn check_kept(&self) -> Check {
        let mut internal = vec![None; self.nodes.len()];
        for (key, n) in &self.lives {
            let Some(peer) = self.edges.peer(*n) else {
                continue;
            };
            let edge = Edge { from: *n, to: peer };
            let Some(told) = self.promise(edge, key) else {
                continue;
            };
            let held = |at: usize| self.nodes[at].kernel.get(key).is_some();
            if !held(*n) || held(peer) || self.truth.was_seen(peer, key) {
                continue;
            }
            let internal =
                internal[peer].get_or_insert_with(|| self.nodes[peer].internal(|_| true));
            if !internal.contains_key(key) {
                return Err(Violation {
                    invariant: "acknowledged means kept",
                    what: format!("{key} of {n} is gone at {peer}: {told}"),
                });
            }
        }
        Ok(())
    }

    /// The same of expectations whose master the owner may rely on, too.
    pub(super) fn check_expectations_kept(&self) -> Check {
        for edge in self.edges.all() {
            let (owner, peer) = (&self.nodes[edge.from], &self.nodes[edge.to]);
            let mut held = None;
            for key in owner
                .kernel
                .expectations(self.now)
                .iter()
                .map(Expectation::key)
            {
                let master = key.master();
                let is_owned = self.lives.get(&master) == Some(&edge.from);
                let told = self
                    .kept
                    .promise(self.now, *edge, Subject::Expectation(key));
                let Some(told) = told.filter(|_| is_owned) else {
                    continue;
                };
                if self.promise(*edge, &master).is_none() || peer.kernel.expectation(&key).is_some()
                {
                    continue;
                }
                let held = held.get_or_insert_with(|| {
                    let caches = [Which::External, Which::Internal];
                    let all = caches.map(|which| peer.expectations(which, |_| true).into_keys());
                    all.into_iter().flatten().collect::<BTreeSet<_>>()
                });
                if !held.contains(&key) {
                    let (from, to) = (edge.from, edge.to);
                    return Err(Violation {
                        invariant: "acknowledged means kept",
                        what: format!("expectation {key} of {from} is gone at {to}: {told}"),
                    });
                }
            }
        }
        Ok(())
    }

    /// The primary dies, nothing more arrives, and the backup runs the first command of the
    /// script. Its kernel must then hold all that it had acknowledged.
    pub(super) fn kill_primary(&mut self) -> Result<Finished, Failure> {
        let begun = self.now;
        let (dead, backup) = (self.primary, self.backup());
        self.is_safety = false;
        self.trace.line(begun, format_args!("{dead} dies for good"));
        self.kill(dead, false);
        self.nodes[dead].back_at = Some(begun + Duration::from_secs(3600));
        self.network.lose_all();
        // A paused daemon goes on; a dead one knows nothing, and nothing is asked of it.
        if !self.nodes[backup].is_dead {
            self.nodes[backup].back_at = None;
            self.script(backup, &[Command::Commit(Objects::All)]);
        }
        let mut over = None;
        while over.is_none_or(|at| self.now < at) {
            self.step().map_err(Failure::Safety)?;
            if over.is_none() && self.nodes[backup].is_idle() {
                over = Some(self.now + AFTER_COMMIT);
            }
            if self.now.since(begun) > COMMIT_MAX {
                return Err(Failure::Liveness("the commit does not end".into()));
            }
        }
        let edge = Edge {
            from: dead,
            to: backup,
        };
        let flows = self.check_taken_over(edge).map_err(Failure::Safety)?;
        let expectations = self.check_expected_still(edge).map_err(Failure::Safety)?;
        Ok(Finished {
            digest: self.trace.digest(),
            converged: self.now.since(begun),
            compared: flows + expectations,
            exempted: self.kept.exempted,
            excepted: self.truth.excepted,
        })
    }

    /// How many acknowledged flows of a dead primary, which sent along an edge, live on in
    /// the backup's kernel.
    fn check_taken_over(&self, edge: Edge) -> Result<usize, Violation> {
        let mut compared = 0;
        let Edge {
            from: dead,
            to: backup,
        } = edge;
        for key in self.lives.keys() {
            let lost = self.nodes[dead].kernel.get(key);
            let told = self.promise(edge, key);
            let (Some(lost), Some(told)) = (lost, told) else {
                continue;
            };
            match self.nodes[backup].kernel.get(key) {
                Some(flow) if flow.reply == lost.reply => compared += 1,
                Some(flow) => {
                    let what = format!("{key} has another translation, {:?}: {told}", flow.reply);
                    return Err(violated(what));
                }
                None => {
                    let what = format!("{key} is not in the kernel of {backup}: {told}");
                    return Err(violated(what));
                }
            }
        }
        Ok(compared)
    }

    /// How many acknowledged expectations of a dead primary are in the backup's kernel, so
    /// that the predicted flows are let in and translated there.
    fn check_expected_still(&self, edge: Edge) -> Result<usize, Violation> {
        let mut compared = 0;
        let backup = &self.nodes[edge.to].kernel;
        for lost in self.nodes[edge.from].kernel.expectations(self.now) {
            let key = lost.key();
            let master = key.master();
            let is_owned = self.lives.get(&master) == Some(&edge.from);
            let is_kept = self.promise(edge, &master).is_some() && backup.get(&master).is_some();
            let told = self.kept.promise(self.now, edge, Subject::Expectation(key));
            let Some(told) = told.filter(|_| is_owned && is_kept) else {
                continue;
            };
            match backup.expectation(&key) {
                Some(held) if predicted(held) == predicted(&lost) => compared += 1,
                Some(held) => {
                    let what = format!("expectation {key} is {held:?}, not {lost:?}: {told}");
                    return Err(violated(what));
                }
                None => {
                    let what = format!("expectation {key} is not in the kernel: {told}");
                    return Err(violated(what));
                }
            }
        }
        Ok(compared)
    }

    /// What restarts have left wrong: live flows that the peer does not hold, and flows that
    /// have ended in a kernel whose table survived and that the peer still holds.
    pub(super) fn check_restored(&self) -> Result<(), String> {
        for Edge { from: n, to: peer } in self.edges.all().iter().copied() {
            let external = self.nodes[peer].external(|_| true);
            let internal = self.nodes[peer].internal(|_| true);
            let in_kernel = |at: usize, key: &FlowKey| self.nodes[at].kernel.get(key).is_some();
            for key in self.lives.iter().filter(|(_, o)| **o == n).map(|(k, _)| k) {
                let is_held = external.contains_key(key)
                    || internal.contains_key(key)
                    || in_kernel(peer, key);
                if in_kernel(n, key) && !is_held {
                    return Err(format!("{key} lives at {n} and {peer} does not know it"));
                }
            }
            for key in self.kept.ended(n) {
                let is_over = !in_kernel(n, key) && !in_kernel(peer, key);
                if is_over && external.contains_key(key) {
                    return Err(format!("{key} has ended at {n} and {peer} still holds it"));
                }
            }
        }
        Ok(())
    }
}

fn violated(what: String) -> Violation {
    Violation {
        invariant: "killed primary",
        what,
    }
}
