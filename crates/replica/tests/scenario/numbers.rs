//! Sequence numbers that lead astray: late, of a former epoch, forged, or of another program.

use flow::{Flow, TcpState};
use replica::{
    Accepted, Epoch, Event, Follows, LinkId, Mode, PeerId, Received, Receiver, Role, Seq, Settings,
    Which,
};
use wire::StateKind;
use wire::v1::{Bulk, BulkState, Control, Flags, Trailer, messages};

use crate::flows::{in_state, tcp};
use crate::pairs::{equal, ftfw, learned};
use crate::world::World;
use crate::{FW1, FW2, forged};

#[test]
fn a_forged_hello_costs_a_bounded_amount() {
    let mut w = learned(Mode::Ftfw, 100);
    let before = w.nodes[FW1].sent;
    for n in 0..100u32 {
        let seq = n.wrapping_mul(0x4000_0001);
        w.forge(FW1, &forged::control(Control::Alive, Flags::HELLO, seq));
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
        let bytes = forged::flow(kind, Flags::NONE, seq, flow);
        replica.handle_datagram(now, PeerId::FIRST, LinkId(0), &bytes);
        let mut known = Vec::new();
        replica.walk(Which::External, cache::Position::default(), 100, |f, _| {
            known.push((f.orig.l4, f.tcp_state()));
        });
        known
    };
    let state = |n, s| in_state(&tcp(n), s);
    let (syn, up, fin) = (
        TcpState::SYN_SENT,
        TcpState::ESTABLISHED,
        TcpState::FIN_WAIT,
    );
    say(1, StateKind::Update, &state(1, syn));
    say(9, StateKind::Update, &state(1, fin));
    assert_eq!(
        say(5, StateKind::Update, &state(1, up)),
        [(tcp(1).orig.l4, Some(fin))]
    );
    assert_eq!(
        say(6, StateKind::Update, &state(2, up)).len(),
        2,
        "unknown so far"
    );
    assert_eq!(say(10, StateKind::Delete, &state(2, up)).len(), 1);
    assert_eq!(
        say(7, StateKind::Update, &state(2, up)).len(),
        1,
        "has ended since"
    );
    assert_eq!(
        say(8, StateKind::Delete, &state(1, up)).len(),
        1,
        "lives since"
    );
}

#[test]
fn a_message_of_a_former_run_does_not_lead_astray_for_long() {
    let mut w = learned(Mode::Ftfw, 10);
    // Far ahead of FW1's numbers, as of a former run that was busier.
    w.forge(
        FW2,
        &forged::control(Control::Alive, Flags::NONE, 1_000_000),
    );
    for n in 11..=20 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(5.0);
    assert!(equal(&w));
    w.nodes[FW1].kernel.end(&tcp(1).key());
    w.run(0.5);
    assert!(equal(&w));
}

/// Goal: a late copy of what a former run announced goes, though the bulk update that would have
/// left it out came before it.
#[test]
fn a_flow_of_a_former_run_goes_also_after_the_bulk_update() {
    let mut w = learned(Mode::Ftfw, 10);
    w.forge(
        FW2,
        &forged::flow(StateKind::New, Flags::NONE, 1_000_000, &tcp(50)),
    );
    w.run(1.0);
    assert!(w.nodes[FW2].has(Which::External, &tcp(50)));
    w.run(30.0);
    assert!(!w.nodes[FW2].has(Which::External, &tcp(50)));
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
    let nack = Control::Nack(Seq(first.0.wrapping_add(2)), Seq(first.0.wrapping_add(6)));
    for n in 0..3 {
        let seq = first.0.wrapping_add(1000 + n);
        w.forge(FW1, &forged::control(nack, Flags::NONE, seq));
        w.run(0.2);
    }
    assert_eq!(bulks(&w), before + 1, "once in ten seconds");
    assert!(w.nodes[FW1].sent >= sent + 10);
}

fn trailer(epoch: u32) -> Trailer {
    Trailer {
        role: Role::Primary,
        has_bulks: false,
        epoch: Epoch(epoch),
        bulk: Bulk {
            number: 0,
            first: Seq(1),
            flows: 0,
            state: BulkState::None,
        },
        holdings: None,
    }
}

#[test]
fn a_named_run_is_followed_although_nobody_acknowledges() {
    let mut receiver = replica::Receiver::new(Mode::Ftfw);
    let trailer = trailer(7);
    let mut hear = |ms: u64, seq: u32, named: bool| {
        let bytes = if named {
            forged::alive(&trailer, seq)
        } else {
            forged::control(Control::Resync, Flags::NONE, seq)
        };
        let now = replica::Instant::START + std::time::Duration::from_millis(ms);
        let message = messages(&bytes).next().unwrap();
        let received = receiver.accept(now, Seq(1), message);
        received.is_some_and(|r| r.carries.is_some())
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
        let (kind, flow) = (StateKind::New, tcp(100 + n));
        let seq = 0x7000_0000 + u32::from(n);
        w.forge(FW2, &forged::flow(kind, Flags::HELLO, seq, &flow));
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
    assert_eq!(fw2.epoch_and_role_of(PeerId::FIRST).0, None);
    assert_eq!(fw2.stats().peer_restarts, 1);
}

/// Goal: an ALIVE that greets and names no epoch, from another program, is one restart.
#[test]
fn a_greeting_alive_of_another_program_is_one_restart() {
    let mut w = learned(Mode::Ftfw, 10);
    w.nodes[FW1].mute = true;
    w.run(3.1);
    let greets = forged::control(Control::Alive, Flags::HELLO, 0x7000_0000);
    w.forge(FW2, &greets);
    assert_eq!(w.nodes[FW2].replica.stats().peer_restarts, 1);
}

/// What a receiver makes of a datagram of one message. `own_next`: the number that we send next.
fn hear(receiver: &mut Receiver, own_next: u32, bytes: &[u8]) -> Received {
    let message = messages(bytes).next().unwrap();
    receiver.begin_datagram();
    let received = receiver.accept(replica::Instant::START, Seq(own_next), message);
    received.expect("a message")
}

/// Goal: the original takes the place of one of ours within a second. It is followed once it
/// acknowledges what has been sent to it, and what it has asked for before is asked for again.
#[test]
fn an_original_that_acknowledges_is_followed_at_once() {
    // Below the numbers of ours, and above.
    for first in [400, 70_000] {
        let mut receiver = replica::Receiver::new(Mode::Ftfw);
        let mut hear = |own_next, bytes: &[u8]| hear(&mut receiver, own_next, bytes);
        for seq in [999, 1000] {
            let received = hear(10, &forged::alive(&trailer(7), seq));
            assert!(matches!(received.carries, Some(Accepted::Alive(_))));
        }
        let ack = |n| Control::Ack(Seq(n), Seq(n));
        let greets = [ack(9), Control::Resync, ack(11)];
        let [greet, ask, acknowledge] =
            std::array::from_fn(|n| forged::control(greets[n], Flags::HELLO, first + n as u32));
        assert_eq!(hear(10, &greet).carries, None, "may be a late copy");
        assert_eq!(hear(11, &ask).carries, None, "may be a late copy");
        let received = hear(12, &acknowledge);
        let missed = Some((Seq(first), Seq(first + 1)));
        let known = true;
        assert_eq!(received.follows, Follows::Anew { known, missed });
        let ask = forged::control(Control::Resync, Flags::NONE, first + 3);
        assert!(hear(12, &ask).carries.is_some());
        // One of ours comes back, with whatever numbers.
        let received = hear(12, &forged::alive(&trailer(8), 100));
        let missed = None;
        assert_eq!(received.follows, Follows::Anew { known, missed });
        assert!(received.is_new_epoch);
        assert_eq!(receiver.epoch(), Some(Epoch(8)));
    }
}

/// Goal: an ALIVE that overtakes an acknowledgement of its own epoch, while the numbers are led
/// astray, does not make a living peer another program.
#[test]
fn an_acknowledgement_that_is_overtaken_is_of_no_other_program() {
    let mut receiver = replica::Receiver::new(Mode::Ftfw);
    let mut hear = |own_next, bytes: &[u8]| hear(&mut receiver, own_next, bytes);
    for seq in [99, 100] {
        hear(10, &forged::alive(&trailer(7), seq));
    }
    let resync = |seq| forged::control(Control::Resync, Flags::NONE, seq);
    hear(10, &resync(1_000_000));
    assert!(hear(10, &resync(101)).carries.is_none(), "seems late");
    assert!(hear(11, &forged::alive(&trailer(7), 103)).carries.is_none());
    let ack = Control::Ack(Seq(10), Seq(10));
    let received = hear(11, &forged::control(ack, Flags::NONE, 102));
    let (known, missed) = (false, None);
    assert_eq!(received.follows, Follows::Anew { known, missed });
    assert_eq!(received.last, Seq(103));
    assert!(hear(11, &forged::alive(&trailer(7), 104)).carries.is_some());
    assert_eq!(receiver.epoch(), Some(Epoch(7)));
}

/// Goal: a late acknowledgement of what only a former epoch of ours has sent does not take the
/// peer's numbers back.
#[test]
fn a_late_acknowledgement_of_what_was_never_sent_proves_nothing() {
    let mut receiver = replica::Receiver::new(Mode::Ftfw);
    let mut is_heard = |own_next: u32, control, seq| {
        let bytes = forged::control(control, Flags::NONE, seq);
        let message = messages(&bytes).next().unwrap();
        let received = receiver.accept(replica::Instant::START, Seq(own_next), message);
        received.is_some_and(|r| r.carries.is_some())
    };
    assert!(is_heard(10, Control::Resync, 1000));
    assert!(!is_heard(10, Control::Resync, 5), "late");
    assert!(
        !is_heard(12, Control::Ack(Seq(50), Seq(60)), 6),
        "never sent"
    );
    assert!(!is_heard(12, Control::Resync, 7), "still late");
    assert!(
        is_heard(12, Control::Ack(Seq(10), Seq(11)), 8),
        "sent since"
    );
    assert!(is_heard(12, Control::Resync, 9), "numbers go on from there");
}
