//! Counters. Each is the number of times something has happened since the start.

/// Counters of a cache, or of the kernel requests that stand in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries created.
    pub created: u64,
    /// Entries not created: the cache is full, or the kernel refused.
    pub create_failed: u64,
    /// Entries updated.
    pub updated: u64,
    /// Updates that failed.
    pub update_failed: u64,
    /// Entries ended.
    pub destroyed: u64,
    /// Deletes that failed.
    pub destroy_failed: u64,
}

/// Counters of the receive path, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// Messages rejected for any of the reasons below.
    pub malformed: u64,
    /// Not version 1.
    pub wrong_version: u64,
    /// Flags or type that the mode does not allow.
    pub bad_header: u64,
    /// Attributes rejected.
    pub bad_payload: u64,
    /// Type that the mode does not know.
    pub bad_type: u64,
    /// Shorter than a header.
    pub truncated: u64,
    /// Length field that cannot be.
    pub bad_size: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Messages older than one seen before.
    pub before: u64,
    /// Those of them that were still news (FT-FW).
    pub late_used: u64,
    /// Trailers of ALIVE that could not be read.
    pub bad_trailers: u64,
    /// Unknown attributes passed over.
    pub unknown_attrs: u64,
    /// Messages with a flag, which ALARM passes over.
    pub ignored: u64,
    /// Expectations passed over, because they are not to be replicated.
    pub expectations_ignored: u64,
}

/// All counters of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Internal cache, or what went past it when it is off.
    pub internal: CacheStats,
    /// External cache, or what was injected when it is off.
    pub external: CacheStats,
    /// Receive path.
    pub receive: ReceiveStats,
    /// Events of the kernel.
    pub events_received: u64,
    /// Events that the filter kept out.
    pub events_filtered: u64,
    /// Events that our own requests caused.
    pub events_own: u64,
    /// DESTROY events of an entry that had already been followed by another.
    pub events_late: u64,
    /// Times that the kernel dropped events.
    pub overruns: u64,
    /// Dumps that refilled or compared the internal cache.
    pub resyncs: u64,
    /// Kernel flushes.
    pub kernel_flushes: u64,
    /// Events and entries of dumps that version 1 cannot carry.
    pub not_carried: u64,
    /// Expectations whose master is not replicated.
    pub masterless: u64,
    /// Flows that a sweep found though no event had told of them.
    pub silent_flows: u64,
    /// Flows that a sweep found gone though no event had told of it.
    pub silent_ends: u64,
    /// Timeouts sent again because packets had silently refreshed them.
    pub timeouts_refreshed: u64,
    /// Ends not announced, because the peer owns the flow now.
    pub ends_not_announced: u64,
    /// Times that the peer has lost its memory.
    pub peer_restarts: u64,
    /// Entries of the peer that a complete bulk update did not mention.
    pub external_absent: u64,
    /// Flows that the peer offered: found in its kernel, and perhaps not its own.
    pub offers_received: u64,
    /// Times that we held fewer flows than the peer counted on, or more, and asked for all.
    pub lacks_found: u64,
    /// Flows that scheduled flushes spared: our own, injected, or held by nothing else.
    pub purge_spared: u64,
    /// ALARM: entries of the peer that were not sent again in time.
    pub external_expired: u64,
    /// FT-FW: ends never acknowledged and forgotten, because the peer is absent too long.
    pub ends_given_up: u64,
    /// Deletes not obeyed, because our kernel has seen traffic of the flow.
    pub deletes_refused: u64,
    /// Flows made without the helper that this kernel lacks.
    pub without_helper: u64,
    /// Flows whose reply tuple a foreign flow holds.
    pub clashes: u64,
    /// Messages dropped because the direct queue was full.
    pub direct_dropped: u64,
    /// Packets and bytes of ended flows, if the kernel accounts.
    pub traffic_packets: u64,
    /// See `traffic_packets`.
    pub traffic_bytes: u64,
    /// Messages sent.
    pub messages_sent: u64,
}
