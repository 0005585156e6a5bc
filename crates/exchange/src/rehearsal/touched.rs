//! Which flows of a table matter to a commit: those that have a tuple which it names.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use flow::{Flow, Tuple, Zone};

/// The tuples of some flows and of their masters, each as a hash: 8 bytes, and now and then one
/// that is not among them is taken for one that is.
#[derive(Debug, Default)]
pub struct Touched {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Touched {
    /// Adds the tuples of a flow that is to be created.
    pub fn add(&mut self, flow: &Flow) {
        let master = flow.master.map(|master| (master, flow.zone));
        for tuple in both(flow).into_iter().chain(master) {
            self.hashes.insert(self.hasher.hash_one(tuple));
        }
    }

    /// True for a flow that has one of them in either direction; seldom for another one.
    pub fn has(&self, flow: &Flow) -> bool {
        let is_there = |tuple: (Tuple, Zone)| self.hashes.contains(&self.hasher.hash_one(tuple));
        both(flow).into_iter().any(is_there)
    }
}

/// Both tuples, each with its zone.
fn both(flow: &Flow) -> [(Tuple, Zone); 2] {
    let reply_zone = flow.reply_zone.unwrap_or(flow.zone);
    [(flow.orig, flow.zone), (flow.reply, reply_zone)]
}
