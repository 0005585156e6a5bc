//! A table of expectations. They are few, so it is an ordinary map in the order of
//! their keys, in which a listing can go on where it stopped.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;

use flow::{Addrs, ExpectKey, Expectation, FlowKey, L4, Proto, Tuple, Zone};

use crate::{Full, Tick};

/// An expectation and what the owner of the table notes about it.
#[derive(Clone, Copy, Debug)]
pub struct ExpectEntry<N> {
    /// The expectation as it was last stored.
    pub expectation: Expectation,
    /// When it was inserted.
    pub created: Tick,
    /// When it was last stored; its timeout counts from here.
    pub updated: Tick,
    /// What the owner of the table notes about it.
    pub note: N,
}

impl<N> ExpectEntry<N> {
    /// What is left of its timeout, at least 0; `None` if none is known.
    pub fn left(&self, now: Tick) -> Option<u32> {
        let age = now.seconds_since(self.updated);
        Some(self.expectation.timeout?.saturating_sub(age))
    }
}

/// Expectations by key.
#[derive(Clone, Debug)]
pub struct ExpectTable<N> {
    entries: BTreeMap<ExpectKey, ExpectEntry<N>>,
    limit: usize,
}

impl<N: Default> ExpectTable<N> {
    /// A table of at most `limit` expectations.
    pub fn new(limit: usize) -> ExpectTable<N> {
        ExpectTable {
            entries: BTreeMap::new(),
            limit,
        }
    }

    /// Number of expectations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry.
    pub fn get(&self, key: &ExpectKey) -> Option<&ExpectEntry<N>> {
        self.entries.get(key)
    }

    /// An entry, to be changed.
    pub fn get_mut(&mut self, key: &ExpectKey) -> Option<&mut ExpectEntry<N>> {
        self.entries.get_mut(key)
    }

    /// Stores an expectation in the place of an older one of the same key; true if there was none.
    ///
    /// # Errors
    /// [`Full`] at the limit.
    pub fn store(&mut self, expectation: &Expectation, now: Tick) -> Result<bool, Full> {
        let key = expectation.key();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.expectation = *expectation;
            entry.updated = now;
            return Ok(false);
        }
        if self.entries.len() >= self.limit {
            return Err(Full);
        }
        let entry = ExpectEntry {
            expectation: *expectation,
            created: now,
            updated: now,
            note: N::default(),
        };
        self.entries.insert(key, entry);
        Ok(true)
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &ExpectKey) -> Option<ExpectEntry<N>> {
        self.entries.remove(key)
    }

    /// Removes the entries for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&ExpectEntry<N>) -> bool) {
        self.entries.retain(|_, entry| keep(entry));
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries behind a key, or all, in the order of their keys.
    pub fn behind(&self, key: Option<ExpectKey>) -> impl Iterator<Item = &ExpectEntry<N>> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.entries.range((from, Bound::Unbounded));
        range.map(|(_, entry)| entry)
    }

    /// The entries of one master.
    pub fn of(&self, master: &FlowKey) -> impl Iterator<Item = &ExpectEntry<N>> {
        let master = *master;
        // Before every predicted tuple.
        let least = Tuple {
            addrs: Addrs::V4 {
                src: Ipv4Addr::UNSPECIFIED,
                dst: Ipv4Addr::UNSPECIFIED,
            },
            proto: Proto(0),
            l4: L4::None,
        };
        let from = ExpectKey {
            master: master.orig,
            tuple: least,
            mask: least,
            zone: Zone(0),
        };
        let range = self.entries.range(from..);
        let same = range.take_while(move |(key, _)| key.master == master.orig);
        let here = same.filter(move |(key, _)| key.zone == master.zone);
        here.map(|(_, entry)| entry)
    }

    /// All entries, to be changed.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut ExpectEntry<N>> {
        self.entries.values_mut()
    }
}
