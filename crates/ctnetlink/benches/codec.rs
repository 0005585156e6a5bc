//! Time to decode an event and to encode a create request. `cargo bench -p ftfw-ctnetlink`

use ctnetlink::{Message, Request, TcpOptions, decode, messages};
use divan::{Bencher, black_box};

/// The third captured event: UPDATE of an established TCP flow with source NAT.
fn tcp_nat_event() -> Vec<u8> {
    let text = include_str!("../testdata/events.tsv");
    let hex = text
        .lines()
        .nth(2)
        .and_then(|l| l.split('\t').next())
        .unwrap_or_default();
    (0..hex.len())
        .step_by(2)
        .filter_map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok())
        .collect()
}

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 1000)]
fn decode_tcp_nat_event(bencher: Bencher<'_, '_>) {
    let bytes = tcp_nat_event();
    bencher.bench(|| {
        for message in messages(black_box(&bytes)).flatten() {
            let _ = black_box(decode(&message));
        }
    });
}

#[divan::bench(sample_size = 1000)]
fn encode_create_of_a_tcp_nat_flow(bencher: Bencher<'_, '_>) {
    let bytes = tcp_nat_event();
    let message = messages(&bytes).flatten().next().expect("one message");
    let Ok(Message::Flow { flow, .. }) = decode(&message) else {
        return;
    };
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        Request::new(&mut out, 1, false).create(
            black_box(&flow),
            TcpOptions {
                window_scale: false,
            },
        );
        black_box(out.len())
    });
}
