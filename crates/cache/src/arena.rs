//! Values at stable indices, in chunks: growing moves nothing.

use std::ops::{Index, IndexMut};

const CHUNK: usize = 4096;

#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    generation: u16,
}

/// Places of which some are used. Freed places are used again, last freed first.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<Place<T>>>,
    free: Vec<u32>,
    used: usize,
    /// Generation of a place that is used for the first time.
    first_generation: u16,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Arena<T> {
        Arena {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            first_generation: 0,
        }
    }

    /// Frees everything. Later generations differ from those handed out before,
    /// as long as no place had 257 lives since the last time.
    pub(crate) fn clear(&mut self) {
        *self = Arena {
            first_generation: self.first_generation.wrapping_add(257),
            ..Arena::new()
        };
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn place(&self, n: usize) -> &Place<T> {
        &self.chunks[n / CHUNK][n % CHUNK]
    }

    fn place_mut(&mut self, n: usize) -> &mut Place<T> {
        &mut self.chunks[n / CHUNK][n % CHUNK]
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if let Some(n) = self.free.pop() {
            self.place_mut(n as usize).value = Some(value);
            return n;
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("pushed above");
        chunk.push(Place {
            value: Some(value),
            generation: self.first_generation,
        });
        u32::try_from(before + chunk.len() - 1).expect("fewer than 2^31 entries")
    }

    pub(crate) fn remove(&mut self, n: u32) {
        let place = self.place_mut(n as usize);
        assert!(place.value.take().is_some(), "a free place is not removed");
        place.generation = place.generation.wrapping_add(1);
        self.used -= 1;
        self.free.push(n);
    }

    pub(crate) fn generation(&self, n: usize) -> u16 {
        self.place(n).generation
    }

    pub(crate) fn is_used(&self, n: usize) -> bool {
        let chunk = self.chunks.get(n / CHUNK);
        chunk
            .and_then(|c| c.get(n % CHUNK))
            .is_some_and(|p| p.value.is_some())
    }

    /// The first used place at or after `n`.
    pub(crate) fn next_used(&self, n: usize) -> Option<usize> {
        let mut n = n;
        while let Some(chunk) = self.chunks.get(n / CHUNK) {
            let rest = chunk.get(n % CHUNK..).unwrap_or(&[]);
            if let Some(at) = rest.iter().position(|p| p.value.is_some()) {
                return Some(n + at);
            }
            n = (n / CHUNK + 1) * CHUNK;
        }
        None
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, n: usize) -> &T {
        self.place(n).value.as_ref().expect("the slot is in use")
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, n: usize) -> &mut T {
        self.place_mut(n)
            .value
            .as_mut()
            .expect("the slot is in use")
    }
}
