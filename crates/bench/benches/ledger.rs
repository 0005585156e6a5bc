//! What the ledger of an FT-FW sender costs, from the kernel's event to the datagram.
//! `cargo bench -p ftfw-bench`; items are flows.

use std::cell::RefCell;

use bench::ledger::Sender;
use divan::Bencher;
use divan::counter::ItemsCount;

/// Flows of the sender, all of which change: what the processor's caches hold, and more.
const SIZES: [u32; 2] = [1_000, 50_000];

fn main() {
    divan::main();
}

/// `act` on a sender that `prepare` has made ready.
fn measure(
    bencher: Bencher<'_, '_>,
    flows: u32,
    prepare: impl Fn(&mut Sender),
    act: impl Fn(&mut Sender),
) {
    let sender = RefCell::new(Sender::with_flows(flows));
    bencher
        .counter(ItemsCount::new(flows))
        .with_inputs(|| prepare(&mut sender.borrow_mut()))
        .bench_local_values(|()| act(&mut sender.borrow_mut()));
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn announce_an_update(bencher: Bencher<'_, '_>, flows: u32) {
    measure(bencher, flows, Sender::acknowledge, Sender::announce);
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn acknowledge(bencher: Bencher<'_, '_>, flows: u32) {
    measure(bencher, flows, Sender::announce, Sender::acknowledge);
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn resend(bencher: Bencher<'_, '_>, flows: u32) {
    let prepare = |sender: &mut Sender| {
        sender.acknowledge();
        sender.announce();
    };
    measure(bencher, flows, prepare, Sender::resend);
}
