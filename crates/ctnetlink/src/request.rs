//! Requests to the kernel: create, update, delete, get, dump.
//!
//! Requests are appended one after the other to one buffer and sent together.
//! Only the last carries `NLM_F_ACK`: a failing one always answers, with its own
//! sequence number, so the answer to the last number ends the batch.

use std::net::IpAddr;

use flow::{Flow, FlowKey, L4, Labels, Mark, Proto, Status, Zone};

use crate::attr::{put, put_be16, put_be32, put_nest, put_text, put_u8};
use crate::conntrack::{
    CTA_FILTER, CTA_HELP, CTA_HELP_NAME, CTA_ID, CTA_LABELS, CTA_LABELS_MASK, CTA_MARK,
    CTA_MARK_MASK, CTA_NAT_DST, CTA_NAT_SRC, CTA_PROTOINFO, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY,
    CTA_SEQADJ_CORRECTION_POS, CTA_SEQADJ_OFFSET_AFTER, CTA_SEQADJ_OFFSET_BEFORE, CTA_STATUS,
    CTA_SYNPROXY, CTA_SYNPROXY_ISN, CTA_SYNPROXY_ITS, CTA_SYNPROXY_TSOFF, CTA_TIMEOUT,
    CTA_TUPLE_MASTER, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, put_proto_info, put_tuple,
    put_zoned_tuple,
};
use crate::header::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, ct, put_request};

pub(crate) const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
pub(crate) const IPCTNL_MSG_CT_GET_STATS_CPU: u16 = 4;
pub(crate) const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
pub(crate) const IPCTNL_MSG_CT_DELETE: u16 = 2;

const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_V4_MAXIP: u16 = 2;
const CTA_NAT_PROTO: u16 = 3;
const CTA_NAT_V6_MINIP: u16 = 4;
const CTA_NAT_V6_MAXIP: u16 = 5;
const CTA_PROTONAT_PORT_MIN: u16 = 1;
const CTA_PROTONAT_PORT_MAX: u16 = 2;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
/// `net/netfilter/nf_internals.h`, `CTA_FILTER_F_CTA_PROTO_NUM`.
const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;

pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// How TCP flows are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// The kernel gets the window scales that are known, and the flag that marks them as valid.
    pub window_scale: bool,
}

/// Addresses of one family, and ports, from which a translation is chosen. The kernel calls
/// an ICMP id and a GRE key a port here, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRange {
    /// First and last address.
    pub addrs: (IpAddr, IpAddr),
    /// First and last port; `None` lets the kernel keep the port if it can.
    pub ports: Option<(u16, u16)>,
}

/// What a dump covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFilter {
    /// The whole table, both families.
    All,
    /// One layer 4 protocol of one family; the kernel filters (`CTA_FILTER`, since 5.8).
    Protocol {
        /// IPv6 rather than IPv4.
        v6: bool,
        /// The protocol.
        proto: Proto,
    },
}

/// Writes requests into a buffer. `ack` asks for an answer also on success.
#[derive(Debug)]
pub struct Request<'a> {
    out: &'a mut Vec<u8>,
    seq: u32,
    ack: bool,
}

impl<'a> Request<'a> {
    /// The next request will be appended to `out` under `seq`.
    pub fn new(out: &'a mut Vec<u8>, seq: u32, ack: bool) -> Request<'a> {
        Request { out, seq, ack }
    }

    pub(crate) fn write(self, kind: u16, flags: u16, family: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let ack = if self.ack { NLM_F_ACK } else { 0 };
        put_request(self.out, kind, flags | ack, self.seq, family, fill);
    }

    /// Create; fails with `EEXIST` if an entry has either tuple.
    ///
    /// The reply tuple is given without translation, and the translation as
    /// `CTA_NAT_SRC` and `CTA_NAT_DST` with exactly one address and port: without
    /// a port the kernel might choose another one.
    pub fn create(self, flow: &Flow, options: TcpOptions) {
        let [source, destination] = translation(flow);
        self.create_in_ranges(flow, source, destination, options);
    }

    /// Create, with a translation that the kernel chooses from ranges; the reply tuple and
    /// translation of `flow` are not looked at.
    pub fn create_in_ranges(
        self,
        flow: &Flow,
        source: Option<NatRange>,
        destination: Option<NatRange>,
        options: TcpOptions,
    ) {
        self.write(
            ct(IPCTNL_MSG_CT_NEW),
            NLM_F_CREATE | NLM_F_EXCL,
            family(&flow.key()),
            |out| {
                let plain = flow.orig.inverted();
                match flow.reply_zone {
                    None => {
                        put_tuple(out, CTA_TUPLE_ORIG, &flow.orig);
                        put_tuple(out, CTA_TUPLE_REPLY, &plain);
                        put_zone(out, flow.zone);
                    }
                    // The kernel knows a zone for one direction, and the default for the other.
                    Some(reply) => {
                        let set = |zone: Zone| (zone != Zone(0)).then_some(zone);
                        put_zoned_tuple(out, CTA_TUPLE_ORIG, &flow.orig, set(flow.zone));
                        put_zoned_tuple(out, CTA_TUPLE_REPLY, &plain, set(reply));
                    }
                }
                if let Some(master) = &flow.master {
                    put_tuple(out, CTA_TUPLE_MASTER, master);
                }
                put_helper(out, flow);
                // The kernel refuses EXPECTED here; it sets the bit itself from the master.
                let status = flow.status.without(Status::EXPECTED);
                put_be32(out, CTA_STATUS, status.with(Status::CONFIRMED).0);
                for (number, range) in [(CTA_NAT_SRC, source), (CTA_NAT_DST, destination)] {
                    if let Some(range) = range {
                        put_nat(out, number, &range);
                    }
                }
                put_state(out, flow, options);
            },
        );
    }

    /// Update; fails with `ENOENT` if there is no such entry. Tuples, translation,
    /// helper and master cannot change. The helper is named all the same: it then takes the next
    /// segment for the begin of a line, wherever that is. Otherwise the one of FTP compares with
    /// what it saw last, before another firewall had the flow, and passes over a command.
    pub fn update(self, flow: &Flow, options: TcpOptions) {
        self.write(ct(IPCTNL_MSG_CT_NEW), 0, family(&flow.key()), |out| {
            put_tuple(out, CTA_TUPLE_ORIG, &flow.orig);
            let fixed = Status::SRC_NAT.with(Status::DST_NAT);
            let status = flow.status.without(fixed).with(Status::CONFIRMED);
            put_be32(out, CTA_STATUS, status.0);
            // The kernel refuses it for a flow that was predicted.
            if flow.master.is_none() {
                put_helper(out, flow);
            }
            put_state(out, flow, options);
            put_zone(out, flow.zone);
        });
    }

    /// Change the bits of the mark that `mask` has; the others stay.
    pub fn set_mark(self, key: &FlowKey, mark: Mark, mask: u32) {
        self.write(ct(IPCTNL_MSG_CT_NEW), 0, family(key), |out| {
            put_tuple(out, CTA_TUPLE_ORIG, &key.orig);
            put_zone(out, key.zone);
            put_be32(out, CTA_MARK, mark.0 & mask);
            put_be32(out, CTA_MARK_MASK, mask);
        });
    }

    /// Set or clear the labels that `mask` has; the others stay.
    pub fn set_labels(self, key: &FlowKey, labels: Labels, mask: Labels) {
        self.write(ct(IPCTNL_MSG_CT_NEW), 0, family(key), |out| {
            put_tuple(out, CTA_TUPLE_ORIG, &key.orig);
            put_zone(out, key.zone);
            put_labels(out, CTA_LABELS, labels);
            put_labels(out, CTA_LABELS_MASK, mask);
        });
    }

    /// Delete the entry; only if it still has this kernel id, when one is given.
    pub fn delete(self, key: &FlowKey, id: Option<u32>) {
        self.write(ct(IPCTNL_MSG_CT_DELETE), 0, family(key), |out| {
            put_tuple(out, CTA_TUPLE_ORIG, &key.orig);
            put_zone(out, key.zone);
            if let Some(id) = id {
                put_be32(out, CTA_ID, id);
            }
        });
    }

    /// Ask for one entry. The kernel looks for the tuple in both directions.
    pub fn get(self, key: &FlowKey) {
        self.write(ct(IPCTNL_MSG_CT_GET), 0, family(key), |out| {
            put_tuple(out, CTA_TUPLE_ORIG, &key.orig);
            put_zone(out, key.zone);
        });
    }

    /// Ask for the counters of the kernel's tables, by CPU.
    pub fn cpu_stats(self) {
        self.write(
            ct(IPCTNL_MSG_CT_GET_STATS_CPU),
            NLM_F_DUMP,
            AF_UNSPEC,
            |_| {},
        );
    }

    /// Ask how many entries the table has and may have.
    pub fn table_stats(self) {
        self.write(ct(IPCTNL_MSG_CT_GET_STATS), 0, AF_UNSPEC, |_| {});
    }

    /// Ask for the entries that `filter` covers.
    pub fn dump(self, filter: DumpFilter) {
        let family = match filter {
            DumpFilter::All => AF_UNSPEC,
            DumpFilter::Protocol { v6: false, .. } => AF_INET,
            DumpFilter::Protocol { v6: true, .. } => AF_INET6,
        };
        self.write(ct(IPCTNL_MSG_CT_GET), NLM_F_DUMP, family, |out| {
            if let DumpFilter::Protocol { proto, .. } = filter {
                put_nest(out, CTA_TUPLE_ORIG, |out| {
                    put_nest(out, CTA_TUPLE_PROTO, |out| {
                        put_u8(out, CTA_PROTO_NUM, proto.0);
                    });
                });
                put_nest(out, CTA_FILTER, |out| {
                    let flags = CTA_FILTER_F_CTA_PROTO_NUM.to_ne_bytes();
                    put(out, CTA_FILTER_ORIG_FLAGS, &flags);
                    put(out, CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
                });
            }
        });
    }
}

fn family(key: &FlowKey) -> u8 {
    if key.orig.addrs.is_v4() {
        AF_INET
    } else {
        AF_INET6
    }
}

fn put_helper(out: &mut Vec<u8>, flow: &Flow) {
    if let Some(helper) = &flow.helper {
        put_nest(out, CTA_HELP, |out| {
            put_text(out, CTA_HELP_NAME, helper.as_bytes());
        });
    }
}

fn put_zone(out: &mut Vec<u8>, zone: Zone) {
    if zone != Zone(0) {
        put_be16(out, CTA_ZONE, zone.0);
    }
}

/// What both a create and an update may set.
fn put_state(out: &mut Vec<u8>, flow: &Flow, options: TcpOptions) {
    if let Some(timeout) = flow.timeout {
        put_be32(out, CTA_TIMEOUT, timeout);
    }
    if let Some(info) = &flow.proto_info {
        put_nest(out, CTA_PROTOINFO, |out| put_proto_info(out, info, options));
    }
    if let Some(mark) = flow.mark {
        put_be32(out, CTA_MARK, mark.0);
    }
    if let Some(labels) = flow.labels {
        put_labels(out, CTA_LABELS, labels);
    }
    if let Some(pair) = &flow.seq_adj {
        for (number, adj) in [
            (CTA_SEQ_ADJ_ORIG, pair.orig),
            (CTA_SEQ_ADJ_REPLY, pair.reply),
        ] {
            put_nest(out, number, |out| {
                put_be32(out, CTA_SEQADJ_CORRECTION_POS, adj.correction_pos);
                put_be32(out, CTA_SEQADJ_OFFSET_BEFORE, adj.offset_before);
                put_be32(out, CTA_SEQADJ_OFFSET_AFTER, adj.offset_after);
            });
        }
    }
    if let Some(s) = &flow.synproxy {
        put_nest(out, CTA_SYNPROXY, |out| {
            put_be32(out, CTA_SYNPROXY_ISN, s.isn);
            put_be32(out, CTA_SYNPROXY_ITS, s.its);
            put_be32(out, CTA_SYNPROXY_TSOFF, s.tsoff);
        });
    }
}

/// The exact translation of source and destination.
fn translation(flow: &Flow) -> [Option<NatRange>; 2] {
    let (to_reply_src, to_reply_dst) = match flow.reply.l4 {
        L4::Ports { src, dst } => (Some(src), Some(dst)),
        L4::Icmp { id, .. } => (None, Some(id)),
        L4::Gre { src_key, dst_key } => (Some(src_key), Some(dst_key)),
        L4::None => (None, None),
    };
    let exactly = |addr: IpAddr, port: Option<u16>| NatRange {
        addrs: (addr, addr),
        ports: port.map(|p| (p, p)),
    };
    let source = exactly(flow.reply.addrs.dst(), to_reply_dst);
    let destination = exactly(flow.reply.addrs.src(), to_reply_src);
    [
        flow.source_translated().then_some(source),
        flow.destination_translated().then_some(destination),
    ]
}

fn put_nat(out: &mut Vec<u8>, number: u16, range: &NatRange) {
    let (first, last) = range.addrs;
    put_nest(out, number, |out| {
        let mut put_addr = |addr, v4, v6| match addr {
            IpAddr::V4(a) => put(out, v4, &a.octets()),
            IpAddr::V6(a) => put(out, v6, &a.octets()),
        };
        put_addr(first, CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP);
        // Without a last one there is but the first.
        if last != first {
            put_addr(last, CTA_NAT_V4_MAXIP, CTA_NAT_V6_MAXIP);
        }
        if let Some((first, last)) = range.ports {
            put_nest(out, CTA_NAT_PROTO, |out| {
                put_be16(out, CTA_PROTONAT_PORT_MIN, first);
                put_be16(out, CTA_PROTONAT_PORT_MAX, last);
            });
        }
    });
}

/// The bitmap is one of machine words, see `decode_labels`.
fn put_labels(out: &mut Vec<u8>, number: u16, labels: Labels) {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(labels.0) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    put(out, number, &bytes);
}
