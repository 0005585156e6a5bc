//! State messages about flows (types 0 to 2): [`Flow`] ↔ attributes.
//!
//! The format carries no reply tuple. Translated addresses and ports stand for
//! it, so the decoder rebuilds the reply tuple from them, and the encoder
//! compares the two tuples as the original does.
//!
//! | No     | Name                 | Payload                                            |
//! |-------:|----------------------|----------------------------------------------------|
//! | 0, 1   | IPV4, IPV6           | original source and destination                    |
//! | 2      | L4PROTO              | u8                                                 |
//! | 3      | PORT                 | original ports; TCP, UDP, SCTP, DCCP only          |
//! | 4      | TCP_STATE            | u8                                                 |
//! | 5      | STATUS               | u32                                                |
//! | 6      | TIMEOUT              | u32 seconds                                        |
//! | 7      | MARK                 | u32                                                |
//! | 8..11  | MASTER_*             | the master's original tuple                        |
//! | 12, 13 | SNAT_IPV4, DNAT_IPV4 | reply destination, reply source                    |
//! | 14, 15 | SPAT_PORT, DPAT_PORT | **little-endian** u16: reply destination, source   |
//! | 16     | NAT_SEQ_ADJ          | 6 u32: position, before, after; original and reply |
//! | 17..19 | SCTP_*               | state u8, tags u32                                 |
//! | 20, 21 | DCCP_*               | state u8, role u8                                  |
//! | 22..24 | ICMP_*               | type u8, code u8, id **little-endian** u16         |
//! | 25, 26 | TCP_WSCALE_*         | u8                                                 |
//! | 27     | HELPER_NAME          | NUL-terminated                                     |
//! | 28     | LABELS               | u32 words; all 0 if the last label has been cleared |
//! | 29, 30 | SNAT_IPV6, DNAT_IPV6 | as 12 and 13                                       |
//! | 31     | SYNPROXY             | u32 its, isn, tsoff                                |
//! | 32     | ZONE                 | u16                                                |
//!
//! Source: wire protocol specification, section 4.1.

use std::net::IpAddr;

use flow::{
    DccpInfo, Flow, L4, Labels, Mark, Proto, ProtoInfo, SctpInfo, SeqAdj, SeqAdjPair, Status,
    SynProxy, TcpInfo, TcpState, Tuple, Zone,
};
use thiserror::Error;

use super::attr::{
    Attrs, PayloadError, TupleParts, put_addrs, put_name, put_ports, put_swapped_u16, put_u8,
    put_u16, put_u32, put_u32s,
};
use super::header::{Flags, MessageType, finish, start};
use super::{Decoded, attr};
use crate::{ObjectKind, Seq, StateKind};

/// Longest helper name with its NUL that is accepted: the kernel's `NF_CT_HELPER_NAME_LEN`.
/// The original accepts 12 and rejects the message beyond, so no more are sent to it.
const HELPER_NAME_MAX: usize = 16;
const HELPER_NAME_MAX_SENT: usize = 12;
/// `LABELS` payload limit in bytes.
const LABELS_MAX: usize = 1024;

/// Optional attributes of a flow message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowOptions {
    /// Send the timeout; off if the sender has a `CommitTimeout`.
    pub timeout: bool,
    /// Send TCP window scales; on with `TCPWindowTracking`.
    pub window_scale: bool,
}

/// Why version 1 cannot carry a flow: the message would be wrong about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotCarried {
    /// GRE keys have no attribute: all flows of two hosts would become one.
    #[error("GRE keys")]
    GreKeys,
    /// The protocol has ports that no attribute may carry (UDPLITE).
    #[error("ports of protocol {}", .0.0)]
    Ports(Proto),
    /// A translated ICMP id has no attribute.
    #[error("translated ICMP id")]
    IcmpId,
    /// Only a zone for both directions has an attribute.
    #[error("a zone per direction")]
    DirectionZone,
    /// A saved IPv6 address of an expectation has no attribute.
    #[error("saved IPv6 address of an expectation")]
    ExpectNat6,
    /// An expectation has no attribute for its zone.
    #[error("zone of an expectation")]
    ExpectZone,
}

pub(super) fn sends_ports(proto: Proto) -> bool {
    matches!(proto, Proto::TCP | Proto::UDP | Proto::SCTP | Proto::DCCP)
}

/// Checks whether version 1 can carry a flow.
///
/// # Errors
/// The reason why it cannot; such a flow must not be replicated at all.
pub fn check_carried(flow: &Flow) -> Result<(), NotCarried> {
    let proto = flow.orig.proto;
    if flow.reply_zone.is_some() {
        return Err(NotCarried::DirectionZone);
    }
    match (flow.orig.l4, flow.reply.l4) {
        (L4::Gre { src_key, dst_key }, _) if (src_key, dst_key) != (0, 0) => {
            Err(NotCarried::GreKeys)
        }
        (L4::Ports { .. }, _) if !sends_ports(proto) => Err(NotCarried::Ports(proto)),
        (L4::Icmp { id, .. }, L4::Icmp { id: reply_id, .. }) if id != reply_id => {
            Err(NotCarried::IcmpId)
        }
        _ => Ok(()),
    }
}

/// Appends a state message about a flow, at most 400 bytes.
///
/// Attributes stand in the original's order. The flow should have passed
/// [`check_carried`]; fields that have no attribute are left out.
pub fn encode_flow(
    out: &mut Vec<u8>,
    kind: StateKind,
    flags: Flags,
    seq: Seq,
    flow: &Flow,
    options: FlowOptions,
) {
    let at = start(out, MessageType::State(ObjectKind::Flow, kind), flags, seq);
    put_addrs(out, 0, 1, &flow.orig.addrs);
    put_u32(out, 5, flow.status.0);
    put_u8(out, 2, flow.orig.proto.0);
    match flow.orig.l4 {
        L4::Ports { src, dst } if sends_ports(flow.orig.proto) => put_ports(out, 3, (src, dst)),
        L4::Icmp { id, kind, code } => {
            put_u8(out, 22, kind);
            put_u8(out, 23, code);
            put_swapped_u16(out, 24, id);
        }
        _ => {}
    }
    match flow.proto_info {
        Some(ProtoInfo::Tcp(tcp)) => {
            put_u8(out, 4, tcp.state.0);
            if let Some((orig, reply)) = tcp.window_scale.filter(|_| options.window_scale) {
                put_u8(out, 25, orig);
                put_u8(out, 26, reply);
            }
        }
        Some(ProtoInfo::Sctp(sctp)) => {
            put_u8(out, 17, sctp.state);
            put_u32(out, 18, sctp.vtag_orig);
            put_u32(out, 19, sctp.vtag_reply);
        }
        Some(ProtoInfo::Dccp(dccp)) => {
            put_u8(out, 20, dccp.state);
            put_u8(out, 21, dccp.role);
        }
        None => {}
    }
    if let Some(timeout) = flow.timeout.filter(|_| options.timeout) {
        put_u32(out, 6, timeout);
    }
    if let Some(Mark(mark)) = flow.mark {
        put_u32(out, 7, mark);
    }
    if let Some(master) = &flow.master {
        put_addrs(out, 8, 9, &master.addrs);
        put_u8(out, 10, master.proto.0);
        if let L4::Ports { src, dst } = master.l4 {
            put_ports(out, 11, (src, dst));
        }
    }
    put_translation(out, flow);
    if let Some(SeqAdjPair { orig: o, reply: r }) = flow.seq_adj {
        let words = [
            o.correction_pos,
            o.offset_before,
            o.offset_after,
            r.correction_pos,
            r.offset_before,
            r.offset_after,
        ];
        put_u32s(out, 16, &words);
    }
    if let Some(helper) = &flow.helper {
        put_name(out, 27, helper, HELPER_NAME_MAX_SENT);
    }
    // Also if no label is set: they may have been cleared. The original never sends that.
    if let Some(labels) = flow.labels {
        put_u32s(out, 28, &labels.0);
    }
    if let Some(s) = flow.synproxy {
        put_u32s(out, 31, &[s.its, s.isn, s.tsoff]);
    }
    if flow.zone != Zone(0) {
        put_u16(out, 32, flow.zone.0);
    }
    finish(out, at);
}

/// SNAT, DNAT, SPAT and DPAT: the differences between the reply tuple and the inverted original.
fn put_translation(out: &mut Vec<u8>, flow: &Flow) {
    let source = flow.status.contains(Status::SRC_NAT_DONE);
    let destination = flow.status.contains(Status::DST_NAT_DONE);
    let (orig, reply) = (&flow.orig, &flow.reply);
    if source && reply.addrs.dst() != orig.addrs.src() {
        put_addr(out, 12, 29, reply.addrs.dst());
    }
    if destination && reply.addrs.src() != orig.addrs.dst() {
        put_addr(out, 13, 30, reply.addrs.src());
    }
    match (orig.l4, reply.l4) {
        (
            L4::Ports { src, dst },
            L4::Ports {
                src: rsrc,
                dst: rdst,
            },
        ) => {
            if source && rdst != src {
                put_swapped_u16(out, 14, rdst);
            }
            if destination && rsrc != dst {
                put_swapped_u16(out, 15, rsrc);
            }
        }
        // Without meaning, but the original sends both once NAT is loaded.
        (L4::Icmp { .. }, _) => {
            if source {
                put_swapped_u16(out, 14, 0);
            }
            if destination {
                put_swapped_u16(out, 15, 0);
            }
        }
        _ => {}
    }
}

fn put_addr(out: &mut Vec<u8>, number_v4: u16, number_v6: u16, addr: IpAddr) {
    match addr {
        IpAddr::V4(a) => attr::put(out, number_v4, &a.octets()),
        IpAddr::V6(a) => attr::put(out, number_v6, &a.octets()),
    }
}

/// The attributes of a flow message, before the flow is put together.
#[derive(Default)]
struct Parts {
    tuple: TupleParts,
    master: TupleParts,
    status: u32,
    timeout: Option<u32>,
    mark: Option<u32>,
    tcp_state: Option<u8>,
    window_scale: (Option<u8>, Option<u8>),
    sctp_state: Option<u8>,
    sctp_vtags: (u32, u32),
    dccp_state: Option<u8>,
    dccp_role: u8,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    seq_adj: Option<SeqAdjPair>,
    helper: Option<flow::Name>,
    labels: Option<Labels>,
    synproxy: Option<SynProxy>,
    zone: u16,
}

/// Decodes the attributes of a flow message (the body after the header).
///
/// Labels beyond the kernel's 128 are dropped. Translated ports of protocols
/// without ports mean nothing and are ignored.
///
/// # Errors
/// What is wrong; the message must then be counted as a malformed payload.
pub fn decode_flow(body: &[u8]) -> Result<Decoded<Flow>, PayloadError> {
    let mut p = Parts::default();
    let mut unknown_attrs = 0;
    let mut attrs = Attrs::new(body);
    while let Some(a) = attrs.next()? {
        match a.number {
            0 => p.tuple.addrs = Some(a.v4_pair()?),
            1 => p.tuple.addrs = Some(a.v6_pair()?),
            2 => p.tuple.proto = Some(a.u8()?),
            3 => p.tuple.ports = Some(a.ports()?),
            4 => p.tcp_state = Some(a.u8()?),
            5 => p.status = a.u32()?,
            6 => p.timeout = Some(a.u32()?),
            7 => p.mark = Some(a.u32()?),
            8 => p.master.addrs = Some(a.v4_pair()?),
            9 => p.master.addrs = Some(a.v6_pair()?),
            10 => p.master.proto = Some(a.u8()?),
            11 => p.master.ports = Some(a.ports()?),
            12 => p.source = Some(a.v4()?.into()),
            13 => p.destination = Some(a.v4()?.into()),
            14 => p.source_port = Some(a.swapped_u16()?),
            15 => p.destination_port = Some(a.swapped_u16()?),
            16 => {
                let w = a.u32s::<6>()?;
                let one = |at: usize| SeqAdj {
                    correction_pos: w[at],
                    offset_before: w[at + 1],
                    offset_after: w[at + 2],
                };
                p.seq_adj = Some(SeqAdjPair {
                    orig: one(0),
                    reply: one(3),
                });
            }
            17 => p.sctp_state = Some(a.u8()?),
            18 => p.sctp_vtags.0 = a.u32()?,
            19 => p.sctp_vtags.1 = a.u32()?,
            20 => p.dccp_state = Some(a.u8()?),
            21 => p.dccp_role = a.u8()?,
            22 => p.tuple.icmp_kind = Some(a.u8()?),
            23 => p.tuple.icmp_code = Some(a.u8()?),
            24 => p.tuple.icmp_id = Some(a.swapped_u16()?),
            25 => p.window_scale.0 = Some(a.u8()?),
            26 => p.window_scale.1 = Some(a.u8()?),
            27 => p.helper = Some(a.name(HELPER_NAME_MAX)?),
            28 => {
                if a.payload.len() > LABELS_MAX {
                    return Err(a.bad_size());
                }
                p.labels = decode_labels(a.payload).or(p.labels);
            }
            29 => p.source = Some(a.v6()?.into()),
            30 => p.destination = Some(a.v6()?.into()),
            31 => {
                let [its, isn, tsoff] = a.u32s::<3>()?;
                p.synproxy = Some(SynProxy { isn, its, tsoff });
            }
            32 => p.zone = a.u16()?,
            _ => unknown_attrs += 1,
        }
    }
    Ok(Decoded {
        object: p.build()?,
        unknown_attrs,
    })
}

/// The kernel's 128 labels; `None` if the length is not a multiple of 4 or zero.
fn decode_labels(payload: &[u8]) -> Option<Labels> {
    if payload.is_empty() || !payload.len().is_multiple_of(4) {
        return None;
    }
    let mut labels = Labels::default();
    for (word, bytes) in labels.0.iter_mut().zip(payload.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().expect("chunks of 4"));
    }
    Some(labels)
}

impl Parts {
    fn build(self) -> Result<Flow, PayloadError> {
        let orig = self.tuple.build()?;
        let mut flow = Flow::new(orig);
        flow.reply = self.reply(&orig)?;
        flow.status = Status(self.status);
        flow.timeout = self.timeout;
        flow.mark = self.mark.map(Mark);
        flow.zone = Zone(self.zone);
        flow.seq_adj = self.seq_adj;
        flow.helper = self.helper;
        flow.labels = self.labels;
        flow.synproxy = self.synproxy;
        if self.master.addrs.is_some() {
            flow.master = Some(self.master.build_lenient()?);
        }
        flow.proto_info = match orig.proto {
            Proto::TCP => self.tcp_state.map(|state| {
                ProtoInfo::Tcp(TcpInfo {
                    state: TcpState(state),
                    window_scale: self.window_scale.0.zip(self.window_scale.1),
                })
            }),
            Proto::SCTP => self.sctp_state.map(|state| {
                ProtoInfo::Sctp(SctpInfo {
                    state,
                    vtag_orig: self.sctp_vtags.0,
                    vtag_reply: self.sctp_vtags.1,
                })
            }),
            Proto::DCCP => self.dccp_state.map(|state| {
                ProtoInfo::Dccp(DccpInfo {
                    state,
                    role: self.dccp_role,
                })
            }),
            _ => None,
        };
        Ok(flow)
    }

    fn reply(&self, orig: &Tuple) -> Result<Tuple, PayloadError> {
        let mut reply = orig.inverted();
        if let Some(addr) = self.source {
            reply.addrs = reply
                .addrs
                .with_dst(addr)
                .ok_or(PayloadError::TwoFamilies)?;
        }
        if let Some(addr) = self.destination {
            reply.addrs = reply
                .addrs
                .with_src(addr)
                .ok_or(PayloadError::TwoFamilies)?;
        }
        if let L4::Ports { src, dst } = reply.l4 {
            reply.l4 = L4::Ports {
                src: self.destination_port.unwrap_or(src),
                dst: self.source_port.unwrap_or(dst),
            };
        }
        Ok(reply)
    }
}
