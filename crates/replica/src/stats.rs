//! Counters. Each is the number of times something has happened since the start.
//! Name, help and unit of each are declared in `counters`.

pub use counters::{CacheStats, ReceiveStats, Stats};
