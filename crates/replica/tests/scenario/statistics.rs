//! Without a peer: flows are kept, their ends reported, and nothing is sent.

use replica::{Event, Mode, Settings, Which};

use crate::FW1;
use crate::flows::tcp;
use crate::pairs::settings;
use crate::world::{Node, World};

fn alone() -> World {
    let alone = Settings {
        mode: Mode::Statistics,
        links: Vec::new(),
        trailer: false,
        ..settings()
    };
    World::with(alone, settings())
}

fn ended(node: &Node) -> usize {
    let is_end = |event: &&Event| matches!(event, Event::Ended(_));
    node.heard.iter().filter(is_end).count()
}

#[test]
fn the_end_of_each_flow_is_reported_and_nothing_is_sent() {
    let mut w = alone();
    for n in 1..=100 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    assert_eq!(w.nodes[FW1].replica.len(Which::Internal), 100);
    assert_eq!(ended(&w.nodes[FW1]), 0);
    for n in 1..=40 {
        w.nodes[FW1].kernel.end(&tcp(n).key());
    }
    w.run(3.0);
    let fw1 = &w.nodes[FW1];
    assert_eq!(ended(fw1), 40);
    assert_eq!(fw1.replica.len(Which::Internal), 60);
    assert_eq!(fw1.replica.stats().internal.destroyed, 40);
    assert_eq!(fw1.datagrams, 0, "there is nobody to send anything to");
    assert_eq!(w.nodes[1].replica.len(Which::External), 0);
}

/// Only flows of the cache are reported: what the limit refuses is not.
#[test]
fn what_the_cache_has_refused_ends_without_a_report() {
    let limited = Settings {
        mode: Mode::Statistics,
        links: Vec::new(),
        trailer: false,
        limit: 10,
        ..settings()
    };
    let mut w = World::with(limited, settings());
    for n in 1..=15 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.5);
    for n in 1..=15 {
        w.nodes[FW1].kernel.end(&tcp(n).key());
    }
    w.run(0.5);
    assert_eq!(ended(&w.nodes[FW1]), 10);
    assert_eq!(w.nodes[FW1].replica.stats().internal.create_failed, 5);
}
