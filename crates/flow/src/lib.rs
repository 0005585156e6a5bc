//! The vocabulary of connection tracking: tuples, flows, expectations, filters.
//!
//! Every other crate uses these types: `ctnetlink` makes them from netlink
//! bytes, `wire` from datagrams, `cache` stores them, `replica` decides about
//! them. There are no bytes and no I/O here.
//!
//! A [`Flow`] has a fixed size and no heap part, so that decoding an event
//! allocates nothing. It exists only in passing: caches hold packed records.

mod entry;
mod expect;
mod filter;
mod nat;
mod proto;
mod tuple;

pub use entry::{Flow, FlowKey, Labels, LineForm, Mark, Name, Status, Zone};
pub use expect::{ExpectKey, ExpectNat, Expectation};
pub use filter::{Filter, Policy, Prefix};
pub use nat::{SeqAdj, SeqAdjPair, SynProxy};
pub use proto::{DccpInfo, ProtoInfo, SctpInfo, TcpInfo, TcpState};
pub use tuple::{Addrs, Direction, L4, Proto, Tuple};
