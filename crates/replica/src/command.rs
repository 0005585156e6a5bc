//! What an operator or a failover script asks for, and what can be looked at.

/// Names a command whose end somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u64);

/// Which objects a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    /// Flows and, if they are replicated, expectations.
    All,
    /// Flows alone.
    Flows,
    /// Expectations alone.
    Expectations,
}

impl Objects {
    /// True if flows are among them.
    pub fn has_flows(self) -> bool {
        self != Objects::Expectations
    }

    pub(crate) fn has_expectations(self) -> bool {
        self != Objects::Flows
    }
}

/// What an operator or a failover script asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put the external cache into the kernel (`-c`).
    Commit(Objects),
    /// Empty the internal cache (`-f internal`).
    FlushInternal,
    /// Empty the external cache (`-f external`).
    FlushExternal,
    /// Empty both (`-f`).
    FlushCaches,
    /// Delete the flows that the filter covers from the kernel (`-F`).
    FlushKernel(Objects),
    /// The same after `PurgeTimeout` (`-t`).
    ScheduleFlush,
    /// Refill the internal cache from the kernel (`-R`).
    Resync(Objects),
    /// Send all our flows to the peer (`-B`).
    Bulk,
    /// Ask the peer for all its flows (`-n`).
    RequestResync,
}

/// Whether [`crate::Replica::advance`] should be called again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is under way.
    Idle,
    /// There is more to do.
    More,
}

/// Which of the two caches is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Flows that our kernel reported.
    Internal,
    /// Flows that the peer announced.
    External,
}

/// How old an entry of a cache is, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Seconds since it was inserted.
    pub active_secs: u32,
    /// ALARM, external cache: seconds until it expires unless it is sent again.
    pub expires_secs: Option<u32>,
    /// Internal cache: the flow is ours, and the peer has been sent it or is about to be.
    /// External cache: the peer has announced it in its present epoch.
    pub is_announced: bool,
}
