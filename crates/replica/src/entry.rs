//! What a replica notes about each entry of its two caches, and how that changes.

mod external;
mod internal;

pub(crate) use external::External;
pub(crate) use internal::{Effect, Internal, Life, Step};
