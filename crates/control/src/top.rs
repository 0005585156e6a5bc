//! What `ftfw top` shows, as JSON. The meaning of the fields is in docs/json.md.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

/// One look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopRow {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// The first line of `ftfw status`.
    pub verdict: String,
    /// Nothing would be lost if the primary died now, and somebody would take over.
    pub safe: bool,
    /// The daemon has started again since the look before.
    pub restarted: bool,
    /// Seconds since the daemon's start.
    pub uptime: u64,
    /// The role that the HA manager's commands gave this replica.
    pub role: String,
    /// Seconds between the look before and this one; `None` at the first one, and after a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What has happened in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// What waits.
    pub queues: Queues,
    /// What the peer lacks of ours, and we lack of the peer's.
    pub lag: Lag,
    /// Flows in the kernel and the caches.
    pub tables: Tables,
    /// The peer, as in the status.
    pub peer: Value,
    /// Links in file order.
    pub links: Vec<LinkRow>,
    /// Who has most; `None` if the kernel's table is not read, or not read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub talkers: Option<Talkers>,
    /// Why the kernel's table could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_talkers: Option<String>,
}

/// Numbers a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Events of the kernel.
    pub events: f64,
    /// Flows of our kernel that began.
    pub created: f64,
    /// Flows of our kernel that changed.
    pub updated: f64,
    /// Flows of our kernel that ended.
    pub destroyed: f64,
    /// Over all links.
    #[serde(flatten)]
    pub links: LinkRates,
}

/// What goes over a link a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LinkRates {
    /// Datagrams sent.
    pub datagrams_sent: f64,
    /// Datagrams received.
    pub datagrams_received: f64,
    /// Bytes sent.
    pub bytes_sent: f64,
    /// Bytes received.
    pub bytes_received: f64,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Objects that the peer has not been sent yet.
    pub owed: u64,
    /// FT-FW: objects sent and not acknowledged.
    pub unacknowledged: u64,
    /// Datagrams that a link has not taken yet.
    pub unsent: u64,
    /// Bytes of events that wait in the kernel, and how many may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_buffer: Option<(u64, u64)>,
}

/// Flows that are not everywhere where they should be. `None` if the peer does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Our flows that the peer does not hold.
    pub peer_lacks: Option<u64>,
    /// Those of them that it has not held for some seconds.
    pub unprotected: Option<u64>,
    /// Flows of the peer that we do not hold.
    pub we_lack: Option<u64>,
    /// Seconds until we hold them, if that can be told.
    pub seconds_left: Option<u64>,
}

/// Numbers of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// In the kernel.
    pub kernel: Option<u64>,
    /// How many there may be.
    pub kernel_max: Option<u64>,
    /// In the internal cache.
    pub internal: u64,
    /// In the external cache.
    pub external: u64,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkRow {
    /// Interface.
    pub device: String,
    /// `UDP`, `multicast` or `TCP`.
    pub transport: String,
    /// `RUNNING`, `NO-CARRIER` or `DOWN`.
    pub status: String,
    /// Used for sending.
    pub active: bool,
    /// What has gone over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<LinkRates>,
}

/// Source addresses of the kernel's flows, and what is theirs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Talkers {
    /// In which order they stand: `bytes` if the kernel accounts, else `flows`.
    pub by: &'static str,
    /// Flows of the kernel that were read.
    pub flows: u64,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// The first of them.
    pub list: Vec<Talker>,
}

/// One source address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Talker {
    /// Source of the original direction.
    pub address: IpAddr,
    /// Its flows.
    pub flows: u64,
    /// Bytes of these flows, both directions, since they began; `None` without accounting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes a second since the table was read before; `None` at the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
}
