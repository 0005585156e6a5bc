//! Values at stable indices, in chunks: growing moves nothing.

use std::mem;
use std::ops::{Index, IndexMut};

const CHUNK: usize = 4096;
/// No place, at the end of the list of free ones.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Place<T> {
    state: State<T>,
    generation: u16,
}

#[derive(Debug)]
enum State<T> {
    Used(T),
    /// The next free place.
    Free(u32),
}

impl<T> Place<T> {
    fn value(&self) -> Option<&T> {
        match &self.state {
            State::Used(value) => Some(value),
            State::Free(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Chunk<T> {
    places: Vec<Place<T>>,
    used: usize,
}

/// Places of which some are used. Freed places are used again, last freed first.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Chunk<T>>,
    /// The first free place.
    free: u32,
    used: usize,
    /// Generation of a place that is used for the first time.
    first_generation: u16,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Arena<T> {
        Arena {
            chunks: Vec::new(),
            free: NONE,
            used: 0,
            first_generation: 0,
        }
    }

    /// Frees every place; what is returned holds the memory. Later generations differ from
    /// those handed out before, as long as no place had 257 lives since the last time.
    pub(crate) fn clear(&mut self) -> Vec<Chunk<T>> {
        let empty = Arena {
            first_generation: self.first_generation.wrapping_add(257),
            ..Arena::new()
        };
        mem::replace(self, empty).chunks
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn place(&self, n: usize) -> &Place<T> {
        &self.chunks[n / CHUNK].places[n % CHUNK]
    }

    fn place_mut(&mut self, n: usize) -> &mut Place<T> {
        &mut self.chunks[n / CHUNK].places[n % CHUNK]
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if self.free == NONE {
            return self.push(value);
        }
        let n = self.free;
        let place = self.place_mut(n as usize);
        let State::Free(next) = mem::replace(&mut place.state, State::Used(value)) else {
            unreachable!("the list of free places holds free ones");
        };
        self.free = next;
        self.chunks[n as usize / CHUNK].used += 1;
        n
    }

    /// Uses a place for the first time.
    fn push(&mut self, value: T) -> u32 {
        if self.chunks.last().is_none_or(|c| c.places.len() == CHUNK) {
            self.chunks.push(Chunk {
                places: Vec::with_capacity(CHUNK),
                used: 0,
            });
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("pushed above");
        chunk.places.push(Place {
            state: State::Used(value),
            generation: self.first_generation,
        });
        chunk.used += 1;
        u32::try_from(before + chunk.places.len() - 1).expect("fewer than 2^31 entries")
    }

    pub(crate) fn remove(&mut self, n: u32) {
        let free = State::Free(self.free);
        let place = self.place_mut(n as usize);
        let old = mem::replace(&mut place.state, free);
        assert!(matches!(old, State::Used(_)), "a free place is not removed");
        place.generation = place.generation.wrapping_add(1);
        self.used -= 1;
        self.free = n;
        self.chunks[n as usize / CHUNK].used -= 1;
    }

    pub(crate) fn generation(&self, n: usize) -> u16 {
        self.place(n).generation
    }

    pub(crate) fn is_used(&self, n: usize) -> bool {
        let chunk = self.chunks.get(n / CHUNK);
        chunk
            .and_then(|c| c.places.get(n % CHUNK))
            .is_some_and(|p| p.value().is_some())
    }

    /// The first used place at or after `n`. A chunk without any takes no time.
    pub(crate) fn next_used(&self, n: usize) -> Option<usize> {
        let mut n = n;
        while let Some(chunk) = self.chunks.get(n / CHUNK) {
            if chunk.used > 0 {
                let rest = chunk.places.get(n % CHUNK..).unwrap_or(&[]);
                if let Some(at) = rest.iter().position(|p| p.value().is_some()) {
                    return Some(n + at);
                }
            }
            n = (n / CHUNK + 1) * CHUNK;
        }
        None
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, n: usize) -> &T {
        self.place(n).value().expect("the slot is in use")
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, n: usize) -> &mut T {
        match &mut self.place_mut(n).state {
            State::Used(value) => value,
            State::Free(_) => panic!("the slot is in use"),
        }
    }
}
