//! Decoders never panic, whatever the bytes; what the encoder says the decoder hears.

use flow::{Addrs, Flow, L4, Mark, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple, Zone};
use proptest::prelude::*;
use wire::v1::{
    Flags, FlowOptions, Mode, Seq, StateKind, Stream, check_carried, decode_expectation,
    decode_flow, encode_flow, messages, verdict,
};

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

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for message in messages(&bytes).flatten() {
            for mode in [Mode::Notrack, Mode::Alarm, Mode::Ftfw] {
                let _ = verdict(mode, &message.header);
            }
        }
        let _ = decode_flow(&bytes);
        let _ = decode_expectation(&bytes);
        let _ = Stream::new().push(&bytes, |_| ());
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
}
