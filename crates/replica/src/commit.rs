//! Commit: the external cache → kernel, at a takeover.
//!
//! A cursor walks the external cache twice: first the flows without a master, then the
//! others, whose masters then exist; expectations come last. [`crate::conversation`]
//! decides what is asked after each outcome.
//!
//! A peer that lives goes on announcing meanwhile. What it announces of an entry that the
//! cursor has passed is *late*: it is committed in another round, and if it comes before
//! the script empties the external cache, when that happens. So nothing is lost between
//! the script's commands.

use std::time::Duration;

use cache::Position;
use flow::ExpectKey;

use crate::command::{CommandId, Objects};
use crate::time::Instant;

/// Seconds that a flow gets whose timeout has run down without word of its end, and
/// the most that one gets which a restarted peer has not confirmed.
pub(crate) const RUN_DOWN_SECS: u32 = 60;

/// A script empties the external cache within this time after the commit has begun. A later
/// flush is an operator's own, and drops everything.
pub(crate) const SCRIPT_MAX: Duration = Duration::from_secs(60);

/// Rounds for what is late. A peer that announces without end must not keep the client.
pub(crate) const ROUNDS_MAX: u32 = 4;

/// From this many flows on, the group of NEW events is left meanwhile.
const LARGE: usize = 256;

/// What a pass commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    WithoutMaster,
    WithMaster,
    Expectations,
}

/// Where a pass goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Flows(Position),
    /// Behind this one.
    Expectations(Option<ExpectKey>),
}

impl At {
    pub(crate) fn first_flow() -> At {
        At::Flows(Position::default())
    }
}

/// A commit under way.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Who waits for the end; nobody, if it follows a flush of the external cache.
    pub(crate) id: Option<CommandId>,
    /// After the first one, a round commits what is late.
    pub(crate) round: u32,
    pub(crate) objects: Objects,
    pub(crate) pass: Pass,
    /// `None` once the pass has seen all.
    pub(crate) at: Option<At>,
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) failed: u64,
    pub(crate) began: Instant,
}

impl Commit {
    pub(crate) fn is_large(&self) -> bool {
        self.size >= LARGE
    }
}
