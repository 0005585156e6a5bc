//! Goal: the program on the event socket delivers what the filter keeps, and nothing else.
//! Method: random filters and random flows as the kernel's messages, through a socket pair on
//! which the program runs in the kernel.

use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;

use ctnetlink::{Request, TcpOptions};
use flow::{Addrs, L4, Policy, Prefix, Proto, ProtoInfo, TcpInfo, TcpState, Tuple};

use super::*;

/// A socket on which a filter's program runs, and what is sent to it.
struct Pair {
    sender: UnixDatagram,
    receiver: UnixDatagram,
}

impl Pair {
    fn new(filter: &Filter) -> Pair {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let program = in_kernel(filter).expect("it fits");
        sys::filter::attach(&receiver, &program).unwrap();
        Pair { sender, receiver }
    }

    fn delivers(&self, message: &[u8]) -> bool {
        self.sender.send(message).unwrap();
        let mut buffer = [0; 4096];
        self.receiver.recv(&mut buffer).is_ok_and(|n| n > 0)
    }
}

/// Few different addresses, so that rules hit.
fn address(random: &mut fastrand::Rng, v6: bool) -> IpAddr {
    let (a, b) = (random.u8(..4), random.u8(..4));
    match v6 {
        false => [10, a, b, random.u8(..)].into(),
        true => [0xfd00, a.into(), 0, 0, b.into(), 0, 0, random.u16(..)].into(),
    }
}

fn flow_of(random: &mut fastrand::Rng) -> Flow {
    let v6 = random.bool();
    let addrs = match (address(random, v6), address(random, v6)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 { src, dst },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 { src, dst },
        _ => unreachable!("both of one family"),
    };
    let proto = *random
        .choice(&[Proto::TCP, Proto::UDP, Proto::SCTP])
        .unwrap();
    let mut flow = Flow::new(Tuple {
        addrs,
        proto,
        l4: L4::Ports { src: 1, dst: 2 },
    });
    flow.timeout = Some(100);
    if proto == Proto::TCP {
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState(random.u8(1..10)),
            window_scale: None,
        }));
    }
    flow
}

fn policy(random: &mut fastrand::Rng) -> Policy {
    *random.choice(&[Policy::Accept, Policy::Ignore]).unwrap()
}

fn filter_of(random: &mut fastrand::Rng) -> Filter {
    let mut filter = Filter::default();
    if random.bool() {
        let all = [Proto::TCP, Proto::UDP, Proto::SCTP, Proto(50)];
        let listed = all.into_iter().filter(|_| random.bool()).collect();
        filter.protocols = Some((policy(random), listed));
    }
    if random.u8(..4) > 0 {
        let prefix = |random: &mut fastrand::Rng| {
            let v6 = random.bool();
            let len = random.u8(..=if v6 { 128 } else { 32 });
            Prefix::new(address(random, v6), len).expect("a prefix")
        };
        let count = random.usize(..12);
        let prefixes = (0..count).map(|_| prefix(random)).collect();
        filter.addresses = Some((policy(random), prefixes));
    }
    if random.bool() {
        let listed = (1..10).filter(|_| random.bool()).map(TcpState).collect();
        filter.tcp_states = Some((policy(random), listed));
    }
    filter
}

/// A flow as the kernel reports it, and as it is read from that.
fn reported(flow: &Flow, ends: bool) -> (Vec<u8>, Flow) {
    let mut bytes = Vec::new();
    let options = TcpOptions {
        window_scale: false,
    };
    Request::new(&mut bytes, 1, false).create(flow, options);
    if ends {
        // IPCTNL_MSG_CT_DELETE, with the same attributes.
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]) & 0xff00 | 2;
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    }
    let message = ctnetlink::messages(&bytes).next().unwrap().unwrap();
    match ctnetlink::decode(&message) {
        Ok(Message::Flow { flow, .. }) => (bytes, flow),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_kernel_delivers_what_the_filter_keeps() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut kept = [0, 0];
    for _ in 0..300 {
        let filter = filter_of(&mut random);
        let pair = Pair::new(&filter);
        for _ in 0..60 {
            let flow = flow_of(&mut random);
            let ends = random.u8(..4) == 0;
            let (bytes, flow) = reported(&flow, ends);
            // The flow may have been known in another state.
            let judged = Filter {
                tcp_states: filter.tcp_states.clone().filter(|_| !ends),
                ..filter.clone()
            };
            let wanted = judged.keeps(&flow);
            kept[usize::from(wanted)] += 1;
            assert_eq!(
                pair.delivers(&bytes),
                wanted,
                "{flow} ends: {ends} {filter:?}"
            );
        }
    }
    assert!(kept[0] > 3000 && kept[1] > 3000, "{kept:?}");
}

#[test]
fn many_networks_fit_and_too_many_do_not() {
    let filter = |count: u32, v6: bool| {
        let prefix = |n: u32| {
            let addr = match v6 {
                false => IpAddr::from((0x0a00_0000 + n).to_be_bytes()),
                true => IpAddr::from((0xfd00_u128 << 112 | u128::from(n)).to_be_bytes()),
            };
            Prefix::host(addr)
        };
        Filter {
            addresses: Some((Policy::Ignore, (0..count).map(prefix).collect())),
            ..Filter::default()
        }
    };
    for (count, v6) in [(900, false), (130, true)] {
        let filter = filter(count, v6);
        let pair = Pair::new(&filter);
        let mut random = fastrand::Rng::with_seed(2);
        let mut flow = flow_of(&mut random);
        let mut delivered = 0;
        for n in 0..2 * count {
            let (src, dst) = (n.to_be_bytes(), [198, 51, 100, 1]);
            flow.orig.addrs = match v6 {
                false => Addrs::V4 {
                    src: [10, src[1], src[2], src[3]].into(),
                    dst: dst.into(),
                },
                true => Addrs::V6 {
                    src: (0xfd00_u128 << 112 | u128::from(n)).to_be_bytes().into(),
                    dst: [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
                },
            };
            flow.reply = flow.orig.inverted();
            let (bytes, flow) = reported(&flow, false);
            let is_delivered = pair.delivers(&bytes);
            assert_eq!(is_delivered, filter.keeps(&flow), "{flow}");
            delivered += u32::from(is_delivered);
        }
        assert_eq!(delivered, count);
    }
    assert!(in_kernel(&filter(1500, false)).is_none());
    assert!(in_kernel(&filter(300, true)).is_none());
}

/// Whatever is no event of a flow, and whatever is cut, passes: it is judged in user space.
#[test]
fn what_the_program_cannot_judge_passes() {
    let filter = Filter {
        protocols: Some((Policy::Accept, vec![])),
        addresses: Some((Policy::Accept, vec![])),
        tcp_states: Some((Policy::Accept, vec![])),
        ..Filter::default()
    };
    let pair = Pair::new(&filter);
    let mut random = fastrand::Rng::with_seed(3);
    let (bytes, _) = reported(&flow_of(&mut random), false);
    assert!(!pair.delivers(&bytes));
    let mut expectation = bytes.clone();
    // NFNL_SUBSYS_CTNETLINK_EXP
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]) & 0xff | 0x200;
    expectation[4..6].copy_from_slice(&kind.to_ne_bytes());
    assert!(pair.delivers(&expectation));
    assert!(pair.delivers(&bytes[..20]));
}
