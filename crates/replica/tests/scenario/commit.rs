//! The commit: the external cache goes into the kernel, and nothing that lives there suffers.

use std::time::Duration;

use flow::{Flow, Name, Status, TcpState};
use replica::{Answer, Command, Event, Objects, Op, Which};

use crate::flows::{assert_same, in_state, tcp, udp};
use crate::pairs::{committed, ftfw, replicated};
use crate::world::World;
use crate::{FW1, FW2};

#[test]
fn a_commit_makes_every_flow_and_announces_none() {
    let mut w = replicated(1000);
    let before = w.nodes[FW2].sent;
    let id = w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    assert_eq!(committed(&w, FW2), Some((1000, 0, 0)));
    assert!(w.nodes[FW2].answer(id).is_some());
    for n in 1..=1000 {
        let made = w.nodes[FW2].kernel.get(&tcp(n).key()).unwrap();
        assert_same(made, w.nodes[FW1].kernel.get(&tcp(n).key()).unwrap());
    }
    assert_eq!(
        w.nodes[FW2].sent, before,
        "committed flows are not announced"
    );
    assert_eq!(
        w.nodes[FW2].replica.len(Which::Internal),
        1000,
        "they are ours now"
    );
    w.command(FW2, Command::FlushCaches);
    w.command(FW2, Command::Resync(Objects::All));
    w.command(FW2, Command::Bulk);
    w.run(1.0);
    assert_eq!(
        w.nodes[FW2].sent,
        before + 1000,
        "the bulk sees what the resync found"
    );
}

#[test]
fn a_committed_flow_gets_its_remaining_timeout() {
    let mut w = World::new();
    w.traffic(FW1, &udp(1, 100));
    w.run(0.2);
    w.nodes[FW1].mute = true;
    w.run(40.0);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.2);
    let made = w.nodes[FW2].kernel.get(&udp(1, 0).key()).unwrap();
    assert!((58..=61).contains(&made.timeout.unwrap()), "{made:?}");
}

#[test]
fn a_commit_over_a_live_flow_never_goes_back() {
    let mut w = replicated(2);
    // FW2's kernel has seen one of them further, and the other less far.
    let further = in_state(&tcp(1), TcpState::LAST_ACK);
    w.nodes[FW2].kernel.silently(w.now, &further);
    let behind = Flow {
        status: Status(tcp(2).status.0 & !Status::SEEN_REPLY.0),
        ..in_state(&tcp(2), TcpState::SYN_SENT)
    };
    w.nodes[FW2].kernel.silently(w.now, &behind);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(committed(&w, FW2), Some((0, 2, 0)));
    let state = |n: u16| w.nodes[FW2].kernel.get(&tcp(n).key()).unwrap().tcp_state();
    assert_eq!(state(1), Some(TcpState::LAST_ACK));
    assert_eq!(state(2), Some(TcpState::ESTABLISHED));
    let deletes = |r: &&replica::KernelRequest| matches!(r.op, Op::Delete(..));
    assert_eq!(
        w.nodes[FW2].kernel.requests.iter().filter(deletes).count(),
        0
    );
}

#[test]
fn a_commit_replaces_an_entry_with_another_translation() {
    let mut w = replicated(1);
    let mut other = tcp(1);
    other.reply.l4 = flow::L4::Ports { src: 80, dst: 9 };
    w.nodes[FW2].kernel.silently(w.now, &other);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(committed(&w, FW2), Some((1, 0, 0)));
    assert_same(w.nodes[FW2].kernel.get(&tcp(1).key()).unwrap(), &tcp(1));
}

#[test]
fn a_foreign_flow_on_the_reply_tuple_is_reported_and_spared() {
    let mut w = replicated(1);
    let mut foreign = tcp(2);
    foreign.reply = tcp(1).reply;
    w.nodes[FW2].kernel.silently(w.now, &foreign);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(committed(&w, FW2), Some((0, 0, 1)));
    assert_eq!(w.nodes[FW2].replica.stats().clashes, 1);
    assert!(w.nodes[FW2].heard.contains(&Event::Clash(tcp(1).key())));
    assert!(w.nodes[FW2].kernel.get(&foreign.key()).is_some());
}

#[test]
fn a_missing_helper_costs_the_helper_not_the_flow() {
    let mut w = World::new();
    let flow = Flow {
        helper: Name::new(b"ftp"),
        ..tcp(1)
    };
    w.nodes[FW1].kernel.helpers = vec!["ftp"];
    w.traffic(FW1, &flow);
    w.run(0.2);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(committed(&w, FW2), Some((1, 0, 0)));
    assert_eq!(w.nodes[FW2].replica.stats().without_helper, 1);
    assert!(w.nodes[FW2].kernel.get(&flow.key()).is_some());
}

#[test]
fn masters_are_committed_before_the_flows_they_predicted() {
    let mut w = World::new();
    // The related flow comes first in the cache.
    let related = Flow {
        master: Some(tcp(1).orig),
        ..tcp(2)
    };
    w.traffic(FW1, &related);
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(committed(&w, FW2), Some((2, 0, 0)));
    let made = w.nodes[FW2].kernel.get(&related.key()).unwrap();
    assert_eq!(made.master, Some(tcp(1).orig));
}

#[test]
fn a_second_commit_and_a_flush_are_refused_while_one_runs() {
    let mut w = replicated(10);
    w.command(FW2, Command::Commit(Objects::All));
    let second = w.command(FW2, Command::Commit(Objects::All));
    let flush = w.command(FW2, Command::FlushCaches);
    w.run(0.3);
    assert_eq!(w.nodes[FW2].answer(second), Some(Answer::CommitRunning));
    assert_eq!(w.nodes[FW2].answer(flush), Some(Answer::CommitReadsCache));
    assert_eq!(committed(&w, FW2), Some((10, 0, 0)));
    w.command(FW2, Command::FlushCaches);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
}

/// Goal: an operator commits at the backup and claims the flows, while the primary still sees
/// them. What the primary had announced goes when it has acknowledged that: when the flow
/// ends at both, nobody announces the end of the primary's.
#[test]
fn a_claim_by_a_bulk_update_leaves_nothing_of_what_the_peer_announced() {
    let mut w = replicated(1);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.2);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 1);
    w.command(FW2, Command::Bulk);
    w.run(0.5);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
    assert!(w.nodes[FW1].has(Which::External, &tcp(1)));
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.nodes[FW2].kernel.end(&tcp(1).key());
    w.run(0.5);
    for node in &w.nodes {
        assert_eq!(node.held(&[tcp(1)]), 0);
    }
}

/// The same while the primary hears nothing: it counts on what it had announced.
#[test]
fn a_claim_that_the_peer_has_not_acknowledged_keeps_what_it_announced() {
    let mut w = World::with(ftfw(), ftfw());
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.2);
    w.nodes[FW2].mute = true;
    w.command(FW2, Command::Bulk);
    w.run(0.5);
    assert!(w.nodes[FW2].has(Which::External, &tcp(1)));
}

/// Goal: a committed flow that ends before the result of its commit comes leaves no entry
/// that is announced as alive.
#[test]
fn a_flow_that_ends_before_the_result_of_its_commit_leaves_no_entry() {
    let mut w = replicated(1);
    w.nodes[FW2].pace.lateness = Duration::from_secs(1);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.02);
    assert_eq!(w.nodes[FW2].kernel.len(), 1, "it is executed");
    assert_eq!(committed(&w, FW2), None, "the result is on its way");
    w.nodes[FW2].kernel.end(&tcp(1).key());
    w.run(2.5);
    assert_eq!(committed(&w, FW2), Some((1, 0, 0)));
    assert_eq!(w.nodes[FW2].replica.len(Which::Internal), 0);
}
