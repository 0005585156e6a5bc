//! What crosses the control socket: the original's request codes and reply forms, and ours.
//!
//! The original's client sends one native-endian `i32` ([`Request`]); the daemon answers with
//! text ([`reply`]) until it closes the connection. There is no status in the reply. The
//! forms of the texts are a contract: scripts and monitoring read them by column and by word.
//! Our own command line uses another protocol on the same socket ([`call`]).
//!
//! And what other programs read of us: JSON ([`rows`], [`top`], [`findings`], [`facts`]),
//! [`metrics`], entries of the [`journal`].

pub mod call;
mod counted;
pub mod facts;
pub mod findings;
pub mod journal;
pub mod metrics;
mod query;
pub mod reply;
mod request;
pub mod rows;
pub mod top;

pub use query::{BadTerm, EXPECTATION_FIELDS, FIELDS, Query};
pub use request::{CacheKind, Object, Request, StatsKind};
