//! The replication protocols as one state machine on virtual time, without I/O.
//!
//! [`Replica`] takes typed kernel events, dumps and results, datagrams, link
//! states, commands and time; it owes datagrams, kernel requests, dumps, operator
//! events and the next timeout. It never sees a socket, a netlink byte or a clock:
//! the same code runs in the daemon, in scenario tests and in the simulator.
//!
//! [`driver`] states what a driver owes the core, and the order of a turn: any number of
//! `handle_*`, one [`Replica::advance`], then every `poll_*` drained once. `handle_*`
//! marks what is owed on cache entries; messages and requests are built from present
//! state when they are polled. So a burst of events for one flow makes one message, and
//! what is owed is bounded by the caches.
//!
//! The objects know no replica; [`Replica`] composes them, one file of its folder for each way:
//!
//! | input | way (`replica/`) | objects |
//! |---|---|---|
//! | kernel events | `ingest` | `ledger`, `entry` |
//! | dumps | `sweep` | `sweep` (which dump), `rounds` (when), `ledger` |
//! | datagrams | `peers`, `deliver`, `holdings` | `receive`, `peer`, `entry` |
//! | acknowledgements | `acknowledge` | `protocol`, `ftfw`, `under_way` |
//! | results of requests | `commit`, `inject` | `conversation` |
//! | commands | `commit`, `flush`, `bulk`, `sweep` | `commit`, `flush`, `bulk` |
//! | time | each of them | `alarm`, `ftfw`, `repairs`, `rounds` |
//!
//! | output | way | objects |
//! |---|---|---|
//! | datagrams | `send`, `bulk`, `refresh` | `stream`, `ledger`, `bulk`, `alarm` |
//! | kernel requests | `commit`, `inject`, `sweep`, `flush` | |
//!
//! Expectations go the same ways beside the flows (`expect`, `expectations`).

mod alarm;
mod bulk;
mod command;
mod commit;
pub mod conversation;
pub mod driver;
mod entry;
mod event;
mod expectations;
mod flush;
mod ftfw;
mod kernel;
mod ledger;
mod link;
mod mode;
mod peer;
mod protocol;
mod receive;
mod repairs;
mod replica;
mod rounds;
mod settings;
mod stats;
mod stream;
mod sweep;
mod time;
mod under_way;

pub use command::{Age, Command, CommandId, Objects, Progress, Which};
pub use event::{Answer, Caches, Event, LinkReason, Shortfall};
pub use kernel::{
    Change, DumpEnd, DumpScope, ExpectationEvent, Found, KernelError, KernelEvent, KernelRequest,
    KernelResult, Op, Origin, Outcome, Purpose, Subject,
};
pub use link::LinkId;
pub use mode::{Mode, Verdict, verdict};
pub use peer::{LOST_AFTER, Reported};
pub use receive::{Accepted, Follows, PeerId, Received, Receiver};
pub use replica::Replica;
pub use settings::{LinkSettings, Settings};
pub use stats::{CacheStats, ReceiveStats, Stats};
pub use time::Instant;
pub use wire::{Epoch, Role, Seq, TableId};
