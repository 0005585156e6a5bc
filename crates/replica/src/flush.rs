//! Flushes: of the caches, and of the kernel table by filter, now or scheduled.
//!
//! The scheduled flush (the **purge**) follows a failover by `PurgeTimeout`: the kernel
//! of the former primary holds copies of flows that the peer now owns. It deletes a copy
//! only if something else of ours holds the flow, an entry of the external cache, or if
//! the owner has announced the flow's end. It spares what our kernel owns, what we
//! injected, and what nobody else has: if the peer dies, these copies are all there is.
//! With injection it deletes only what its owner has ended.
//!
//! A flush is over when its last delete has been answered.

use std::time::Duration;

use crate::command::CommandId;
use crate::time::Instant;

/// A scheduled flush that meets a commit is looked at again after this time.
pub(crate) const AFTER_COMMIT: Duration = Duration::from_secs(1);

/// Flushes of the kernel table.
#[derive(Debug, Default)]
pub(crate) struct KernelFlush {
    pub(crate) purge_at: Option<Instant>,
    /// Deletes that are not answered yet.
    pub(crate) in_flight: usize,
    /// Commands whose dump is over, and whether it failed.
    pub(crate) waiting: Vec<(CommandId, bool)>,
    /// Deletes that the kernel refused since the last flush was over.
    pub(crate) refused: u64,
    /// What the purge under way has deleted and spared.
    pub(crate) purged: Option<Purged>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Purged {
    pub(crate) deleted: u64,
    pub(crate) spared: u64,
    /// The dump is over, and whether it failed.
    pub(crate) over: Option<bool>,
}
