//! Caches of flows: packed records, an index, queues threaded through the records, walks.
//!
//! A [`Cache`] knows no link, no mode and no clock: `replica` says what is
//! inserted when, and keeps its own marks in each entry's [`Meta`].
//!
//! Hard cases: outsiders choose the tuples, so the index is keyed; growing a
//! large table stops everything for seconds, so it is sized once from the limit;
//! a slot may be reused while an answer about its former flow is still on its
//! way, so every slot has a generation.

mod arena;
mod expectations;
mod record;

use std::hash::{BuildHasher, RandomState};

use flow::{Flow, FlowKey};
use hashbrown::HashTable;

use arena::Arena;
use record::{Extra, Record};

pub use expectations::{ExpectEntry, ExpectTable};
pub use record::{List, Meta, Tick};

/// Address of an entry, stable as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    const V6: u32 = 1 << 31;
    /// No slot, in the links of records.
    const NONE: u32 = u32::MAX;

    fn index(self) -> usize {
        (self.0 & !Slot::V6) as usize
    }

    fn is_v6(self) -> bool {
        self.0 & Slot::V6 != 0
    }
}

/// A slot and the life of it that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The slot.
    pub slot: Slot,
    /// Which of its lives.
    pub generation: u16,
}

/// The cache has as many entries as its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Head and tail of one queue.
#[derive(Clone, Copy, Debug)]
struct Queue {
    head: u32,
    tail: u32,
    len: usize,
}

const EMPTY: Queue = Queue {
    head: Slot::NONE,
    tail: Slot::NONE,
    len: 0,
};

/// A table of flows.
///
/// Invariants: every entry is in exactly one index under the hash of its key; an
/// entry is in the queue that its [`Meta::list`] names and in no other; `marked`
/// counts the entries that have each mark.
#[derive(Debug)]
pub struct Cache<S = RandomState> {
    v4: Arena<Record<4>>,
    v6: Arena<Record<16>>,
    index_v4: HashTable<u32>,
    index_v6: HashTable<u32>,
    extras: Arena<Extra>,
    queues: [Queue; List::COUNT],
    /// How many entries have each mark.
    marked: [usize; u16::BITS as usize],
    hasher: S,
    limit: usize,
}

impl Cache<RandomState> {
    /// A cache of at most `limit` flows, its index sized for them and keyed at random.
    pub fn new(limit: usize) -> Cache {
        Cache::with_hasher(limit, RandomState::new())
    }
}

impl<S: BuildHasher> Cache<S> {
    /// The same with a given key, for runs that must be repeatable.
    pub fn with_hasher(limit: usize, hasher: S) -> Cache<S> {
        Cache {
            v4: Arena::new(),
            v6: Arena::new(),
            index_v4: HashTable::with_capacity(limit),
            index_v6: HashTable::with_capacity(limit),
            extras: Arena::new(),
            queues: [EMPTY; List::COUNT],
            marked: [0; u16::BITS as usize],
            hasher,
            limit,
        }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// True without any flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a flow.
    pub fn find(&self, key: &FlowKey) -> Option<Slot> {
        // One of a replica's two caches mostly is: no need for a hash.
        if self.is_empty() {
            return None;
        }
        if key.orig.addrs.is_v4() {
            let wanted = Record::<4>::key(key);
            let hash = self.hasher.hash_one(wanted);
            let found = self
                .index_v4
                .find(hash, |&n| self.v4[n as usize].has_key(&wanted))?;
            Some(Slot(*found))
        } else {
            let wanted = Record::<16>::key(key);
            let hash = self.hasher.hash_one(wanted);
            let found = self
                .index_v6
                .find(hash, |&n| self.v6[n as usize].has_key(&wanted))?;
            Some(Slot(*found | Slot::V6))
        }
    }

    /// Adds a flow, which must not be there yet.
    ///
    /// # Errors
    /// [`Full`] at the limit.
    pub fn insert(&mut self, flow: &Flow, now: Tick) -> Result<Slot, Full> {
        debug_assert!(self.find(&flow.key()).is_none());
        if self.len() >= self.limit {
            return Err(Full);
        }
        let extra = self.put_extra(None, flow);
        let slot = if flow.orig.addrs.is_v4() {
            let mut record = Record::<4>::new(flow, extra);
            record.meta.begin(now);
            let wanted = record.own_key();
            let n = self.v4.insert(record);
            let (v4, hasher) = (&self.v4, &self.hasher);
            self.index_v4
                .insert_unique(hasher.hash_one(wanted), n, |&n| {
                    hasher.hash_one(v4[n as usize].own_key())
                });
            Slot(n)
        } else {
            let mut record = Record::<16>::new(flow, extra);
            record.meta.begin(now);
            let wanted = record.own_key();
            let n = self.v6.insert(record);
            let (v6, hasher) = (&self.v6, &self.hasher);
            self.index_v6
                .insert_unique(hasher.hash_one(wanted), n, |&n| {
                    hasher.hash_one(v6[n as usize].own_key())
                });
            Slot(n | Slot::V6)
        };
        Ok(slot)
    }

    /// The flow of an entry.
    ///
    /// # Panics
    /// If the slot is free; so do all calls that take a slot.
    pub fn flow(&self, slot: Slot) -> Flow {
        let extra = |n: u32| (n != Slot::NONE).then(|| &self.extras[n as usize]);
        if slot.is_v6() {
            let record = &self.v6[slot.index()];
            record.flow(extra(record.extra))
        } else {
            let record = &self.v4[slot.index()];
            record.flow(extra(record.extra))
        }
    }

    /// Key of an entry.
    pub fn key(&self, slot: Slot) -> FlowKey {
        let flow = if slot.is_v6() {
            self.v6[slot.index()].flow(None)
        } else {
            self.v4[slot.index()].flow(None)
        };
        flow.key()
    }

    /// Overwrites everything of an entry but its key and marks; the flow must have its key.
    pub fn store(&mut self, slot: Slot, flow: &Flow, now: Tick) {
        debug_assert_eq!(self.key(slot), flow.key());
        let old = self.extra_of(slot);
        let extra = self.put_extra(old, flow);
        if slot.is_v6() {
            self.v6[slot.index()].set(flow, extra);
        } else {
            self.v4[slot.index()].set(flow, extra);
        }
        self.meta_mut(slot).updated = now;
    }

    fn extra_of(&self, slot: Slot) -> Option<u32> {
        let n = if slot.is_v6() {
            self.v6[slot.index()].extra
        } else {
            self.v4[slot.index()].extra
        };
        (n != Slot::NONE).then_some(n)
    }

    /// Puts the rare attributes of a flow beside the records, if it has any.
    fn put_extra(&mut self, old: Option<u32>, flow: &Flow) -> u32 {
        match (Extra::of(flow), old) {
            (Some(extra), Some(n)) => {
                self.extras[n as usize] = extra;
                n
            }
            (Some(extra), None) => self.extras.insert(extra),
            (None, Some(n)) => {
                self.extras.remove(n);
                Slot::NONE
            }
            (None, None) => Slot::NONE,
        }
    }

    /// Removes an entry, also from its queue.
    pub fn remove(&mut self, slot: Slot) {
        self.unqueue(slot);
        self.mark(slot, 0, u16::MAX);
        if let Some(n) = self.extra_of(slot) {
            self.extras.remove(n);
        }
        let n = slot.index() as u32;
        if slot.is_v6() {
            let hash = self.hasher.hash_one(self.v6[slot.index()].own_key());
            if let Ok(entry) = self.index_v6.find_entry(hash, |&m| m == n) {
                entry.remove();
            }
            self.v6.remove(n);
        } else {
            let hash = self.hasher.hash_one(self.v4[slot.index()].own_key());
            if let Ok(entry) = self.index_v4.find_entry(hash, |&m| m == n) {
                entry.remove();
            }
            self.v4.remove(n);
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.v4.clear();
        self.v6.clear();
        self.extras.clear();
        self.index_v4.clear();
        self.index_v6.clear();
        self.queues = [EMPTY; List::COUNT];
        self.marked = [0; u16::BITS as usize];
    }

    /// What is noted about an entry.
    pub fn meta(&self, slot: Slot) -> &Meta {
        if slot.is_v6() {
            &self.v6[slot.index()].meta
        } else {
            &self.v4[slot.index()].meta
        }
    }

    /// What is noted about an entry, to be changed.
    pub fn meta_mut(&mut self, slot: Slot) -> &mut Meta {
        if slot.is_v6() {
            &mut self.v6[slot.index()].meta
        } else {
            &mut self.v4[slot.index()].meta
        }
    }

    /// Takes the marks `clear` from an entry and gives it the marks `set`.
    pub fn mark(&mut self, slot: Slot, set: u16, clear: u16) {
        let meta = self.meta_mut(slot);
        let before = meta.marks;
        meta.marks = (before & !clear) | set;
        let after = meta.marks;
        let mut changed = before ^ after;
        while changed != 0 {
            let bit = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            if after >> bit & 1 == 1 {
                self.marked[bit] += 1;
            } else {
                self.marked[bit] -= 1;
            }
        }
    }

    /// True if an entry has any of `marks`.
    pub fn has(&self, slot: Slot, marks: u16) -> bool {
        self.meta(slot).marks & marks != 0
    }

    /// Number of entries that have the one mark `mark`.
    pub fn marked(&self, mark: u16) -> usize {
        debug_assert!(mark.is_power_of_two());
        self.marked[mark.trailing_zeros() as usize]
    }

    /// A ticket for an entry that outlives it.
    pub fn ticket(&self, slot: Slot) -> Ticket {
        let generation = if slot.is_v6() {
            self.v6.generation(slot.index())
        } else {
            self.v4.generation(slot.index())
        };
        Ticket { slot, generation }
    }

    /// The slot of a ticket, if the entry it was made for still lives.
    pub fn redeem(&self, ticket: Ticket) -> Option<Slot> {
        let slot = ticket.slot;
        let alive = if slot.is_v6() {
            self.v6.is_used(slot.index())
        } else {
            self.v4.is_used(slot.index())
        };
        (alive && self.ticket(slot) == ticket).then_some(slot)
    }

    /// The first used slot at or after a position, and the position behind it.
    /// A walk sees each entry that lives through it exactly once; it is no snapshot.
    pub fn walk(&self, position: Position) -> Option<(Slot, Position)> {
        if !position.v6 {
            if let Some(n) = self.v4.next_used(position.index) {
                let next = Position {
                    v6: false,
                    index: n + 1,
                };
                return Some((Slot(n as u32), next));
            }
            return self.walk(Position { v6: true, index: 0 });
        }
        let n = self.v6.next_used(position.index)?;
        let next = Position {
            v6: true,
            index: n + 1,
        };
        Some((Slot(n as u32 | Slot::V6), next))
    }

    /// Number of entries in a queue.
    pub fn queued(&self, list: List) -> usize {
        self.queues[list as usize].len
    }

    /// The oldest entry of a queue, which stays in it.
    pub fn front(&self, list: List) -> Option<Slot> {
        let head = self.queues[list as usize].head;
        (head != Slot::NONE).then_some(Slot(head))
    }

    /// The newest entry of a queue.
    pub fn back(&self, list: List) -> Option<Slot> {
        let tail = self.queues[list as usize].tail;
        (tail != Slot::NONE).then_some(Slot(tail))
    }

    /// The entry ahead of one that is in a queue.
    pub fn ahead(&self, slot: Slot) -> Option<Slot> {
        let prev = self.meta(slot).prev;
        (prev != Slot::NONE).then_some(Slot(prev))
    }

    /// The entry behind one that is in a queue.
    pub fn behind(&self, slot: Slot) -> Option<Slot> {
        let next = self.meta(slot).next;
        (next != Slot::NONE).then_some(Slot(next))
    }

    /// Puts an entry at the end of a queue, taking it out of the one that it was in.
    pub fn queue(&mut self, slot: Slot, list: List) {
        self.unqueue(slot);
        let tail = self.queues[list as usize].tail;
        {
            let meta = self.meta_mut(slot);
            meta.list = Some(list);
            meta.prev = tail;
            meta.next = Slot::NONE;
        }
        if tail == Slot::NONE {
            self.queues[list as usize].head = slot.0;
        } else {
            self.meta_mut(Slot(tail)).next = slot.0;
        }
        let queue = &mut self.queues[list as usize];
        queue.tail = slot.0;
        queue.len += 1;
    }

    /// Takes an entry out of its queue, if it is in one.
    pub fn unqueue(&mut self, slot: Slot) {
        let meta = self.meta_mut(slot);
        let Some(list) = meta.list.take() else {
            return;
        };
        let (prev, next) = (meta.prev, meta.next);
        if prev == Slot::NONE {
            self.queues[list as usize].head = next;
        } else {
            self.meta_mut(Slot(prev)).next = next;
        }
        if next == Slot::NONE {
            self.queues[list as usize].tail = prev;
        } else {
            self.meta_mut(Slot(next)).prev = prev;
        }
        self.queues[list as usize].len -= 1;
    }
}

/// Where a walk goes on; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    v6: bool,
    index: usize,
}
