//! What a replica announces to its peer, and over which link.

use flow::TcpState;
use replica::{Command, Event, LinkId, Settings, Which};

use crate::flows::{assert_same, in_state, in_zone, tcp};
use crate::pairs::settings;
use crate::world::World;
use crate::{FW1, FW2};

#[test]
fn the_backup_knows_every_field_of_a_flow() {
    let mut w = World::new();
    for n in 1..=300 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.2);
    let (ours, theirs) = (
        w.nodes[FW1].flows(Which::Internal),
        w.nodes[FW2].flows(Which::External),
    );
    assert_eq!((ours.len(), theirs.len()), (300, 300));
    for (key, flow) in &ours {
        assert_same(flow, &theirs[key]);
    }
    assert_eq!(
        w.nodes[FW2].replica.stats().receive.lost,
        0,
        "across the wrap of the sequence"
    );
}

#[test]
fn a_burst_of_updates_makes_one_message() {
    let mut w = World::new();
    for state in [1, 2, 3, 4, 5] {
        w.traffic(FW1, &in_state(&tcp(1), TcpState(state)));
    }
    w.run(0.2);
    assert_eq!(w.nodes[FW1].sent, 1);
    let known = w.nodes[FW2].flows(Which::External);
    assert_eq!(known[&tcp(1).key()].tcp_state(), Some(TcpState::CLOSE_WAIT));
}

#[test]
fn a_flow_that_ends_before_it_was_announced_sends_nothing() {
    let mut w = World::new();
    w.traffic(FW1, &tcp(1));
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.5);
    assert_eq!(w.nodes[FW1].sent, 0);
    assert_eq!(w.nodes[FW1].replica.len(Which::Internal), 0);
}

#[test]
fn an_end_reaches_the_backup() {
    let mut w = World::new();
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.2);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
    assert_eq!(w.nodes[FW1].replica.len(Which::Internal), 0);
}

#[test]
fn equal_tuples_in_two_zones_are_two_flows() {
    let mut w = World::new();
    w.traffic(FW1, &in_zone(&tcp(1), 1));
    w.traffic(FW1, &in_zone(&tcp(1), 2));
    w.run(0.2);
    w.nodes[FW1].kernel.end(&in_zone(&tcp(1), 1).key());
    w.run(0.2);
    assert!(!w.nodes[FW2].has(Which::External, &in_zone(&tcp(1), 1)));
    assert!(w.nodes[FW2].has(Which::External, &in_zone(&tcp(1), 2)));
}

#[test]
fn a_flow_that_cannot_be_said_rightly_is_not_said_and_counted() {
    let mut w = World::new();
    let mut gre = tcp(1);
    gre.orig.proto = flow::Proto::GRE;
    gre.orig.l4 = flow::L4::Gre {
        src_key: 7,
        dst_key: 8,
    };
    gre.reply = gre.orig.inverted();
    gre.proto_info = None;
    w.traffic(FW1, &gre);
    w.run(0.2);
    assert_eq!(w.nodes[FW1].sent, 0);
    assert_eq!(w.nodes[FW1].replica.stats().not_carried, 1);
}

#[test]
fn what_was_lost_comes_with_a_bulk_update() {
    let mut w = World::new();
    // The first ALIVE is what a gap is counted from.
    w.run(1.5);
    w.nodes[FW1].mute = true;
    for n in 1..=50 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.5);
    w.nodes[FW1].mute = false;
    w.run(2.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
    assert!(w.nodes[FW2].replica.stats().receive.lost >= 50);
    w.command(FW2, Command::RequestResync);
    w.run(0.5);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 50);
}

#[test]
fn without_an_internal_cache_nothing_waits() {
    let direct = Settings {
        internal_cache: false,
        ..settings()
    };
    let mut w = World::with(direct, settings());
    for n in 1..=500 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.1);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 500);
    assert_eq!(w.nodes[FW1].replica.stats().direct_dropped, 0);
}

#[test]
fn sweeps_of_a_large_table_are_paced() {
    let direct = Settings {
        internal_cache: false,
        sweep_full: std::time::Duration::from_millis(500),
        ..settings()
    };
    let mut w = World::with(direct, settings());
    for n in 1..=4000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(12.0);
    // Half a millisecond a flow: one sweep in 2 s, where the interval alone says 24.
    let sent = w.nodes[FW1].sent;
    assert!((3 * 4000..=8 * 4000).contains(&sent), "{sent} messages");
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 4000);
}

#[test]
fn the_links_change_when_one_fails_and_both_ends_follow() {
    let mut w = World::new();
    w.link(FW1, 0, false);
    assert_eq!(w.nodes[FW1].replica.current_link(), LinkId(1));
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    assert_eq!(
        w.nodes[FW2].replica.current_link(),
        LinkId(0),
        "one message may be astray"
    );
    w.run(5.0);
    assert_eq!(w.nodes[FW2].replica.current_link(), LinkId(1));
    w.link(FW1, 0, true);
    assert_eq!(
        w.nodes[FW1].replica.current_link(),
        LinkId(1),
        "no return by itself"
    );
    w.link(FW1, 0, false);
    w.link(FW1, 1, false);
    w.run(0.1);
    assert!(w.nodes[FW1].heard.contains(&Event::NoLink));
}
