//! Injection without an external cache, and who owns a flow.

use flow::{Flow, TcpState};
use replica::{
    Change, Command, DumpEnd, Found, Instant, KernelError, KernelEvent, KernelResult, LinkId,
    Objects, Op, Origin, Outcome, PeerId, Purpose, Replica, Which,
};
use wire::StateKind;
use wire::v1::Flags;

use crate::flows::{in_state, tcp, udp};
use crate::pairs::{injecting, replicated, settings};
use crate::world::World;
use crate::{FW1, FW2, forged};

#[test]
fn the_end_of_a_flow_that_the_peer_has_taken_over_is_not_announced() {
    let mut w = replicated(1);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.2);
    w.command(FW2, Command::Bulk);
    w.run(0.2);
    let before = w.nodes[FW1].sent;
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.3);
    assert_eq!(w.nodes[FW1].sent, before);
    assert_eq!(w.nodes[FW1].replica.stats().ends_not_announced, 1);
}

#[test]
fn a_delete_of_a_flow_that_has_seen_traffic_here_is_not_obeyed() {
    let mut w = World::with(injecting(), injecting());
    w.traffic(FW1, &udp(1, 20));
    w.run(0.5);
    let key = udp(1, 0).key();
    assert!(w.nodes[FW2].kernel.get(&key).is_some(), "injected");
    // Traffic moves; FW1 hears nothing of it, and its copy runs down.
    w.nodes[FW2].mute = true;
    for _ in 0..30 {
        w.nodes[FW2].kernel.refresh(w.now, &key, 20);
        w.run(1.0);
    }
    assert!(
        w.nodes[FW1].kernel.get(&key).is_none(),
        "FW1's copy has expired"
    );
    assert!(
        w.nodes[FW2].kernel.get(&key).is_some(),
        "the live flow was deleted"
    );
}

#[test]
fn a_delete_of_an_injected_flow_at_rest_is_obeyed() {
    let mut w = World::with(injecting(), injecting());
    w.traffic(FW1, &tcp(1));
    w.run(0.3);
    assert_eq!(w.nodes[FW2].kernel.len(), 1);
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.3);
    assert_eq!(w.nodes[FW2].kernel.len(), 0);
}

#[test]
fn injected_flows_are_not_echoed() {
    let mut w = World::with(injecting(), injecting());
    for n in 1..=100 {
        w.traffic(FW1, &tcp(n));
        w.traffic(FW1, &in_state(&tcp(n), TcpState::FIN_WAIT));
    }
    w.run(40.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 100);
    assert_eq!(w.nodes[FW2].sent, 0);
    assert_eq!(w.nodes[FW2].replica.len(Which::Internal), 0);
}

#[test]
fn an_update_during_an_injection_is_not_lost() {
    let mut w = World::with(injecting(), injecting());
    w.traffic(FW1, &in_state(&tcp(1), TcpState::SYN_SENT));
    w.run(0.05);
    w.traffic(FW1, &tcp(1));
    w.run(0.3);
    let made = w.nodes[FW2].kernel.get(&tcp(1).key()).unwrap();
    assert_eq!(made.tcp_state(), Some(TcpState::ESTABLISHED));
}

/// Goal: an update that the kernel refuses, however often it is asked, is counted as such.
#[test]
fn a_refused_update_of_an_injected_flow_is_counted() {
    let mut replica = replica::Replica::new(injecting());
    let now = replica::Instant::START;
    for (seq, kind) in [(0, StateKind::New), (1, StateKind::Update)] {
        let bytes = forged::flow(kind, Flags::NONE, seq, &tcp(1));
        replica.handle_datagram(now, PeerId::FIRST, LinkId(0), &bytes);
        let mut requests = Vec::new();
        for _ in 0..20 {
            requests.clear();
            replica.poll_kernel(10, &mut requests);
            for request in &requests {
                let outcome = match request.op {
                    Op::Update(_) => replica::Outcome::Failed(replica::KernelError::Os(22)),
                    Op::Get(_) => {
                        let older = in_state(&tcp(1), TcpState::SYN_RECV);
                        replica::Outcome::Found(Box::new(strict(older)))
                    }
                    _ => replica::Outcome::Done,
                };
                let request = *request;
                replica.handle_results(now, &[replica::KernelResult { request, outcome }]);
            }
        }
        assert!(requests.is_empty(), "it is given up");
    }
    let stats = replica.stats().external;
    assert_eq!((stats.created, stats.create_failed), (1, 0));
    assert_eq!((stats.updated, stats.update_failed), (0, 1));
}

/// An entry of the kernel that no request has written.
fn strict(flow: Flow) -> Found {
    Found {
        flow,
        is_liberal: false,
    }
}

/// The backup's kernel with copies of `count` flows, which somebody then deletes there.
fn flushed_backup(count: u16) -> World {
    let mut w = World::with(injecting(), injecting());
    for n in 1..=count {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    assert_eq!(w.nodes[FW2].kernel.len(), usize::from(count));
    for n in 1..=count {
        w.nodes[FW2].kernel.end(&tcp(n).key());
    }
    w.run(0.1);
    w
}

/// What the backup reports to have of the primary's flows.
fn held_by_backup(w: &World) -> usize {
    let held = w.nodes[FW1].replica.held_by(PeerId::FIRST);
    held.expect("it reports").0
}

#[test]
fn what_was_deleted_in_the_backups_kernel_is_missing_and_comes_back() {
    let mut w = flushed_backup(100);
    w.run(1.5);
    assert_eq!((w.nodes[FW2].kernel.len(), held_by_backup(&w)), (0, 0));
    w.run(20.0);
    assert_eq!((w.nodes[FW2].kernel.len(), held_by_backup(&w)), (100, 100));
    assert_eq!(w.nodes[FW2].announced(), 0, "they stay the peer's");
    assert_eq!(w.nodes[FW2].sent, 0, "nobody asked for them");
}

#[test]
fn a_take_over_writes_what_was_deleted_in_the_backups_kernel() {
    let mut w = flushed_backup(100);
    w.nodes[FW1].mute = true;
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(w.nodes[FW2].kernel.len(), 100);
}

/// Goal: the same if nothing has told of it. Method: the events are lost; a look at the table shows
/// what is missing.
#[test]
fn copies_that_are_gone_without_an_event_come_back() {
    let mut w = World::with(injecting(), injecting());
    for n in 1..=100 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(40.0);
    w.nodes[FW2].kernel.deaf = true;
    for n in 1..=50 {
        w.nodes[FW2].kernel.end(&tcp(n).key());
    }
    w.nodes[FW2].kernel.deaf = false;
    assert_eq!(w.nodes[FW2].kernel.len(), 50);
    w.run(60.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 100);
    assert_eq!(w.nodes[FW2].announced(), 0, "they stay the peer's");
}

#[test]
fn what_the_operator_flushes_from_the_backups_kernel_comes_back() {
    let mut w = World::with(injecting(), injecting());
    for n in 1..=10 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    w.command(FW2, Command::FlushKernel(Objects::All));
    w.run(0.2);
    assert_eq!(w.nodes[FW2].kernel.len(), 0);
    w.run(20.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 10);
}

#[test]
fn what_a_commit_has_written_of_what_was_deleted_stays_the_peers() {
    let mut w = flushed_backup(10);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(w.nodes[FW2].kernel.len(), 10);
    assert_eq!(w.nodes[FW2].announced(), 0);
    for n in 1..=10 {
        w.nodes[FW1].kernel.end(&tcp(n).key());
    }
    w.run(0.5);
    assert_eq!(w.nodes[FW2].kernel.len(), 0);
}

/// Goal: a commit that leaves the kernel's longer timeout alone does not forget the peer's.
#[test]
fn what_a_commit_has_found_there_comes_back_when_it_is_deleted() {
    let mut w = flushed_backup(1);
    let longer = Flow {
        timeout: Some(1_000_000),
        ..tcp(1)
    };
    w.nodes[FW2].kernel.silently(w.now, &longer);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    w.nodes[FW2].kernel.end(&tcp(1).key());
    w.run(20.0);
    assert!(w.nodes[FW2].kernel.get(&tcp(1).key()).is_some());
}

/// A copy that has run down belongs to a flow that is about to end, or lives silently.
#[test]
fn a_copy_that_has_run_down_comes_back_by_a_take_over_alone() {
    let mut w = World::with(injecting(), injecting());
    w.traffic(FW1, &udp(1, 20));
    w.run(0.5);
    w.nodes[FW1].mute = true;
    w.run(40.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 0);
    assert_eq!(w.nodes[FW2].replica.lacking(), 0, "nothing was deleted");
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.3);
    assert_eq!(w.nodes[FW2].kernel.len(), 1);
}

/// Goal: a copy that the backup's kernel has already, with a longer timeout, stays the peer's.
/// Method: looks through the table do not take it for traffic, and its end deletes it.
#[test]
fn a_copy_that_is_there_already_stays_the_peers() {
    for flow in [tcp(1), udp(1, 100)] {
        let mut w = World::with(settings(), injecting());
        let with_timeout = |secs| Flow {
            timeout: Some(secs),
            ..flow
        };
        w.nodes[FW2].kernel.silently(w.now, &with_timeout(1000));
        w.traffic(FW1, &with_timeout(100));
        w.run(0.3);
        w.run(40.0);
        assert_eq!(w.nodes[FW2].announced(), 0);
        w.nodes[FW1].kernel.end(&flow.key());
        w.run(1.0);
        assert!(w.nodes[FW2].kernel.get(&flow.key()).is_none());
    }
}

#[test]
fn an_injection_over_an_older_state_updates_it() {
    let mut w = World::with(settings(), injecting());
    w.nodes[FW2]
        .kernel
        .silently(w.now, &in_state(&tcp(1), TcpState::SYN_RECV));
    w.traffic(FW1, &tcp(1));
    w.run(0.3);
    let inject = |r: &&replica::KernelRequest| r.purpose == Purpose::Inject;
    let requests = w.nodes[FW2].kernel.requests.iter().filter(inject);
    let ops: Vec<_> = requests
        .map(|r| match r.op {
            Op::Create(_) => "create",
            Op::Get(_) => "get",
            Op::Update(_) => "update",
            Op::Delete(..) => "delete",
            _ => "about expectations",
        })
        .collect();
    assert_eq!(ops, ["create", "get", "update"]);
}

/// Goal: an event that was older than a delete by injection, and is read after its result,
/// leaves nothing behind. No event of our own requests corrects it.
#[test]
fn an_update_that_is_read_after_the_result_of_a_delete_leaves_no_entry() {
    for lives in [false, true] {
        let mut replica = Replica::new(injecting());
        let now = Instant::START;
        while replica.poll_dump().is_some() {
            replica.handle_dump_end(now, DumpEnd::Complete);
        }
        let mut in_kernel = true;
        let mut answer = |replica: &mut Replica| {
            let mut requests = Vec::new();
            replica.poll_kernel(10, &mut requests);
            for request in requests {
                let outcome = match request.op {
                    Op::Get(_) if in_kernel => Outcome::Found(Box::new(strict(tcp(1)))),
                    Op::Get(_) => Outcome::Failed(KernelError::NotFound),
                    _ => Outcome::Done,
                };
                if matches!(request.op, Op::Delete(..)) {
                    in_kernel = lives;
                }
                replica.handle_results(now, &[KernelResult { request, outcome }]);
            }
        };
        for (seq, kind) in [(0, StateKind::New), (1, StateKind::Delete)] {
            let bytes = forged::flow(kind, Flags::NONE, seq, &tcp(1));
            replica.handle_datagram(now, PeerId::FIRST, LinkId(0), &bytes);
            for _ in 0..3 {
                answer(&mut replica);
            }
        }
        assert_eq!(replica.stats().external.destroyed, 1, "it has been deleted");
        let late = KernelEvent {
            change: Change::Update,
            origin: Origin::Traffic,
            flow: in_state(&tcp(1), TcpState::FIN_WAIT),
        };
        replica.handle_events(now, &[late]);
        answer(&mut replica);
        // A flow that has begun anew stays.
        assert_eq!(replica.len(Which::Internal), usize::from(lives));
    }
}

/// Goal: what the kernel had when it was read, and that a flush has deleted before the answer
/// came, does not count as more than what the peer sends.
#[test]
fn an_answer_that_is_older_than_the_end_of_what_it_shows_is_not_believed() {
    let mut replica = Replica::new(injecting());
    let now = Instant::START;
    while replica.poll_dump().is_some() {
        replica.handle_dump_end(now, DumpEnd::Complete);
    }
    let bytes = forged::flow(
        StateKind::New,
        Flags::NONE,
        0,
        &in_state(&tcp(1), TcpState::SYN_SENT),
    );
    replica.handle_datagram(now, PeerId::FIRST, LinkId(0), &bytes);
    let former = in_state(&tcp(1), TcpState::FIN_WAIT);
    let mut is_ended = false;
    for _ in 0..4 {
        let mut requests = Vec::new();
        replica.poll_kernel(10, &mut requests);
        for request in requests {
            let outcome = match request.op {
                Op::Create(_) if is_ended => Outcome::Done,
                Op::Create(_) => Outcome::Failed(KernelError::Exists),
                _ => Outcome::Found(Box::new(strict(former))),
            };
            if matches!(request.op, Op::Get(_)) {
                is_ended = true;
                let end = KernelEvent {
                    change: Change::Destroy,
                    origin: Origin::Commit,
                    flow: former,
                };
                replica.handle_events(now, &[end]);
            }
            replica.handle_results(now, &[KernelResult { request, outcome }]);
        }
    }
    assert!(is_ended, "it was asked");
    assert_eq!(replica.len(Which::External), 1);
    assert_eq!(replica.stats().external.created, 1);
}

/// Goal: neither firewall takes what a full table has refused for held; it is written when there
/// is room.
#[test]
fn what_a_full_table_refuses_is_not_held() {
    let mut w = World::with(injecting(), injecting());
    w.traffic(FW1, &tcp(1));
    w.run(0.3);
    w.nodes[FW2].kernel.is_full = true;
    for n in 2..=500 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(5.0);
    let held = |w: &World| {
        let reported = w.nodes[FW2].replica.reported_by(PeerId::FIRST);
        let here = reported.map(|r| (r.held, r.flows));
        (here, w.nodes[FW1].replica.held_by(PeerId::FIRST))
    };
    assert_eq!(w.nodes[FW2].kernel.len(), 1);
    assert_eq!(held(&w), (Some((1, 500)), Some((1, 500))));
    // What ends meanwhile is not lacking any more.
    w.nodes[FW1].kernel.end(&tcp(500).key());
    w.run(15.0);
    assert_eq!(held(&w), (Some((1, 499)), Some((1, 499))));
    w.nodes[FW2].kernel.is_full = false;
    w.run(15.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 499);
    assert_eq!(held(&w), (Some((499, 499)), Some((499, 499))));
}
