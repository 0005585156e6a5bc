//! Named stories between two replicas on virtual time. They assert on caches, on
//! the model kernels and on what was sent, never on private fields.

mod expectations;
mod failback;
mod neighbour;
mod restarts;
mod world;

use flow::{Flow, Name, Status, TcpState};
use replica::{
    Change, Command, Event, KernelEvent, LinkId, Objects, Op, Origin, Purpose, Settings, Which,
};
use wire::v1::{Epoch, Mode, Seq, TableId};
use world::{World, in_state, in_zone, settings, tcp, udp};

const FW1: usize = 0;
const FW2: usize = 1;

fn injecting() -> Settings {
    Settings {
        external_cache: false,
        ..settings()
    }
}

fn committed(world: &World, n: usize) -> Option<(u64, u64, u64)> {
    world.nodes[n].heard.iter().find_map(|e| match e {
        Event::Committed {
            created,
            updated,
            failed,
            ..
        } => Some((*created, *updated, *failed)),
        _ => None,
    })
}

/// Every replicated field but the timeout, which runs down.
fn assert_same(a: &Flow, b: &Flow) {
    let plain = |f: &Flow| Flow {
        timeout: None,
        id: None,
        ..*f
    };
    assert_eq!(plain(a), plain(b));
}

// ---- what is said to the peer ----

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

// ---- commit ----

fn replicated(count: u16) -> World {
    let mut w = World::new();
    for n in 1..=count {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.3);
    w
}

#[test]
fn a_commit_makes_every_flow_and_announces_none() {
    let mut w = replicated(1000);
    let before = w.nodes[FW2].sent;
    let id = w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    assert_eq!(committed(&w, FW2), Some((1000, 0, 0)));
    assert!(w.nodes[FW2].heard.contains(&Event::Done(id)));
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
    w.command(FW2, Command::FlushCaches);
    w.run(0.3);
    let heard = &w.nodes[FW2].heard;
    assert!(heard.contains(&Event::CommitRunning) && heard.contains(&Event::Done(second)));
    assert!(heard.contains(&Event::FlushRefused));
    assert_eq!(committed(&w, FW2), Some((10, 0, 0)));
    w.command(FW2, Command::FlushCaches);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
}

// ---- ownership ----

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
    let options = wire::v1::FlowOptions {
        timeout: true,
        window_scale: false,
    };
    for (n, kind) in [wire::v1::StateKind::New, wire::v1::StateKind::Update]
        .into_iter()
        .enumerate()
    {
        let mut bytes = Vec::new();
        let flags = wire::v1::Flags::NONE;
        wire::v1::encode_flow(&mut bytes, kind, flags, Seq(n as u32), &tcp(1), options);
        replica.handle_datagram(now, LinkId(0), &bytes);
        let mut requests = Vec::new();
        for _ in 0..20 {
            requests.clear();
            replica.poll_kernel(10, &mut requests);
            for request in &requests {
                let outcome = match request.op {
                    Op::Update(_) => replica::Outcome::Failed(replica::KernelError::Os(22)),
                    Op::Get(_) => replica::Outcome::Found(Box::new(tcp(1))),
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

#[test]
fn an_injection_over_an_equal_flow_updates_it() {
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

// ---- silence and lateness ----

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

// ---- ALARM ----

fn alarm() -> Settings {
    Settings {
        mode: wire::v1::Mode::Alarm,
        ..settings()
    }
}

#[test]
fn alarm_sends_every_flow_again_within_the_refresh_time_and_evenly() {
    let mut w = World::with(alarm(), alarm());
    for n in 1..=1000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    let mut last = w.nodes[FW1].sent;
    for _ in 0..20 {
        w.run(1.0);
        let sent = w.nodes[FW1].sent - last;
        // 1000 flows in 10 s, however suddenly they began.
        assert!((80..=120).contains(&sent), "{sent} messages in a second");
        last = w.nodes[FW1].sent;
    }
}

#[test]
fn alarm_makes_good_any_loss_by_the_next_round() {
    let mut w = World::with(alarm(), alarm());
    w.nodes[FW1].mute = true;
    for n in 1..=500 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    w.nodes[FW1].mute = false;
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
    w.run(11.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 500);
    // A backup that starts again learns all without any command.
    w.restart(FW2, alarm());
    w.run(11.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 500);
}

#[test]
fn alarm_drops_what_is_not_sent_again() {
    let mut w = World::with(alarm(), alarm());
    for n in 1..=50 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    // Some ends are lost.
    w.nodes[FW1].mute = true;
    for n in 1..=20 {
        w.nodes[FW1].kernel.end(&tcp(n).key());
    }
    w.run(1.0);
    w.nodes[FW1].mute = false;
    w.run(15.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 50);
    w.run(20.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 30);
    assert_eq!(w.nodes[FW2].replica.stats().external_expired, 20);
    w.nodes[FW1].mute = true;
    w.run(31.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 0);
}

#[test]
fn alarm_sends_no_control_message() {
    let mut w = World::with(alarm(), alarm());
    w.command(FW2, Command::RequestResync);
    w.command(FW1, Command::Bulk);
    w.run(5.0);
    assert_eq!(w.nodes[FW1].datagrams + w.nodes[FW2].datagrams, 0);
}

// ---- FT-FW ----

fn ftfw() -> Settings {
    Settings {
        mode: wire::v1::Mode::Ftfw,
        ..settings()
    }
}

/// The backup's cache holds exactly the primary's flows, field by field.
fn equal(w: &World) -> bool {
    let plain = |flows: std::collections::BTreeMap<flow::FlowKey, Flow>| {
        let strip = |f: Flow| Flow {
            timeout: None,
            id: None,
            ..f
        };
        flows
            .into_iter()
            .map(|(k, f)| (k, format!("{:?}", strip(f))))
            .collect::<Vec<_>>()
    };
    plain(w.nodes[FW1].flows(Which::Internal)) == plain(w.nodes[FW2].flows(Which::External))
}

/// Flows come, change and go for two seconds.
fn churn(w: &mut World) {
    for _ in 0..40 {
        for _ in 0..25 {
            let n = 1 + (w.next_random() % 400) as u16;
            let state = TcpState(1 + (w.next_random() % 8) as u8);
            if w.next_random().is_multiple_of(4) {
                w.nodes[FW1].kernel.end(&tcp(n).key());
            } else {
                w.traffic(FW1, &in_state(&tcp(n), state));
            }
        }
        w.run(0.05);
    }
}

#[test]
fn ftfw_acknowledges_everything_and_then_rests() {
    let mut w = World::with(ftfw(), ftfw());
    for n in 1..=1000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    assert!(equal(&w));
    assert_eq!(w.nodes[FW1].replica.unacknowledged().0, 0);
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(1.0);
    assert_eq!(
        w.nodes[FW1].replica.len(Which::Internal),
        999,
        "freed once acknowledged"
    );
    let before = w.nodes[FW1].datagrams + w.nodes[FW2].datagrams;
    w.run(10.0);
    let idle = w.nodes[FW1].datagrams + w.nodes[FW2].datagrams - before;
    assert!(
        (15..=25).contains(&idle),
        "{idle} datagrams in 10 idle seconds"
    );
}

#[test]
fn ftfw_does_not_storm_at_any_window() {
    let small = Settings {
        ack_window: 1,
        ..ftfw()
    };
    let mut w = World::with(small.clone(), small);
    w.traffic(FW1, &tcp(1));
    w.run(5.0);
    let sent = w.nodes[FW1].datagrams + w.nodes[FW2].datagrams;
    assert!(sent <= 25, "{sent} datagrams in 5 s");
    assert!(equal(&w));
}

#[test]
fn ftfw_converges_after_any_pattern_of_loss_and_lateness() {
    let mut times = Vec::new();
    for seed in 0..100 {
        let mut w = World::with(ftfw(), ftfw());
        w.seed(seed);
        for node in &mut w.nodes {
            node.loss = 0.2;
            node.late = 0.1;
        }
        churn(&mut w);
        let begun = w.now;
        while !equal(&w) {
            w.run(0.01);
            let waited = w.now.since(begun).as_secs_f64();
            assert!(
                waited < 10.0,
                "seed {seed} has not converged after {waited} s"
            );
        }
        assert!(w.nodes[FW1].replica.len(Which::Internal) > 100);
        times.push(w.now.since(begun).as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (median, p99) = (times[50], times[98]);
    assert!(
        median <= 0.5 && p99 <= 1.5,
        "median {median} s, p99 {p99} s"
    );
}

#[test]
fn ftfw_converges_after_a_cut_in_one_direction() {
    for direction in [FW1, FW2] {
        let mut w = World::with(ftfw(), ftfw());
        w.run(0.5);
        w.nodes[direction].mute = true;
        churn(&mut w);
        w.nodes[direction].mute = false;
        w.run(3.0);
        assert!(equal(&w), "node {direction} was mute");
    }
}

#[test]
fn ftfw_survives_a_restart_of_either_side() {
    let mut w = World::with(ftfw(), ftfw());
    churn(&mut w);
    w.run(1.0);
    assert!(equal(&w));
    w.restart(FW1, ftfw());
    w.run(1.0);
    churn(&mut w);
    w.run(2.0);
    let (ours, theirs) = (
        w.nodes[FW1].flows(Which::Internal),
        w.nodes[FW2].flows(Which::External),
    );
    assert!(
        ours.keys().all(|k| theirs.contains_key(k)),
        "nothing of the new run is missing"
    );
    w.restart(FW2, ftfw());
    w.run(0.5);
    w.command(FW2, Command::RequestResync);
    // FW2 has had the bulk updates of its greeting and of FW1's: a third one waits.
    w.run(20.0);
    assert!(equal(&w), "a new backup has everything after a resync");
}

#[test]
fn ftfw_keeps_its_words_for_a_peer_that_comes_later() {
    let mut w = World::with(ftfw(), ftfw());
    w.nodes[FW1].mute = true;
    for n in 1..=200 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(5.0);
    let sent = w.nodes[FW1].sent;
    assert!(sent <= 600, "{sent} messages to a peer that does not hear");
    w.nodes[FW1].mute = false;
    w.run(3.0);
    assert!(equal(&w));
}

#[test]
fn ftfw_keeps_a_bounded_number_of_ends_for_an_absent_peer() {
    let mut w = World::with(ftfw(), ftfw());
    for node in &mut w.nodes {
        node.mute = true;
    }
    for round in 0..5 {
        for n in 1..=1000 {
            w.traffic(FW1, &tcp(round * 1000 + n));
        }
        w.run(0.2);
        for n in 1..=900 {
            w.nodes[FW1].kernel.end(&tcp(round * 1000 + n).key());
        }
        w.run(0.2);
    }
    // 500 flows live; of 4500 ends at most 1000 are kept.
    let held = w.nodes[FW1].replica.unacknowledged().0;
    assert!((500..=1500).contains(&held), "{held} entries");
    assert!(w.nodes[FW1].replica.stats().ends_given_up >= 3500);
    for node in &mut w.nodes {
        node.mute = false;
    }
    w.run(5.0);
    assert!(equal(&w), "the bulk update makes good what was given up");
}

#[test]
fn ftfw_owes_a_bounded_number_of_control_messages() {
    let mut replica = replica::Replica::new(ftfw());
    // Every second number is missing, and the link takes nothing meanwhile.
    for n in 0..10_000 {
        let mut bytes = Vec::new();
        let (alive, flags) = (wire::v1::Control::Alive, wire::v1::Flags::NONE);
        wire::v1::encode_control(&mut bytes, alive, flags, wire::v1::Seq(2 * n));
        replica.handle_datagram(replica::Instant::START, LinkId(0), &bytes);
    }
    assert_eq!(replica.stats().receive.lost, 9_999);
    assert_eq!(replica.owed(), 1024);
}

// ---- the peer's runs ----

/// A pair in `mode` whose second replica has learned `count` flows of the first.
fn learned(mode: Mode, count: u16) -> World {
    let own = |epoch| Settings {
        mode,
        epoch: Epoch(epoch),
        ..settings()
    };
    let mut w = World::with(own(1), own(2));
    w.run(1.5);
    for n in 1..=count {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.5);
    assert_eq!(w.nodes[FW2].replica.confirmed(), usize::from(count));
    w
}

/// A new run of node 0.
fn reborn(mode: Mode, epoch: u32) -> Settings {
    Settings {
        mode,
        epoch: Epoch(epoch),
        first_seq: Seq(5),
        ..settings()
    }
}

#[test]
fn replicas_recognise_each_other_and_their_roles() {
    let mut w = learned(Mode::Ftfw, 1);
    w.command(FW1, Command::Commit(Objects::All));
    w.command(FW2, Command::ScheduleFlush);
    w.run(1.5);
    assert_eq!(
        w.nodes[FW1].replica.peer(),
        (Some(Epoch(2)), wire::v1::Role::Backup)
    );
    assert_eq!(
        w.nodes[FW2].replica.peer(),
        (Some(Epoch(1)), wire::v1::Role::Primary)
    );
}

#[test]
fn a_restart_of_the_peer_removes_nothing_and_leaves_a_minute_to_show_life() {
    for mode in [Mode::Notrack, Mode::Ftfw] {
        let mut w = learned(mode, 100);
        // FW1 reboots: its table is empty, and so is its bulk update.
        w.nodes[FW1].kernel = sim::kernel::Kernel::default();
        let table = TableId(2);
        w.restart(
            FW1,
            Settings {
                table,
                ..reborn(mode, 77)
            },
        );
        w.run(2.5);
        w.traffic(FW1, &tcp(1));
        w.command(FW1, Command::Bulk);
        w.run(3.0);
        let fw2 = &w.nodes[FW2].replica;
        assert_eq!(fw2.len(Which::External), 100, "{mode:?}");
        assert_eq!((fw2.confirmed(), fw2.unconfirmed()), (1, 99), "{mode:?}");
        assert_eq!(fw2.stats().peer_restarts, 1);
        w.command(FW2, Command::Commit(Objects::All));
        w.run(1.0);
        let timeout = |n| w.nodes[FW2].kernel.get(&tcp(n).key()).unwrap().timeout;
        assert_eq!(timeout(2), Some(60));
        assert!(timeout(1) > Some(400_000), "{:?}", timeout(1));
    }
}

#[test]
fn what_a_complete_bulk_does_not_mention_is_removed() {
    for mode in [Mode::Notrack, Mode::Ftfw] {
        let mut w = learned(mode, 100);
        // FW1 forgets that flows have ended: their deletes are never said.
        for n in 1..=30 {
            w.nodes[FW1].kernel.end(&tcp(n).key());
        }
        w.command(FW1, Command::FlushInternal);
        w.run(0.5);
        assert_eq!(w.nodes[FW2].replica.len(Which::External), 100);
        w.command(FW1, Command::Resync(Objects::All));
        w.command(FW1, Command::Bulk);
        w.run(3.0);
        let fw2 = &w.nodes[FW2];
        assert_eq!(fw2.replica.len(Which::External), 70, "{mode:?}");
        assert!((31..=100).all(|n| fw2.has(Which::External, &tcp(n))));
    }
}

#[test]
fn nothing_is_removed_without_the_trailer_or_with_something_lost() {
    for (mode, trailer, lossy) in [
        (Mode::Ftfw, false, false),
        (Mode::Notrack, false, false),
        (Mode::Notrack, true, true),
    ] {
        let mut w = learned(mode, 100);
        if !trailer {
            let plain = |n: u32| Settings {
                trailer: false,
                ..reborn(mode, n)
            };
            w = World::with(plain(1), plain(2));
            for n in 1..=100 {
                w.traffic(FW1, &tcp(n));
            }
            w.run(1.0);
            assert_eq!(w.nodes[FW1].replica.peer().0, None);
        }
        w.nodes[FW1].mute = true;
        w.nodes[FW1].kernel.deaf = true;
        for n in 1..=30 {
            w.nodes[FW1].kernel.end(&tcp(n).key());
        }
        w.nodes[FW1].kernel.deaf = false;
        w.command(FW1, Command::FlushInternal);
        w.command(FW1, Command::Resync(Objects::All));
        w.run(0.2);
        w.nodes[FW1].mute = false;
        w.seed(7);
        w.nodes[FW1].loss = if lossy { 0.5 } else { 0.0 };
        w.command(FW1, Command::Bulk);
        w.run(1.0);
        w.nodes[FW1].loss = 0.0;
        w.run(3.0);
        let left = w.nodes[FW2].replica.len(Which::External);
        assert_eq!(left, 100, "{mode:?}, trailer {trailer}, lossy {lossy}");
    }
}

#[test]
fn a_backup_that_starts_again_is_told_everything_by_itself() {
    for (mode, trailer) in [
        (Mode::Notrack, true),
        (Mode::Ftfw, true),
        (Mode::Ftfw, false),
    ] {
        let mut w = learned(mode, 100);
        if !trailer {
            let plain = |n: u32| Settings {
                trailer: false,
                ..reborn(mode, n)
            };
            w = World::with(plain(1), plain(2));
            for n in 1..=100 {
                w.traffic(FW1, &tcp(n));
            }
            w.run(1.0);
        }
        w.restart(
            FW2,
            Settings {
                trailer,
                ..reborn(mode, 99)
            },
        );
        w.run(3.0);
        let known = w.nodes[FW2].replica.len(Which::External);
        assert_eq!(known, 100, "{mode:?}, trailer {trailer}");
    }
}

#[test]
fn a_backup_asks_a_primary_that_has_started_again() {
    let mut w = learned(Mode::Ftfw, 100);
    w.command(FW2, Command::ScheduleFlush);
    // Only the daemon dies: the kernel's table stays, and no packet passes.
    w.restart(FW1, reborn(Mode::Ftfw, 77));
    w.run(3.0);
    assert_eq!(w.nodes[FW2].replica.unconfirmed(), 0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 100);
}

#[test]
fn copies_in_a_restarted_backups_kernel_are_not_sent_as_its_own() {
    let mut w = learned(Mode::Ftfw, 100);
    // FW2 holds copies, as after a failover and back, and starts again; then FW1 does.
    for n in 1..=100 {
        w.nodes[FW2].kernel.silently(w.now, &tcp(n));
    }
    w.restart(FW2, reborn(Mode::Ftfw, 88));
    w.run(3.0);
    w.restart(FW1, reborn(Mode::Ftfw, 77));
    w.run(12.0);
    assert_eq!(w.nodes[FW2].announced(), 0);
    assert_eq!(
        w.nodes[FW1].replica.confirmed(),
        0,
        "offers are not certain"
    );
}

#[test]
fn a_forged_hello_costs_a_bounded_amount() {
    let mut w = learned(Mode::Ftfw, 100);
    let before = w.nodes[FW1].sent;
    for n in 0..100u32 {
        let mut bytes = Vec::new();
        let (alive, flags) = (wire::v1::Control::Alive, wire::v1::Flags::HELLO);
        wire::v1::encode_control(&mut bytes, alive, flags, Seq(n.wrapping_mul(0x4000_0001)));
        let now = w.now;
        w.nodes[FW1].replica.handle_datagram(now, LinkId(0), &bytes);
        w.run(0.1);
    }
    w.run(5.0);
    let said = w.nodes[FW1].sent - before;
    assert!(said <= 300, "{said} messages for 100 forged HELLOs in 10 s");
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 100);
    w.traffic(FW1, &tcp(101));
    w.run(3.0);
    assert!(w.nodes[FW2].has(Which::External, &tcp(101)));
}

#[test]
fn late_data_are_used_as_far_as_they_are_news() {
    let mut replica = replica::Replica::new(ftfw());
    let now = replica::Instant::START;
    let mut say = |seq: u32, kind, flow: &Flow| {
        let mut bytes = Vec::new();
        let (flags, options) = (
            wire::v1::Flags::NONE,
            wire::v1::FlowOptions {
                timeout: true,
                window_scale: false,
            },
        );
        wire::v1::encode_flow(&mut bytes, kind, flags, Seq(seq), flow, options);
        replica.handle_datagram(now, LinkId(0), &bytes);
        let mut known = Vec::new();
        replica.walk(Which::External, cache::Position::default(), 100, |f, _| {
            known.push((f.orig.l4, f.tcp_state()));
        });
        known
    };
    use wire::v1::StateKind::{Delete, Update};
    let state = |n, s| in_state(&tcp(n), s);
    let (syn, up, fin) = (
        TcpState::SYN_SENT,
        TcpState::ESTABLISHED,
        TcpState::FIN_WAIT,
    );
    say(1, Update, &state(1, syn));
    say(9, Update, &state(1, fin));
    assert_eq!(say(5, Update, &state(1, up)), [(tcp(1).orig.l4, Some(fin))]);
    assert_eq!(say(6, Update, &state(2, up)).len(), 2, "unknown so far");
    assert_eq!(say(10, Delete, &state(2, up)).len(), 1);
    assert_eq!(say(7, Update, &state(2, up)).len(), 1, "has ended since");
    assert_eq!(say(8, Delete, &state(1, up)).len(), 1, "lives since");
}

#[test]
fn a_message_of_a_former_run_does_not_lead_astray_for_long() {
    let mut w = learned(Mode::Ftfw, 10);
    // Far ahead of FW1's numbers, as of a former run that was busier.
    let mut bytes = Vec::new();
    let (alive, flags) = (wire::v1::Control::Alive, wire::v1::Flags::NONE);
    wire::v1::encode_control(&mut bytes, alive, flags, Seq(1_000_000));
    let now = w.now;
    w.nodes[FW2].replica.handle_datagram(now, LinkId(0), &bytes);
    for n in 11..=20 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(5.0);
    assert!(equal(&w));
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.5);
    assert!(equal(&w));
}

#[test]
fn a_peer_that_misses_what_it_had_acknowledged_is_told_everything() {
    let settings = Settings {
        trailer: false,
        ..ftfw()
    };
    let mut w = World::with(settings.clone(), settings);
    w.run(1.5);
    for n in 1..=10 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.5);
    assert_eq!(w.nodes[FW1].replica.unacknowledged().0, 0);
    let bulks = |w: &World| {
        w.nodes[FW1]
            .heard
            .iter()
            .filter(|e| **e == Event::Bulk)
            .count()
    };
    let (before, sent) = (bulks(&w), w.nodes[FW1].sent);
    // As of an original that a late copy of a HELLO has taken back.
    let first = ftfw().first_seq;
    let nack = wire::v1::Control::Nack(Seq(first.0.wrapping_add(2)), Seq(first.0.wrapping_add(6)));
    for n in 0..3 {
        let mut bytes = Vec::new();
        let seq = Seq(first.0.wrapping_add(1000 + n));
        wire::v1::encode_control(&mut bytes, nack, wire::v1::Flags::NONE, seq);
        let now = w.now;
        w.nodes[FW1].replica.handle_datagram(now, LinkId(0), &bytes);
        w.run(0.2);
    }
    assert_eq!(bulks(&w), before + 1, "once in ten seconds");
    assert!(w.nodes[FW1].sent >= sent + 10);
}

#[test]
fn a_named_run_is_followed_although_nobody_acknowledges() {
    let mut receiver = replica::Receiver::new(Mode::Ftfw);
    let trailer = wire::v1::Trailer {
        role: wire::v1::Role::Primary,
        has_bulks: false,
        epoch: wire::v1::Epoch(7),
        bulk: wire::v1::Bulk {
            number: 0,
            first: Seq(1),
            flows: 0,
            state: wire::v1::BulkState::None,
        },
        holdings: None,
    };
    let mut hear = |ms: u64, seq: u32, named: bool| {
        let mut bytes = Vec::new();
        let flags = wire::v1::Flags::NONE;
        if named {
            wire::v1::encode_alive(&mut bytes, &trailer, flags, Seq(seq));
        } else {
            let resync = wire::v1::Control::Resync;
            wire::v1::encode_control(&mut bytes, resync, flags, Seq(seq));
        }
        let now = replica::Instant::START + std::time::Duration::from_millis(ms);
        let message = wire::v1::messages(&bytes).next().unwrap();
        receiver.accept(now, Seq(1), message).is_some()
    };
    assert!(hear(0, 1, true));
    assert!(hear(10, 1_000_000, false), "of a former run");
    assert!(!hear(20, 2, false));
    assert!(!hear(400, 3, true), "may be late");
    assert!(!hear(600, 3, true), "a copy proves nothing");
    assert!(hear(1000, 4, true));
    assert!(hear(1010, 5, false), "numbers go on from there");
}

/// Goal: another program in the peer's place is heard at once, and followed when the peer
/// has not named its epoch for 3 s; until then what comes without may be forged.
#[test]
fn another_program_in_the_place_of_a_peer_with_trailers_is_followed() {
    let mut w = learned(Mode::Ftfw, 10);
    w.nodes[FW1].mute = true;
    // The original's messages after its start: HELLO, numbers of its own, never an ALIVE.
    let say = |w: &mut World, n: u16| {
        let mut bytes = Vec::new();
        let flags = wire::v1::Flags::HELLO;
        let options = wire::v1::FlowOptions {
            timeout: true,
            window_scale: false,
        };
        let (kind, flow) = (wire::v1::StateKind::New, tcp(100 + n));
        let seq = Seq(0x7000_0000 + u32::from(n));
        wire::v1::encode_flow(&mut bytes, kind, flags, seq, &flow, options);
        let now = w.now;
        w.nodes[FW2].replica.handle_datagram(now, LinkId(0), &bytes);
    };
    for n in 0..5 {
        say(&mut w, n);
    }
    let fw2 = &w.nodes[FW2].replica;
    assert_eq!(fw2.len(Which::External), 15);
    assert_eq!(fw2.stats().peer_restarts, 0);
    w.run(3.0);
    say(&mut w, 5);
    let fw2 = &w.nodes[FW2].replica;
    assert_eq!((fw2.confirmed(), fw2.unconfirmed()), (1, 15));
    assert_eq!(fw2.peer().0, None);
    assert_eq!(fw2.stats().peer_restarts, 1);
}
