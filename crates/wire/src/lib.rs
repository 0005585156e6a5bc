//! Codec of the synchronisation protocol between replicas: datagram bytes ↔ messages.
//!
//! Module [`v1`] is the format of conntrackd 1.4.7, byte for byte. There are no
//! sockets here and no decisions about what to send: `replica` calls this crate.
//!
//! No decoder panics on any input. A small enum names what is wrong with a message, so
//! that the caller can count it by reason.

pub mod v1;
mod words;

pub use words::{Epoch, ObjectKind, Role, Seq, StateKind, TableId};
