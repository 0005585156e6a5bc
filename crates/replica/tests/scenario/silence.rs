//! Flows that no event reports, and events that come late or never.

use flow::{Flow, TcpState};
use replica::{
    Change, Command, CommandId, DumpEnd, Event, KernelEvent, Objects, Origin, Settings, Which,
};

use crate::flows::{in_state, tcp, udp};
use crate::pairs::{replicated, settings};
use crate::world::World;
use crate::{FW1, FW2};

#[test]
fn a_late_destroy_of_the_former_flow_does_not_end_its_successor() {
    let mut w = replicated(1);
    let former = *w.nodes[FW1].kernel.get(&tcp(1).key()).unwrap();
    // The successor's NEW comes first, with another id.
    w.nodes[FW1].kernel.deaf = true;
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.nodes[FW1].kernel.deaf = false;
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    let late = KernelEvent {
        change: Change::Destroy,
        origin: Origin::Traffic,
        flow: former,
    };
    let now = w.now;
    w.nodes[FW1].replica.handle_events(now, &[late]);
    w.run(0.2);
    assert!(w.nodes[FW2].has(Which::External, &tcp(1)));
    assert_eq!(w.nodes[FW1].replica.stats().events_late, 1);
}

/// Two processors have handled the last packets of a connection, and the event of the earlier
/// one comes last.
#[test]
fn a_change_that_a_later_one_has_overtaken_is_no_news() {
    let mut w = replicated(1);
    let older = in_state(&tcp(1), TcpState::FIN_WAIT);
    w.traffic(FW1, &in_state(&tcp(1), TcpState::TIME_WAIT));
    let id = w.nodes[FW1].kernel.get(&tcp(1).key()).unwrap().id;
    let late = KernelEvent {
        change: Change::Update,
        origin: Origin::Traffic,
        flow: Flow { id, ..older },
    };
    w.run(0.2);
    let now = w.now;
    w.nodes[FW1].replica.handle_events(now, &[late]);
    w.run(0.2);
    let held = w.nodes[FW2].flows(Which::External)[&older.key()];
    assert_eq!(held.tcp_state(), Some(TcpState::TIME_WAIT));
    assert_eq!(w.nodes[FW1].replica.stats().events_late, 1);
}

/// The peer has taken the flow, which has begun anew there; then it moves here.
#[test]
fn a_new_life_of_a_flow_that_the_peer_has_taken_is_news() {
    let mut w = replicated(0);
    w.traffic(FW2, &in_state(&tcp(1), TcpState::TIME_WAIT));
    w.run(0.2);
    w.traffic(FW1, &tcp(1));
    w.run(0.2);
    assert_eq!(w.nodes[FW2].announced(), 0, "it is FW1's");
    w.traffic(FW2, &tcp(1));
    w.run(0.2);
    assert_eq!(w.nodes[FW2].announced(), 1);
    let held = w.nodes[FW1].flows(Which::External)[&tcp(1).key()];
    assert_eq!(held.tcp_state(), Some(TcpState::ESTABLISHED));
}

#[test]
fn a_silent_flow_is_found_and_its_silent_end_too() {
    let mut w = World::new();
    w.nodes[FW1].kernel.silently(w.now, &tcp(1));
    w.run(20.0);
    assert!(w.nodes[FW2].has(Which::External, &tcp(1)));
    w.nodes[FW1].kernel.deaf = true;
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(20.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
    let stats = w.nodes[FW1].replica.stats();
    assert_eq!((stats.silent_flows, stats.silent_ends), (1, 1));
}

/// The kernel fills a part of a dump before it is read. Goal: what has come of a flow since the
/// dump began counts; what comes behind the dump's end is believed again.
#[test]
fn a_part_of_a_dump_that_is_older_than_an_event_is_no_news() {
    let event = |change, flow| KernelEvent {
        change,
        origin: Origin::Traffic,
        flow,
    };
    let marked = |mark| Flow {
        mark: Some(flow::Mark(mark)),
        ..tcp(2)
    };
    let now = replica::Instant::START;
    let mut replica = replica::Replica::new(settings());
    let marks = |replica: &replica::Replica| {
        let mut all = Vec::new();
        let see = |flow: &Flow, _| all.push(flow.mark.map_or(0, |m| m.0));
        replica.walk(Which::Internal, cache::Position::default(), 10, see);
        all.sort_unstable();
        all
    };
    assert!(replica.poll_dump().is_some());
    let events = [
        event(Change::Destroy, tcp(1)),
        event(Change::New, marked(2)),
    ];
    replica.handle_events(now, &events);
    replica.handle_dump(now, &[tcp(1), marked(1)]);
    assert_eq!(marks(&replica), [2]);
    replica.handle_dump_end(now, DumpEnd::Complete);
    replica.handle_command(now, CommandId(1), Command::Resync(Objects::All));
    assert!(replica.poll_dump().is_some());
    replica.handle_dump(now, &[tcp(1), marked(1)]);
    assert_eq!(marks(&replica), [0, 1]);
}

#[test]
fn the_backups_copy_of_a_refreshed_flow_stays_young() {
    let mut w = World::new();
    w.traffic(FW1, &udp(1, 30));
    let key = udp(1, 0).key();
    for _ in 0..90 {
        w.run(1.0);
        w.nodes[FW1].kernel.refresh(w.now, &key, 30);
    }
    w.run(0.2);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.2);
    let made = w.nodes[FW2].kernel.get(&key).unwrap();
    assert!(made.timeout.unwrap() >= 15, "half has run down: {made:?}");
    let sent = w.nodes[FW1].sent;
    assert!(
        (2..=20).contains(&sent),
        "{sent} messages for one flow in 90 s"
    );
}

#[test]
fn an_overrun_is_repaired_in_both_directions() {
    let mut w = replicated(10);
    w.nodes[FW1].kernel.deaf = true;
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.traffic(FW1, &in_state(&tcp(2), TcpState::FIN_WAIT));
    w.traffic(FW1, &tcp(11));
    w.nodes[FW1].kernel.deaf = false;
    let now = w.now;
    w.nodes[FW1].replica.handle_overrun(now);
    w.run(4.0);
    let known = w.nodes[FW2].flows(Which::External);
    assert_eq!(known.len(), 10);
    assert!(!known.contains_key(&tcp(1).key()) && known.contains_key(&tcp(11).key()));
    assert_eq!(known[&tcp(2).key()].tcp_state(), Some(TcpState::FIN_WAIT));
    assert!(
        w.nodes[FW1]
            .heard
            .contains(&Event::Repaired { found: 1, gone: 1 })
    );
}

#[test]
fn a_restart_announces_only_what_traffic_shows_to_be_ours() {
    let mut w = World::new();
    w.traffic(FW1, &udp(1, 100));
    w.traffic(FW1, &udp(2, 100));
    w.run(0.2);
    w.restart(FW1, settings());
    w.run(1.0);
    assert_eq!(w.nodes[FW1].announced(), 0, "what is found is offered only");
    assert_eq!(w.nodes[FW2].replica.stats().offers_received, 2);
    let before = w.nodes[FW1].sent;
    for _ in 0..60 {
        w.run(1.0);
        w.nodes[FW1].kernel.refresh(w.now, &udp(1, 0).key(), 100);
    }
    let said = w.nodes[FW1].sent - before;
    let refreshed = w.nodes[FW1].replica.stats().timeouts_refreshed;
    assert!(
        said > 0 && said as u64 == refreshed,
        "{said} messages, {refreshed} refreshed"
    );
}

#[test]
fn a_full_cache_counts_what_it_does_not_take() {
    let small = Settings {
        limit: 5,
        ..settings()
    };
    let mut w = World::with(small.clone(), small);
    for n in 1..=8 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.2);
    assert_eq!(w.nodes[FW1].replica.len(Which::Internal), 5);
    assert_eq!(w.nodes[FW1].replica.stats().internal.create_failed, 3);
}

/// Goal: what a large commit makes is looked at as soon as what events report.
/// Method: UDP flows that traffic refreshes silently on the new primary. During a commit
/// of 256 flows or more the driver leaves the group of NEW events.
#[test]
fn flows_of_a_large_commit_are_looked_at_within_a_quarter_of_their_timeout() {
    const FLOWS: u16 = 9000;
    let mut w = World::with(settings(), settings());
    for n in 1..=FLOWS {
        w.traffic(FW1, &udp(n, 180));
    }
    w.run(10.0);
    w.nodes[FW1].mute = true;
    w.command(FW2, Command::Commit(Objects::All));
    w.run(1.0);
    assert_eq!(w.nodes[FW2].kernel.len(), usize::from(FLOWS));
    for _ in 0..50 {
        for n in 1..=FLOWS {
            let now = w.now;
            w.nodes[FW2].kernel.refresh(now, &udp(n, 0).key(), 180);
        }
        w.run(1.0);
    }
    assert_eq!(w.nodes[FW2].announced(), usize::from(FLOWS));
}
