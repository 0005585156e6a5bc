//! Expectations: what helpers predict, from the kernel to the peer and back.
//!
//! They follow the flows in everything: an expectation is kept only while its master is
//! known, has a version and a cursor behind that of the flows, is committed and injected
//! after them. They are few, so walks over all of them are at once.
//!
//! Hard cases: the helper that predicts a flow may change the length of a segment of the
//! master, and no event reports the sequence adjustment that follows: the master is read
//! again whenever an expectation appears. The kernel's messages name no zone: a master is
//! looked for in the default zone, and version 1 could not carry another one. The kernel
//! gives what it creates the timeout of the helper's policy: what is left is set after.

use std::collections::{BTreeMap, VecDeque};

use cache::{ExpectEntry, ExpectTable, Tick};
use flow::{ExpectKey, Expectation};
use wire::Seq;

use crate::command::Which;
use crate::entry::{Ours, Theirs};
use crate::ledger::Ledger;
use crate::settings::Settings;
use crate::stats::CacheStats;

/// Both tables, the order of versions of the internal one, and what is owed to the kernel.
#[derive(Debug)]
pub(crate) struct Expectations {
    pub(crate) internal: ExpectTable<Ours>,
    pub(crate) external: ExpectTable<Theirs>,
    /// Those of the internal table that have a version: each once, at its latest.
    order: BTreeMap<u64, ExpectKey>,
    /// The latest version.
    head: u64,
    /// Everything up to this version has been sent.
    sent: u64,
    /// Versions that the peer has missed.
    missed: VecDeque<u64>,
    /// From behind this version on, messages have left the ring unacknowledged.
    catch_up: Option<u64>,
    /// Of the external table, owed to the kernel.
    pub(crate) unwritten: VecDeque<ExpectKey>,
    /// The last end that the peer announced.
    pub(crate) last_end: Option<Seq>,
    pub(crate) internal_stats: CacheStats,
    pub(crate) external_stats: CacheStats,
}

/// The next message about an expectation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) version: u64,
    pub(crate) key: ExpectKey,
}

impl Expectations {
    /// Without any: they stay empty unless expectations are replicated.
    pub(crate) fn new(settings: &Settings) -> Expectations {
        Expectations {
            internal: ExpectTable::new(settings.limit),
            external: ExpectTable::new(settings.limit),
            order: BTreeMap::new(),
            head: 0,
            sent: 0,
            missed: VecDeque::new(),
            catch_up: None,
            unwritten: VecDeque::new(),
            last_end: None,
            internal_stats: CacheStats::default(),
            external_stats: CacheStats::default(),
        }
    }

    /// Owes an expectation to the peer, unless it is owed already.
    pub(crate) fn owe(&mut self, key: ExpectKey) {
        let Some(entry) = self.internal.get_mut(&key) else {
            return;
        };
        entry.note.is_found = false;
        if entry.note.version <= self.sent {
            self.order.remove(&entry.note.version);
            self.head += 1;
            entry.note.version = self.head;
            self.order.insert(self.head, key);
        }
    }

    pub(crate) fn owe_to_kernel(&mut self, key: ExpectKey) {
        if let Some(entry) = self.external.get_mut(&key)
            && !entry.note.is_unwritten
        {
            entry.note.is_unwritten = true;
            self.unwritten.push_back(key);
        }
    }

    /// Stores an expectation of our kernel.
    pub(crate) fn store_internal(&mut self, e: &Expectation, now: Tick) -> bool {
        match self.internal.store(e, now) {
            Ok(true) => self.internal_stats.created += 1,
            Ok(false) => self.internal_stats.updated += 1,
            Err(cache::Full) => {
                self.internal_stats.create_failed += 1;
                return false;
            }
        }
        if let Some(entry) = self.internal.get_mut(&e.key()) {
            entry.note.reported();
        }
        true
    }

    pub(crate) fn end(&mut self, key: &ExpectKey, is_announced: bool) {
        let Some(entry) = self.internal.get_mut(key) else {
            return;
        };
        if entry.note.has_ended {
            return;
        }
        self.internal_stats.destroyed += 1;
        // One that was found has not been announced.
        if is_announced && !entry.note.is_found {
            entry.note.has_ended = true;
            self.owe(*key);
        } else {
            self.remove_internal(key);
        }
    }

    /// Sends all once more, those that were found only if they are wanted. The peer announces the
    /// expectations of a master that it has taken over.
    pub(crate) fn owe_all(&mut self, flows: &Ledger, found: bool) {
        let is_taken = |e: &ExpectEntry<Ours>| {
            let master = flows.find(&e.expectation.key().master());
            master.is_some_and(|slot| flows.note(slot).is_taken())
        };
        let order = &mut self.order;
        self.internal.retain(|entry| {
            let has_ended = is_taken(entry) && entry.note.has_ended;
            if has_ended {
                order.remove(&entry.note.version);
            }
            !has_ended
        });
        let mut unversioned = Vec::new();
        for entry in self.internal.all_mut() {
            if is_taken(entry) {
                self.order.remove(&entry.note.version);
                entry.note.version = 0;
            } else if entry.note.version == 0 && (found || !entry.note.is_found) {
                unversioned.push(entry.expectation.key());
            }
        }
        // A new version each: an acknowledgement that is on its way is about the former one.
        let sent: Vec<ExpectKey> = self.order.values().copied().collect();
        for key in sent.into_iter().chain(unversioned) {
            self.owe(key);
        }
    }

    /// Number of those that wait to be sent.
    pub(crate) fn owed(&self) -> usize {
        self.order.range(self.sent + 1..).count() + self.missed.len()
    }

    /// The next one that waits to be sent.
    pub(crate) fn next_owed(&mut self) -> Option<Owed> {
        while let Some(version) = self.missed.front() {
            if let Some(key) = self.order.get(version) {
                return Some(Owed {
                    version: *version,
                    key: *key,
                });
            }
            self.missed.pop_front();
        }
        let (version, key) = self.order.range(self.sent + 1..).next()?;
        Some(Owed {
            version: *version,
            key: *key,
        })
    }

    /// Removes an entry of the internal table.
    pub(crate) fn remove_internal(&mut self, key: &ExpectKey) {
        if let Some(entry) = self.internal.remove(key) {
            self.order.remove(&entry.note.version);
        }
    }

    /// A message about an expectation has been sent. True if it had not been sent before.
    pub(crate) fn on_sent(&mut self, owed: Owed) -> bool {
        let is_anew = self.missed.front() != Some(&owed.version);
        if is_anew {
            self.sent = owed.version;
        } else {
            self.missed.pop_front();
        }
        is_anew
    }

    /// The peer has what was sent under a version.
    pub(crate) fn acknowledged(&mut self, version: u64) {
        if let Some(key) = self.order.get(&version).copied()
            && self.internal.get(&key).is_some_and(|e| e.note.has_ended)
        {
            self.remove_internal(&key);
        }
    }

    /// True if an expectation has not changed since it had this version.
    pub(crate) fn is_latest(&self, version: u64) -> bool {
        self.order.contains_key(&version)
    }

    /// The peer has missed what was sent under a version.
    pub(crate) fn owe_missed(&mut self, version: u64) {
        if self.is_latest(version) {
            self.missed.push_back(version);
        }
    }

    /// A message has left the ring of those under way, and nobody acknowledged it.
    pub(crate) fn forget_message(&mut self, version: u64) {
        if self.is_latest(version) {
            let before = version - 1;
            self.catch_up = Some(self.catch_up.map_or(before, |at| at.min(before)));
        }
    }

    /// The peer answers: what has left the ring is sent once more.
    pub(crate) fn catch_up(&mut self) {
        let Some(from) = self.catch_up.take().filter(|from| *from < self.sent) else {
            return;
        };
        let again = self.order.range(from + 1..=self.sent);
        for key in again.map(|(_, key)| *key).collect::<Vec<_>>() {
            self.owe(key);
        }
    }

    /// For an absent peer, those that have ended would fill the table: beyond `max` the
    /// oldest are removed. True if any is.
    pub(crate) fn bound_ended(&mut self, max: usize) -> bool {
        if self.order.len() <= max {
            return false;
        }
        let is_sent = |(_, key): &(&u64, &ExpectKey)| {
            let entry = self.internal.get(key);
            entry.is_some_and(|e| e.note.has_ended)
        };
        let ended = self.order.range(..=self.sent).filter(is_sent);
        let ended: Vec<ExpectKey> = ended.map(|(_, key)| *key).collect();
        let excess = ended.len().saturating_sub(max);
        for key in &ended[..excess] {
            self.remove_internal(key);
        }
        excess > 0
    }

    pub(crate) fn clear(&mut self, which: Which) {
        match which {
            Which::Internal => {
                self.internal.clear();
                self.order.clear();
                self.missed.clear();
                self.sent = self.head;
                self.catch_up = None;
            }
            Which::External => {
                self.external.clear();
                self.unwritten.clear();
            }
        }
    }

    /// Drops the peer's expectations whose time is over.
    pub(crate) fn expire(&mut self, now: Tick, cache_timeout: Option<u64>) {
        self.external.retain(|e| {
            let age = u64::from(now.seconds_since(e.updated));
            let is_stale = cache_timeout.is_some_and(|max| age >= max);
            let has_run_down = e.left(now) == Some(0);
            // What is on its way to the kernel stays until it is there.
            e.note.is_unwritten || !(is_stale || has_run_down)
        });
    }

    /// The peer's numbers have begun anew.
    pub(crate) fn on_peer_restart(&mut self) {
        self.last_end = None;
    }
}
