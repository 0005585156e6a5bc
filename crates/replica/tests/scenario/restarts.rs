//! Daemons that start again, in any order: equality without a command.

use flow::Flow;
use replica::{Epoch, Mode, PeerId, Reported, Seq, Settings, TableId, Which};

use crate::flows::tcp;
use crate::pairs::settings;
use crate::world::World;
use crate::{FW1, FW2};

fn own(mode: Mode, external_cache: bool, epoch: u32) -> Settings {
    Settings {
        mode,
        epoch: Epoch(epoch),
        first_seq: Seq(epoch * 100_000),
        external_cache,
        ..settings()
    }
}

fn flows(count: u16) -> Vec<Flow> {
    (1..=count).map(tcp).collect()
}

fn pair(mode: Mode, external_cache: bool) -> World {
    let mut w = World::with(own(mode, external_cache, 1), own(mode, external_cache, 2));
    w.run(1.5);
    for flow in flows(100) {
        w.traffic(FW1, &flow);
    }
    w.run(1.5);
    assert_eq!(w.nodes[FW2].held(&flows(100)), 100);
    w
}

/// Goal: no sequence of restarts leaves idle flows without a second holder.
#[test]
fn idle_flows_are_held_after_any_sequence_of_restarts() {
    let sequences: [&[&[usize]]; 5] = [
        &[&[FW1], &[FW2]],
        &[&[FW2], &[FW1]],
        &[&[FW1, FW2]],
        &[&[FW1], &[FW1], &[FW2], &[FW2]],
        &[&[FW2], &[FW1, FW2], &[FW1]],
    ];
    for mode in [Mode::Ftfw, Mode::Notrack] {
        for external_cache in [true, false] {
            for sequence in sequences {
                let mut w = pair(mode, external_cache);
                let mut epoch = 10;
                for together in sequence {
                    for n in *together {
                        epoch += 1;
                        w.restart(*n, own(mode, external_cache, epoch));
                    }
                    w.run(3.0);
                }
                w.run(12.0);
                let held = w.nodes[FW2].held(&flows(100));
                assert_eq!(held, 100, "{mode:?} cache {external_cache} {sequence:?}");
                assert_eq!(w.nodes[FW1].held(&flows(100)), 100);
                let said = w.nodes[FW1].replica.held_by(PeerId::FIRST);
                assert!(said.is_some_and(|(held, of)| held >= of), "{said:?}");
            }
        }
    }
}

/// Goal: flows that ended while their owner's daemon was down leave the peer, if the
/// owner's table is the same; a new table ends nothing.
#[test]
fn flows_that_ended_unseen_leave_the_peer_only_if_the_table_is_the_same() {
    for mode in [Mode::Ftfw, Mode::Notrack] {
        for (table, left) in [(1, 70), (2, 100)] {
            let mut w = pair(mode, true);
            w.nodes[FW1].kernel.deaf = true;
            for flow in &flows(100)[70..] {
                w.nodes[FW1].kernel.end(&flow.key());
            }
            w.nodes[FW1].kernel.deaf = false;
            let table = TableId(table);
            w.restart(
                FW1,
                Settings {
                    table,
                    ..own(mode, true, 9)
                },
            );
            w.run(15.0);
            let fw2 = &w.nodes[FW2].replica;
            assert_eq!(fw2.len(Which::External), left, "{mode:?} {table:?}");
            assert_eq!(fw2.confirmed(), 70);
        }
    }
}

/// Goal: an offer never becomes a flow of a kernel that has kept its table, and is
/// committed with at most a minute.
#[test]
fn offers_are_injected_only_into_a_new_table_and_committed_for_a_minute() {
    for (table, injected) in [(1, 0), (2, 20)] {
        let mut w = pair(Mode::Ftfw, false);
        // Flows that FW1 has found only: its daemon was down when they began.
        w.nodes[FW1].kernel.deaf = true;
        for n in 101..=120 {
            w.traffic(FW1, &tcp(n));
        }
        w.nodes[FW1].kernel.deaf = false;
        w.restart(FW1, own(Mode::Ftfw, false, 8));
        w.run(12.0);
        let table = TableId(table);
        if injected > 0 {
            w.nodes[FW2].kernel = sim::kernel::Kernel::default();
        }
        w.restart(
            FW2,
            Settings {
                table,
                ..own(Mode::Ftfw, false, 9)
            },
        );
        w.run(12.0);
        let new = &flows(120)[100..];
        let in_kernel = |w: &World| {
            let kernel = &w.nodes[FW2].kernel;
            new.iter()
                .filter(|f| kernel.get(&f.key()).is_some())
                .count()
        };
        assert_eq!(in_kernel(&w), injected);
        assert_eq!(w.nodes[FW2].held(new), 20);
        w.command(FW2, replica::Command::Commit(replica::Objects::All));
        w.run(1.0);
        assert_eq!(in_kernel(&w), 20);
        if injected == 0 {
            let timeout = w.nodes[FW2].kernel.get(&tcp(101).key()).unwrap().timeout;
            assert!(timeout <= Some(60), "{timeout:?}");
        }
    }
}

/// A replica that has lost what its peer counts on says so, and asks.
#[test]
fn a_backup_that_lacks_flows_asks_for_them() {
    for mode in [Mode::Ftfw, Mode::Notrack] {
        let mut w = pair(mode, true);
        w.run(12.0);
        w.command(FW2, replica::Command::FlushExternal);
        w.run(12.0);
        let fw2 = &w.nodes[FW2];
        assert_eq!(fw2.replica.len(Which::External), 100, "{mode:?}");
        let asked = replica::Event::Lacking {
            counts_on: 100,
            holds: 0,
        };
        assert_eq!(fw2.heard.iter().filter(|e| **e == asked).count(), 1);
        assert_eq!(fw2.replica.stats().lacks_found, 1);
    }
}

#[test]
fn a_lost_peer_and_its_return_are_said_once() {
    let mut w = pair(Mode::Ftfw, true);
    w.nodes[FW1].mute = true;
    w.run(20.0);
    w.nodes[FW1].mute = false;
    w.run(3.0);
    let heard = &w.nodes[FW2].heard;
    let count = |wanted: fn(&replica::Event) -> bool| heard.iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, replica::Event::PeerHeard)), 1);
    assert_eq!(count(|e| matches!(e, replica::Event::PeerLost)), 1);
    assert_eq!(count(|e| matches!(e, replica::Event::PeerBack { .. })), 1);
}

/// Goal: a replica knows how many flows would be lost if its peer died now.
#[test]
fn what_would_be_lost_with_the_peer_is_known() {
    for mode in [Mode::Notrack, Mode::Ftfw] {
        let mut w = pair(mode, true);
        w.run(1.5);
        let reported = |w: &World| w.nodes[FW2].replica.reported_by(PeerId::FIRST);
        let all = Reported {
            flows: 100,
            held: 100,
            is_in_bulk: false,
        };
        assert_eq!(reported(&w), Some(all));
        // The report stands, also if the peer never sends another one; what is held does not.
        w.command(FW2, replica::Command::FlushExternal);
        assert_eq!(reported(&w), Some(Reported { held: 0, ..all }));
        w.restart(FW2, own(mode, true, 3));
        assert_eq!(reported(&w), None);
        w.run(5.0);
        assert_eq!(reported(&w), Some(all), "{mode:?}");
        // A limit that is too small.
        let small = Settings {
            limit: 60,
            ..own(mode, true, 4)
        };
        w.restart(FW2, small);
        // Restarts cause one bulk update in 10 s.
        w.run(15.0);
        let part = Reported { held: 60, ..all };
        assert_eq!(reported(&w), Some(part), "{mode:?}");
    }
}

/// What a peer reported before a silence says nothing when it is back.
#[test]
fn a_report_ends_with_the_silence_behind_it() {
    let mut w = pair(Mode::Notrack, true);
    w.run(1.5);
    w.nodes[FW1].mute = true;
    w.run(20.0);
    let reported = |w: &World| {
        let report = w.nodes[FW2].replica.reported_by(PeerId::FIRST);
        report.map(|r| r.flows)
    };
    assert_eq!(reported(&w), Some(100));
    w.nodes[FW1].mute = false;
    w.traffic(FW1, &flows(101)[100]);
    while w.nodes[FW2].replica.is_lost(PeerId::FIRST) == Some(true) {
        w.run(0.001);
    }
    assert_eq!(reported(&w), None, "its first message is the flow");
    w.run(1.5);
    assert_eq!(reported(&w), Some(101));
}
