//! What is true of a run, and the invariants that hold at each step.
//!
//! The workload writes a version into the mark of every state of every flow, and into the
//! saved port of every expectation. So each entry, message and request shows which true
//! state it is of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;

use flow::{ExpectKey, Expectation, Flow, FlowKey, L4, Mark, Status};
use replica::Seq;

use crate::network::Edges;
use crate::trace::Digest;

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// Of what.
    pub what: String,
}

/// Result of a check.
pub type Check = Result<(), Violation>;

fn violated(invariant: &'static str, what: String) -> Check {
    Err(Violation { invariant, what })
}

/// Everything that is replicated; timeouts run down, and ids are each kernel's own.
pub fn content(flow: &Flow) -> Flow {
    Flow {
        timeout: None,
        id: None,
        traffic: None,
        ..*flow
    }
}

/// Version of a flow's state.
pub fn version(flow: &Flow) -> u32 {
    flow.mark.map_or(0, |m| m.0)
}

/// Everything of an expectation that is replicated.
pub fn predicted(e: &Expectation) -> Expectation {
    Expectation {
        timeout: None,
        id: None,
        ..*e
    }
}

/// Version of an expectation: the port that it has saved.
pub fn expectation_version(e: &Expectation) -> u32 {
    match e.nat.map(|nat| nat.tuple.l4) {
        Some(L4::Ports { src, .. }) => src.into(),
        _ => 0,
    }
}

/// What was last seen of an entry of an external cache.
#[derive(Clone, Copy, Debug)]
struct Seen {
    version: u32,
    /// Number of the look.
    look: u64,
}

/// What a replica has received, and what its kernel has been made to hold.
#[derive(Debug, Default)]
struct Known {
    /// The flows in the external cache when it was last looked at, and the number of that look.
    external: HashMap<FlowKey, Seen, BuildHasherDefault<Digest>>,
    look: u64,
    /// Flows that may fail a check since then though their entries have not changed.
    suspects: BTreeSet<FlowKey>,
    /// Version with which a flow had ended, in a delete that came.
    ended: BTreeMap<FlowKey, u32>,
    /// Flows of which a message of a former epoch of the peer has come: they are not checked.
    exempt: BTreeSet<FlowKey>,
    /// Flows in the kernel that are there by injection alone.
    injected: BTreeSet<FlowKey>,
    /// Flows that a command of the operator has made its own.
    claimed: BTreeSet<FlowKey>,
    /// Flows that were injected while the resync of a take-over read the kernel.
    claimed_late: BTreeSet<FlowKey>,
    /// States that packets have made in its kernel, and of which it has read the events.
    shown: BTreeSet<(FlowKey, u32)>,
    /// Sequence numbers that have come.
    delivered: BTreeSet<u32>,
}

/// The truth about flows and expectations, and what each replica can know of it.
#[derive(Debug)]
pub struct Truth {
    /// All states of all flows; the first one has version 1.
    versions: Vec<Flow>,
    predictions: BTreeMap<(ExpectKey, u32), Expectation>,
    edges: Edges,
    known: Vec<Known>,
    /// Announcements of injected flows that were no echo.
    pub excepted: u64,
}

impl Truth {
    /// Nothing is true yet of `nodes` replicas.
    pub fn new(nodes: usize, edges: Edges) -> Truth {
        Truth {
            versions: Vec::new(),
            predictions: BTreeMap::new(),
            edges,
            known: (0..nodes).map(|_| Known::default()).collect(),
            excepted: 0,
        }
    }

    /// Notes a true expectation.
    pub fn note_prediction(&mut self, e: &Expectation) {
        let key = (e.key(), expectation_version(e));
        self.predictions.insert(key, predicted(e));
    }

    /// No invention: an expectation was once true just so, its translation included.
    pub fn check_prediction(&self, place: &str, e: &Expectation) -> Check {
        let known = self.predictions.get(&(e.key(), expectation_version(e)));
        match known {
            Some(known) if *known == predicted(e) => Ok(()),
            Some(known) => violated("no invention", format!("{place}: {e:?} was {known:?}")),
            None => violated("no invention", format!("{place}: {e:?} never was")),
        }
    }

    /// Notes a true state of a flow and gives it its version.
    pub fn note(&mut self, mut flow: Flow) -> Flow {
        flow.mark = Some(Mark(self.versions.len() as u32 + 1));
        self.versions.push(content(&flow));
        flow
    }

    /// Packets of a flow pass through replica `n`: it is its own now.
    pub fn on_traffic(&mut self, n: usize, key: &FlowKey) {
        self.known[n].injected.remove(key);
        self.known[n].claimed_late.remove(key);
    }

    /// Replica `n` has lost its memory.
    pub fn on_restart(&mut self, n: usize) {
        self.known[n] = Known::default();
        // Whoever receives it, receives a new epoch.
        for edge in self.edges.out_of(n) {
            let known = &mut self.known[edge.to];
            known.external.clear();
            known.ended.clear();
        }
    }

    /// A command makes what replica `n` has, or now gets, its own: also copies of flows that
    /// have gone on, or ended, elsewhere.
    pub fn on_claim(&mut self, n: usize, keys: impl Iterator<Item = FlowKey>) {
        let keys: Vec<_> = keys.collect();
        self.known[n].claimed.extend(&keys);
        for edge in self.edges.out_of(n) {
            self.known[edge.to].exempt.extend(&keys);
        }
    }

    /// True if a command has made a flow replica `n`'s own.
    pub fn is_claimed(&self, n: usize, key: &FlowKey) -> bool {
        self.known[n].claimed.contains(key)
    }

    /// The operator empties the external cache of replica `n`.
    pub fn on_flush(&mut self, n: usize) {
        self.known[n].external.clear();
    }

    /// The kernel of replica `n` holds a flow by injection.
    pub fn on_injected(&mut self, n: usize, key: FlowKey) {
        self.known[n].claimed_late.remove(&key);
        self.known[n].injected.insert(key);
    }

    /// The same, and a take-over is about to find it there.
    pub fn on_injected_late(&mut self, n: usize, key: FlowKey) {
        self.on_injected(n, key);
        self.known[n].claimed_late.insert(key);
    }

    /// A message came to replica `n`.
    pub fn on_delivered(
        &mut self,
        n: usize,
        seq: Seq,
        stale: bool,
        ended: Option<&Flow>,
        of: Option<FlowKey>,
    ) {
        let known = &mut self.known[n];
        known.delivered.insert(seq.0);
        if stale {
            known.exempt.extend(of);
        } else if let Some(flow) = ended {
            known.suspects.insert(flow.key());
            let last = known.ended.entry(flow.key()).or_default();
            *last = version(flow).max(*last);
        }
    }

    /// No invention: a flow was once true just so.
    pub fn check_true(&self, place: impl Fn() -> String, flow: &Flow) -> Check {
        let index = (version(flow) as usize).checked_sub(1);
        let known = index.and_then(|at| self.versions.get(at));
        match known.filter(|known| known.key() == flow.key()) {
            Some(known) if *known == content(flow) => Ok(()),
            // A kernel that did not find the master reports none, or, of a flow that it knows
            // already, only that the flow was not expected: the entry keeps the master that
            // the peer has announced. A kernel that creates it sets the bit by the master.
            Some(known)
                if (flow.master.is_none() || flow.master == known.master)
                    && masterless(known) == masterless(flow) =>
            {
                Ok(())
            }
            Some(known) => violated(
                "no invention",
                format!("{}: {flow:?} was {known:?}", place()),
            ),
            None => violated("no invention", format!("{}: {flow:?} never was", place())),
        }
    }

    /// Looks at the external cache of replica `n` through [`Truth::check_external`], and then
    /// through [`Truth::end_look`].
    pub fn begin_look(&mut self, n: usize) {
        self.known[n].look += 1;
    }

    /// No invention, and in FT-FW no going back and no resurrection, of an entry of the
    /// external cache of replica `n`.
    pub fn check_external(&mut self, n: usize, flow: &Flow, ordered: bool) -> Check {
        self.check_true(|| format!("external cache of {n}"), flow)?;
        let (key, now) = (flow.key(), version(flow));
        let known = &mut self.known[n];
        let seen = Seen {
            version: now,
            look: known.look,
        };
        let before = known.external.insert(key, seen).map(|seen| seen.version);
        let is_as_before = before == Some(now) && !known.suspects.contains(&key);
        if !ordered || is_as_before || known.exempt.contains(&key) {
            return Ok(());
        }
        if let Some(before) = before
            && now < before
        {
            let what = format!("{key} went from version {before} to {now} at {n}");
            return violated("no going back", what);
        }
        if let Some(ended) = known.ended.get(&key)
            && now <= *ended
        {
            let what = format!("{key} ended with version {ended} and is {now} at {n}");
            return violated("no resurrection", what);
        }
        Ok(())
    }

    /// All entries of the external cache of replica `n` have been looked at.
    pub fn end_look(&mut self, n: usize) {
        let Known {
            external,
            look,
            suspects,
            ..
        } = &mut self.known[n];
        external.retain(|_, seen| seen.look == *look);
        suspects.clear();
    }

    /// True if the external cache of replica `n` held a flow when it was last looked at.
    pub fn was_seen(&self, n: usize, key: &FlowKey) -> bool {
        self.known[n].external.contains_key(key)
    }

    /// Replica `n` has read that packets have changed a flow of its kernel.
    pub fn on_shown(&mut self, n: usize, flow: &Flow) {
        self.known[n].shown.insert((flow.key(), version(flow)));
    }

    /// No echo: what replica `n` announces is not what was injected.
    ///
    /// Two announcements of a flow that its kernel has by injection are none, and are counted. A
    /// take-over claims all that it finds in its kernel, also what the former primary has sent
    /// since the command: that take-over is the later one. And events can be late: a state that
    /// packets had made before the injection is announced when its event has been read.
    pub fn check_announced(&mut self, n: usize, flow: &Flow) -> Check {
        let key = flow.key();
        let known = &self.known[n];
        if !known.injected.contains(&key) || known.claimed.contains(&key) {
            return Ok(());
        }
        let is_shown = known.shown.contains(&(key, version(flow)));
        if known.claimed_late.contains(&key) || is_shown {
            self.excepted += 1;
            // It may have ended elsewhere.
            for edge in self.edges.out_of(n) {
                self.known[edge.to].exempt.insert(key);
            }
            return Ok(());
        }
        violated("no echo", format!("{key} at {n}"))
    }

    /// Acknowledged means received.
    pub fn check_ack(&self, n: usize, from: Seq, to: Seq) -> Check {
        let delivered = &self.known[n].delivered;
        let mut seq = from;
        while !to.before(seq) {
            if !delivered.contains(&seq.0) {
                let what = format!("{n} acknowledges {from} to {to}, and {seq} never came");
                return violated("acknowledged means received", what);
            }
            seq = seq.next();
        }
        Ok(())
    }
}

/// A flow as a kernel holds it that did not find its master.
fn masterless(flow: &Flow) -> Flow {
    Flow {
        master: None,
        status: flow.status.without(Status::EXPECTED),
        ..content(flow)
    }
}

/// A bound holds.
pub fn check_bound(what: &str, is: usize, most: usize) -> Check {
    if is > most {
        return violated("every bound holds", format!("{what}: {is} of {most}"));
    }
    Ok(())
}
