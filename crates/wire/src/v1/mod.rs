//! Version 1: the protocol of conntrackd 1.4.7.
//!
//! A datagram holds messages laid end to end ([`messages`]). Each is checked in
//! the original's order, so that the same counters move: framing, version
//! ([`FrameError`]), the mode's verdict (its receiver's), the type, the attributes
//! ([`decode_flow`], [`decode_expectation`]).
//!
//! Hard case: three values (translated ports, ICMP id) are little-endian in a
//! protocol that is big-endian elsewhere; see `flow.rs`.

mod attr;
mod batch;
mod expectation;
mod flow;
mod header;
mod stream;
mod trailer;

pub use attr::PayloadError;
pub use batch::Batch;
pub use expectation::{check_expectation_carried, decode_expectation, encode_expectation};
pub use flow::{FlowOptions, NotCarried, check_carried, decode_flow, encode_flow};
pub use header::{
    Control, Flags, FrameError, Header, Message, MessageType, Messages, encode_alive,
    encode_control, messages,
};
pub use stream::{Stream, StreamError};
pub use trailer::{Bulk, BulkState, Holdings, Trailer, TrailerError};

/// What an attribute area decoded to, and how many unknown attributes were skipped.
///
/// The original rejects a message with an unknown attribute; skipping lets a
/// newer peer add one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoded<T> {
    /// The flow or expectation.
    pub object: T,
    /// Number of attributes skipped because their number is unknown here.
    pub unknown_attrs: u16,
}
