//! Ghosts: entries of an internal cache whose flow the kernel does not have.
//!
//! A replica that has read every event and every result must know of each end. A ghost is
//! announced as a live flow until the next sweep finds it, so it is looked for between the
//! sweeps. It counts if two looks in a row find it, each at a moment when nothing waits for
//! the replica: what it then still wants to ask the kernel, it asks within one of its turns.

use std::collections::BTreeSet;

use flow::FlowKey;
use replica::Which;

use crate::check::{Check, Violation};
use crate::plan::Fault;

use super::World;
use super::node::Node;

impl World {
    /// Looks for ghosts in the internal cache of replica `n`.
    pub(super) fn look_for_ghosts(&mut self, n: usize) -> Check {
        // Whoever was not told of an end finds it by a sweep.
        if self.plan.has(Fault::Overrun) {
            return Ok(());
        }
        let node = &self.nodes[n];
        let found = if is_quiet(node) {
            ghosts(node)
        } else {
            BTreeSet::new()
        };
        let again = found.intersection(&node.ghosts).next().copied();
        self.nodes[n].ghosts = found;
        match again {
            Some(key) => Err(Violation {
                invariant: "no ghost",
                what: format!("{key} is in the internal cache of {n} and not in its kernel"),
            }),
            None => Ok(()),
        }
    }
}

/// True if a replica runs, and nothing waits for it that it could learn of an end from.
fn is_quiet(node: &Node) -> bool {
    let is_up = !node.is_dead && node.back_at.is_none();
    is_up && !node.kernel.has_reports() && node.sockets.is_quiet()
}

fn ghosts(node: &Node) -> BTreeSet<FlowKey> {
    let mut found = BTreeSet::new();
    node.for_each_own(Which::Internal, |flow, _| {
        let key = flow.key();
        if node.kernel.get(&key).is_none() {
            found.insert(key);
        }
    });
    found
}
