//! FT-FW: whatever the link does, the caches become equal, at a bounded cost.

use std::time::Duration;

use flow::TcpState;
use replica::{
    Accepted, Change, Command, DumpEnd, Instant, KernelEvent, LinkId, Mode, Origin, PeerId,
    Receiver, Replica, Seq, Settings, Which,
};
use wire::v1::{BulkState, Control, Flags, Trailer, messages};
use wire::{Epoch, StateKind};

use crate::flows::{in_state, tcp};
use crate::pairs::{equal, ftfw, reborn};
use crate::world::World;
use crate::{FW1, FW2, forged};

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

/// Goal: a peer that has not acknowledged our epoch reads it before anything else. Method: a
/// replica that greets hears messages which it must acknowledge, and is not answered.
#[test]
fn each_datagram_of_a_greeting_begins_with_its_epoch() {
    let mut now = Instant::START;
    let mut greets = Replica::new(reborn(Mode::Ftfw, 7));
    let mut acknowledges = 0;
    for n in 0..100 {
        // Data are acknowledged at once, the others with the next ALIVE.
        let bytes = match n % 10 {
            0 => forged::flow(StateKind::New, Flags::NONE, 1000 + n, &tcp(n as u16 + 1)),
            _ => forged::control(Control::Alive, Flags::NONE, 1000 + n),
        };
        greets.handle_datagram(now, PeerId::FIRST, LinkId(0), &bytes);
        for _ in 0..10 {
            now = now + Duration::from_millis(20);
            greets.handle_timeout(now);
            while let Some((_, bytes)) = greets.poll_transmit() {
                let all: Vec<_> = messages(bytes).map(|m| m.unwrap()).collect();
                let first = Trailer::decode(all[0].body).unwrap();
                assert_eq!(first.map(|t| t.epoch), Some(Epoch(7)), "{all:?}");
                acknowledges += all
                    .iter()
                    .filter(|m| m.header.flags.intersects(Flags::ACK))
                    .count();
            }
        }
    }
    assert!(acknowledges > 10, "{acknowledges}");
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
    let mut replica = Replica::new(ftfw());
    // Every second number is missing, and the link takes nothing meanwhile.
    for n in 0..10_000 {
        let bytes = forged::control(Control::Alive, Flags::NONE, 2 * n);
        replica.handle_datagram(Instant::START, PeerId::FIRST, LinkId(0), &bytes);
    }
    assert_eq!(replica.stats().receive.lost, 9_999);
    assert_eq!(replica.owed(), 1024);
}

/// Goal: a bulk update of which a part was given up for an absent peer is never complete:
/// the peer would remove what it has not received.
#[test]
fn ftfw_does_not_complete_a_bulk_update_that_it_has_given_up() {
    let mut replica = Replica::new(Settings {
        resend_queue: 10,
        ..ftfw()
    });
    let event = |change, n| KernelEvent {
        change,
        origin: Origin::Traffic,
        flow: tcp(n),
    };
    let begun: Vec<_> = (1..=50).map(|n| event(Change::New, n)).collect();
    let ended: Vec<_> = (1..=30).map(|n| event(Change::Destroy, n)).collect();
    let at = |ms| Instant::START + Duration::from_millis(ms);
    let first = replica.settings().first_seq;
    replica.handle_events(at(0), &begun);
    let resync = forged::control(Control::Resync, Flags::NONE, 1);
    replica.handle_datagram(at(0), PeerId::FIRST, LinkId(0), &resync);
    let mut states = Vec::new();
    let mut receiver = Receiver::new(Mode::Ftfw);
    for ms in (0..3000).step_by(10) {
        if ms == 500 {
            replica.handle_events(at(ms), &ended);
        }
        if ms == 2000 {
            // The peer has received what was not given up.
            let (from, to) = (first, Seq(first.0.wrapping_add(1000)));
            let ack = forged::control(Control::Ack(from, to), Flags::NONE, 2);
            replica.handle_datagram(at(ms), PeerId::FIRST, LinkId(0), &ack);
        }
        while replica.poll_dump().is_some() {
            replica.handle_dump_end(at(ms), DumpEnd::Complete);
        }
        replica.handle_timeout(at(ms));
        replica.advance(at(ms), 100);
        while let Some((_, bytes)) = replica.poll_transmit() {
            for message in messages(bytes) {
                let received = receiver.accept(at(ms), Seq(1), message);
                let carried = received.and_then(|r| r.carries);
                if let Some(Accepted::Alive(Some(trailer))) = carried {
                    states.push(trailer.bulk.state);
                }
            }
        }
    }
    assert!(replica.stats().ends_given_up > 0);
    assert!(states.contains(&BulkState::UnderWay));
    assert!(!states.contains(&BulkState::Complete), "{states:?}");
}

/// Goal: an acknowledgement that was lost is not sent again after the peer has started again:
/// its new numbers overlap the old ones, and it would take the peer for having heard it.
#[test]
fn an_old_acknowledgement_confirms_nothing_to_a_peer_that_has_started_again() {
    let mut w = World::with(ftfw(), ftfw());
    w.nodes[FW2].mute = true;
    for n in 1..=100 {
        w.traffic(FW1, &tcp(n));
    }
    // Something else that it repeats.
    w.traffic(FW2, &tcp(200));
    w.run(0.5);
    w.restart(FW1, ftfw());
    w.run(0.05);
    w.nodes[FW1].mute = true;
    w.nodes[FW2].mute = false;
    for n in 101..=150 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(5.0);
    let (unacknowledged, _) = w.nodes[FW1].replica.unacknowledged();
    assert!(unacknowledged >= 50, "only {unacknowledged} of 50");
    w.nodes[FW1].mute = false;
    w.run(5.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 150);
}
