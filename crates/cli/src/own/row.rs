//! Rows of a listing in JSON, read back into flows: all that a commit sends of one, but for DCCP's
//! role, of which the kernel refuses none.

use std::net::IpAddr;

use flow::{
    Addrs, DccpInfo, Flow, L4, Labels, Mark, Name, Proto, ProtoInfo, SctpInfo, SeqAdj, SeqAdjPair,
    Status, SynProxy, TcpInfo, TcpState, Tuple, Zone,
};
use serde::Deserialize;

/// What a row has beside the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Cache: seconds since the flow was inserted.
    pub(super) age: Option<u32>,
    /// Internal cache: it is announced to the peer.
    pub(super) announced: Option<bool>,
    /// External cache: the peer has announced it in its current epoch.
    pub(super) confirmed: Option<bool>,
    /// Of what a commit would put into the kernel: the peer has announced it since our kernel
    /// last saw traffic of it.
    pub(super) taken: Option<bool>,
    /// Kernel: bytes of both directions, if it accounts.
    pub(super) bytes: Option<u64>,
}

/// The flow of a row; an error is the text to show.
pub(super) fn read(line: &str) -> Result<(Flow, Notes), String> {
    let row: Row = serde_json::from_str(line).map_err(|e| e.to_string())?;
    row.flow().ok_or_else(|| "addresses of two families".into())
}

#[derive(Deserialize)]
struct Row {
    proto: u8,
    orig: TupleOf,
    reply: TupleOf,
    #[serde(default)]
    zone: u16,
    reply_zone: Option<u16>,
    state_number: Option<u8>,
    #[serde(default)]
    status_bits: u32,
    timeout: Option<u32>,
    mark: Option<u32>,
    helper: Option<String>,
    #[serde(default)]
    labels: Vec<u8>,
    master: Option<TupleOf>,
    age: Option<u32>,
    announced: Option<bool>,
    confirmed: Option<bool>,
    taken: Option<bool>,
    window_scale: Option<(u8, u8)>,
    sctp_vtags: Option<(u32, u32)>,
    seq_adj: Option<(SeqAdjOf, SeqAdjOf)>,
    synproxy: Option<SynProxyOf>,
    counters: Option<Counters>,
    reply_counters: Option<Counters>,
}

#[derive(Deserialize)]
struct TupleOf {
    src: IpAddr,
    dst: IpAddr,
    sport: Option<u16>,
    dport: Option<u16>,
    #[serde(rename = "type")]
    kind: Option<u8>,
    code: Option<u8>,
    icmp_id: Option<u16>,
    srckey: Option<u16>,
    dstkey: Option<u16>,
}

#[derive(Deserialize)]
struct SeqAdjOf {
    position: u32,
    before: i32,
    after: i32,
}

#[derive(Deserialize)]
struct SynProxyOf {
    isn: u32,
    its: u32,
    tsoff: u32,
}

#[derive(Deserialize)]
struct Counters {
    bytes: u64,
}

impl TupleOf {
    fn tuple(&self, proto: Proto) -> Option<Tuple> {
        let addrs = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 { src, dst },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 { src, dst },
            _ => return None,
        };
        let l4 = match (self.sport, self.dport, self.kind, self.srckey, self.dstkey) {
            (Some(src), Some(dst), ..) => L4::Ports { src, dst },
            (_, _, Some(kind), ..) => L4::Icmp {
                id: self.icmp_id.unwrap_or(0),
                kind,
                code: self.code.unwrap_or(0),
            },
            (.., Some(src_key), Some(dst_key)) => L4::Gre { src_key, dst_key },
            _ => L4::None,
        };
        Some(Tuple { addrs, proto, l4 })
    }
}

impl SeqAdjOf {
    fn seq_adj(&self) -> SeqAdj {
        SeqAdj {
            correction_pos: self.position,
            offset_before: self.before.cast_unsigned(),
            offset_after: self.after.cast_unsigned(),
        }
    }
}

impl Row {
    fn flow(&self) -> Option<(Flow, Notes)> {
        let proto = Proto(self.proto);
        let mut flow = Flow::new(self.orig.tuple(proto)?);
        flow.reply = self.reply.tuple(proto)?;
        flow.zone = Zone(self.zone);
        flow.reply_zone = self.reply_zone.map(Zone);
        flow.status = Status(self.status_bits);
        flow.timeout = self.timeout;
        flow.mark = self.mark.map(Mark);
        let helper = self.helper.as_ref();
        flow.helper = helper.and_then(|name| Name::new(name.as_bytes()));
        flow.master = self.master.as_ref().and_then(|m| m.tuple(proto));
        if !self.labels.is_empty() {
            let mut labels = Labels::default();
            for n in self.labels.iter().filter(|n| **n < 128) {
                labels.0[usize::from(n / 32)] |= 1 << (n % 32);
            }
            flow.labels = Some(labels);
        }
        flow.proto_info = self.state_number.and_then(|state| match proto {
            Proto::TCP => Some(ProtoInfo::Tcp(TcpInfo {
                state: TcpState(state),
                window_scale: self.window_scale,
            })),
            Proto::SCTP => {
                let (vtag_orig, vtag_reply) = self.sctp_vtags.unwrap_or_default();
                Some(ProtoInfo::Sctp(SctpInfo {
                    state,
                    vtag_orig,
                    vtag_reply,
                }))
            }
            Proto::DCCP => Some(ProtoInfo::Dccp(DccpInfo { state, role: 0 })),
            _ => None,
        });
        flow.seq_adj = self.seq_adj.as_ref().map(|(orig, reply)| SeqAdjPair {
            orig: orig.seq_adj(),
            reply: reply.seq_adj(),
        });
        flow.synproxy = self.synproxy.as_ref().map(|s| SynProxy {
            isn: s.isn,
            its: s.its,
            tsoff: s.tsoff,
        });
        let bytes = |c: &Option<Counters>| c.as_ref().map(|c| c.bytes);
        let notes = Notes {
            age: self.age,
            announced: self.announced,
            confirmed: self.confirmed,
            taken: self.taken,
            bytes: bytes(&self.counters).map(|b| b + bytes(&self.reply_counters).unwrap_or(0)),
        };
        Some((flow, notes))
    }
}

#[cfg(test)]
mod tests {
    use control::rows::{Beside, FlowRow};

    use super::*;

    fn read_back(flow: &Flow) -> Flow {
        let line = serde_json::to_string(&FlowRow::new(flow, Beside::default())).unwrap();
        read(&line).unwrap().0
    }

    #[test]
    fn a_flow_survives_its_row() {
        let addrs = Addrs::V6 {
            src: "fd00::1".parse().unwrap(),
            dst: "fd00::2".parse().unwrap(),
        };
        let tuple = |proto, l4| Tuple { addrs, proto, l4 };
        let icmp = L4::Icmp {
            id: 7,
            kind: 128,
            code: 0,
        };
        let gre = L4::Gre {
            src_key: 1,
            dst_key: 0,
        };
        for orig in [
            tuple(Proto::TCP, L4::Ports { src: 1, dst: 0 }),
            tuple(Proto::SCTP, L4::Ports { src: 1, dst: 2 }),
            tuple(Proto::ICMPV6, icmp),
            tuple(Proto::GRE, gre),
            tuple(Proto(50), L4::None),
        ] {
            let mut flow = Flow::new(orig);
            flow.zone = Zone(3);
            flow.reply_zone = Some(Zone(4));
            flow.status = Status(0x18e);
            flow.timeout = Some(9);
            flow.mark = Some(Mark(5));
            flow.labels = Some(Labels([1, 0, 0, 1 << 31]));
            flow.helper = Name::new(b"ftp");
            flow.master = Some(orig.inverted());
            flow.proto_info = match orig.proto {
                Proto::TCP => Some(ProtoInfo::Tcp(TcpInfo {
                    state: TcpState::ESTABLISHED,
                    window_scale: Some((7, 8)),
                })),
                Proto::SCTP => Some(ProtoInfo::Sctp(SctpInfo {
                    state: 4,
                    vtag_orig: 5,
                    vtag_reply: 6,
                })),
                _ => None,
            };
            let adj = |n: u32| SeqAdj {
                correction_pos: n,
                offset_before: n.wrapping_neg(),
                offset_after: n + 1,
            };
            flow.seq_adj = Some(SeqAdjPair {
                orig: adj(1),
                reply: adj(5),
            });
            flow.synproxy = Some(SynProxy {
                isn: 1,
                its: 2,
                tsoff: 3,
            });
            assert_eq!(read_back(&flow), flow);
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert!(read("udp 17 src=1").is_err());
        assert!(read("{}").is_err());
        let mixed =
            r#"{"proto":6,"orig":{"src":"::1","dst":"1.1.1.1"},"reply":{"src":"::1","dst":"::1"}}"#;
        assert!(read(mixed).unwrap_err().contains("families"));
    }
}
