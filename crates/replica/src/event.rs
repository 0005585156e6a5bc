//! What happens at a replica, and how each command ends, as data.
//!
//! The driver answers its clients and writes its log from this: words and levels of log
//! lines are its own matter.

use std::time::Duration;

use flow::{ExpectKey, Flow, FlowKey};

use crate::command::CommandId;
use crate::kernel::KernelError;

/// Something an operator or a control client waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A command has ended: its client gets this answer.
    Done(CommandId, Answer),
    /// A commit begins.
    CommitStarted,
    /// A flow was committed or injected without its helper, which this kernel lacks.
    WithoutHelper(FlowKey),
    /// A foreign flow holds the reply tuple of a flow of the peer.
    Clash(FlowKey),
    /// The kernel refused a flow.
    Refused {
        /// The flow.
        flow: FlowKey,
        /// Its answer.
        error: KernelError,
    },
    /// The kernel refused an expectation.
    ExpectationRefused {
        /// The expectation.
        expectation: ExpectKey,
        /// Its answer.
        error: KernelError,
    },
    /// Caches are emptied.
    FlushingCaches(Caches),
    /// The kernel table is flushed.
    FlushingKernel {
        /// It was scheduled by `-t`.
        scheduled: bool,
    },
    /// A kernel flush is scheduled.
    FlushScheduled(Duration),
    /// A scheduled kernel flush is over.
    Purged {
        /// Copies that are deleted.
        deleted: u64,
        /// Flows that stay: our own, injected, or held by nothing else.
        spared: u64,
    },
    /// A scheduled kernel flush has not deleted all that it should.
    PurgeIncomplete(Shortfall),
    /// The internal cache is refilled from the kernel.
    Resync,
    /// The peer has been primary beside us for a moment: what is in our kernel is claimed, as at a
    /// take-over.
    ClaimedBack,
    /// The peer is asked for its flows.
    ResyncRequested,
    /// The peer asks for our flows.
    ResyncByPeer,
    /// All our flows are sent to the peer.
    Bulk,
    /// A link is used from now on.
    LinkChosen(String, LinkReason),
    /// No link is usable.
    NoLink,
    /// A flow of the internal cache has ended, as far as is known like this. Only without a
    /// peer ([`crate::Mode::Statistics`]).
    Ended(Box<Flow>),
    /// The kernel dropped events; they are repaired after this time, or never.
    Overrun(Option<Duration>),
    /// The repair after an overrun is over.
    Repaired {
        /// Flows that had been missed.
        found: u64,
        /// Flows that were gone.
        gone: u64,
    },
    /// A dump of the kernel table failed.
    DumpFailed,
    /// The first message of the peer has come.
    PeerHeard,
    /// Nothing has come from the peer for some time.
    PeerLost,
    /// Something has come from the peer again.
    PeerBack {
        /// For how long nothing had come.
        silence: Duration,
    },
    /// The peer counts on more flows than we hold: we ask for all.
    Lacking {
        /// How many it counts on.
        counts_on: usize,
        /// How many we hold.
        holds: usize,
    },
    /// More flows of the peer are held than it has, and it is not known which have ended: we
    /// ask for all.
    HoldsMore {
        /// How many it has.
        counts_on: usize,
        /// How many we hold.
        holds: usize,
    },
    /// The peer has lost its memory.
    PeerRestarted {
        /// Flows that it announced only in a former epoch.
        unconfirmed: usize,
    },
}

/// How a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command has done all that its client waits for.
    Done,
    /// A commit is over.
    Committed {
        /// Flows created.
        created: u64,
        /// Flows that were there already and were brought up to date.
        updated: u64,
        /// Flows that could not be committed.
        failed: u64,
        /// How long it took.
        took: Duration,
    },
    /// A commit found nothing to do: as far as is known, injection has put everything into the
    /// kernel already.
    NothingToCommit,
    /// A commit is refused because another one is under way.
    CommitRunning,
    /// A flush of the external cache is refused because a commit is reading it.
    CommitReadsCache,
    /// A kernel flush has not deleted all that it should.
    FlushIncomplete(Shortfall),
    /// The internal cache cannot be refilled: there is none.
    NoInternalCache,
    /// Nothing can be sent or asked for: the protocol has no control messages.
    NoControl,
}

/// Which caches a flush empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// The internal cache.
    Internal,
    /// The external cache.
    External,
    /// Both.
    Both,
}

/// Why a kernel flush has left flows in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// The table could not be read to its end.
    DumpFailed,
    /// The kernel refused so many deletes.
    Refused(u64),
}

impl Shortfall {
    /// What is missing after a flush, if anything. Refused deletes say more than a dump
    /// that failed.
    pub(crate) fn of(dump_failed: bool, refused: u64) -> Option<Shortfall> {
        match (dump_failed, refused) {
            (false, 0) => None,
            (true, 0) => Some(Shortfall::DumpFailed),
            (_, refused) => Some(Shortfall::Refused(refused)),
        }
    }
}

/// Why another link is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkReason {
    /// The one before is down, has no carrier, or takes nothing.
    NotUsable,
    /// The peer is heard there, and no longer on the one before.
    PeerHeard,
    /// The peer is heard on no link.
    Silence,
    /// The peer is heard, and acknowledges nothing.
    Unanswered,
}
