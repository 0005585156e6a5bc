//! Time to decode an event and to encode a request. `cargo bench -p ftfw-ctnetlink`

use ctnetlink::{Message, Request, TcpOptions, decode, messages};
use divan::{Bencher, black_box};
use flow::Flow;

const TCP: TcpOptions = TcpOptions {
    window_scale: false,
};

/// Captured events, by their line: one TCP flow with source NAT, and an IPv6 flow.
const NEW_TCP_NAT: usize = 0;
const ESTABLISHED_TCP_NAT: usize = 2;
const NEW_IPV6: usize = 3;
const DESTROY_TCP_NAT: usize = 9;

fn captured(line: usize) -> Vec<u8> {
    let text = include_str!("../testdata/events.tsv");
    let hex = text
        .lines()
        .nth(line)
        .and_then(|l| l.split('\t').next())
        .unwrap_or_default();
    (0..hex.len())
        .step_by(2)
        .filter_map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok())
        .collect()
}

fn captured_flow(line: usize) -> Flow {
    let bytes = captured(line);
    let message = messages(&bytes).flatten().next().expect("one message");
    match decode(&message) {
        Ok(Message::Flow { flow, .. }) => flow,
        other => panic!("a captured event is a flow: {other:?}"),
    }
}

fn main() {
    divan::main();
}

fn decode_event(bencher: Bencher<'_, '_>, line: usize) {
    let bytes = captured(line);
    bencher.bench(|| {
        for message in messages(black_box(&bytes)).flatten() {
            let _ = black_box(decode(&message));
        }
    });
}

#[divan::bench(sample_size = 1000)]
fn decode_tcp_nat_event(bencher: Bencher<'_, '_>) {
    decode_event(bencher, ESTABLISHED_TCP_NAT);
}

#[divan::bench(sample_size = 1000)]
fn decode_new_tcp_nat_event(bencher: Bencher<'_, '_>) {
    decode_event(bencher, NEW_TCP_NAT);
}

#[divan::bench(sample_size = 1000)]
fn decode_destroy_of_a_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    decode_event(bencher, DESTROY_TCP_NAT);
}

#[divan::bench(sample_size = 1000)]
fn decode_new_ipv6_udp_event(bencher: Bencher<'_, '_>) {
    decode_event(bencher, NEW_IPV6);
}

fn encode(bencher: Bencher<'_, '_>, line: usize, put: impl Fn(Request<'_>, &Flow)) {
    let flow = captured_flow(line);
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        put(Request::new(&mut out, 1, false), black_box(&flow));
        black_box(out.len())
    });
}

#[divan::bench(sample_size = 1000)]
fn encode_create_of_a_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    encode(bencher, ESTABLISHED_TCP_NAT, |request, flow| {
        request.create(flow, TCP);
    });
}

#[divan::bench(sample_size = 1000)]
fn encode_update_of_a_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    encode(bencher, ESTABLISHED_TCP_NAT, |request, flow| {
        request.update(flow, TCP);
    });
}

#[divan::bench(sample_size = 1000)]
fn encode_create_of_an_ipv6_udp_flow(bencher: Bencher<'_, '_>) {
    encode(bencher, NEW_IPV6, |request, flow| request.create(flow, TCP));
}

#[divan::bench(sample_size = 1000)]
fn encode_delete(bencher: Bencher<'_, '_>) {
    encode(bencher, ESTABLISHED_TCP_NAT, |request, flow| {
        request.delete(&flow.key(), flow.id);
    });
}
