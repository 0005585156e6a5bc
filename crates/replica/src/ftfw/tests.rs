//! The acknowledging protocol alone: no cache, no link.

use super::hearing::ACK_DELAY;
use super::*;
use crate::receive::{Accepted, Follows};
use crate::settings::Settings;

fn settings() -> Settings {
    Settings {
        mode: crate::Mode::Ftfw,
        internal_cache: true,
        external_cache: true,
        limit: 1,
        ack_window: 3,
        resend_queue: 1,
        refresh_time: Duration::from_secs(15),
        cache_timeout: Duration::from_secs(180),
        commit_timeout: None,
        purge_timeout: Duration::from_secs(60),
        window_tracking: false,
        startup_resync: false,
        overrun_resync: None,
        expectations: None,
        filter: flow::Filter::default(),
        links: Vec::new(),
        first_link: 0,
        sweep_short: Duration::from_secs(5),
        sweep_full: Duration::from_secs(15),
        sweep_leisurely: Duration::from_secs(15),
        first_seq: Seq(1),
        epoch: wire::Epoch(1),
        table: wire::TableId(1),
        trailer: false,
    }
}

fn data(seq: u32, follows: Follows) -> Received {
    Received {
        seq: Seq(seq),
        flags: Flags::NONE,
        follows,
        last: Seq(seq),
        is_new_epoch: false,
        carries: Some(Accepted::Control(Control::Resync)),
    }
}

fn expectation(version: u64) -> Message {
    Message {
        about: About::Expectation,
        version,
    }
}

/// The first number of a sender.
const ANEW: Follows = Follows::Anew {
    known: false,
    missed: None,
};

fn at(ms: u64) -> Instant {
    Instant::START + Duration::from_millis(ms)
}

#[test]
fn a_full_window_is_acknowledged_at_once_and_less_after_a_delay() {
    let mut hearing = Hearing::new(&settings());
    assert_eq!(hearing.heard(at(0), &data(10, ANEW)), []);
    assert_eq!(hearing.heard(at(1), &data(11, Follows::Next)), []);
    let ack = Effect::Owe(Control::Ack(Seq(10), Seq(12)));
    assert_eq!(hearing.heard(at(2), &data(12, Follows::Next)), [ack]);
    assert_eq!(hearing.heard(at(3), &data(13, Follows::Next)), []);
    assert_eq!(hearing.next_due(), Some(at(3) + ACK_DELAY));
    let due = hearing.timeout(at(3) + ACK_DELAY, Some(Seq(13)));
    assert_eq!(due, Some(Control::Ack(Seq(13), Seq(13))));
}

#[test]
fn an_acknowledgement_that_is_nearly_due_goes_with_what_comes_next() {
    for (next, due) in [(16, 20), (17, 17)] {
        let mut hearing = Hearing::new(&settings());
        hearing.heard(at(0), &data(10, ANEW));
        hearing.heard(at(next), &data(11, Follows::Next));
        assert_eq!(hearing.next_due(), Some(at(due)));
    }
}

#[test]
fn a_gap_is_asked_for_and_what_came_before_it_is_acknowledged() {
    let mut hearing = Hearing::new(&settings());
    hearing.heard(at(0), &data(10, ANEW));
    let gap = Follows::Gap(Seq(11), Seq(14));
    let effects = hearing.heard(at(1), &data(15, gap));
    let ack = Effect::Owe(Control::Ack(Seq(10), Seq(10)));
    assert_eq!(effects, [ack, Effect::Owe(Control::Nack(Seq(11), Seq(14)))]);
}

#[test]
fn what_was_missed_while_we_greeted_is_asked_for_unless_epochs_tell() {
    for is_named in [false, true] {
        let mut ftfw = Ftfw::new();
        ftfw.heard(at(0), &data(10, Follows::Gap(Seq(5), Seq(9))));
        let mut answer = data(11, Follows::Next);
        answer.flags = Flags::HELLO_BACK;
        assert!(ftfw.heard(at(1), &answer));
        assert!(!ftfw.heard(at(1), &answer), "once");
        assert!(!ftfw.is_greeting());
        let effects = ftfw.timeout(at(1) + PROBE_MAX, true, is_named);
        assert_eq!(effects.contains(&Effect::AskForAll), !is_named);
    }
}

/// Goal: an original that answers and then acknowledges nothing has not heard our HELLO.
#[test]
fn a_greeting_whose_answer_was_not_for_us_is_sent_again() {
    for is_acknowledged in [false, true] {
        let mut ftfw = Ftfw::new();
        let mut answer = data(10, ANEW);
        answer.flags = Flags::HELLO_BACK;
        ftfw.heard(at(0), &answer);
        for n in 1..=2 {
            ftfw.sent(at(1), Seq(n), expectation(u64::from(n)));
        }
        if is_acknowledged {
            ftfw.acknowledged(at(2), Seq(1), Seq(1));
        }
        ftfw.timeout(at(2100), true, false);
        assert_eq!(ftfw.is_greeting(), !is_acknowledged);
    }
}

#[test]
fn what_stays_unacknowledged_is_probed_for_and_sent_again_to_a_peer_that_lives() {
    let mut ftfw = Ftfw::new();
    ftfw.sent(at(0), Seq(1), expectation(1));
    assert_eq!(ftfw.next_due(), Some(at(0) + PROBE_FIRST));
    let probe = Effect::Owe(Control::Alive);
    assert_eq!(ftfw.timeout(at(50), false, false), [probe]);
    // Nothing has been heard of the peer for 2 s.
    assert_eq!(ftfw.timeout(at(2100), false, false), [probe]);
    let mut hearing = Hearing::new(&settings());
    let mut lively = data(5, Follows::Next);
    lively.carries = Some(Accepted::Alive(None));
    assert!(!hearing.lives(at(6000)));
    hearing.heard(at(6000), &lively);
    let effects = ftfw.timeout(at(6200), hearing.lives(at(6200)), false);
    assert!(effects.contains(&Effect::SendAgain), "{effects:?}");
    let settled = ftfw.acknowledged(at(6300), Seq(1), Seq(1));
    assert_eq!(settled.messages, [expectation(1)]);
    assert_eq!(ftfw.next_due(), None, "nothing is left to be waited for");
}

#[test]
fn a_peer_that_misses_what_it_had_acknowledged_has_gone_back() {
    let mut ftfw = Ftfw::new();
    for n in 1..=4 {
        ftfw.sent(at(0), Seq(n), expectation(u64::from(n)));
    }
    ftfw.acknowledged(at(1), Seq(1), Seq(2));
    let missed = ftfw.missed(Seq(3), Seq(3), 9);
    assert_eq!(missed.messages, [expectation(3)]);
    assert!(!missed.went_back);
    let missed = ftfw.missed(Seq(2), Seq(3), 9);
    assert!(missed.messages.is_empty() && missed.went_back);
    assert!(
        !ftfw.missed(Seq(2), Seq(3), 9).went_back,
        "that is noticed once"
    );
}
