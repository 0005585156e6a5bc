//! What crosses the seam to the kernel: events, requests, results, dumps.

use cache::Ticket;
use flow::{ExpectKey, Expectation, Flow, FlowKey, Proto};

/// Who caused an event of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Packets, or another program.
    Traffic,
    /// Our own commit or flush.
    Commit,
    /// Our own injection.
    Inject,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Created.
    New,
    /// Changed.
    Update,
    /// Ended.
    Destroy,
}

/// An event of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelEvent {
    /// What happened.
    pub change: Change,
    /// Who caused it.
    pub origin: Origin,
    /// The flow.
    pub flow: Flow,
}

/// An event of the kernel about an expectation.
#[derive(Clone, Copy, Debug)]
pub struct ExpectationEvent {
    /// What happened.
    pub change: Change,
    /// Who caused it.
    pub origin: Origin,
    /// The expectation.
    pub expectation: Expectation,
}

/// Why a request is made; its result comes back to the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A flow of the external cache is committed.
    Commit,
    /// A flow of the peer is injected as it comes.
    Inject,
    /// A sweep did not see this flow: is it gone?
    Verify,
    /// The master of an expectation may have changed without an event.
    ReadAgain,
    /// The kernel table is flushed.
    Flush,
}

/// What the kernel is asked to do.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "requests live in a bounded queue; boxing each flow would allocate per request"
)]
pub enum Op {
    /// Create; fails with [`KernelError::Exists`] if either tuple is taken.
    Create(Flow),
    /// Update; fails with [`KernelError::NotFound`].
    Update(Flow),
    /// Delete, only if the entry has this kernel id, when one is given.
    Delete(FlowKey, Option<u32>),
    /// Read one entry.
    Get(FlowKey),
    /// Create an expectation; fails with [`KernelError::Exists`] if there is one of its
    /// tuple, with [`KernelError::NotFound`] without its master.
    CreateExpectation(Expectation),
    /// Set the timeout of an expectation.
    UpdateExpectation(Expectation),
    /// Delete an expectation.
    DeleteExpectation(ExpectKey),
    /// Delete all expectations.
    FlushExpectations,
}

/// The entry that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One of the internal cache.
    Internal(Ticket),
    /// One of the external cache.
    External(Ticket),
    /// An expectation, which the request names.
    Expectation,
    /// None of ours: an entry of the kernel's table, or all of them.
    Table,
}

/// A request with what is needed to understand its result.
#[derive(Clone, Copy, Debug)]
pub struct KernelRequest {
    /// Why.
    pub purpose: Purpose,
    /// The entry that it is about.
    pub subject: Subject,
    /// How many steps this entry has taken, so that no exchange is endless.
    pub step: u8,
    /// What.
    pub op: Op,
}

/// An entry of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The flow.
    pub flow: Flow,
    /// TCP: segments outside the window pass in both directions (`IP_CT_TCP_FLAG_BE_LIBERAL` of
    /// `include/uapi/linux/netfilter/nf_conntrack_tcp.h`). What we write is so.
    pub is_liberal: bool,
}

/// What a request did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The entry that was asked for. Boxed: gets are rare, and a commit's results many.
    Found(Box<Found>),
    /// The kernel refused.
    Failed(KernelError),
}

/// Why the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// `EEXIST`: one of the tuples is taken.
    Exists,
    /// `ENOENT`: no such entry, or no such master.
    NotFound,
    /// `EOPNOTSUPP`: this kernel lacks something, mostly the helper.
    Unsupported,
    /// `EBUSY`: a status bit that cannot change.
    Busy,
    /// `ENOMEM` or `ENOSPC`: the table is full.
    TableFull,
    /// Any other error number.
    Os(i32),
}

/// A request and its outcome.
#[derive(Clone, Debug)]
pub struct KernelResult {
    /// The request.
    pub request: KernelRequest,
    /// What it did.
    pub outcome: Outcome,
}

/// What a dump of the kernel table covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpScope {
    /// All of it.
    All,
    /// One protocol of one family.
    Protocol {
        /// IPv6 rather than IPv4.
        v6: bool,
        /// The protocol.
        proto: Proto,
    },
    /// The table of expectations.
    Expectations,
}

impl DumpScope {
    /// True if a flow belongs to what the dump covers.
    pub(crate) fn covers(self, flow: &FlowKey) -> bool {
        match self {
            DumpScope::All => true,
            DumpScope::Expectations => false,
            DumpScope::Protocol { v6, proto } => {
                flow.orig.proto == proto && flow.orig.addrs.is_v4() != v6
            }
        }
    }
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpEnd {
    /// All entries were read; some may be missing if the table changed.
    Complete,
    /// It failed.
    Failed,
}
