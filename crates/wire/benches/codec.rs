//! What a message about a flow costs, and a full datagram of them. `cargo bench -p ftfw-wire`

use std::net::{Ipv4Addr, Ipv6Addr};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flow::{Addrs, Flow, L4, Mark, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};
use wire::v1::{Batch, Flags, FlowOptions, decode_flow, encode_flow, messages};
use wire::{Seq, StateKind};

const OPTIONS: FlowOptions = FlowOptions {
    timeout: true,
    window_scale: false,
};

fn main() {
    divan::main();
}

/// An established TCP connection whose source is translated.
fn tcp_nat(addrs: Addrs, translated: Addrs, port: u16) -> Flow {
    let l4 = L4::Ports {
        src: port,
        dst: 443,
    };
    let mut flow = Flow::new(Tuple {
        addrs,
        proto: Proto::TCP,
        l4,
    });
    flow.reply.addrs = translated;
    flow.reply.l4 = L4::Ports {
        src: 443,
        dst: !port,
    };
    let nat = Status::SRC_NAT
        .with(Status::SRC_NAT_DONE)
        .with(Status::DST_NAT_DONE);
    let seen = Status::SEEN_REPLY.with(Status::ASSURED);
    flow.status = nat.with(seen).with(Status::CONFIRMED);
    flow.timeout = Some(432_000);
    flow.mark = Some(Mark(7));
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState(3),
        window_scale: None,
    }));
    flow
}

fn ipv4(port: u16) -> Flow {
    let server = Ipv4Addr::new(192, 0, 2, 80);
    let original = Addrs::V4 {
        src: Ipv4Addr::new(10, 1, 2, 3),
        dst: server,
    };
    let reply = Addrs::V4 {
        src: server,
        dst: Ipv4Addr::new(198, 51, 100, 1),
    };
    tcp_nat(original, reply, port)
}

fn ipv6(port: u16) -> Flow {
    let server = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 80);
    let original = Addrs::V6 {
        src: Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 3),
        dst: server,
    };
    let reply = Addrs::V6 {
        src: server,
        dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1),
    };
    tcp_nat(original, reply, port)
}

fn put(out: &mut Vec<u8>, seq: u32, flow: &Flow) {
    let (kind, flags) = (StateKind::Update, Flags::NONE);
    encode_flow(out, kind, flags, Seq(seq), flow, OPTIONS);
}

/// As many flows as a datagram holds on a link of 1500 bytes.
fn full_datagram(batch: &mut Batch, flows: &[Flow]) -> usize {
    batch.clear();
    let mut count = 0;
    let fits = |batch: &mut Batch, n: usize| batch.push(|out| put(out, n as u32, &flows[n]));
    while count < flows.len() && fits(batch, count) {
        count += 1;
    }
    count
}

fn read(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        let _ = black_box(decode_flow(message.body));
    }
}

fn encode(bencher: Bencher<'_, '_>, flow: &Flow) {
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        out.clear();
        put(&mut out, 1, black_box(flow));
        black_box(out.len())
    });
}

fn decode(bencher: Bencher<'_, '_>, flow: &Flow) {
    let mut bytes = Vec::new();
    put(&mut bytes, 1, flow);
    bencher.bench_local(|| read(black_box(&bytes)));
}

#[divan::bench(sample_size = 1000)]
fn encode_ipv4_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    encode(bencher, &ipv4(5000));
}

#[divan::bench(sample_size = 1000)]
fn encode_ipv6_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    encode(bencher, &ipv6(5000));
}

#[divan::bench(sample_size = 1000)]
fn decode_ipv4_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    decode(bencher, &ipv4(5000));
}

#[divan::bench(sample_size = 1000)]
fn decode_ipv6_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    decode(bencher, &ipv6(5000));
}

/// Items are flows.
#[divan::bench(sample_size = 100)]
fn fill_a_datagram(bencher: Bencher<'_, '_>) {
    let flows: Vec<_> = (1000..1100).map(ipv4).collect();
    let mut batch = Batch::new(1500, 28);
    let count = full_datagram(&mut batch, &flows);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| full_datagram(&mut batch, black_box(&flows)));
}

/// Items are flows.
#[divan::bench(sample_size = 100)]
fn read_a_full_datagram(bencher: Bencher<'_, '_>) {
    let flows: Vec<_> = (1000..1100).map(ipv4).collect();
    let mut batch = Batch::new(1500, 28);
    let count = full_datagram(&mut batch, &flows);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| read(black_box(batch.bytes())));
}
