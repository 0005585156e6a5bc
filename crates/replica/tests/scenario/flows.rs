//! The flows that the stories are about.

use flow::{Addrs, Flow, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple, Zone};

pub(crate) fn tuple(proto: Proto, n: u16) -> Tuple {
    Tuple {
        addrs: Addrs::V4 {
            src: [192, 168, 0, 3].into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto,
        l4: L4::Ports { src: n, dst: 80 },
    }
}

/// An established TCP flow with source NAT.
pub(crate) fn tcp(n: u16) -> Flow {
    let mut flow = Flow::new(tuple(Proto::TCP, n));
    flow.reply.addrs = flow
        .reply
        .addrs
        .with_dst("192.168.1.100".parse().unwrap())
        .unwrap();
    flow.reply.l4 = L4::Ports {
        src: 80,
        dst: 40_000 + n,
    };
    flow.status = [
        Status::CONFIRMED,
        Status::SEEN_REPLY,
        Status::SRC_NAT,
        Status::SRC_NAT_DONE,
        Status::DST_NAT_DONE,
    ]
    .into_iter()
    .fold(Status(0), Status::with);
    flow.timeout = Some(432_000);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::ESTABLISHED,
        window_scale: None,
    }));
    flow
}

pub(crate) fn udp(n: u16, timeout: u32) -> Flow {
    let mut flow = Flow::new(tuple(Proto::UDP, n));
    flow.status = Status::CONFIRMED.with(Status::SEEN_REPLY);
    flow.timeout = Some(timeout);
    flow
}

pub(crate) fn in_state(flow: &Flow, state: TcpState) -> Flow {
    Flow {
        proto_info: Some(ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: None,
        })),
        ..*flow
    }
}

pub(crate) fn in_zone(flow: &Flow, zone: u16) -> Flow {
    Flow {
        zone: Zone(zone),
        ..*flow
    }
}

/// Every replicated field but the timeout, which runs down.
pub(crate) fn assert_same(a: &Flow, b: &Flow) {
    let plain = |f: &Flow| Flow {
        timeout: None,
        id: None,
        ..*f
    };
    assert_eq!(plain(a), plain(b));
}
