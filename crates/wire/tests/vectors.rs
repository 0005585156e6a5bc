//! Goal: read and write the real bytes of conntrackd 1.4.7.
//! Method: every captured datagram is compared with what an independent decoder
//! annotated, and is encoded again from that annotation to the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{
    Addrs, DccpInfo, Direction, ExpectNat, Expectation, Flow, L4, Labels, Mark, Name, Proto,
    ProtoInfo, SctpInfo, SeqAdj, SeqAdjPair, Status, SynProxy, TcpInfo, TcpState, Tuple, Zone,
};
use serde_json::Value;
use wire::v1::{
    Control, Flags, FlowOptions, MessageType, Stream, decode_expectation, decode_flow,
    encode_control, encode_expectation, encode_flow, messages,
};
use wire::{ObjectKind, Seq, StateKind};

const OPTIONS: FlowOptions = FlowOptions {
    timeout: true,
    window_scale: true,
};

struct Vector {
    name: String,
    bytes: Vec<u8>,
    messages: Vec<Value>,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../testdata/vectors.jsonl");
    let list: Vec<Vector> = text
        .lines()
        .map(|line| {
            let v: Value = serde_json::from_str(line).unwrap();
            Vector {
                name: format!("{} frame {}", v["scenario"], v["frame"]),
                bytes: unhex(v["hex"].as_str().unwrap()),
                messages: v["messages"].as_array().unwrap().clone(),
            }
        })
        .collect();
    assert_eq!(list.len(), 1679, "the vector file is complete");
    list
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn num(v: &Value) -> u32 {
    u32::try_from(v.as_u64().unwrap()).unwrap()
}

fn flags(m: &Value) -> Flags {
    let mut flags = Flags::NONE;
    for f in m["flags"].as_array().unwrap() {
        flags = flags.with(match f.as_str().unwrap() {
            "RESYNC" => Flags::RESYNC,
            "NACK" => Flags::NACK,
            "ACK" => Flags::ACK,
            "ALIVE" => Flags::ALIVE,
            "HELLO" => Flags::HELLO,
            "HELLO_BACK" => Flags::HELLO_BACK,
            other => panic!("flag {other}"),
        });
    }
    flags
}

fn kind(m: &Value) -> MessageType {
    let (object, state) = match m["type"].as_str().unwrap() {
        "CTL" => return MessageType::Control,
        "CT_NEW" => (ObjectKind::Flow, StateKind::New),
        "CT_UPD" => (ObjectKind::Flow, StateKind::Update),
        "CT_DEL" => (ObjectKind::Flow, StateKind::Delete),
        "EXP_NEW" => (ObjectKind::Expectation, StateKind::New),
        "EXP_UPD" => (ObjectKind::Expectation, StateKind::Update),
        "EXP_DEL" => (ObjectKind::Expectation, StateKind::Delete),
        other => panic!("type {other}"),
    };
    MessageType::State(object, state)
}

/// The annotation's attributes by name.
struct Annotated<'a>(&'a Value);

impl Annotated<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        let all = self.0["attrs"].as_array().unwrap();
        let found = all.iter().find(|a| a["name"] == name)?;
        Some(&found["value"])
    }

    fn num(&self, name: &str) -> Option<u32> {
        self.get(name).map(num)
    }

    fn u16(&self, name: &str) -> Option<u16> {
        self.num(name).map(|n| u16::try_from(n).unwrap())
    }

    fn u8(&self, name: &str) -> Option<u8> {
        self.num(name).map(|n| u8::try_from(n).unwrap())
    }

    fn ip(&self, name: &str) -> Option<IpAddr> {
        let v4 = self.get(&format!("{name}_IPV4"));
        let v6 = self.get(&format!("{name}_IPV6"));
        v4.or(v6).map(|v| v.as_str().unwrap().parse().unwrap())
    }

    fn name(&self, name: &str) -> Option<Name> {
        let text = self.get(name)?.as_str().unwrap();
        Some(Name::new(text.as_bytes()).unwrap())
    }

    /// The tuple whose attributes start with `prefix`, e.g. `MASTER_`.
    fn tuple(&self, prefix: &str) -> Option<Tuple> {
        let addrs = if let Some(v) = self.get(&format!("{prefix}IPV4")) {
            let ip = |k: &str| v[k].as_str().unwrap().parse::<Ipv4Addr>().unwrap();
            Addrs::V4 {
                src: ip("src"),
                dst: ip("dst"),
            }
        } else {
            let v = self.get(&format!("{prefix}IPV6"))?;
            let ip = |k: &str| v[k].as_str().unwrap().parse::<Ipv6Addr>().unwrap();
            Addrs::V6 {
                src: ip("src"),
                dst: ip("dst"),
            }
        };
        let proto = Proto(self.u8(&format!("{prefix}L4PROTO")).unwrap());
        let l4 = if let Some(v) = self.get(&format!("{prefix}PORT")) {
            let port = |k: &str| u16::try_from(num(&v[k])).unwrap();
            L4::Ports {
                src: port("sport"),
                dst: port("dport"),
            }
        } else if let Some(kind) = self.u8("ICMP_TYPE") {
            L4::Icmp {
                id: self.u16("ICMP_ID").unwrap(),
                kind,
                code: self.u8("ICMP_CODE").unwrap(),
            }
        } else if proto == Proto::GRE {
            L4::Gre {
                src_key: 0,
                dst_key: 0,
            }
        } else {
            L4::None
        };
        Some(Tuple { addrs, proto, l4 })
    }

    fn flow(&self) -> Flow {
        let mut flow = Flow::new(self.tuple("").unwrap());
        let reply = &mut flow.reply;
        if let Some(ip) = self.ip("SNAT") {
            reply.addrs = reply.addrs.with_dst(ip).unwrap();
        }
        if let Some(ip) = self.ip("DNAT") {
            reply.addrs = reply.addrs.with_src(ip).unwrap();
        }
        if let L4::Ports { src, dst } = &mut reply.l4 {
            *dst = self.u16("SPAT_PORT").unwrap_or(*dst);
            *src = self.u16("DPAT_PORT").unwrap_or(*src);
        }
        flow.status = Status(num(&self.get("STATUS").unwrap()["value"]));
        flow.timeout = self.num("TIMEOUT");
        flow.mark = self.num("MARK").map(Mark);
        flow.zone = Zone(self.u16("ZONE").unwrap_or(0));
        flow.helper = self.name("HELPER_NAME");
        flow.master = self.tuple("MASTER_");
        if let Some(v) = self.get("TCP_STATE") {
            flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
                state: TcpState(u8::try_from(num(&v["value"])).unwrap()),
                window_scale: self.u8("TCP_WSCALE_ORIG").zip(self.u8("TCP_WSCALE_REPL")),
            }));
        }
        if let Some(state) = self.u8("SCTP_STATE") {
            flow.proto_info = Some(ProtoInfo::Sctp(SctpInfo {
                state,
                vtag_orig: self.num("SCTP_VTAG_ORIG").unwrap(),
                vtag_reply: self.num("SCTP_VTAG_REPL").unwrap(),
            }));
        }
        if let Some(state) = self.u8("DCCP_STATE") {
            flow.proto_info = Some(ProtoInfo::Dccp(DccpInfo {
                state,
                role: self.u8("DCCP_ROLE").unwrap(),
            }));
        }
        if let Some(v) = self.get("NAT_SEQ_ADJ") {
            let one = |dir: &str| SeqAdj {
                correction_pos: num(&v[dir]["correction_pos"]),
                offset_before: num(&v[dir]["offset_before"]),
                offset_after: num(&v[dir]["offset_after"]),
            };
            flow.seq_adj = Some(SeqAdjPair {
                orig: one("orig"),
                reply: one("reply"),
            });
        }
        if let Some(v) = self.get("LABELS") {
            assert_eq!(v["words"], 4);
            let mut labels = Labels::default();
            for bit in v["bits"].as_array().unwrap().iter().map(num) {
                labels.0[bit as usize / 32] |= 1 << (bit % 32);
            }
            flow.labels = Some(labels);
        }
        flow.synproxy = self.get("SYNPROXY").map(|v| SynProxy {
            isn: num(&v["isn"]),
            its: num(&v["its"]),
            tsoff: num(&v["tsoff"]),
        });
        flow
    }

    fn expectation(&self) -> Expectation {
        Expectation {
            master: self.tuple("MASTER_").unwrap(),
            tuple: self.tuple("EXPECT_").unwrap(),
            mask: self.tuple("MASK_").unwrap(),
            zone: Zone(0),
            timeout: self.num("TIMEOUT"),
            flags: self.num("FLAGS").unwrap(),
            class: self.num("CLASS"),
            nat: self.tuple("NAT_").map(|tuple| ExpectNat {
                tuple,
                dir: match self.num("NAT_DIR").unwrap() {
                    0 => Direction::Original,
                    _ => Direction::Reply,
                },
            }),
            helper: self.name("HELPER_NAME"),
            function: self.name("FN"),
            id: None,
        }
    }
}

#[test]
fn every_vector_decodes_to_its_annotation() {
    let mut count = 0;
    for v in vectors() {
        let decoded: Vec<_> = messages(&v.bytes).map(Result::unwrap).collect();
        assert_eq!(decoded.len(), v.messages.len(), "{}", v.name);
        for (got, want) in decoded.iter().zip(&v.messages) {
            assert_eq!(got.header.seq, Seq(num(&want["seq"])), "{}", v.name);
            assert_eq!(got.header.flags, flags(want), "{}", v.name);
            assert_eq!(got.header.kind, kind(want), "{}", v.name);
            match got.header.kind {
                MessageType::State(ObjectKind::Flow, _) => {
                    let d = decode_flow(got.body).unwrap();
                    assert_eq!(d.object, Annotated(want).flow(), "{}", v.name);
                    assert_eq!(d.unknown_attrs, 0);
                }
                MessageType::State(ObjectKind::Expectation, _) => {
                    let d = decode_expectation(got.body).unwrap();
                    assert_eq!(d.object, Annotated(want).expectation(), "{}", v.name);
                    assert_eq!(d.unknown_attrs, 0);
                }
                _ => {
                    let range = got.header.range.map(|(a, b)| (a.0, b.0));
                    let from = want.get("from").map(num);
                    assert_eq!(range, from.zip(want.get("to").map(num)), "{}", v.name);
                }
            }
            count += 1;
        }
    }
    assert_eq!(count, 2379);
}

#[test]
fn every_annotation_encodes_to_the_captured_bytes() {
    for v in vectors() {
        let mut out = Vec::new();
        for m in &v.messages {
            let (flags, seq) = (flags(m), Seq(num(&m["seq"])));
            match kind(m) {
                MessageType::State(ObjectKind::Flow, state) => {
                    let flow = Annotated(m).flow();
                    encode_flow(&mut out, state, flags, seq, &flow, OPTIONS);
                }
                MessageType::State(ObjectKind::Expectation, state) => {
                    let exp = Annotated(m).expectation();
                    encode_expectation(&mut out, state, flags, seq, &exp, true);
                }
                _ => {
                    let range = m.get("from").map(|f| (Seq(num(f)), Seq(num(&m["to"]))));
                    let (control, greeting) = match (range, flags) {
                        (Some((f, t)), x) if x.intersects(Flags::ACK) => {
                            (Control::Ack(f, t), x.0 & !Flags::ACK.0)
                        }
                        (Some((f, t)), x) if x.intersects(Flags::NACK) => {
                            (Control::Nack(f, t), x.0 & !Flags::NACK.0)
                        }
                        (Some(_), x) => (Control::Resync, x.0 & !Flags::RESYNC.0),
                        (None, x) => (Control::Alive, x.0 & !Flags::ALIVE.0),
                    };
                    encode_control(&mut out, control, Flags(greeting), seq);
                }
            }
        }
        assert_eq!(out, v.bytes, "{}", v.name);
    }
}

#[test]
fn every_vector_survives_a_stream_read_byte_by_byte() {
    let mut stream = Stream::new();
    let (mut sent, mut got) = (0, Vec::new());
    for v in vectors() {
        for byte in v.bytes.chunks(1) {
            if stream.push(byte).unwrap() {
                got.extend_from_slice(stream.row());
            }
        }
        sent += v.messages.len();
    }
    assert_eq!(messages(&got).filter(|m| m.is_ok()).count(), sent);
}
