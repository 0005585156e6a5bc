//! `conntrackd.conf` → a checked [`Config`], with diagnostics.
//!
//! The language is that of conntrackd 1.4.7 (configuration reference). [`parse`] goes on
//! after an error and reports the first [`SHOWN_MAX`] of them, each with its place, the
//! line, and what would be accepted ([`Parsed::render`]). Nothing here touches the system:
//! whether an interface exists is the daemon's question.
//!
//! Text → tokens (`lexer`) → blocks within blocks (`tree`) → configuration (`parser`, which
//! does what the table in `words` prescribes; `meaning` is what the table can express, and
//! `draft` holds what has been read). A file may be anything: the work is linear in its
//! length, and what is kept and printed is bounded.
//!
//! What the gate of `Gate` is as rules of nftables stands in [`gate`].
//!
//! Words whose effect this version lacks are accepted with one warning each.

mod advice;
mod diagnostic;
mod draft;
pub mod gate;
mod lexer;
mod meaning;
mod parser;
mod section;
mod tree;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use flow::{Filter, Prefix, Proto};

pub use diagnostic::{Diagnostic, SHOWN_MAX, Severity, Span};
pub use parser::parse;

use diagnostic::render;

/// Where syslog lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(
    /// The number of `LOG_DAEMON` (3) or `LOG_LOCAL0` to `LOG_LOCAL7` (16 to 23).
    pub u8,
);

impl Facility {
    /// `LOG_DAEMON`
    pub const DAEMON: Facility = Facility(3);
}

/// Real-time class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerType {
    /// `SCHED_RR`
    RoundRobin,
    /// `SCHED_FIFO`
    Fifo,
}

/// Synchronisation mode. Of several modes in one file the last in this order is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Best effort.
    Notrack,
    /// Periodic repetition.
    Alarm,
    /// Acknowledged and repeated.
    Ftfw,
}

/// Transport of the dedicated links; all links of a file have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP to one peer.
    Udp,
    /// UDP to a group.
    Multicast,
    /// TCP to one peer.
    Tcp,
}

/// One dedicated link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Own address, or the group.
    pub address: Option<IpAddr>,
    /// The peer; the group for multicast.
    pub destination: Option<IpAddr>,
    /// Local address by which an IPv4 group is joined.
    pub interface_address: Option<std::net::Ipv4Addr>,
    /// Interface, which gives MTU, index and state.
    pub interface: Option<String>,
    /// Port, or `Group` for multicast.
    pub port: u16,
    /// Send buffer in bytes.
    pub send_buffer: Option<usize>,
    /// Receive buffer in bytes.
    pub receive_buffer: Option<usize>,
    /// False to send without UDP checksums.
    pub checksum: bool,
    /// Used first.
    pub default: bool,
    /// Where the block begins, for the daemon's messages.
    pub line: usize,
}

/// The `Sync` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// Mode; `None` if the file names none (FTFW is then meant).
    pub mode: Option<Mode>,
    /// ALARM: longest pause before a flow is sent again, in seconds.
    pub refresh_time: u32,
    /// ALARM: seconds after which an external entry expires.
    pub cache_timeout: u32,
    /// Timeout of committed flows in seconds; `None` for the remaining one.
    pub commit_timeout: Option<u32>,
    /// Seconds between `-t` and the flush.
    pub purge_timeout: u32,
    /// FTFW: most unacknowledged objects.
    pub resend_queue_size: u32,
    /// TCP: most datagrams that wait at a link to be sent; `None` for the original's 128.
    pub error_queue_length: Option<u32>,
    /// FTFW: an acknowledgement every so many messages.
    pub ack_window_size: u32,
    /// NOTRACK: no internal cache.
    pub disable_internal_cache: bool,
    /// Inject at once instead of keeping an external cache.
    pub disable_external_cache: bool,
    /// Ask the peer for its flows at the start.
    pub startup_resync: bool,
    /// Transport of all links.
    pub transport: Option<Transport>,
    /// Links in file order.
    pub links: Vec<Link>,
    /// Replicate window scales and let the kernel check windows.
    pub window_tracking: bool,
    /// Send the trailer with ALIVE: our epoch and what we hold (`docs/trailer.md`). The word
    /// is ours. The original does not know it, and ignores the trailer.
    pub alive_trailer: bool,
    /// Replicate expectations; of these helpers, or of all if the list is empty.
    pub expectation_sync: Option<Vec<String>>,
    /// What is kept out while this firewall is a backup. The word is ours.
    pub gate: Option<Gate>,
}

/// The `Gate` section: while this firewall is the backup of an instance, its kernel drops new
/// flows of the instance, until their state has been committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Seconds after which the gate opens by itself if this firewall has a virtual address and
    /// no commit, or no daemon; 1 to 3600.
    pub timeout: u32,
    /// At least one, each with at least one virtual address, names unique.
    pub instances: Vec<Instance>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            timeout: 10,
            instances: Vec::new(),
        }
    }
}

impl Gate {
    /// The single addresses of all instances, without the networks of clients.
    pub fn virtual_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let named = self.instances.iter().flat_map(|i| &i.addresses);
        named.filter(|p| p.is_host()).map(Prefix::addr)
    }
}

/// What moves from one firewall to the other as a whole: a `vrrp_instance` or
/// `vrrp_sync_group` of keepalived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name, as the HA manager has it; [`Instance::DEFAULT`] if its addresses stand in `Gate` itself.
    pub name: String,
    /// Its virtual addresses, and the networks of its clients.
    pub addresses: Vec<Prefix>,
}

impl Instance {
    /// Name of the only instance, if its addresses stand in `Gate` itself or nobody names one.
    pub const DEFAULT: &str = "default";
}

/// The `Stats` section: a line about each flow that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// File for the lines.
    pub log_file: Option<PathBuf>,
    /// Syslog for the lines.
    pub syslog: Option<Facility>,
}

/// Where the daemon's metrics are, for Prometheus. The block is ours; the original does not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served over HTTP.
    pub listen: Option<SocketAddr>,
    /// The file to which they are written.
    pub file: Option<PathBuf>,
    /// Seconds between two writes of the file.
    pub interval: u32,
}

/// What the daemon gives up when it has started. The block is ours; the original does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// All capabilities but those that it needs to go on.
    pub capabilities: bool,
    /// The system calls that it has no use for.
    pub system_calls: SystemCalls,
    /// All files but those that the configuration names, and some of the system's.
    pub files: bool,
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            capabilities: true,
            system_calls: SystemCalls::Refuse,
            files: true,
        }
    }
}

/// What becomes of a system call that the daemon has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCalls {
    /// It is carried out.
    All,
    /// It fails (`EPERM`), and is logged.
    Refuse,
    /// It kills the daemon: for tests.
    Kill,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Most flows in each cache; `None` for the default.
    pub hash_limit: Option<usize>,
    /// Log file.
    pub log_file: Option<PathBuf>,
    /// Syslog.
    pub syslog: Option<Facility>,
    /// Lock file.
    pub lock_file: PathBuf,
    /// Control socket; without one no client can reach the daemon.
    pub control_path: Option<PathBuf>,
    /// Receive buffer of the event socket in bytes.
    pub netlink_buffer: Option<usize>,
    /// What it may grow to on overruns, in bytes.
    pub netlink_buffer_max: usize,
    /// Seconds between an overrun and its repair; `None` for no repair.
    pub overrun_resync: Option<u32>,
    /// Ask the kernel for reliable events.
    pub events_reliable: bool,
    /// Events handled in one turn; `None` for the default.
    pub event_iteration_limit: Option<u32>,
    /// Ask the kernel for events of all flows (`nf_conntrack_events` 1 instead of 2)
    /// while the daemon runs. The word is ours; the original does not know it.
    pub conntrack_events: bool,
    /// Read events that come fast together, every 2.5 ms, instead of each at once; a word of ours.
    pub gather_events: bool,
    /// Read the table every so many seconds instead of listening to events.
    pub poll_secs: Option<u32>,
    /// Real-time class and priority.
    pub scheduler: Option<(SchedulerType, i32)>,
    /// Report readiness to systemd; `None` for the default, on.
    pub systemd: Option<bool>,
    /// Export metrics; `None` for the default, off.
    pub metrics: Option<Metrics>,
    /// What the daemon gives up.
    pub sandbox: Sandbox,
    /// Which flows are replicated.
    pub filter: Filter,
    /// Events are filtered in the kernel already.
    pub filter_in_kernel: bool,
    /// Replication.
    pub sync: Option<Sync>,
    /// Statistics; never beside replication.
    pub stats: Option<Stats>,
    /// Names of the user-space helpers, in file order, each once.
    pub helpers: Vec<String>,
}

impl Config {
    /// Which flows are replicated: the filter, and never the messages of the dedicated links.
    pub fn replicated(&self, sync: &Sync) -> Filter {
        Filter {
            links: own_traffic(sync),
            ..self.filter.clone()
        }
    }
}

/// Where messages go over the links: from here, and to here.
fn own_traffic(sync: &Sync) -> Vec<(Proto, IpAddr, u16)> {
    let proto = match sync.transport {
        Some(Transport::Tcp) => Proto::TCP,
        Some(Transport::Udp | Transport::Multicast) | None => Proto::UDP,
    };
    let ends = |link: &Link| {
        let addresses = [link.address, link.destination].into_iter().flatten();
        let port = link.port;
        addresses.map(move |address| (proto, address, port))
    };
    sync.links.iter().flat_map(ends).collect()
}

/// What [`parse`] found.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The configuration; `None` if there was an error.
    pub config: Option<Config>,
    /// The first [`SHOWN_MAX`] errors and the first [`SHOWN_MAX`] warnings, in the order of
    /// the file.
    pub diagnostics: Vec<Diagnostic>,
    /// How many errors there are.
    pub errors: usize,
    /// How many warnings there are.
    pub warnings: usize,
}

impl Parsed {
    /// What an operator is shown: errors and warnings in the order of the file, how many more
    /// there are, and how many in all. Nothing if there are none. With `colour` for a terminal.
    pub fn render(&self, file: &str, text: &str, colour: bool) -> String {
        let all = self.diagnostics.iter();
        let mut shown: Vec<_> = all.map(|d| render(d, file, text, colour)).collect();
        shown.extend(more(self.errors, "error"));
        shown.extend(more(self.warnings, "warning"));
        if self.errors > 0 {
            shown.push(format!("{file}: {}", self.counts()));
        }
        shown.join("\n")
    }

    /// How many there are, in words.
    pub fn counts(&self) -> String {
        let count = |n: usize, name: &str| match n {
            0 => None,
            1 => Some(format!("1 {name}")),
            n => Some(format!("{n} {name}s")),
        };
        let both = [count(self.errors, "error"), count(self.warnings, "warning")];
        let both: Vec<_> = both.into_iter().flatten().collect();
        match both.is_empty() {
            true => "no warnings".to_owned(),
            false => both.join(", "),
        }
    }

    /// The warnings as one line each, for a log.
    pub fn warning_lines(&self, file: &str, text: &str) -> Vec<String> {
        let warnings = |d: &&Diagnostic| d.severity == Severity::Warning;
        let line = |d: &Diagnostic| format!("{file}:{}: {}", d.line(text), d.message);
        let mut lines: Vec<_> = (self.diagnostics.iter().filter(warnings))
            .map(line)
            .collect();
        lines.extend(more(self.warnings, "warning").map(|more| format!("{file}: {more}")));
        lines
    }
}

/// How many diagnostics of a severity are not shown, if there are any.
fn more(count: usize, name: &str) -> Option<String> {
    match count.saturating_sub(SHOWN_MAX) {
        0 => None,
        1 => Some(format!("and 1 more {name}")),
        n => Some(format!("and {n} more {name}s")),
    }
}
