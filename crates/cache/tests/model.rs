//! A cache does what a plain map does, whatever the order of operations.

use std::collections::{BTreeMap, VecDeque};

use cache::{Cache, Full, List, Note, Position, Tick};
use flow::{Addrs, Flow, L4, Mark, Name, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple, Zone};
use proptest::prelude::*;

/// Its classes are its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bits(u16);

impl Note for Bits {
    fn classes(&self) -> u16 {
        self.0
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a test's list of a few hundred")]
enum Op {
    Put(Flow),
    Remove(usize),
    Link(usize, bool),
    Unlink(usize),
    Change(usize, u16, u16),
    Clear,
    Tidy,
}

/// Few enough keys that operations meet the same flow again.
fn arb_flow() -> impl Strategy<Value = Flow> {
    let proto = prop_oneof![
        Just(Proto::TCP),
        Just(Proto::ICMP),
        Just(Proto::GRE),
        Just(Proto(50))
    ];
    let rest = any::<(
        u32,
        Option<u32>,
        Option<u32>,
        Option<u32>,
        Option<(u8, u8)>,
        bool,
    )>();
    (any::<bool>(), 0u8..3, 0u16..2, 0u16..2, proto, rest).prop_map(
        |(v6, host, port, zone, proto, (status, timeout, mark, id, scale, rare))| {
            let addrs = if v6 {
                Addrs::V6 {
                    src: [host; 16].into(),
                    dst: [9; 16].into(),
                }
            } else {
                Addrs::V4 {
                    src: [host; 4].into(),
                    dst: [9; 4].into(),
                }
            };
            let l4 = match proto {
                Proto::TCP => L4::Ports { src: port, dst: 80 },
                Proto::ICMP => L4::Icmp {
                    id: port,
                    kind: 8,
                    code: 0,
                },
                Proto::GRE => L4::Gre {
                    src_key: port,
                    dst_key: 0,
                },
                _ => L4::None,
            };
            let mut flow = Flow::new(Tuple { addrs, proto, l4 });
            flow.zone = Zone(zone);
            flow.status = Status(status);
            flow.timeout = timeout;
            flow.mark = mark.map(Mark);
            flow.id = id;
            if proto == Proto::TCP {
                flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
                    state: TcpState((status % 11) as u8),
                    window_scale: scale.map(|(a, b)| (a % 15, b % 15)),
                }));
            }
            if rare {
                flow.helper = Name::new(b"ftp");
                flow.master = Some(flow.orig.inverted());
            }
            flow
        },
    )
}

fn arb_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => arb_flow().prop_map(Op::Put),
        10 => any::<usize>().prop_map(Op::Remove),
        20 => any::<(usize, bool)>().prop_map(|(n, l)| Op::Link(n, l)),
        10 => any::<usize>().prop_map(Op::Unlink),
        20 => any::<(usize, u16, u16)>().prop_map(|(n, s, c)| Op::Change(n, s, c)),
        1 => Just(Op::Clear),
        1 => Just(Op::Tidy),
    ]
}

const LIMIT: usize = 20;

proptest! {
    #[test]
    fn a_cache_equals_a_plain_map(ops in prop::collection::vec(arb_op(), 1..200)) {
        let mut cache: Cache<Bits> = Cache::new(LIMIT);
        let mut map = BTreeMap::new();
        let mut orders = [VecDeque::new(), VecDeque::new()];
        let lists = [List::Ledger, List::Adopted];
        let mut stale = Vec::new();
        let mut notes = BTreeMap::new();
        for op in ops {
            let nth = |map: &BTreeMap<_, Flow>, n: usize| {
                let len = map.len().max(1);
                map.keys().nth(n % len).copied()
            };
            match op {
                Op::Put(flow) => match cache.find(&flow.key()) {
                    Some(slot) => {
                        cache.store(slot, &flow, Tick(1));
                        map.insert(flow.key(), flow);
                    }
                    None if map.len() == LIMIT => {
                        prop_assert_eq!(cache.insert(&flow, Tick(1)), Err(Full));
                    }
                    None => {
                        cache.insert(&flow, Tick(1)).unwrap();
                        map.insert(flow.key(), flow);
                    }
                },
                Op::Remove(n) => {
                    if let Some(key) = nth(&map, n) {
                        let slot = cache.find(&key).unwrap();
                        stale.push(cache.ticket(slot));
                        cache.remove(slot);
                        map.remove(&key);
                        notes.remove(&key);
                        orders.iter_mut().for_each(|o| o.retain(|k| *k != key));
                    }
                }
                Op::Link(n, which) => {
                    if let Some(key) = nth(&map, n) {
                        cache.link(cache.find(&key).unwrap(), lists[usize::from(which)]);
                        orders.iter_mut().for_each(|o| o.retain(|k| *k != key));
                        orders[usize::from(which)].push_back(key);
                    }
                }
                Op::Change(n, set, clear) => {
                    if let Some(key) = nth(&map, n) {
                        let slot = cache.find(&key).unwrap();
                        cache.change(slot, |bits| bits.0 = bits.0 & !clear | set);
                        let held = notes.entry(key).or_insert(Bits(0));
                        held.0 = held.0 & !clear | set;
                    }
                }
                Op::Clear => {
                    let slots = map.keys().map(|key| cache.find(key).unwrap());
                    stale.extend(slots.map(|slot| cache.ticket(slot)));
                    cache.clear();
                    map.clear();
                    notes.clear();
                    orders.iter_mut().for_each(VecDeque::clear);
                }
                Op::Tidy => {
                    cache.tidy();
                }
                Op::Unlink(n) => {
                    if let Some(key) = nth(&map, n) {
                        cache.unlink(cache.find(&key).unwrap());
                        orders.iter_mut().for_each(|o| o.retain(|k| *k != key));
                    }
                }
            }
            prop_assert_eq!(cache.len(), map.len());
            for (key, flow) in &map {
                let slot = cache.find(key).unwrap();
                prop_assert_eq!(&cache.flow(slot), flow);
                prop_assert_eq!(cache.redeem(cache.ticket(slot)), Some(slot));
                prop_assert_eq!(cache.note(slot), notes.get(key).copied().unwrap_or_default());
            }
            for bit in (0..16).map(|n| 1u16 << n) {
                let with = notes.values().filter(|n| n.0 & bit != 0).count();
                prop_assert_eq!(cache.members(bit), with);
            }
            for ticket in &stale {
                prop_assert_eq!(cache.redeem(*ticket), None);
            }
            for (list, order) in lists.iter().zip(&orders) {
                prop_assert_eq!(cache.listed(*list), order.len());
                prop_assert_eq!(cache.front(*list).map(|s| cache.key(s)), order.front().copied());
            }
        }
        let mut walked = Vec::new();
        let mut position = Position::default();
        while let Some((slot, next)) = cache.walk(position) {
            walked.push(cache.key(slot));
            position = next;
        }
        walked.sort();
        prop_assert_eq!(walked, map.into_keys().collect::<Vec<_>>());
        for (list, order) in lists.iter().zip(&orders) {
            for key in order {
                let slot = cache.front(*list).unwrap();
                prop_assert_eq!(cache.key(slot), *key);
                cache.unlink(slot);
            }
        }
    }
}

/// The memory of many cleared entries is freed in steps, and the cache is of use meanwhile.
#[test]
fn what_was_cleared_is_freed_in_steps() {
    const COUNT: u32 = 300_000;
    let flow = |n: u32| {
        Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: n.into(),
                dst: [9; 4].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: 1, dst: 80 },
        })
    };
    let mut cache: Cache<Bits> = Cache::new(COUNT as usize);
    for n in 0..COUNT {
        cache.insert(&flow(n), Tick(1)).unwrap();
    }
    assert!(!cache.tidy(), "nothing was cleared yet");
    cache.clear();
    assert!(cache.is_empty() && cache.walk(Position::default()).is_none());
    let mut steps = 0;
    while cache.tidy() {
        cache.insert(&flow(steps), Tick(2)).unwrap();
        steps += 1;
    }
    assert!(steps > 1, "{steps}");
    assert_eq!(cache.len(), steps as usize);
    assert!((0..steps).all(|n| cache.find(&flow(n).key()).is_some()));
}
