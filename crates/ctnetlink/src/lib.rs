//! Kernel codec: netlink bytes ↔ `flow` types, for connection tracking.
//!
//! The daemon reads a socket into a buffer and walks it with [`messages`]; each
//! [`Message`] is decoded from the borrowed bytes without an allocation. Requests
//! are appended to one reused `Vec<u8>` ([`Request`]), many to a `sendmsg`.
//! There are no sockets here.
//!
//! Hard cases: attributes are nested, in host byte order outside and network
//! byte order inside; ports of GRE are its keys; unknown attributes and states
//! never fail a message.

mod attr;
mod chain;
mod conntrack;
mod details;
mod expect;
mod header;
mod message;
mod program;
mod request;
mod sets;
mod stats;

pub use chain::{chain_rules, put_chain_request};
pub use conntrack::decode_flow;
pub use details::{Counters, Details, TcpFlags, decode_details};
pub use expect::decode_expectation;
pub use header::{NlMessage, NlMessages, messages};
pub use message::{EventKind, Message, decode, error_text};
pub use program::{Instruction, program};
pub use request::{DumpFilter, NatRange, Request, TcpOptions};
pub use sets::{SetOfNetworks, put_sets};
pub use stats::{CpuStats, TableStats};

use thiserror::Error;

/// Netlink multicast groups of connection tracking.
///
/// Source: `include/uapi/linux/netfilter/nfnetlink_compat.h`, `enum nfnetlink_groups`.
pub mod group {
    /// `NFNLGRP_CONNTRACK_NEW`
    pub const CONNTRACK_NEW: u32 = 1;
    /// `NFNLGRP_CONNTRACK_UPDATE`
    pub const CONNTRACK_UPDATE: u32 = 2;
    /// `NFNLGRP_CONNTRACK_DESTROY`
    pub const CONNTRACK_DESTROY: u32 = 3;
    /// `NFNLGRP_CONNTRACK_EXP_NEW`
    pub const EXPECT_NEW: u32 = 4;
    /// `NFNLGRP_CONNTRACK_EXP_UPDATE`
    pub const EXPECT_UPDATE: u32 = 5;
    /// `NFNLGRP_CONNTRACK_EXP_DESTROY`
    pub const EXPECT_DESTROY: u32 = 6;
}

/// Why a message of the kernel was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A header or attribute is cut off.
    #[error("truncated {what}: {have} bytes, {need} needed")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A known attribute has another size than in the kernel header.
    #[error("attribute {attr} of {nest} has {len} bytes")]
    BadLength {
        /// The nest that it stands in.
        nest: &'static str,
        /// Its number.
        attr: u16,
        /// Its payload in bytes.
        len: usize,
    },
    /// What identifies a flow is missing.
    #[error("no {0}")]
    Missing(&'static str),
}
