//! What a cache costs: looking up, taking a flow in, and the receiver's loop that a protocol of
//! small messages would have. `cargo bench -p ftfw-cache`; items are flows.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use cache::{Cache, List, Note, Tick};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flow::{Addrs, Flow, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};

/// Flows in the cache: few, and many more than the processor's caches hold.
const SIZES: [u32; 2] = [100_000, 1_000_000];

fn main() {
    divan::main();
    if std::env::args().any(|word| word == "--bench") {
        println!("\na cache that grows, each step with the time of a clock reading");
        grow(10_000_000);
    }
}

/// As large as the notes in use.
#[derive(Clone, Copy, Debug, Default)]
struct Version([u32; 3]);

impl Version {
    fn of(version: u64) -> Version {
        Version([(version >> 32) as u32, version as u32, 0])
    }

    fn number(self) -> u64 {
        (u64::from(self.0[0]) << 32) | u64::from(self.0[1])
    }
}

impl Note for Version {
    fn classes(&self) -> u16 {
        1
    }
}

/// Bytes of a message about one flow.
const MESSAGE: usize = 28;
/// Buckets of the digest.
const BUCKETS: usize = 4096;

/// An established TCP connection with source NAT, in 28 bytes: version above the datagram's
/// (4), protocol, state, status (2), addresses (8), ports (4), translated address and port (6),
/// timeout in units of 8 s (2).
fn message(n: u32, version: u32) -> [u8; MESSAGE] {
    let mut out = [0; MESSAGE];
    let source = ((10 << 24) | (n / 50_000)).to_be_bytes();
    let port = (1024 + (n % 50_000) as u16).to_be_bytes();
    out[..4].copy_from_slice(&version.to_be_bytes());
    out[4..8].copy_from_slice(&[6, 3, 0x01, 0x8e]);
    out[8..12].copy_from_slice(&source);
    out[12..16].copy_from_slice(&[192, 168, 1, 2]);
    out[16..18].copy_from_slice(&port);
    out[18..20].copy_from_slice(&80_u16.to_be_bytes());
    out[20..24].copy_from_slice(&[192, 168, 1, 100]);
    out[24..26].copy_from_slice(&port);
    out[26..28].copy_from_slice(&54_000_u16.to_be_bytes());
    out
}

/// The message about a flow that is held.
fn encode(flow: &Flow, version: u64) -> [u8; MESSAGE] {
    let mut out = [0; MESSAGE];
    out[..4].copy_from_slice(&(version as u32).to_be_bytes());
    out[4] = flow.orig.proto.0;
    out[5] = flow.tcp().map_or(0, |tcp| tcp.state.0);
    out[6..8].copy_from_slice(&(flow.status.0 as u16).to_be_bytes());
    if let Addrs::V4 { src, dst } = flow.orig.addrs {
        out[8..12].copy_from_slice(&src.octets());
        out[12..16].copy_from_slice(&dst.octets());
    }
    if let L4::Ports { src, dst } = flow.orig.l4 {
        out[16..18].copy_from_slice(&src.to_be_bytes());
        out[18..20].copy_from_slice(&dst.to_be_bytes());
    }
    if let Addrs::V4 { dst, .. } = flow.reply.addrs {
        out[20..24].copy_from_slice(&dst.octets());
    }
    if let L4::Ports { dst, .. } = flow.reply.l4 {
        out[24..26].copy_from_slice(&dst.to_be_bytes());
    }
    let timeout = flow.timeout.unwrap_or(0) / 8;
    out[26..28].copy_from_slice(&(timeout as u16).to_be_bytes());
    out
}

/// The flow of a message, and its version.
fn decode(bytes: &[u8; MESSAGE]) -> (Flow, u64) {
    let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let address = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]].into();
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: address(8),
            dst: address(12),
        },
        proto: Proto(bytes[4]),
        l4: L4::Ports {
            src: short(16),
            dst: short(18),
        },
    });
    flow.reply.addrs = Addrs::V4 {
        src: address(12),
        dst: address(20),
    };
    flow.reply.l4 = L4::Ports {
        src: short(18),
        dst: short(24),
    };
    flow.status = Status(short(6).into());
    flow.timeout = Some(u32::from(short(26)) * 8);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState(bytes[5]),
        window_scale: None,
    }));
    let version = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (flow, version.into())
}

/// What a receiver holds: the cache, and a sum of keyed hashes for each bucket.
struct Receiver {
    cache: Cache<Version>,
    key: RandomState,
    digest: Vec<u64>,
}

impl Receiver {
    fn new(limit: u32) -> Receiver {
        Receiver {
            cache: Cache::new(limit as usize),
            key: RandomState::new(),
            digest: vec![0; BUCKETS],
        }
    }

    /// Takes a message in, unless what is held is newer.
    fn receive(&mut self, bytes: &[u8; MESSAGE]) {
        let (flow, version) = decode(bytes);
        let slot = match self.cache.find(&flow.key()) {
            Some(slot) if self.cache.note(slot).number() >= version => return,
            Some(slot) => {
                let held = self.cache.note(slot).number();
                let hash = self.key.hash_one(encode(&self.cache.flow(slot), held));
                self.add(hash, hash.wrapping_neg());
                self.cache.store(slot, &flow, Tick(2));
                slot
            }
            None => match self.cache.insert(&flow, Tick(1)) {
                Ok(slot) => slot,
                Err(_) => return,
            },
        };
        self.cache.change(slot, |note| *note = Version::of(version));
        self.cache.link(slot, List::Aged);
        let hash = self.key.hash_one(bytes);
        self.add(hash, hash);
    }

    fn add(&mut self, hash: u64, value: u64) {
        let sum = &mut self.digest[hash as usize % BUCKETS];
        *sum = sum.wrapping_add(value);
    }
}

/// Each number below `count` once, without an order that a cache would like.
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    // A prime that divides no count.
    (0..count).map(move |n| ((u64::from(n) * 1_000_003) % u64::from(count)) as u32)
}

fn messages(count: u32, version: u32) -> Vec<[u8; MESSAGE]> {
    shuffled(count).map(|n| message(n, version)).collect()
}

fn filled(count: u32) -> Receiver {
    let mut receiver = Receiver::new(count);
    for bytes in messages(count, 1) {
        receiver.receive(&bytes);
    }
    assert_eq!(receiver.cache.len(), count as usize);
    let (flow, version) = decode(&message(1, 1));
    assert_eq!(encode(&flow, version), message(1, 1), "nothing is lost");
    receiver
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn find(bencher: Bencher<'_, '_>, count: u32) {
    let receiver = filled(count);
    let keys: Vec<_> = flows(count).iter().map(Flow::key).collect();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        for key in &keys {
            black_box(receiver.cache.find(black_box(key)));
        }
    });
}

/// The flows of the messages, decoded.
fn flows(count: u32) -> Vec<Flow> {
    messages(count, 1)
        .iter()
        .map(|bytes| decode(bytes).0)
        .collect()
}

/// Growing is in it.
#[divan::bench(args = SIZES, sample_count = 5)]
fn insert(bencher: Bencher<'_, '_>, count: u32) {
    let flows = flows(count);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| Cache::<Version>::new(count as usize))
        .bench_local_refs(|cache| {
            for flow in &flows {
                let _ = black_box(cache.insert(black_box(flow), Tick(1)));
            }
        });
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn store(bencher: Bencher<'_, '_>, count: u32) {
    let mut cache = filled(count).cache;
    let flows = flows(count);
    let find = |flow: &Flow| cache.find(&flow.key()).map(|slot| (slot, *flow));
    let entries: Vec<_> = flows.iter().filter_map(find).collect();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        for (slot, flow) in &entries {
            cache.store(*slot, black_box(flow), Tick(2));
        }
    });
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn remove(bencher: Bencher<'_, '_>, count: u32) {
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let cache = filled(count).cache;
            let find = |bytes: &[u8; MESSAGE]| cache.find(&decode(bytes).0.key());
            let slots: Vec<_> = messages(count, 1).iter().filter_map(find).collect();
            (cache, slots)
        })
        .bench_local_refs(|(cache, slots)| {
            for slot in slots {
                cache.remove(black_box(*slot));
            }
        });
}

/// Growing is in it.
#[divan::bench(args = SIZES, sample_count = 5)]
fn receive_new(bencher: Bencher<'_, '_>, count: u32) {
    let messages = messages(count, 1);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| Receiver::new(count))
        .bench_local_refs(|receiver| {
            for bytes in &messages {
                receiver.receive(black_box(bytes));
            }
        });
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn receive_changed(bencher: Bencher<'_, '_>, count: u32) {
    let mut receiver = filled(count);
    let mut version = 1;
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            version += 1;
            messages(count, version)
        })
        .bench_local_refs(|messages| {
            for bytes in messages.iter() {
                receiver.receive(black_box(bytes));
            }
        });
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn receive_old(bencher: Bencher<'_, '_>, count: u32) {
    let mut receiver = filled(count);
    let messages = messages(count, 1);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        for bytes in &messages {
            receiver.receive(black_box(bytes));
        }
    });
}

/// Takes `count` flows in, one after the other. At each decade: what a flow has cost since the
/// last one. At the end: the longest single step, in which a part of the index grew.
fn grow(count: u32) {
    let mut receiver = Receiver::new(count);
    let mut longest = Duration::ZERO;
    let (mut decade, mut before) = (10_000, 0);
    let mut begun = Instant::now();
    for (taken, n) in (1..).zip(shuffled(count)) {
        let bytes = message(n, 1);
        let step = Instant::now();
        receiver.receive(black_box(&bytes));
        longest = longest.max(step.elapsed());
        if taken == decade {
            let each = begun.elapsed() / (taken - before);
            println!("{taken:>10} flows: {} ns each", each.as_nanos());
            (before, decade, begun) = (taken, decade * 10, Instant::now());
        }
    }
    println!("{count:>10} flows: the longest step took {longest:.1?}");
}
