//! From a hash to the place of an entry: many small tables, each of which grows by itself.
//!
//! One table for ten million entries is either resident when it is made, or stops everything
//! for seconds when it grows. A part of this one moves some hundred entries when it grows,
//! and takes no memory before its first.
//!
//! Hashes spread the entries evenly, so all parts would be full at nearly the same time. Each
//! grows at a degree of its own, from half full to full: wherever the index stands, few of the
//! next entries make a part grow.

use std::mem;

use hashbrown::HashTable;

/// So many entries has a part when the index is as full as its limit allows.
const PART: usize = 1024;

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
        let (at, count) = (self.part(hash), self.parts.len());
        let part = &mut self.parts[at];
        let room = full(part.num_buckets());
        let grows_at = room - room * at / (2 * count);
        if part.len() >= grows_at {
            part.reserve(room + 1 - part.len(), |&n| hash_of(n));
        }
        part.insert_unique(hash, n, |&n| hash_of(n));
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

/// hashbrown grows a table of `buckets` before it takes more entries than this.
fn full(buckets: usize) -> usize {
    if buckets < 8 {
        buckets.saturating_sub(1)
    } else {
        buckets / 8 * 7
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

    /// Wherever an index of many parts stands, few of the next entries make one grow.
    #[test]
    fn parts_grow_one_after_the_other() {
        let parts = 256;
        let count = parts * PART;
        let mut index = Index::new(count);
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let buckets = |index: &Index| index.parts.iter().map(HashTable::num_buckets).collect();
        let grown =
            |a: &Vec<usize>, b: &Vec<usize>| a.iter().zip(b).filter(|(a, b)| a != b).count();
        let begin = count / 8;
        for n in 0..begin as u32 {
            index.insert(hash(n), n, hash);
        }
        let mut before: Vec<usize> = buckets(&index);
        let mut most = 0;
        for n in begin as u32..count as u32 {
            index.insert(hash(n), n, hash);
            if n % 1024 == 0 {
                let now: Vec<usize> = buckets(&index);
                most = most.max(grown(&before, &now));
                before = now;
            }
        }
        assert!(
            (1..=16).contains(&most),
            "{most} of {parts} parts grew at once"
        );
    }

    /// Before its first entry an index for ten million takes little.
    #[test]
    fn an_empty_index_is_small() {
        let index = Index::new(10_000_000);
        let held: usize = index.parts.iter().map(HashTable::capacity).sum();
        assert_eq!(held, 0);
        assert!(size_of_val(index.parts.as_slice()) <= 1 << 19);
    }
}
