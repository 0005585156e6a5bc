//! What a replica is given at its start. The driver makes it from the configuration.

use std::time::Duration;

use flow::Filter;
use wire::{Epoch, Seq, TableId};

use crate::mode::Mode;

/// One dedicated link.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Name of its interface, for events.
    pub name: String,
    /// MTU of the interface in bytes.
    pub mtu: usize,
    /// What IP and transport headers take of it, in bytes.
    pub allowance: usize,
}

/// Settings of one replica.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Replication protocol.
    pub mode: Mode,
    /// Keep flows of our kernel in a cache; without, events go straight to the link.
    pub internal_cache: bool,
    /// Keep flows of the peer in a cache; without, they are injected at once.
    pub external_cache: bool,
    /// Most flows in each cache.
    pub limit: usize,
    /// FT-FW: an acknowledgement every so many messages with data, at least 2.
    pub ack_window: u32,
    /// FT-FW: most ended flows that are kept for an absent peer.
    pub resend_queue: usize,
    /// ALARM: every flow is sent again within this time.
    pub refresh_time: Duration,
    /// ALARM: an external entry that was not sent again for this long is dropped.
    pub cache_timeout: Duration,
    /// Fixed timeout in seconds that committed flows get; also leaves timeouts out of messages.
    pub commit_timeout: Option<u32>,
    /// Delay of the scheduled kernel flush.
    pub purge_timeout: Duration,
    /// Carry TCP window scales and let the kernel check windows.
    pub window_tracking: bool,
    /// Ask the peer for its flows at the start.
    pub startup_resync: bool,
    /// Delay between an overrun and its repair; `None` for no repair.
    pub overrun_resync: Option<Duration>,
    /// Replicate expectations whose helper's name begins with one of these, in any case;
    /// of all helpers if the list is empty. `None`: of none.
    pub expectations: Option<Vec<String>>,
    /// Which flows are replicated.
    pub filter: Filter,
    /// The links, in order of preference.
    pub links: Vec<LinkSettings>,
    /// Index of the link that is used first.
    pub first_link: usize,
    /// Interval of sweeps over the protocols with short timeouts: at most a quarter
    /// of the shortest, so that a backup's copy is refreshed before half of it has run down.
    pub sweep_short: Duration,
    /// Shortest interval of sweeps over the whole table; with many flows it grows.
    pub sweep_full: Duration,
    /// The same while nothing is urgent: a look also costs what the kernel's hash table is long.
    pub sweep_leisurely: Duration,
    /// Sequence number of the first message. The original takes the Unix time.
    pub first_seq: Seq,
    /// This life of the replica: a random number.
    pub epoch: Epoch,
    /// The kernel's table that this replica reads and writes.
    pub table: TableId,
    /// Send a trailer with ALIVE.
    pub trailer: bool,
}
