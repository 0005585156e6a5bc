//! What a hostile or broken neighbour costs: it sends what it likes, from the peer's address.

use replica::{Event, Mode, Seq, Settings, Which};
use wire::StateKind;
use wire::v1::{Control, Flags};

use crate::flows::tcp;
use crate::pairs::{equal, learned, settings};
use crate::world::World;
use crate::{FW1, FW2, forged};

/// A pair that rests, and may begin a bulk update again.
fn pair(mode: Mode) -> World {
    let mut w = learned(mode, 500);
    w.run(12.0);
    w
}

/// Goal: requests of a neighbour cause one bulk update in ten seconds, and none is lost.
#[test]
fn forged_requests_begin_one_bulk_update_in_ten_seconds() {
    let mut w = pair(Mode::Ftfw);
    let before = w.nodes[FW1].sent;
    for n in 0..400 {
        let bytes = forged::control(Control::Resync, Flags::NONE, 1_000_000 + n);
        w.forge(FW1, &bytes);
        w.run(0.05);
    }
    w.run(12.0);
    // 20 s of requests: at 0, at 10, and the last one's at 20.
    let bulks = w.nodes[FW1]
        .heard
        .iter()
        .filter(|e| **e == Event::Bulk)
        .count();
    assert!((2..=4).contains(&bulks), "{bulks} bulk updates");
    let sent = w.nodes[FW1].sent - before;
    // Numbers that lead astray cost a repetition of what then seems unacknowledged.
    assert!(sent <= (2 * bulks + 1) * 500, "{sent} messages");
}

/// A pair whose FW2 is silent since FW1 has 500 flows more, and how many messages FW1 has sent.
fn with_silent_peer() -> (World, usize) {
    let mut w = pair(Mode::Ftfw);
    w.nodes[FW2].mute = true;
    for n in 501..=1000 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.0);
    let before = w.nodes[FW1].sent;
    (w, before)
}

/// Goal: a neighbour's greetings repeat what is unacknowledged once in ten seconds.
#[test]
fn forged_greetings_repeat_nothing_again_and_again() {
    let (mut w, before) = with_silent_peer();
    for n in 0..800u32 {
        // Each begins the numbers anew.
        let seq = n.wrapping_mul(77_777_777);
        w.forge(FW1, &forged::control(Control::Alive, Flags::HELLO, seq));
        w.run(0.01);
    }
    let sent = w.nodes[FW1].sent - before;
    // The last resort against disagreement, after 2 s and then 4 s of silence.
    assert!(sent <= 1000, "{sent} messages");
}

/// Goal: a neighbour that asks for what was missed gets each message a few times, and no more.
/// Method: the peer is silent, so that nothing is acknowledged.
#[test]
fn forged_requests_for_what_was_missed_repeat_nothing_again_and_again() {
    let (mut w, before) = with_silent_peer();
    let nack = Control::Nack(Seq(1), Seq(100_000));
    for n in 0..800 {
        w.forge(FW1, &forged::control(nack, Flags::NONE, 1_000_000 + n));
        w.run(0.01);
    }
    let sent = w.nodes[FW1].sent - before;
    // Each message twice, a thousand and then a hundred a second beyond; a bulk update, as what was
    // acknowledged is asked for, too; and the repetition. Without a bound there were 99 419.
    assert!(sent <= 8000, "{sent} messages");
    w.nodes[FW2].mute = false;
    w.run(12.0);
    assert!(w.nodes[FW1].replica.unacknowledged().0 == 0 && equal(&w));
}

/// Goal: an operator's bulk update begins at once, whatever datagrams have caused.
#[test]
fn an_operators_bulk_update_begins_at_once() {
    let mut w = pair(Mode::Ftfw);
    w.forge(
        FW1,
        &forged::control(Control::Resync, Flags::NONE, 1_000_000),
    );
    w.run(1.0);
    let before = w.nodes[FW1].sent;
    w.command(FW1, replica::Command::Bulk);
    w.run(1.0);
    assert!(w.nodes[FW1].sent - before >= 500);
}

/// Goal: a flow that came without a timeout and was injected is not announced back.
#[test]
fn injected_flows_without_a_timeout_are_not_announced_back() {
    let mut w = World::with(
        settings(),
        Settings {
            external_cache: false,
            ..settings()
        },
    );
    w.run(1.0);
    for (n, kind) in [
        (1, StateKind::New),
        (2, StateKind::Update),
        (3, StateKind::New),
    ] {
        let seq = 50 + u32::from(n);
        w.forge(FW2, &forged::flow_without_timeout(kind, seq, &tcp(n)));
    }
    w.run(1.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 3);
    w.run(50.0);
    assert_eq!(w.nodes[FW2].sent, 0);
    assert_eq!(w.nodes[FW2].replica.len(Which::Internal), 0);
}
