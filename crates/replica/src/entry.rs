//! What a replica notes about each entry of its caches, and how that changes.

mod expectation;
mod external;
mod internal;

pub(crate) use expectation::{Ours, Theirs};
pub(crate) use external::External;
pub(crate) use internal::{Effect, Internal, Life, Step};
