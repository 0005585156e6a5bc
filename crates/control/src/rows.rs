//! Rows of our own command line's answers as JSON. Their meaning is in docs/json.md.

use std::net::IpAddr;

use counters::{DaemonStats, ReceiveStats, Stats};
use flow::{Direction, Expectation, Flow, L4, ProtoInfo, Tuple};
use serde::Serialize;

use crate::counted;
use crate::query::STATUS_NAMES;
use crate::reply::{CacheReport, LinkReport, PeerReport};

/// One direction.
#[derive(Debug, Serialize)]
pub struct TupleRow {
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(rename = "icmp_id", skip_serializing_if = "Option::is_none")]
    id: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dstkey: Option<u16>,
}

impl From<&Tuple> for TupleRow {
    fn from(t: &Tuple) -> TupleRow {
        let mut row = TupleRow {
            src: t.addrs.src(),
            dst: t.addrs.dst(),
            sport: None,
            dport: None,
            kind: None,
            code: None,
            id: None,
            srckey: None,
            dstkey: None,
        };
        match t.l4 {
            L4::None => {}
            L4::Ports { src, dst } => (row.sport, row.dport) = (Some(src), Some(dst)),
            L4::Icmp { id, kind, code } => {
                (row.id, row.kind, row.code) = (Some(id), Some(kind), Some(code));
            }
            L4::Gre { src_key, dst_key } => {
                (row.srckey, row.dstkey) = (Some(src_key), Some(dst_key));
            }
        }
        row
    }
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CountersRow {
    /// Packets.
    pub packets: u64,
    /// Bytes from the network layer on.
    pub bytes: u64,
}

/// What only a cache, or only the kernel, knows of a flow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Beside {
    /// Cache: seconds since it was inserted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u32>,
    /// ALARM, external cache: seconds until it is dropped unless it is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    /// Internal cache: the flow has been announced to the peer, or is about to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced: Option<bool>,
    /// External cache: the peer has announced it in its current epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
    /// What a commit would put into the kernel: the peer has announced the flow since our
    /// kernel last saw traffic of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
    /// Kernel: what has passed in the original direction, if it accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<CountersRow>,
    /// Kernel: the same of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_counters: Option<CountersRow>,
    /// Kernel: begin in nanoseconds since 1970, if it keeps timestamps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// Kernel: security context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secctx: Option<String>,
}

/// How a firewall stands as the one that takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// `in sync`, `catching up` or `not`.
    pub verdict: &'static str,
    /// It may be primary: it is in sync, or is primary already.
    pub is_ready: bool,
    /// Why.
    pub reason: String,
    /// Flows of the peer that would be lost if it died now; `None` if it does not report them.
    pub lost: Option<u64>,
    /// How many of its flows are held, in percent.
    pub percent: Option<u64>,
    /// Seconds until it is in sync, if that can be told.
    pub seconds_left: Option<u64>,
}

/// What somebody must do something about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// A program that listens to new flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerRow {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub program: String,
    /// In the network namespace of the command.
    #[serde(rename = "here")]
    pub is_here: bool,
}

/// What moves from one firewall to the other as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceRow {
    /// Its name.
    pub name: String,
    /// `unknown`, `primary`, `backup` or `fault`.
    pub role: &'static str,
    /// Seconds since then.
    pub since: u64,
    /// Seconds that the change to that role took; `None` before its end.
    pub took: Option<f64>,
    /// `open`, `closed`, or `failed`: it is to be closed, and the kernel has not taken that.
    /// `None` without `Gate` in the configuration.
    pub gate: Option<&'static str>,
}

/// A flow.
#[derive(Debug, Serialize)]
pub struct FlowRow {
    proto: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    orig: TupleRow,
    reply: TupleRow,
    #[serde(skip_serializing_if = "is_default_zone")]
    zone: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_zone: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_number: Option<u8>,
    status: Vec<&'static str>,
    status_bits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<TupleRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_scale: Option<(u8, u8)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sctp_vtags: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq_adj: Option<(SeqAdjRow, SeqAdjRow)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synproxy: Option<SynProxyRow>,
    #[serde(flatten)]
    beside: Beside,
}

#[derive(Debug, Serialize)]
struct SeqAdjRow {
    position: u32,
    before: i32,
    after: i32,
}

impl From<flow::SeqAdj> for SeqAdjRow {
    fn from(s: flow::SeqAdj) -> SeqAdjRow {
        SeqAdjRow {
            position: s.correction_pos,
            before: s.offset_before.cast_signed(),
            after: s.offset_after.cast_signed(),
        }
    }
}

#[derive(Debug, Serialize)]
struct SynProxyRow {
    isn: u32,
    its: u32,
    tsoff: u32,
}

fn is_default_zone(zone: &u16) -> bool {
    *zone == 0
}

impl FlowRow {
    /// The row of a flow.
    pub fn new(f: &Flow, beside: Beside) -> FlowRow {
        let names = STATUS_NAMES
            .iter()
            .filter(|(_, bit)| f.status.contains(*bit));
        let labels = f.labels.unwrap_or_default();
        let is_set = |n: &u8| labels.0[usize::from(*n / 32)] >> (n % 32) & 1 == 1;
        FlowRow {
            proto: f.orig.proto.0,
            protocol: f.orig.proto.name(),
            orig: (&f.orig).into(),
            reply: (&f.reply).into(),
            zone: f.zone.0,
            reply_zone: f.reply_zone.map(|z| z.0),
            state: f.proto_info.and_then(|p| p.state_name()),
            state_number: f.proto_info.map(|p| p.state_number()),
            status: names.map(|(name, _)| *name).collect(),
            status_bits: f.status.0,
            timeout: f.timeout,
            mark: f.mark.map(|m| m.0),
            id: f.id,
            helper: f.helper.map(|h| h.to_string()),
            labels: (0..128).filter(is_set).collect(),
            master: f.master.as_ref().map(TupleRow::from),
            window_scale: f.tcp().and_then(|t| t.window_scale),
            sctp_vtags: match f.proto_info {
                Some(ProtoInfo::Sctp(s)) => Some((s.vtag_orig, s.vtag_reply)),
                _ => None,
            },
            seq_adj: f.seq_adj.map(|s| (s.orig.into(), s.reply.into())),
            synproxy: f.synproxy.map(|s| SynProxyRow {
                isn: s.isn,
                its: s.its,
                tsoff: s.tsoff,
            }),
            beside,
        }
    }
}

/// An expectation.
#[derive(Debug, Serialize)]
pub struct ExpectationRow {
    proto: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    expected: TupleRow,
    mask: TupleRow,
    master: TupleRow,
    #[serde(skip_serializing_if = "is_default_zone")]
    zone: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u32>,
    flags: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<TupleRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(flatten)]
    beside: Beside,
}

impl ExpectationRow {
    /// The row of an expectation.
    pub fn new(e: &Expectation, beside: Beside) -> ExpectationRow {
        ExpectationRow {
            proto: e.tuple.proto.0,
            protocol: e.tuple.proto.name(),
            expected: (&e.tuple).into(),
            mask: (&e.mask).into(),
            master: (&e.master).into(),
            zone: e.zone.0,
            timeout: e.timeout,
            flags: e.flags,
            class: e.class,
            helper: e.helper.map(|n| n.to_string()),
            function: e.function.map(|n| n.to_string()),
            saved: e.nat.map(|n| (&n.tuple).into()),
            saved_direction: e.nat.map(|n| match n.dir {
                Direction::Original => "original",
                Direction::Reply => "reply",
            }),
            id: e.id,
            beside,
        }
    }
}

/// An event of the kernel.
#[derive(Debug, Serialize)]
pub struct EventRow {
    /// `new`, `update` or `destroy`.
    pub event: &'static str,
    /// Who caused it: `traffic`, `commit` or `inject`.
    pub origin: &'static str,
    /// The flow, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowRow>,
    /// The expectation, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expectation: Option<ExpectationRow>,
}

/// Events that a client was too slow to read.
#[derive(Debug, Serialize)]
pub struct LostRow {
    /// How many.
    pub lost: u64,
}

/// The state of the daemon.
#[derive(Debug, Default, Serialize)]
pub struct StatusRow {
    /// Version of the daemon.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// `NOTRACK`, `ALARM` or `FTFW`.
    pub mode: &'static str,
    /// The role that the HA manager's commands gave this replica.
    pub role: &'static str,
    /// If the primary died now nothing would be lost, and somebody would take over.
    pub safe: bool,
    /// How this firewall stands as the one that takes over.
    pub ready: Readiness,
    /// Our flows that the peer does not hold, and has not held for some seconds. `None` if it
    /// does not report that.
    pub unprotected: Option<u64>,
    /// What somebody must do something about.
    pub attention: Vec<Attention>,
    /// The instances of the HA manager that are known, and our role in each.
    pub instances: Vec<InstanceRow>,
    /// Objects that the peer has not been sent yet.
    pub owed: u64,
    /// FT-FW: objects sent and not acknowledged.
    pub unacknowledged: u64,
    /// Datagrams that a link has not taken yet.
    pub unsent: u64,
    /// Bytes of events that wait in the kernel, and how many may. `None` if no events are heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_buffer: Option<(u32, u32)>,
    /// A commit is under way.
    pub committing: bool,
    /// Entries of the kernel's table, and how many there may be.
    pub kernel_flows: Option<u64>,
    /// See `kernel_flows`.
    pub kernel_max: Option<u64>,
    /// Flows of our kernel.
    pub internal: CacheReport,
    /// Flows of the peer.
    pub external: CacheReport,
    /// Expectations of our kernel, if they are replicated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_expectations: Option<CacheReport>,
    /// Expectations of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_expectations: Option<CacheReport>,
    /// The peer.
    pub peer: PeerReport,
    /// Links in file order.
    pub links: Vec<LinkReport>,
    /// Other programs that listen to new flows. The command adds them: to look for them takes
    /// longer than the daemon may pause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerRow>,
    /// What has been received.
    #[serde(flatten, serialize_with = "counted::of_status")]
    pub receive: ReceiveStats,
    /// Counters of the replica.
    #[serde(flatten, serialize_with = "counted::of_status")]
    pub stats: Stats,
    /// Counters of the daemon.
    #[serde(flatten, serialize_with = "counted::of_status")]
    pub daemon: DaemonStats,
}
