//! The daemon's state as a page for Prometheus.
//!
//! Counters come from their declarations (`counters`), gauges and the counters of links from
//! the table `FAMILIES`: name, help, type and value stand in one row. docs/metrics.md lists all, and
//! a test compares.
//!
//! The page is written here and not by the crate `prometheus-client`, which writes OpenMetrics
//! alone: the textfile collector of node_exporter reads the older text form, in which the name
//! of a counter's family ends with `_total`.

use std::fmt::{self, Display, Write};

use counters::{Counter, Counters, SHARED};

use crate::reply::{CacheReport, LinkReport};
use crate::rows::StatusRow;

/// The form of a page. Both are text, and differ in little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text form, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The type of the page in HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What is exported: the status, and what it does not show.
#[derive(Debug, Default)]
pub struct State {
    /// The status.
    pub status: StatusRow,
    /// Most flows in each cache.
    pub cache_limit: u64,
    /// The internal cache holds what the kernel holds, as far as the daemon knows.
    pub is_whole: bool,
    /// Whether the peer is heard; `None` without a peer.
    pub peer_up: Option<bool>,
    /// Whether each link of the status is usable.
    pub usable: Vec<bool>,
    /// How long the last commit took, in seconds.
    pub last_commit: Option<f64>,
    /// Receive buffer of the event socket in bytes; `None` without one.
    pub event_buffer: Option<u64>,
    /// How many turns of the loop took longer than so many seconds.
    pub turns: Vec<(&'static str, u64)>,
    /// The longest turn on the wall, in seconds.
    pub longest_turn: f64,
    /// The longest CPU time of a turn that followed another without a wait, in seconds.
    pub longest_turn_cpu: f64,
}

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the daemon ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// The word of both forms.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// A metric, as a page and docs/metrics.md describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The full name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: Vec<&'static str>,
    /// What it measures.
    pub help: &'static str,
}

/// Every metric that there can be, in the order of the page.
pub fn described() -> Vec<Described> {
    let own = FAMILIES.iter().map(|f| Described {
        name: full_name(f.name, f.kind),
        kind: f.kind,
        labels: f.labels.to_vec(),
        help: f.help,
    });
    let declared = groups(&State::default()).into_iter().flat_map(|group| {
        let beside: Vec<_> = group.labels.iter().map(|(name, _)| *name).collect();
        let counters: Vec<_> = group.counters.into_iter().map(|(c, _)| c).collect();
        counters.into_iter().map(move |counter| {
            let mut labels = beside.clone();
            labels.extend(counter.metric.label.map(|(name, _)| name));
            Described {
                name: full_name(counter.metric.name, Kind::Counter),
                kind: Kind::Counter,
                labels,
                help: help_of(counter),
            }
        })
    });
    let mut all: Vec<Described> = Vec::new();
    for metric in own.chain(declared) {
        if !all.contains(&metric) {
            all.push(metric);
        }
    }
    all
}

/// The page.
pub fn page(state: &State, format: Format) -> String {
    let mut page = Page {
        out: String::with_capacity(16 << 10),
        format,
        family: "",
        kind: Kind::Gauge,
        help: "",
        is_begun: false,
    };
    for family in FAMILIES {
        page.begin(family.name, family.kind, family.help);
        (family.read)(state, &mut page);
    }
    write_counters(state, &mut page);
    if format == Format::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

fn full_name(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Counter => format!("ftfw_{name}_total"),
        Kind::Gauge => format!("ftfw_{name}"),
    }
}

// ---- the page ----

type Labels<'a> = &'a [(&'static str, &'a str)];

/// A page that is being written.
struct Page {
    out: String,
    format: Format,
    family: &'static str,
    kind: Kind,
    help: &'static str,
    /// The family's comments are written: it has a sample.
    is_begun: bool,
}

impl Page {
    fn begin(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        (self.family, self.kind, self.help) = (name, kind, help);
        self.is_begun = false;
    }

    /// Writes a sample of the family that was begun last.
    fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        let (name, suffix) = match self.kind {
            Kind::Counter => (self.family, "_total"),
            Kind::Gauge => (self.family, ""),
        };
        if !std::mem::replace(&mut self.is_begun, true) {
            let of_family = match self.format {
                Format::Text => suffix,
                Format::OpenMetrics => "",
            };
            let (out, kind, help) = (&mut self.out, self.kind.name(), self.help);
            let _ = writeln!(out, "# HELP ftfw_{name}{of_family} {help}");
            let _ = writeln!(out, "# TYPE ftfw_{name}{of_family} {kind}");
            if let Some(unit) = unit_of(name)
                && self.format == Format::OpenMetrics
            {
                let _ = writeln!(out, "# UNIT ftfw_{name} {unit}");
            }
        }
        let out = &mut self.out;
        let _ = write!(out, "ftfw_{name}{suffix}");
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(out, "{before}{label}=\"{}\"", Escaped(text));
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }

    /// One sample without labels, if there is a value.
    fn one(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(&[], value);
        }
    }

    /// A sample for each word; that of the state is 1.
    fn states(&mut self, label: &'static str, words: &[&str], is: &str) {
        for word in words {
            self.sample(&[(label, word)], u8::from(*word == is));
        }
    }
}

/// The base unit with which a name ends.
fn unit_of(name: &str) -> Option<&'static str> {
    ["seconds", "bytes"].into_iter().find(|u| name.ends_with(u))
}

/// The text of a label. An interface may have any name without `/` and blanks.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

// ---- counters that are declared in `counters` ----

/// A group of counters and the labels that its owner adds.
struct Group {
    labels: &'static [(&'static str, &'static str)],
    counters: Vec<(&'static Counter, u64)>,
}

fn groups(state: &State) -> Vec<Group> {
    fn group(labels: &'static [(&'static str, &'static str)], counters: &impl Counters) -> Group {
        Group {
            labels,
            counters: counters.each().collect(),
        }
    }
    let status = &state.status;
    let (internal, external) = (&status.internal_expectations, &status.external_expectations);
    let mut groups = vec![
        group(&INTERNAL, &status.internal.counters),
        group(&EXTERNAL, &status.external.counters),
    ];
    groups.extend(
        internal
            .iter()
            .map(|c| group(&INTERNAL_EXPECTED, &c.counters)),
    );
    groups.extend(
        external
            .iter()
            .map(|c| group(&EXTERNAL_EXPECTED, &c.counters)),
    );
    groups.push(group(&[], &status.receive));
    groups.push(group(&[], &status.stats));
    groups.push(group(&[], &status.daemon));
    groups
}

/// The samples of a family stand together, though they are of several groups.
fn write_counters(state: &State, page: &mut Page) {
    let groups = groups(state);
    let all = || {
        groups
            .iter()
            .flat_map(|g| g.counters.iter().map(move |c| (g, c)))
    };
    let mut written: Vec<&str> = Vec::new();
    for (_, (counter, _)) in all() {
        let name = counter.metric.name;
        if written.contains(&name) {
            continue;
        }
        written.push(name);
        page.begin(name, Kind::Counter, help_of(counter));
        for (group, (counter, value)) in all().filter(|(_, (c, _))| c.metric.name == name) {
            let label = counter.metric.label;
            let labels: Vec<_> = group.labels.iter().copied().chain(label).collect();
            page.sample(&labels, value);
        }
    }
}

fn help_of(counter: &'static Counter) -> &'static str {
    let shared = SHARED.iter().find(|(name, _)| *name == counter.metric.name);
    shared.map_or(counter.help, |(_, help)| help)
}

// ---- everything else ----

const INTERNAL: [(&str, &str); 2] = [("cache", "internal"), ("object", "flows")];
const EXTERNAL: [(&str, &str); 2] = [("cache", "external"), ("object", "flows")];
const INTERNAL_EXPECTED: [(&str, &str); 2] = [("cache", "internal"), ("object", "expectations")];
const EXTERNAL_EXPECTED: [(&str, &str); 2] = [("cache", "external"), ("object", "expectations")];

const ROLES: &[&str] = &["unknown", "primary", "backup"];
const INSTANCE_ROLES: &[&str] = &["unknown", "primary", "backup", "fault"];

/// A metric whose value is read from the state.
struct Family {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&State, &mut Page),
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&State, &mut Page),
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels,
        help,
        read,
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&State, &mut Page),
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        labels,
        help,
        read,
    }
}

#[rustfmt::skip]
static FAMILIES: &[Family] = &[
    gauge("build_info", &["version"], "Always 1; the label is the daemon's version.", |s, p| {
        p.sample(&[("version", s.status.version)], 1);
    }),
    gauge("mode_info", &["mode"], "Always 1; the label is the mode: NOTRACK, ALARM, FTFW or statistics.", |s, p| {
        p.sample(&[("mode", s.status.mode)], 1);
    }),
    gauge("uptime_seconds", &[], "Seconds since the start of the daemon.", |s, p| p.one(Some(s.status.uptime))),
    gauge("role", &["role"], "1 for the role that the HA manager's commands gave this replica, 0 for the others.", |s, p| {
        p.states("role", ROLES, s.status.role);
    }),
    gauge("instance_role", &["name", "role"], "1 for the role of this firewall in an instance of the HA manager, 0 for the others.", |s, p| {
        for instance in &s.status.instances {
            for role in INSTANCE_ROLES {
                let labels = [("name", instance.name.as_str()), ("role", role)];
                p.sample(&labels, u8::from(*role == instance.role));
            }
        }
    }),
    gauge("instance_gate_open", &["name"], "1 if the gate of an instance is open, 0 if it is closed.", |s, p| {
        for instance in &s.status.instances {
            if let Some(gate) = instance.gate {
                p.sample(&[("name", &instance.name)], u8::from(gate == "open"));
            }
        }
    }),
    gauge("instance_change_duration_seconds", &["name"], "How long the change to the present role of an instance took.", |s, p| {
        for instance in &s.status.instances {
            if let Some(took) = instance.took {
                p.sample(&[("name", &instance.name)], took);
            }
        }
    }),
    gauge("safe", &[], "1 if nothing would be lost if the primary died now, and somebody would take over.", |s, p| {
        p.one(s.peer_up.map(|_| u8::from(s.status.safe)));
    }),
    gauge("ready", &[], "1 if this firewall may be primary: it is in sync, or is primary already.", |s, p| {
        p.one(s.peer_up.map(|_| u8::from(s.status.ready.is_ready)));
    }),
    gauge("unprotected_flows", &[], "Our flows that the peer does not hold, and has not held for some seconds.", |s, p| p.one(s.status.unprotected)),
    gauge("missing_flows_of_peer", &[], "Flows of the peer that would be lost if it died now.", |s, p| {
        p.one(s.peer_up.and(s.status.ready.lost));
    }),
    gauge("attention", &[], "What somebody must do something about, see `ftfw status`: how many things.", |s, p| p.one(Some(s.status.attention.len()))),
    gauge("cache_enabled", &["cache"], "0 if the cache is switched off.", |s, p| {
        p.sample(&[("cache", "internal")], u8::from(s.status.internal.enabled));
        p.sample(&[("cache", "external")], u8::from(s.status.external.enabled));
    }),
    gauge("cache_entries", &["cache", "object"], "Entries of a cache.", |s, p| {
        let status = &s.status;
        entries(p, &INTERNAL, Some(&status.internal));
        entries(p, &EXTERNAL, Some(&status.external));
        entries(p, &INTERNAL_EXPECTED, status.internal_expectations.as_ref());
        entries(p, &EXTERNAL_EXPECTED, status.external_expectations.as_ref());
    }),
    gauge("cache_flows_max", &[], "Most flows in each cache.", |s, p| p.one(Some(s.cache_limit))),
    gauge("internal_cache_whole", &[], "1 if the internal cache holds what the kernel holds, as far as the daemon knows; 0 from an overrun until its repair.", |s, p| {
        p.one(s.status.internal.enabled.then_some(u8::from(s.is_whole)));
    }),
    gauge("owed_objects", &[], "Objects that the peer has not been sent yet.", |s, p| p.one(Some(s.status.owed))),
    gauge("unacknowledged_objects", &[], "FTFW: objects sent and not acknowledged.", |s, p| p.one(Some(s.status.unacknowledged))),
    gauge("commit_running", &[], "1 while a commit is under way.", |s, p| p.one(Some(u8::from(s.status.committing)))),
    gauge("commit_last_duration_seconds", &[], "How long the last commit took.", |s, p| p.one(s.last_commit)),
    gauge("kernel_flows", &[], "Entries of the kernel's table.", |s, p| p.one(s.status.kernel_flows)),
    gauge("kernel_flows_max", &[], "Most entries of the kernel's table.", |s, p| p.one(s.status.kernel_max)),
    gauge("event_buffer_bytes", &[], "Receive buffer of the event socket.", |s, p| p.one(s.event_buffer)),

    counter("turns", &["over"], "Turns of the loop that took longer than so many seconds: while one lasts, all else waits.", |s, p| {
        for (bound, count) in &s.turns {
            p.sample(&[("over", bound)], count);
        }
    }),
    gauge("turn_longest_seconds", &["clock"], "The longest turn since the start; `cpu`: the most CPU time of one that followed another without a wait.", |s, p| {
        p.sample(&[("clock", "wall")], s.longest_turn);
        p.sample(&[("clock", "cpu")], s.longest_turn_cpu);
    }),
    gauge("peer_up", &[], "1 if the peer is heard; 0 if it is lost or has never been heard.", |s, p| {
        p.one(s.peer_up.map(u8::from));
    }),
    gauge("peer_silence_seconds", &[], "Seconds since the peer's last message.", |s, p| p.one(s.status.peer.silent)),
    gauge("peer_epoch", &[], "The peer's epoch: a number that changes when the peer starts again.", |s, p| p.one(s.status.peer.epoch)),
    gauge("peer_role", &["role"], "1 for the role that the peer reports, 0 for the others.", |s, p| {
        if s.peer_up.is_some() {
            p.states("role", ROLES, s.status.peer.role);
        }
    }),
    gauge("peer_flows_confirmed", &[], "Flows that the peer has announced in its current epoch.", |s, p| {
        p.one(s.peer_up.map(|_| s.status.peer.confirmed));
    }),
    gauge("peer_flows_unconfirmed", &[], "Flows that the peer announced only in an earlier epoch, or only offered.", |s, p| {
        p.one(s.peer_up.map(|_| s.status.peer.unconfirmed));
    }),
    gauge("flows_held_by_peer", &[], "Our flows that the peer reports to hold.", |s, p| p.one(s.status.peer.held)),
    gauge("flows_to_be_held_by_peer", &[], "Our flows that the peer should hold.", |s, p| p.one(s.status.peer.should_hold)),

    gauge("link_usable", &["link"], "1 if the link's interface is up with a carrier, and the link is open.", |s, p| {
        for (link, usable) in links(s).zip(&s.usable) {
            p.sample(&[("link", &link.0)], u8::from(*usable));
        }
    }),
    gauge("link_current", &["link"], "1 for the link that is used for sending.", |s, p| {
        each_link(s, p, |l| u64::from(l.active));
    }),
    gauge("link_tcp_connected", &["link", "direction"], "TCP: 1 if the connection is there on which we send, or receive.", |s, p| {
        for (name, link) in links(s) {
            if let Some(connected) = link.connected {
                p.sample(&[("link", &name), ("direction", "send")], u8::from(connected.client));
                p.sample(&[("link", &name), ("direction", "receive")], u8::from(connected.server));
            }
        }
    }),
    counter("link_sent_bytes", &["link"], "Bytes sent over the link.", |s, p| each_link(s, p, |l| l.bytes.0)),
    counter("link_received_bytes", &["link"], "Bytes received over the link.", |s, p| each_link(s, p, |l| l.bytes.1)),
    counter("link_sent_datagrams", &["link"], "Datagrams sent over the link.", |s, p| each_link(s, p, |l| l.packets.0)),
    counter("link_received_datagrams", &["link"], "Datagrams received over the link.", |s, p| each_link(s, p, |l| l.packets.1)),
    counter("link_send_errors", &["link"], "Sends over the link that failed.", |s, p| each_link(s, p, |l| l.errors.0)),
    counter("link_receive_errors", &["link"], "Receives over the link that failed.", |s, p| each_link(s, p, |l| l.errors.1)),
];

fn entries(page: &mut Page, labels: Labels<'_>, cache: Option<&CacheReport>) {
    if let Some(cache) = cache.filter(|c| c.enabled) {
        page.sample(labels, cache.active);
    }
}

fn each_link(state: &State, page: &mut Page, read: fn(&LinkReport) -> u64) {
    for (name, link) in links(state) {
        page.sample(&[("link", &name)], read(link));
    }
}

/// The links with their names. Two links may have one interface: the second of `eth2` is `eth2#2`.
fn links(state: &State) -> impl Iterator<Item = (String, &LinkReport)> {
    let list = &state.status.links;
    list.iter().enumerate().map(|(n, link)| {
        let before = list[..n].iter().filter(|l| l.device == link.device).count();
        let name = match before {
            0 => link.device.clone(),
            n => format!("{}#{}", link.device, n + 1),
        };
        (name, link)
    })
}

#[cfg(test)]
mod tests;
