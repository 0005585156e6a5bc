//! What is true of a run, and the invariants (simulator guide, "Always true").
//!
//! The workload writes a version into the mark of every state of every flow. So each
//! entry, message and request says which true state it speaks of.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Flow, FlowKey, Mark};
use wire::v1::Seq;

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

/// What a replica has been told, and what its kernel has been made to hold.
#[derive(Debug, Default)]
struct Told {
    /// Version of each flow in the external cache when it was last looked at.
    external: BTreeMap<FlowKey, u32>,
    /// Version with which a flow had ended, in a delete that came.
    ended: BTreeMap<FlowKey, u32>,
    /// Flows that messages of a former run of the peer spoke of: nothing is said of them.
    exempt: BTreeSet<FlowKey>,
    /// Flows in the kernel that are there by injection alone.
    injected: BTreeSet<FlowKey>,
    /// Flows that the operator has said to be its own.
    claimed: BTreeSet<FlowKey>,
    /// Sequence numbers that have come.
    delivered: BTreeSet<u32>,
}

/// The truth about flows, and what each replica can know of it.
#[derive(Debug, Default)]
pub struct Truth {
    versions: BTreeMap<(FlowKey, u32), Flow>,
    next: u32,
    told: [Told; 2],
}

impl Truth {
    /// Notes a true state of a flow and gives it its version.
    pub fn note(&mut self, mut flow: Flow) -> Flow {
        self.next += 1;
        flow.mark = Some(Mark(self.next));
        let key = (flow.key(), self.next);
        self.versions.insert(key, content(&flow));
        flow
    }

    /// Packets of a flow pass through replica `n`: it is its own now.
    pub fn on_traffic(&mut self, n: usize, key: &FlowKey) {
        self.told[n].injected.remove(key);
    }

    /// Replica `n` has lost its memory.
    pub fn on_restart(&mut self, n: usize) {
        self.told[n] = Told::default();
        // The peer hears a new run.
        let peer = &mut self.told[1 - n];
        peer.external.clear();
        peer.ended.clear();
    }

    /// The operator says that what replica `n` has, or now gets, is its own: also copies
    /// of flows that have gone on, or ended, elsewhere.
    pub fn on_claim(&mut self, n: usize, keys: impl Iterator<Item = FlowKey>) {
        let keys: Vec<_> = keys.collect();
        self.told[n].claimed.extend(&keys);
        self.told[1 - n].exempt.extend(keys);
    }

    /// True if the operator has said that a flow is replica `n`'s own.
    pub fn is_claimed(&self, n: usize, key: &FlowKey) -> bool {
        self.told[n].claimed.contains(key)
    }

    /// The operator empties the external cache of replica `n`.
    pub fn on_flush(&mut self, n: usize) {
        self.told[n].external.clear();
    }

    /// The kernel of replica `n` holds a flow by injection.
    pub fn on_injected(&mut self, n: usize, key: FlowKey) {
        self.told[n].injected.insert(key);
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
        let told = &mut self.told[n];
        told.delivered.insert(seq.0);
        if stale {
            told.exempt.extend(of);
        } else if let Some(flow) = ended {
            let last = told.ended.entry(flow.key()).or_default();
            *last = version(flow).max(*last);
        }
    }

    /// No invention: a flow was once true just so.
    pub fn check_true(&self, place: &str, flow: &Flow) -> Check {
        let known = self.versions.get(&(flow.key(), version(flow)));
        match known {
            Some(known) if *known == content(flow) => Ok(()),
            Some(known) => violated("no invention", format!("{place}: {flow:?} was {known:?}")),
            None => violated("no invention", format!("{place}: {flow:?} never was")),
        }
    }

    /// No invention, and in FT-FW no going back and no resurrection, of what the
    /// external cache of replica `n` holds.
    pub fn check_external(
        &mut self,
        n: usize,
        flows: &BTreeMap<FlowKey, Flow>,
        ordered: bool,
    ) -> Check {
        for (key, flow) in flows {
            self.check_true(&format!("external cache of {n}"), flow)?;
            let told = &mut self.told[n];
            if !ordered || told.exempt.contains(key) {
                continue;
            }
            let now = version(flow);
            if let Some(before) = told.external.get(key)
                && now < *before
            {
                let what = format!("{key} went from version {before} to {now} at {n}");
                return violated("no going back", what);
            }
            if let Some(ended) = told.ended.get(key)
                && now <= *ended
            {
                let what = format!("{key} ended with version {ended} and is {now} at {n}");
                return violated("no resurrection", what);
            }
        }
        let seen = flows.iter().map(|(k, f)| (*k, version(f)));
        self.told[n].external = seen.collect();
        Ok(())
    }

    /// No echo: what replica `n` says of a flow that lives is not what was injected.
    pub fn check_said(&self, n: usize, flow: &Flow) -> Check {
        let told = &self.told[n];
        if told.injected.contains(&flow.key()) && !told.claimed.contains(&flow.key()) {
            return violated("no echo", format!("{} at {n}", flow.key()));
        }
        Ok(())
    }

    /// Acknowledged means received.
    pub fn check_ack(&self, n: usize, from: Seq, to: Seq) -> Check {
        let delivered = &self.told[n].delivered;
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

/// A bound holds.
pub fn check_bound(what: &str, is: usize, most: usize) -> Check {
    if is > most {
        return violated("every bound holds", format!("{what}: {is} of {most}"));
    }
    Ok(())
}
