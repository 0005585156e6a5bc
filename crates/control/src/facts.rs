//! What `ftfw doctor` collects about one node, and what it finds. Their meaning is in
//! docs/json.md. Facts cross from node to node, so an older or newer program may have written
//! them: unknown fields are ignored, and missing ones have a default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Facts about one node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Facts {
    /// Version of these tables.
    pub facts: u32,
    /// Version of the program that collected them.
    pub version: String,
    /// Name of the node.
    pub hostname: String,
    /// When they were collected: milliseconds since 1970.
    pub time: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Collected by root.
    pub root: bool,
    /// The configuration.
    pub config: ConfigFacts,
    /// What the daemon answers to `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    /// Daemons in this network namespace.
    pub daemons: Vec<ProcessFacts>,
    /// Kernel settings by name.
    pub sysctls: BTreeMap<String, String>,
    /// The dedicated links.
    pub links: Vec<LinkFacts>,
    /// Addresses of all interfaces.
    pub addresses: Vec<String>,
    /// False if the kernel has no ctnetlink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctnetlink: Option<bool>,
    /// Helpers that this kernel has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helpers: Option<Vec<String>>,
    /// Helpers of the expectations here.
    pub helpers_used: Vec<String>,
    /// Tracked flows of the dedicated links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_flows: Option<u64>,
    /// Established TCP connections that end on this node.
    pub local_connections: Vec<SocketsFacts>,
    /// What the firewall's rules do.
    pub rules: RulesFacts,
}

/// The configuration, as far as the pair has to agree on it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConfigFacts {
    /// Its file.
    pub file: String,
    /// It can be used.
    pub good: bool,
    /// Errors and warnings.
    pub messages: Vec<String>,
    /// Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// `HashLimit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_limit: Option<u64>,
    /// `NetlinkBufferSize` in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netlink_buffer: Option<u64>,
    /// `ExpectationSync`.
    pub expectations: bool,
    /// `Gate`.
    pub gate: bool,
}

/// One process.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ProcessFacts {
    /// Its process id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// One dedicated link and its interface.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LinkFacts {
    /// Interface.
    pub device: String,
    /// Own address, or the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The peer's address, or the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Port.
    pub port: u16,
    /// The interface; left out if it could not be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceFacts>,
}

/// One interface.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct InterfaceFacts {
    /// It exists.
    pub exists: bool,
    /// It is switched on.
    pub up: bool,
    /// It has a carrier.
    pub carrier: bool,
    /// Bytes.
    pub mtu: u64,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// Established connections with one own address and port.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SocketsFacts {
    /// Own address.
    pub address: String,
    /// Own port.
    pub port: u16,
    /// How many.
    pub count: u64,
}

/// What the rules do with packets that matter.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RulesFacts {
    /// Why not all rules could be read.
    pub unread: Vec<String>,
    /// INVALID segments from each interface but the links'.
    pub invalid: Vec<Fate>,
    /// Traffic of each link.
    pub link: Vec<Fate>,
    /// NAT rules.
    pub nat: Vec<String>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Fate {
    /// Interface.
    pub device: String,
    /// `input`, `forward` or `output`.
    pub hook: String,
    /// `accepted`, `dropped`, `rejected`, or `unknown`.
    pub verdict: String,
    /// The rule or policy that decides.
    pub rule: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Connections will be lost.
    Problem,
    /// Connections may be lost.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Which check found it.
    pub check: &'static str,
    /// `here`, `peer` or `pair`.
    pub node: &'static str,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// A command, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}
