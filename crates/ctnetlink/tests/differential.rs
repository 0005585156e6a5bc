//! Goal: another decoder of the same messages, generated from the kernel's own description,
//! finds the same values.
//! Method: captured messages, as they are and with a byte of a value changed; where both decoders
//! accept a message, each attribute that `netlink-bindings` reads must be ours. Its
//! CTA_TIMESTAMP is wrong (a nest, not a number), and it knows no expectations.

use ctnetlink::{Details, Message, decode, decode_details, messages};
use flow::{Flow, L4, ProtoInfo, SeqAdj, Tuple};
use netlink_bindings::conntrack::{
    ConntrackAttrs as Ct, CounterAttrs, HelpAttrs, IterableSeqadjAttrs, IterableTupleAttrs,
    IterableTupleProtoAttrs, ProtoinfoAttrs, ProtoinfoSctpAttrs, ProtoinfoTcpAttrs, SeqadjAttrs,
    TupleAttrs, TupleIpAttrs, TupleProtoAttrs,
};
use proptest::prelude::*;

fn captured() -> Vec<Vec<u8>> {
    let events = include_str!("../testdata/events.tsv").lines();
    let events = events.map(|line| line.split('\t').next().unwrap());
    let others = include_str!("../testdata/captured.tsv").lines();
    let flows = others.filter_map(|line| line.strip_prefix("flow\t"));
    let flows = flows.map(|line| line.split('\t').next().unwrap());
    let bytes = |hex: &str| {
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    events.chain(flows).map(bytes).collect()
}

/// Number of values compared; `None` if one of the two does not accept the message.
fn compare(bytes: &[u8]) -> Option<usize> {
    let message = messages(bytes).next()?.ok()?;
    let Message::Flow { flow, .. } = decode(&message).ok()? else {
        return None;
    };
    let attributes = message.payload.get(4..)?;
    let details = decode_details(attributes).ok()?;
    let theirs: Vec<_> = Ct::new(attributes).collect::<Result<_, _>>().ok()?;
    // Of an attribute that comes twice we keep the last, and so must the comparison.
    let mut compared = 0;
    for (n, attr) in theirs.iter().enumerate() {
        let kind = std::mem::discriminant(attr);
        let again = theirs[n + 1..]
            .iter()
            .any(|a| std::mem::discriminant(a) == kind);
        if !again {
            compared += compare_attribute(attr, &flow, &details)?;
        }
    }
    Some(compared)
}

fn compare_attribute(attr: &Ct<'_>, flow: &Flow, details: &Details<'_>) -> Option<usize> {
    match attr {
        Ct::TupleOrig(t) => return compare_tuple(*t, &flow.orig),
        Ct::TupleReply(t) => return compare_tuple(*t, &flow.reply),
        Ct::TupleMaster(t) => return compare_tuple(*t, &flow.master?),
        Ct::Status(n) => assert_eq!(flow.status.0, *n),
        Ct::Timeout(n) => assert_eq!(flow.timeout, Some(*n)),
        Ct::Mark(n) => assert_eq!(flow.mark.map(|m| m.0), Some(*n)),
        Ct::Id(n) => assert_eq!(flow.id, Some(*n)),
        Ct::Zone(n) => assert_eq!(flow.zone.0, *n),
        Ct::Use(n) => assert_eq!(details.references, Some(*n)),
        Ct::Labels(bytes) if bytes.len() == 16 => {
            let ours = flow.labels?.0.map(u32::to_ne_bytes).concat();
            assert_eq!(ours, *bytes);
        }
        Ct::Help(help) => {
            for attr in *help {
                let HelpAttrs::HelpName(name) = attr.ok()?;
                let ours = flow.helper.map(|h| h.as_bytes().to_vec());
                assert!(ours.is_none_or(|ours| ours == name.to_bytes()));
            }
        }
        Ct::CountersOrig(c) | Ct::CountersReply(c) => {
            let ours = match attr {
                Ct::CountersOrig(_) => details.counters.0?,
                _ => details.counters.1?,
            };
            for attr in *c {
                match attr.ok()? {
                    CounterAttrs::Packets(n) => assert_eq!(ours.packets, n),
                    CounterAttrs::Bytes(n) => assert_eq!(ours.bytes, n),
                    _ => {}
                }
            }
        }
        Ct::SeqAdjOrig(s) => return compare_seq_adj(*s, &flow.seq_adj?.orig),
        Ct::SeqAdjReply(s) => return compare_seq_adj(*s, &flow.seq_adj?.reply),
        Ct::Protoinfo(info) => {
            for attr in *info {
                match (attr.ok()?, flow.proto_info) {
                    (ProtoinfoAttrs::ProtoinfoTcp(tcp), Some(ProtoInfo::Tcp(ours))) => {
                        for attr in tcp {
                            if let ProtoinfoTcpAttrs::TcpState(n) = attr.ok()? {
                                assert_eq!(ours.state.0, n);
                            }
                        }
                    }
                    (ProtoinfoAttrs::ProtoinfoSctp(sctp), Some(ProtoInfo::Sctp(ours))) => {
                        for attr in sctp {
                            match attr.ok()? {
                                ProtoinfoSctpAttrs::SctpState(n) => assert_eq!(ours.state, n),
                                ProtoinfoSctpAttrs::VtagOriginal(n) => {
                                    assert_eq!(ours.vtag_orig, n);
                                }
                                ProtoinfoSctpAttrs::VtagReply(n) => assert_eq!(ours.vtag_reply, n),
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        _ => return Some(0),
    }
    Some(1)
}

fn compare_tuple(theirs: IterableTupleAttrs<'_>, ours: &Tuple) -> Option<usize> {
    for attr in theirs {
        match attr.ok()? {
            TupleAttrs::TupleIp(ip) => {
                for attr in ip {
                    match attr.ok()? {
                        TupleIpAttrs::IpV4Src(a) => assert_eq!(ours.addrs.src(), a),
                        TupleIpAttrs::IpV4Dst(a) => assert_eq!(ours.addrs.dst(), a),
                        TupleIpAttrs::IpV6Src(a) => assert_eq!(ours.addrs.src(), a),
                        TupleIpAttrs::IpV6Dst(a) => assert_eq!(ours.addrs.dst(), a),
                    }
                }
            }
            TupleAttrs::TupleProto(proto) => compare_proto(proto, ours)?,
            TupleAttrs::TupleZone(_) => {}
        }
    }
    Some(1)
}

fn compare_proto(theirs: IterableTupleProtoAttrs<'_>, ours: &Tuple) -> Option<()> {
    let (src, dst) = match ours.l4 {
        L4::Ports { src, dst } => (src, dst),
        L4::Gre { src_key, dst_key } => (src_key, dst_key),
        _ => (0, 0),
    };
    let has_ports = matches!(ours.l4, L4::Ports { .. } | L4::Gre { .. });
    for attr in theirs {
        match (attr.ok()?, ours.l4) {
            (TupleProtoAttrs::ProtoNum(n), _) => assert_eq!(ours.proto.0, n),
            (TupleProtoAttrs::ProtoSrcPort(n), _) if has_ports => assert_eq!(src, n),
            (TupleProtoAttrs::ProtoDstPort(n), _) if has_ports => assert_eq!(dst, n),
            (TupleProtoAttrs::ProtoIcmpId(n), L4::Icmp { id, .. }) => assert_eq!(id, n),
            (TupleProtoAttrs::ProtoIcmpType(n), L4::Icmp { kind, .. }) => assert_eq!(kind, n),
            (TupleProtoAttrs::ProtoIcmpCode(n), L4::Icmp { code, .. }) => assert_eq!(code, n),
            _ => {}
        }
    }
    Some(())
}

fn compare_seq_adj(theirs: IterableSeqadjAttrs<'_>, ours: &SeqAdj) -> Option<usize> {
    for attr in theirs {
        match attr.ok()? {
            SeqadjAttrs::CorrectionPos(n) => assert_eq!(ours.correction_pos, n),
            SeqadjAttrs::OffsetBefore(n) => assert_eq!(ours.offset_before, n),
            SeqadjAttrs::OffsetAfter(n) => assert_eq!(ours.offset_after, n),
        }
    }
    Some(1)
}

#[test]
fn both_read_the_same() {
    let all = captured();
    assert_eq!(all.len(), 20);
    for bytes in all {
        let compared = compare(&bytes);
        // Both tuples, status and id at least.
        assert!(compared.is_some_and(|n| n >= 4), "{compared:?}");
    }
}

proptest! {
    #[test]
    fn both_read_the_same_of_what_is_damaged(
        which in 0usize..20, at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let mut bytes = captured().swap_remove(which);
        let mut values = Vec::new();
        find_values(&bytes, 20, bytes.len(), &mut values);
        bytes[values[at.index(values.len())]] = value;
        compare(&bytes);
    }
}

/// Where the bytes of values are: neither lengths nor types, which would make attributes
/// that the kernel does not send.
fn find_values(bytes: &[u8], mut at: usize, end: usize, out: &mut Vec<usize>) {
    while at + 4 <= end {
        let len = usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
        let kind = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]);
        let value = at + 4..at + len;
        if kind & 0x8000 != 0 {
            find_values(bytes, value.start, value.end, out);
        } else {
            out.extend(value);
        }
        at += len.next_multiple_of(4);
    }
}
