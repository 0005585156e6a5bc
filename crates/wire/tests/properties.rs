//! Decoders never panic, whatever the bytes. What the encoder writes, the decoder reads.

use std::net::Ipv6Addr;

use flow::{
    Addrs, Direction, ExpectNat, Expectation, Flow, L4, Mark, Name, Proto, ProtoInfo, Status,
    TcpInfo, TcpState, Tuple, Zone,
};
use proptest::prelude::*;
use wire::v1::{
    Flags, FlowOptions, NotCarried, Stream, check_carried, check_expectation_carried,
    decode_expectation, decode_flow, encode_expectation, encode_flow, messages,
};
use wire::{Seq, StateKind};

fn arb_addrs() -> impl Strategy<Value = Addrs> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(s, d)| Addrs::V4 {
            src: s.into(),
            dst: d.into()
        }),
        any::<([u8; 16], [u8; 16])>().prop_map(|(s, d)| Addrs::V6 {
            src: s.into(),
            dst: d.into()
        }),
    ]
}

fn arb_flow() -> impl Strategy<Value = Flow> {
    let l4 = prop_oneof![
        any::<(u16, u16)>().prop_map(|(src, dst)| (Proto::TCP, L4::Ports { src, dst })),
        any::<(u16, u16)>().prop_map(|(src, dst)| (Proto::UDP, L4::Ports { src, dst })),
        any::<(u16, u8, u8)>()
            .prop_map(|(id, kind, code)| { (Proto::ICMP, L4::Icmp { id, kind, code }) }),
        Just((Proto(50), L4::None)),
    ];
    let rest = any::<(u32, Option<u32>, Option<u32>, u16, Option<(u8, u8)>, u8)>();
    (arb_addrs(), l4, rest, any::<(u16, u16)>()).prop_map(|(addrs, (proto, l4), r, nat)| {
        let mut flow = Flow::new(Tuple { addrs, proto, l4 });
        let (status, timeout, mark, zone, scale, state) = r;
        flow.status = Status(status)
            .with(Status::SRC_NAT_DONE)
            .with(Status::DST_NAT_DONE);
        flow.timeout = timeout;
        flow.mark = mark.map(Mark);
        flow.zone = Zone(zone);
        if proto == Proto::TCP {
            flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
                state: TcpState(state),
                window_scale: scale,
            }));
        }
        if let L4::Ports { src, dst } = &mut flow.reply.l4 {
            (*src, *dst) = nat;
        }
        flow
    })
}

/// An expectation with a translation; of IPv6 the saved port alone.
fn arb_expectation() -> impl Strategy<Value = Expectation> {
    let numbers = any::<([u16; 3], u32, Option<u32>, Option<u32>, bool)>();
    (arb_addrs(), numbers).prop_map(|(addrs, (ports, flags, timeout, class, reply))| {
        let tuple = |addrs, src| Tuple {
            addrs,
            proto: Proto::TCP,
            l4: L4::Ports { src, dst: 0 },
        };
        let saved = match addrs {
            Addrs::V4 { .. } => addrs,
            Addrs::V6 { .. } => Addrs::V6 {
                src: Ipv6Addr::UNSPECIFIED,
                dst: Ipv6Addr::UNSPECIFIED,
            },
        };
        let dir = if reply {
            Direction::Reply
        } else {
            Direction::Original
        };
        Expectation {
            master: tuple(addrs, ports[0]),
            tuple: tuple(addrs.swapped(), ports[1]),
            mask: tuple(addrs, u16::MAX),
            zone: Zone(0),
            timeout,
            flags,
            class,
            nat: Some(ExpectNat {
                tuple: tuple(saved, ports[2]),
                dir,
            }),
            helper: Name::new(b"ftp"),
            function: Name::new(b"nat-follow-master"),
            id: None,
        }
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = messages(&bytes).flatten().count();
        let _ = decode_flow(&bytes);
        let _ = decode_expectation(&bytes);
        let mut stream = Stream::new();
        let _ = stream.push(&bytes).and_then(|_| stream.push(&bytes));
    }

    #[test]
    fn no_damage_to_a_real_message_makes_a_decoder_panic(
        flow in arb_flow(), at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let options = FlowOptions { timeout: true, window_scale: true };
        let mut bytes = Vec::new();
        encode_flow(&mut bytes, StateKind::New, Flags::NONE, Seq(1), &flow, options);
        let at = at.index(bytes.len());
        bytes[at] = value;
        for message in messages(&bytes).flatten() {
            let _ = decode_flow(message.body);
            let _ = decode_expectation(message.body);
        }
    }

    #[test]
    fn a_flow_survives_the_round_trip(flow in arb_flow()) {
        prop_assert_eq!(check_carried(&flow), Ok(()));
        let options = FlowOptions { timeout: true, window_scale: true };
        let mut bytes = Vec::new();
        encode_flow(&mut bytes, StateKind::Update, Flags::NONE, Seq(9), &flow, options);
        let message = messages(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(message.header.seq, Seq(9));
        prop_assert_eq!(decode_flow(message.body).unwrap().object, flow);
    }

    #[test]
    fn an_expectation_survives_the_round_trip(e in arb_expectation()) {
        prop_assert_eq!(check_expectation_carried(&e), Ok(()));
        let mut bytes = Vec::new();
        encode_expectation(&mut bytes, StateKind::New, Flags::NONE, Seq(9), &e, true);
        prop_assert!(bytes.len() <= 300);
        let message = messages(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(decode_expectation(message.body).unwrap().object, e);
    }

    #[test]
    fn what_an_expectation_cannot_say_is_known(e in arb_expectation()) {
        let zoned = Expectation { zone: Zone(1), ..e };
        prop_assert_eq!(check_expectation_carried(&zoned), Err(NotCarried::ExpectZone));
        let lite = Expectation { tuple: Tuple { proto: Proto::UDPLITE, ..e.tuple }, ..e };
        let refused = Err(NotCarried::Ports(Proto::UDPLITE));
        prop_assert_eq!(check_expectation_carried(&lite), refused);
        let keys = L4::Gre { src_key: 0, dst_key: 1 };
        let gre = Expectation { tuple: Tuple { l4: keys, ..e.tuple }, ..e };
        prop_assert_eq!(check_expectation_carried(&gre), Err(NotCarried::GreKeys));
        let saved = Addrs::V6 { src: Ipv6Addr::LOCALHOST, dst: Ipv6Addr::UNSPECIFIED };
        let nat = e.nat.map(|n| ExpectNat { tuple: Tuple { addrs: saved, ..n.tuple }, ..n });
        let saved = Expectation { nat, ..e };
        prop_assert_eq!(check_expectation_carried(&saved), Err(NotCarried::ExpectNat6));
    }
}
