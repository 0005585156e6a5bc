//! From a hash to the place of an entry: many small tables, each of which grows by itself.
//!
//! One table for ten million entries is either resident when it is made, or stops everything
//! for seconds when it grows. A part of this one moves some thousand entries when it grows,
//! and takes no memory before its first.

use std::mem;

use hashbrown::HashTable;

/// So many entries has a part when the index is as full as its limit allows.
const PART: usize = 4096;

/// Places by hash. What lies at a place, the caller knows.
#[derive(Debug)]
pub(crate) struct Index {
    /// A power of two of them.
    parts: Vec<HashTable<u32>>,
}

impl Index {
    /// For at most `limit` entries. A greater number only makes its parts larger.
    pub(crate) fn new(limit: usize) -> Index {
        Index::with_parts(limit.div_ceil(PART).next_power_of_two())
    }

    fn with_parts(count: usize) -> Index {
        Index {
            parts: (0..count).map(|_| HashTable::new()).collect(),
        }
    }

    /// hashbrown takes the lowest and the highest seven bits of a hash: these are between.
    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.parts.len() - 1)
    }

    /// The place with this hash that `is_meant`.
    pub(crate) fn find(&self, hash: u64, is_meant: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[self.part(hash)]
            .find(hash, |&n| is_meant(n))
            .copied()
    }

    /// Adds a place; `hash_of` is the hash of one that is there, for when the part grows.
    pub(crate) fn insert(&mut self, hash: u64, n: u32, hash_of: impl Fn(u32) -> u64) {
        let part = self.part(hash);
        self.parts[part].insert_unique(hash, n, |&n| hash_of(n));
    }

    /// Removes a place, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, n: u32) {
        let part = self.part(hash);
        if let Ok(entry) = self.parts[part].find_entry(hash, |&m| m == n) {
            entry.remove();
        }
    }

    /// Takes all entries out; the parts are what is left to free.
    pub(crate) fn clear(&mut self) -> Vec<HashTable<u32>> {
        let empty = Index::with_parts(self.parts.len());
        mem::replace(self, empty).parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part is used, and none gets much more than its share.
    #[test]
    fn entries_spread_over_the_parts() {
        let count = 64 * PART;
        let mut index = Index::new(count);
        assert_eq!(index.parts.len(), 64);
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 0..count as u32 {
            index.insert(hash(n), n, hash);
        }
        let lens: Vec<usize> = index.parts.iter().map(HashTable::len).collect();
        assert!(
            lens.iter().all(|l| (PART / 2..PART * 2).contains(l)),
            "{lens:?}"
        );
        assert_eq!(lens.iter().sum::<usize>(), count);
        for n in 0..count as u32 {
            assert_eq!(index.find(hash(n), |m| m == n), Some(n));
            index.remove(hash(n), n);
            assert_eq!(index.find(hash(n), |m| m == n), None);
        }
    }

    /// Before its first entry an index for ten million takes little.
    #[test]
    fn an_empty_index_is_small() {
        let index = Index::new(10_000_000);
        let held: usize = index.parts.iter().map(HashTable::capacity).sum();
        assert_eq!(held, 0);
        assert!(size_of_val(index.parts.as_slice()) <= 1 << 18);
    }
}
