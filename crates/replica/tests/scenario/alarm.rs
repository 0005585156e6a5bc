//! ALARM: everything is sent again and again, and nothing is acknowledged.

use replica::{Command, Mode, Settings, Which};

use crate::failback::take_over;
use crate::flows::tcp;
use crate::pairs::settings;
use crate::world::World;
use crate::{FW1, FW2};

fn alarm() -> Settings {
    Settings {
        mode: Mode::Alarm,
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

/// As a conntrackd does that was primary, which nobody tells whose the flows are now.
#[test]
fn alarm_what_a_former_primary_repeats_stays_the_new_ones() {
    let mut w = World::with(alarm(), alarm());
    for n in 1..=50 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    w.nodes[FW2].mute = true;
    take_over(&mut w, FW2);
    w.run(11.0);
    w.nodes[FW2].mute = false;
    w.nodes[FW1].mute = true;
    w.run(11.0);
    assert_eq!(w.nodes[FW1].replica.len(Which::External), 50);
}
