//! What holds at each step, and when the caches are equal in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use flow::FlowKey;
use replica::{Instant, Mode, Which};

use crate::check::{Check, check_bound, content, predicted, version};
use crate::network::Edge;
use crate::plan::Fault;

use super::{CACHE_TIMEOUT, REFRESH, STEP, World};

/// Steps of the clock between two looks for ghosts.
const GHOST_STEPS: u128 = 40;

impl World {
    pub(super) fn check(&mut self) -> Check {
        let network = &self.network;
        let accounted = network.delivered + network.lost + network.in_flight();
        if network.sent != accounted {
            check_bound("datagrams", network.sent as usize, accounted as usize)?;
        }
        let steps = self.now.since(Instant::START).as_millis() / STEP.as_millis();
        if !steps.is_multiple_of(4) {
            return Ok(());
        }
        let ordered = self.plan.mode == Mode::Ftfw;
        for n in 0..self.nodes.len() {
            self.look_at_external(n, ordered)?;
            if steps.is_multiple_of(GHOST_STEPS) {
                self.look_for_ghosts(n)?;
            }
        }
        if self.plan.must_keep() {
            self.check_kept()?;
            if self.plan.expectations {
                self.check_expectations_kept()?;
            }
        }
        Ok(())
    }

    fn look_at_external(&mut self, n: usize, ordered: bool) -> Check {
        let truth = &mut self.truth;
        truth.begin_look(n);
        let mut found = Ok(());
        self.nodes[n].for_each_own(Which::External, |flow, _| {
            if found.is_ok() {
                found = truth.check_external(n, flow, ordered);
            }
        });
        truth.end_look(n);
        found
    }

    /// Time in which the caches must have become equal.
    pub(super) fn limit(&self) -> Duration {
        match self.plan.mode {
            // After an attack the replicas must first agree on numbers and runs again.
            Mode::Ftfw if self.plan.has(Fault::Forged) => Duration::from_secs(40),
            Mode::Ftfw => Duration::from_secs(20),
            Mode::Statistics => Duration::ZERO,
            Mode::Alarm => REFRESH + CACHE_TIMEOUT + Duration::from_secs(4),
            Mode::Notrack => Duration::from_secs(5),
        }
    }

    /// How many entries are equal along all edges, or what is not.
    pub(super) fn difference(&self) -> Result<usize, String> {
        let mut compared = 0;
        for edge in self.edges.all() {
            compared += self.flows_differ(*edge)?;
            compared += self.expectations_differ(*edge)?;
        }
        for n in (0..self.nodes.len()).filter(|n| self.is_exact(*n)) {
            self.has_only_what_is_known(n)?;
        }
        Ok(compared)
    }

    /// Keys of flows about which the receiver of an edge does not follow its sender: its own
    /// ones, and those that another sender announces, too.
    fn disputed(&self, edge: Edge) -> BTreeSet<FlowKey> {
        let mut disputed = self.nodes[edge.to].announced();
        for other in self.edges.toward(edge.to).filter(|e| *e != edge) {
            let announced = self.nodes[other.from].internal(|age| age.is_announced);
            disputed.extend(announced.into_keys());
        }
        disputed
    }

    /// How many flows that the sender of an edge announces are equal at the receiver.
    fn flows_differ(&self, edge: Edge) -> Result<usize, String> {
        let Edge { from, to } = edge;
        let disputed = self.disputed(edge);
        let mut compared = 0;
        let announced = self.nodes[from].internal(|age| age.is_announced);
        let known = self.nodes[to].external(|_| true);
        for (key, flow) in announced {
            if disputed.contains(&key) || self.lives.get(&key) == Some(&to) {
                continue;
            }
            match known.get(&key) {
                // With injection the kernel is what counts: it may know better.
                None if self.plan.injects[to] && self.nodes[to].kernel.get(&key).is_some() => {}
                None => return Err(format!("{key} of {from} is missing at {to}")),
                Some(held) if content(held) != content(&flow) => {
                    let (a, b) = (version(held), version(&flow));
                    return Err(format!("{key} at {to} is {a} and should be {b}"));
                }
                Some(_) => compared += 1,
            }
        }
        Ok(compared)
    }

    /// How many expectations that the sender of an edge announces are equal at the receiver.
    fn expectations_differ(&self, edge: Edge) -> Result<usize, String> {
        let Edge { from, to } = edge;
        if !self.plan.expectations {
            return Ok(0);
        }
        let disputed = self.disputed(edge);
        let masters = self.nodes[from].internal(|age| age.is_announced);
        let known = self.nodes[to].expectations(Which::External, |_| true);
        let mut compared = 0;
        for (key, e) in self.nodes[from].expectations(Which::Internal, |age| age.is_announced) {
            let master = key.master();
            let is_followed = masters.contains_key(&master) && !disputed.contains(&master);
            if !is_followed || self.lives.get(&master) == Some(&to) {
                continue;
            }
            match known.get(&key) {
                None if self.plan.injects[to]
                    && self.nodes[to].kernel.expectation(&key).is_some() => {}
                None => return Err(format!("expectation {key} of {from} is missing at {to}")),
                Some(held) if predicted(held) != predicted(&e) => {
                    return Err(format!("expectation {key} at {to} is {held:?}, not {e:?}"));
                }
                Some(_) => compared += 1,
            }
        }
        Ok(compared)
    }

    /// Replica `n` holds nothing that those whom it receives do not know.
    fn has_only_what_is_known(&self, n: usize) -> Result<(), String> {
        let own = self.nodes[n].announced();
        let is_others = |key: &FlowKey| !own.contains(key) && self.lives.get(key) != Some(&n);
        // Also what they have since taken over.
        let senders: Vec<_> = self.edges.toward(n).map(|e| &self.nodes[e.from]).collect();
        let mut known = BTreeSet::new();
        let mut predictions = BTreeSet::new();
        for sender in &senders {
            known.extend(sender.internal(|_| true).into_keys());
            predictions.extend(sender.expectations(Which::Internal, |_| true).into_keys());
        }
        let confirmed = self.nodes[n].external(|age| age.is_announced);
        for key in confirmed.keys().filter(|k| is_others(k)) {
            if !known.contains(key) && !self.is_end_lost(n, key) {
                return Err(format!("{key} at {n} has ended elsewhere"));
            }
        }
        if self.plan.mode == Mode::Notrack {
            // A lost end of an expectation is not made good: it runs down.
            return Ok(());
        }
        let masters = self.nodes[n].external(|_| true);
        for key in self.nodes[n]
            .expectations(Which::External, |age| age.is_announced)
            .keys()
        {
            let master = key.master();
            if !is_others(&master) {
                continue;
            }
            if !predictions.contains(key) {
                return Err(format!("expectation {key} at {n} has ended elsewhere"));
            }
            // The original announces expectations whose master it has lost.
            let has_master = !self.plan.is_ours()
                || masters.contains_key(&master)
                || self.nodes[n].kernel.get(&master).is_some();
            if !has_master {
                return Err(format!("expectation {key} at {n} has no master"));
            }
        }
        Ok(())
    }

    /// True if replica `n` cannot know that a flow has ended: the end was lost, somebody has forged
    /// its acknowledgement, and without trailers no end is inferred from a bulk update.
    fn is_end_lost(&self, n: usize, key: &FlowKey) -> bool {
        let is_lost = |edge: Edge| self.kept.is_end_lost(edge, key);
        !self.plan.has_trailers() && self.edges.toward(n).any(is_lost)
    }

    /// Number of flows that replicas hold and whose end they cannot know.
    pub(super) fn ends_lost(&self) -> u64 {
        let held = |n: usize| self.nodes[n].external(|age| age.is_announced);
        let lost = |n: usize| {
            held(n)
                .keys()
                .filter(|key| self.is_end_lost(n, key))
                .count()
        };
        (0..self.nodes.len()).map(lost).sum::<usize>() as u64
    }

    /// True if nothing may be left of flows that have ended.
    fn is_exact(&self, at: usize) -> bool {
        if self.edges.toward(at).count() > 1 && self.plan.mode != Mode::Alarm {
            // Bulk updates of several senders cannot be told apart.
            return false;
        }
        match self.plan.mode {
            // What was injected runs down in the kernel.
            Mode::Statistics => false,
            Mode::Alarm => !self.plan.injects[at],
            // What an operator claims for both can be refused by a kernel that knows better:
            // the numbers then differ, and nothing is removed.
            Mode::Ftfw if self.plan.has_trailers() && !self.plan.injects[at] => true,
            Mode::Ftfw => !self.may_hold_more,
            Mode::Notrack => self.plan.has_trailers() && !self.may_hold_more,
        }
    }
}
