//! What the operator hears. The driver turns events into log lines.

use std::fmt;
use std::time::Duration;

use flow::{ExpectKey, FlowKey};

use crate::CommandId;

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Ordinary.
    Notice,
    /// Something an operator should know.
    Warning,
    /// Something went wrong.
    Error,
}

/// Something an operator or a control client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command has done all that its client waits for.
    Done(CommandId),
    /// A commit begins.
    CommitStarted,
    /// A commit is refused because one is running.
    CommitRunning,
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
    /// A flow was committed or injected without its helper, which this kernel lacks.
    WithoutHelper(FlowKey),
    /// A foreign flow holds the reply tuple of a flow of the peer.
    Clash(FlowKey),
    /// The kernel refused a flow.
    Refused {
        /// The flow.
        flow: FlowKey,
        /// Its answer.
        error: crate::KernelError,
    },
    /// The kernel refused an expectation.
    ExpectationRefused {
        /// The expectation.
        expectation: ExpectKey,
        /// Its answer.
        error: crate::KernelError,
    },
    /// Caches are emptied.
    FlushingCaches(&'static str),
    /// A flush is refused because a commit is running.
    FlushRefused,
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
    /// A kernel flush has not deleted all that it should: a dump failed, or the kernel
    /// refused so many deletes.
    FlushIncomplete {
        /// Deletes that the kernel refused.
        refused: u64,
    },
    /// The internal cache is refilled from the kernel.
    Resync,
    /// The internal cache cannot be refilled: there is none.
    ResyncUnsupported,
    /// The peer is asked for its flows.
    ResyncRequested,
    /// The peer asks for our flows.
    ResyncByPeer,
    /// All our flows are sent to the peer.
    Bulk,
    /// A link is used from now on.
    LinkChosen(String),
    /// No link is usable.
    NoLink,
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
        /// Flows that only its former run has told of.
        unconfirmed: usize,
    },
}

impl Event {
    /// How important it is.
    pub fn level(&self) -> Level {
        match self {
            Event::FlushRefused
            | Event::NoLink
            | Event::DumpFailed
            | Event::FlushIncomplete { .. } => Level::Error,
            Event::WithoutHelper(_)
            | Event::Clash(_)
            | Event::Refused { .. }
            | Event::ExpectationRefused { .. }
            | Event::Overrun(_)
            | Event::PeerLost
            | Event::Lacking { .. }
            | Event::HoldsMore { .. }
            | Event::ResyncUnsupported => Level::Warning,
            _ => Level::Notice,
        }
    }
}

impl fmt::Display for Event {
    /// The original's words where it has some: monitoring rules match them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Done(id) => write!(f, "command {} done", id.0),
            Event::CommitStarted => f.write_str("committing all external caches"),
            Event::CommitRunning => f.write_str("commit already in progress, skipping"),
            Event::Committed {
                created,
                updated,
                failed,
                took,
            } => {
                writeln!(f, "Committed {created} new entries")?;
                if *updated > 0 {
                    writeln!(f, "{updated} entries were there already")?;
                }
                if *failed > 0 {
                    writeln!(f, "{failed} entries can't be committed")?;
                }
                let (s, us) = (took.as_secs(), took.subsec_micros());
                write!(f, "commit has taken {s}.{us:06} seconds")
            }
            Event::WithoutHelper(flow) => {
                write!(f, "this kernel lacks the helper of {flow}: created without")
            }
            Event::Clash(flow) => {
                write!(
                    f,
                    "another flow holds the reply tuple of {flow}: not created"
                )
            }
            Event::Refused { flow, error } => write!(f, "kernel refuses {flow}: {error:?}"),
            Event::ExpectationRefused { expectation, error } => {
                let why = match error {
                    crate::KernelError::NotFound => "its master is not there",
                    crate::KernelError::Unsupported => "its helper is not there",
                    _ => "",
                };
                write!(f, "kernel refuses the expectation {expectation}: ")?;
                match why {
                    "" => write!(f, "{error:?}"),
                    why => f.write_str(why),
                }
            }
            Event::FlushingCaches(which) => f.write_str(which),
            Event::FlushRefused => f.write_str("ignoring flush command, commit still in progress"),
            Event::FlushingKernel { scheduled: false } => {
                f.write_str("flushing kernel conntrack table")
            }
            Event::FlushingKernel { scheduled: true } => {
                f.write_str("flushing kernel conntrack table (scheduled)")
            }
            Event::FlushScheduled(after) => {
                write!(f, "flushing conntrack table in {} secs", after.as_secs())
            }
            Event::Purged { deleted, spared } => write!(
                f,
                "scheduled flush: {deleted} copies deleted, {spared} flows spared: \
                 our own, injected, or held by nothing else"
            ),
            Event::FlushIncomplete { refused: 0 } => {
                f.write_str("kernel flush incomplete: the table could not be read to its end")
            }
            Event::FlushIncomplete { refused } => {
                write!(
                    f,
                    "kernel flush incomplete: the kernel refused {refused} deletes"
                )
            }
            Event::Resync => f.write_str("resync with master conntrack table"),
            Event::ResyncUnsupported => f.write_str("resync is unsupported in this mode"),
            Event::ResyncRequested => f.write_str("resync requested"),
            Event::ResyncByPeer => f.write_str("resync requested by other node"),
            Event::Bulk => f.write_str("sending bulk update"),
            Event::LinkChosen(name) => write!(f, "device `{name}' becomes dedicated link"),
            Event::NoLink => f.write_str("no dedicated links available!"),
            Event::Overrun(Some(after)) => write!(
                f,
                "the kernel dropped events (ENOBUFS): resync in {} s",
                after.as_secs()
            ),
            Event::Overrun(None) => {
                f.write_str("the kernel dropped events (ENOBUFS), and NetlinkOverrunResync is off")
            }
            Event::Repaired { found, gone } => write!(
                f,
                "resync after overrun: {found} flows had been missed, {gone} were gone"
            ),
            Event::DumpFailed => f.write_str("dump of the kernel conntrack table failed"),
            Event::PeerHeard => f.write_str("the peer is there"),
            Event::PeerLost => f.write_str("the peer is lost: nothing has come from it for 5 s"),
            Event::PeerBack { silence } => {
                write!(f, "the peer is back after {} s", silence.as_secs())
            }
            Event::Lacking { counts_on, holds } => write!(
                f,
                "the peer counts on {counts_on} flows here, and {holds} are held: asking for all"
            ),
            Event::HoldsMore { counts_on, holds } => write!(
                f,
                "{holds} flows of the peer are held here, and it has {counts_on}: asking for all"
            ),
            Event::PeerRestarted { unconfirmed } => write!(
                f,
                "the peer has started again: {unconfirmed} of its flows are kept, unconfirmed"
            ),
        }
    }
}
