//! Goal: bad input moves the same counters as in conntrackd 1.4.7.
//! Method: a recorded run of a synthetic peer against it, step by step, in each
//! mode. The deliberate differences are written out below.

use std::collections::BTreeMap;

use replica::{Instant, Mode, ReceiveStats, Receiver, Seq};
use serde_json::Value;
use wire::v1::messages;

fn counters(s: &ReceiveStats) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("Malformed messages", s.malformed),
        ("Wrong protocol version", s.wrong_version),
        ("Malformed header", s.bad_header),
        ("Malformed payload", s.bad_payload),
        ("Bad message type", s.bad_type),
        ("Truncated message", s.truncated),
        ("Bad message size", s.bad_size),
        ("Packets lost", s.lost),
        ("Packets before", s.before),
    ])
}

/// What we count where we differ on purpose; `None` where we do not.
fn deliberate(mode: Mode, step: u64) -> Option<&'static [(&'static str, u64)]> {
    match (mode, step) {
        // The original counts two too many per gap.
        (Mode::Ftfw | Mode::Notrack, 4) => Some(&[("Packets lost", 3)]),
        // It also counts gaps of messages that it then rejects.
        (Mode::Ftfw | Mode::Notrack, 8..=10) => {
            Some(&[("Malformed messages", 1), ("Malformed header", 1)])
        }
        (Mode::Ftfw, 11) => Some(&[]),
        // The last good one was step 5, two before 0x3ef less one.
        (Mode::Notrack, 11) => Some(&[("Packets lost", 2)]),
        // An unknown attribute is passed over.
        (_, 12) => Some(&[]),
        // Without identity a message is rejected; it poisons the original's cache.
        (_, 19 | 20) => Some(&[("Malformed messages", 1), ("Malformed payload", 1)]),
        // Helper names are as long as the kernel's.
        (_, 22) => Some(&[]),
        _ => None,
    }
}

fn replay(name: &str, mode: Mode) {
    let text = include_str!("../../wire/testdata/negative.jsonl");
    let mut receiver = Receiver::new(mode);
    let mut steps = 0;
    for line in text.lines() {
        let v: Value = serde_json::from_str(line).unwrap();
        if v["mode"] != name {
            continue;
        }
        let step = v["step"].as_u64().unwrap();
        let hex = v["hex"].as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect();
        let mut want = counters(&receiver.stats);
        match deliberate(mode, step) {
            Some(ours) => {
                for (key, by) in ours {
                    *want.get_mut(key).unwrap() += by;
                }
            }
            None => {
                for (key, by) in v["counters"].as_object().unwrap() {
                    *want.get_mut(key.as_str()).unwrap() += by.as_u64().unwrap();
                }
            }
        }
        for message in messages(&bytes) {
            // Far enough apart that a HELLO with an old number is no late copy.
            let now = Instant::from_nanos(step * 3_000_000_000);
            receiver.accept(now, Seq(0), message);
        }
        assert_eq!(
            counters(&receiver.stats),
            want,
            "{name} step {step}: {}",
            v["name"]
        );
        steps += 1;
    }
    assert_eq!(steps, 53);
}

#[test]
fn ftfw_counts_as_recorded() {
    replay("FTFW", Mode::Ftfw);
}

#[test]
fn notrack_counts_as_recorded() {
    replay("NOTRACK", Mode::Notrack);
}

#[test]
fn alarm_counts_as_recorded() {
    replay("ALARM", Mode::Alarm);
}
