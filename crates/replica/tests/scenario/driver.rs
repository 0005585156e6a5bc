//! What a driver owes the core (`replica::driver`): back-pressure, and deafness to new flows.

use std::time::Duration;

use replica::{Command, Objects, Which};
use sim::host::Pace;

use crate::flows::tcp;
use crate::pairs::{injecting, replicated, settings};
use crate::world::World;
use crate::{FW1, FW2};

const SLOW: Pace = Pace {
    lateness: Duration::from_secs(5),
    ..Pace::PROMPT
};

/// Goal: while the kernel cannot take injections as fast as they come, datagrams stay in
/// the socket, and later nothing is missing.
#[test]
fn what_the_kernel_cannot_take_stays_in_the_socket() {
    let mut w = World::with(settings(), injecting());
    w.nodes[FW2].pace = SLOW;
    for n in 1..=6000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    let fw2 = &w.nodes[FW2];
    assert!(fw2.replica.is_congested());
    assert!(!fw2.sockets.inbox.is_empty());
    assert!(fw2.replica.len(Which::External) < 6000);
    w.nodes[FW2].pace = Pace::PROMPT;
    w.run(6.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 6000);
    assert_eq!(w.nodes[FW2].replica.stats().receive.lost, 0);
}

/// Goal: what is polled counts as sent, so nothing is polled while the link takes nothing.
#[test]
fn a_blocked_link_loses_nothing() {
    let mut w = World::new();
    w.run(1.5);
    let before = w.nodes[FW1].datagrams;
    w.nodes[FW1].pace.is_blocked = true;
    for n in 1..=1000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(3.0);
    assert_eq!(w.nodes[FW1].datagrams, before);
    w.nodes[FW1].pace.is_blocked = false;
    w.run(0.5);
    let fw2 = &w.nodes[FW2].replica;
    assert_eq!(fw2.len(Which::External), 1000);
    assert_eq!(fw2.stats().receive.lost, 0);
}

/// Goal: nobody listens to new flows while a large commit makes them, and somebody does
/// again afterwards.
#[test]
fn a_large_commit_is_made_without_listening_to_new_flows() {
    let mut w = replicated(1000);
    w.nodes[FW2].pace = SLOW;
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    assert!(w.nodes[FW2].replica.is_committing());
    assert!(w.nodes[FW2].kernel.deaf_to_new);
    w.nodes[FW2].pace = Pace::PROMPT;
    w.run(6.0);
    let fw2 = &w.nodes[FW2];
    assert!(!fw2.replica.is_committing());
    assert!(!fw2.kernel.deaf_to_new);
    assert_eq!(fw2.replica.len(Which::Internal), 1000);
    assert_eq!(fw2.replica.stats().events_received, 0);
}
