//! Caches of flows: packed records, an index, lists threaded through the records, walks.
//!
//! A [`Cache`] knows no link, no mode and no clock: `replica` decides what is inserted
//! when, and keeps a [`Note`] of its own in each entry.
//!
//! Hard cases: outsiders choose the tuples, so the index is keyed; growing or freeing a
//! large table stops everything for seconds, so both go in small parts; a slot may be
//! reused while an answer about its former flow is still on its way, so every slot has a
//! generation.

mod arena;
mod expectations;
mod index;
mod record;

use std::hash::{BuildHasher, RandomState};

use flow::{Flow, FlowKey};
use hashbrown::HashTable;

use arena::{Arena, Chunk};
use index::Index;
use record::{Extra, Key, Links, Record};

pub use expectations::{ExpectEntry, ExpectTable};
pub use record::{List, Note, Tick, Times};

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

/// Head and tail of one list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    head: u32,
    tail: u32,
    len: usize,
}

const EMPTY: Ends = Ends {
    head: Slot::NONE,
    tail: Slot::NONE,
    len: 0,
};

/// Memory of entries that were cleared.
#[derive(Debug)]
struct Cleared<N> {
    v4: Vec<Chunk<Record<4, N>>>,
    v6: Vec<Chunk<Record<16, N>>>,
    extras: Vec<Chunk<Extra>>,
    index: Vec<HashTable<u32>>,
}

impl<N> Default for Cleared<N> {
    fn default() -> Cleared<N> {
        Cleared {
            v4: Vec::new(),
            v6: Vec::new(),
            extras: Vec::new(),
            index: Vec::new(),
        }
    }
}

impl<N> Cleared<N> {
    /// So many pieces are freed at a time, a fraction of a millisecond's worth.
    const SOME: usize = 8;

    fn free_some(&mut self) -> bool {
        let mut more = false;
        for _ in 0..Cleared::<N>::SOME {
            more = self.v4.pop().is_some()
                | self.v6.pop().is_some()
                | self.extras.pop().is_some()
                | self.index.pop().is_some();
            if !more {
                break;
            }
        }
        more
    }
}

/// A table of flows, each with a note of its owner's.
///
/// Invariants: every entry is in exactly one index under the hash of its key; an
/// entry is in the list that [`Cache::list`] names and in no other; `members`
/// counts the entries of each class of [`Note::classes`].
#[derive(Debug)]
pub struct Cache<N, S = RandomState> {
    v4: Arena<Record<4, N>>,
    v6: Arena<Record<16, N>>,
    index_v4: Index,
    index_v6: Index,
    extras: Arena<Extra>,
    cleared: Cleared<N>,
    lists: [Ends; List::COUNT],
    members: [usize; u16::BITS as usize],
    hasher: S,
    limit: usize,
}

impl<N: Note> Cache<N> {
    /// A cache of at most `limit` flows, keyed at random. It takes memory as it fills.
    pub fn new(limit: usize) -> Cache<N> {
        Cache::with_hasher(limit, RandomState::new())
    }
}

impl<N: Note, S: BuildHasher> Cache<N, S> {
    /// The same with a given key, for runs that must be repeatable.
    pub fn with_hasher(limit: usize, hasher: S) -> Cache<N, S> {
        Cache {
            v4: Arena::new(),
            v6: Arena::new(),
            index_v4: Index::new(limit),
            index_v6: Index::new(limit),
            extras: Arena::new(),
            cleared: Cleared::default(),
            lists: [EMPTY; List::COUNT],
            members: [0; u16::BITS as usize],
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
            let wanted = Key::<4>::of(key);
            let hash = self.hasher.hash_one(wanted);
            let found = self
                .index_v4
                .find(hash, |n| self.v4[n as usize].has_key(&wanted))?;
            Some(Slot(found))
        } else {
            let wanted = Key::<16>::of(key);
            let hash = self.hasher.hash_one(wanted);
            let found = self
                .index_v6
                .find(hash, |n| self.v6[n as usize].has_key(&wanted))?;
            Some(Slot(found | Slot::V6))
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
            let record = Record::<4, N>::new(flow, extra, now);
            let wanted = record.own_key();
            let n = self.v4.insert(record);
            let (v4, hasher) = (&self.v4, &self.hasher);
            self.index_v4.insert(hasher.hash_one(wanted), n, |n| {
                hasher.hash_one(v4[n as usize].own_key())
            });
            Slot(n)
        } else {
            let record = Record::<16, N>::new(flow, extra, now);
            let wanted = record.own_key();
            let n = self.v6.insert(record);
            let (v6, hasher) = (&self.v6, &self.hasher);
            self.index_v6.insert(hasher.hash_one(wanted), n, |n| {
                hasher.hash_one(v6[n as usize].own_key())
            });
            Slot(n | Slot::V6)
        };
        self.count(0, N::default().classes());
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

    /// Overwrites everything of an entry but its key and note; the flow must have its key.
    pub fn store(&mut self, slot: Slot, flow: &Flow, now: Tick) {
        debug_assert_eq!(self.key(slot), flow.key());
        let old = self.extra_of(slot);
        let extra = self.put_extra(old, flow);
        if slot.is_v6() {
            self.v6[slot.index()].set(flow, extra);
        } else {
            self.v4[slot.index()].set(flow, extra);
        }
        self.times_mut(slot).updated = now;
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

    /// Removes an entry, also from its list.
    pub fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
        self.count(self.note(slot).classes(), 0);
        if let Some(n) = self.extra_of(slot) {
            self.extras.remove(n);
        }
        let n = slot.index() as u32;
        if slot.is_v6() {
            let hash = self.hasher.hash_one(self.v6[slot.index()].own_key());
            self.index_v6.remove(hash, n);
            self.v6.remove(n);
        } else {
            let hash = self.hasher.hash_one(self.v4[slot.index()].own_key());
            self.index_v4.remove(hash, n);
            self.v4.remove(n);
        }
    }

    /// Removes all entries. Their memory is freed by [`Cache::tidy`].
    pub fn clear(&mut self) {
        self.cleared.v4.append(&mut self.v4.clear());
        self.cleared.v6.append(&mut self.v6.clear());
        self.cleared.extras.append(&mut self.extras.clear());
        self.cleared.index.append(&mut self.index_v4.clear());
        self.cleared.index.append(&mut self.index_v6.clear());
        self.lists = [EMPTY; List::COUNT];
        self.members = [0; u16::BITS as usize];
    }

    /// Frees some of the memory of cleared entries, as that of a million takes too long at
    /// once. True if there is more.
    pub fn tidy(&mut self) -> bool {
        self.cleared.free_some()
    }

    /// What is noted about an entry.
    pub fn note(&self, slot: Slot) -> N {
        if slot.is_v6() {
            self.v6[slot.index()].note
        } else {
            self.v4[slot.index()].note
        }
    }

    /// Changes what is noted about an entry; returns what `change` returns.
    pub fn change<T>(&mut self, slot: Slot, change: impl FnOnce(&mut N) -> T) -> T {
        let note = if slot.is_v6() {
            &mut self.v6[slot.index()].note
        } else {
            &mut self.v4[slot.index()].note
        };
        let before = note.classes();
        let result = change(note);
        let after = note.classes();
        self.count(before, after);
        result
    }

    /// An entry leaves the classes `before` for the classes `after`.
    fn count(&mut self, before: u16, after: u16) {
        let mut changed = before ^ after;
        while changed != 0 {
            let bit = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            if after >> bit & 1 == 1 {
                self.members[bit] += 1;
            } else {
                self.members[bit] -= 1;
            }
        }
    }

    /// Number of entries in a class, which is given by its bit.
    pub fn members(&self, class: u16) -> usize {
        debug_assert!(class.is_power_of_two());
        self.members[class.trailing_zeros() as usize]
    }

    /// When an entry was inserted and last stored.
    pub fn times(&self, slot: Slot) -> Times {
        if slot.is_v6() {
            self.v6[slot.index()].times
        } else {
            self.v4[slot.index()].times
        }
    }

    fn times_mut(&mut self, slot: Slot) -> &mut Times {
        if slot.is_v6() {
            &mut self.v6[slot.index()].times
        } else {
            &mut self.v4[slot.index()].times
        }
    }

    /// Gives an entry the times of one that it stands for.
    pub fn set_times(&mut self, slot: Slot, times: Times) {
        *self.times_mut(slot) = times;
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

    fn links(&self, slot: Slot) -> &Links {
        if slot.is_v6() {
            &self.v6[slot.index()].links
        } else {
            &self.v4[slot.index()].links
        }
    }

    fn links_mut(&mut self, slot: Slot) -> &mut Links {
        if slot.is_v6() {
            &mut self.v6[slot.index()].links
        } else {
            &mut self.v4[slot.index()].links
        }
    }

    /// The list that an entry is in.
    pub fn list(&self, slot: Slot) -> Option<List> {
        if slot.is_v6() {
            self.v6[slot.index()].list
        } else {
            self.v4[slot.index()].list
        }
    }

    fn list_mut(&mut self, slot: Slot) -> &mut Option<List> {
        if slot.is_v6() {
            &mut self.v6[slot.index()].list
        } else {
            &mut self.v4[slot.index()].list
        }
    }

    /// Number of entries in a list.
    pub fn listed(&self, list: List) -> usize {
        self.lists[list as usize].len
    }

    /// The first entry of a list.
    pub fn front(&self, list: List) -> Option<Slot> {
        let head = self.lists[list as usize].head;
        (head != Slot::NONE).then_some(Slot(head))
    }

    /// The entry behind one that is in a list.
    pub fn behind(&self, slot: Slot) -> Option<Slot> {
        let next = self.links(slot).next;
        (next != Slot::NONE).then_some(Slot(next))
    }

    /// Puts an entry at the end of a list, taking it out of the one that it was in.
    pub fn link(&mut self, slot: Slot, list: List) {
        self.unlink(slot);
        let tail = self.lists[list as usize].tail;
        *self.list_mut(slot) = Some(list);
        *self.links_mut(slot) = Links {
            prev: tail,
            next: Slot::NONE,
        };
        if tail == Slot::NONE {
            self.lists[list as usize].head = slot.0;
        } else {
            self.links_mut(Slot(tail)).next = slot.0;
        }
        let ends = &mut self.lists[list as usize];
        ends.tail = slot.0;
        ends.len += 1;
    }

    /// Takes an entry out of its list, if it is in one.
    pub fn unlink(&mut self, slot: Slot) {
        let Some(list) = self.list_mut(slot).take() else {
            return;
        };
        let Links { prev, next } = *self.links(slot);
        if prev == Slot::NONE {
            self.lists[list as usize].head = next;
        } else {
            self.links_mut(Slot(prev)).next = next;
        }
        if next == Slot::NONE {
            self.lists[list as usize].tail = prev;
        } else {
            self.links_mut(Slot(next)).prev = prev;
        }
        self.lists[list as usize].len -= 1;
    }
}

/// Where a walk goes on; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    v6: bool,
    index: usize,
}
