//! The ledger beside a plain list of versions, by random operations from fixed seeds.

use std::collections::BTreeMap;

use flow::{Addrs, FlowKey, L4, Proto, Tuple};

use super::*;

/// A small generator (xorshift): the operations of a seed are always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn flow(n: usize) -> Flow {
    let n = u16::try_from(n).unwrap();
    Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        },
        proto: Proto::UDP,
        l4: L4::Ports { src: n, dst: 53 },
    })
}

/// What a listener has been sent of each flow: a version, or that it has ended.
type Sent = BTreeMap<FlowKey, u64>;

fn check(ledger: &Ledger) {
    let mut next = ledger.front(List::Ledger);
    let (mut last, mut owed, mut live) = (0, 0, None);
    while let Some(slot) = next {
        let version = ledger.note(slot).version();
        assert!(version > last, "versions ascend");
        last = version;
        if version > ledger.sent {
            owed += 1;
            live = live.or(Some(slot));
        }
        next = ledger.behind(slot);
    }
    assert_eq!((ledger.owed(), ledger.next_owed()), (owed, live));
    let mut next = ledger.front(List::Adopted);
    while let Some(slot) = next {
        assert_eq!(ledger.note(slot).version(), 0);
        next = ledger.behind(slot);
    }
}

fn send(ledger: &mut Ledger, slot: Slot, sent: &mut Sent) {
    let version = ledger.sent(slot);
    sent.insert(ledger.key(slot), version);
    if ledger.note(slot).has_ended() {
        sent.remove(&ledger.key(slot));
        ledger.step(slot, Step::Acknowledged);
    }
}

#[test]
fn whatever_happens_a_listener_that_is_sent_all_has_all() {
    for seed in 1..200 {
        let mut random = Random(seed);
        let mut ledger = Ledger::new(64);
        let mut sent = Sent::new();
        let mut operations = 0;
        for _ in 0..400 {
            let f = flow(random.below(12));
            let slot = ledger.find(&f.key());
            let step = [
                Step::Updated,
                Step::Traffic,
                Step::TakenByPeer,
                Step::Committed,
                Step::Ended,
                Step::Reused,
            ][random.below(6)];
            match (slot, random.below(8)) {
                (_, 0 | 1) => {
                    if let Some(slot) = ledger.next_owed() {
                        send(&mut ledger, slot, &mut sent);
                    }
                }
                (_, 2) => ledger.begin_bulk(),
                (_, 3) => {
                    if let Some(slot) = ledger.next_in_bulk(false) {
                        if ledger.note(slot).has_ended() {
                            ledger.pass_in_bulk(slot);
                        } else {
                            send(&mut ledger, slot, &mut sent);
                        }
                    }
                }
                (None, 4) => {
                    ledger.insert(&f, Tick(0), Step::Adopted).unwrap();
                }
                (None, _) => {
                    ledger.insert(&f, Tick(0), Step::Created).unwrap();
                }
                (Some(slot), _) => {
                    ledger.step(slot, step);
                }
            }
            check(&ledger);
            operations += 1;
        }
        while let Some(slot) = ledger.next_owed() {
            send(&mut ledger, slot, &mut sent);
            check(&ledger);
        }
        // What is ours stands with the listener at its latest version.
        let mut position = cache::Position::default();
        while let Some((slot, next)) = ledger.walk(position) {
            position = next;
            if ledger.is_ours(slot) {
                let version = ledger.note(slot).version();
                assert_eq!(sent.get(&ledger.key(slot)), Some(&version), "seed {seed}");
            }
        }
        assert_eq!(operations, 400);
    }
}

#[test]
fn changes_of_an_entry_that_nobody_has_been_sent_make_one_message() {
    let mut ledger = Ledger::new(8);
    let first = ledger.insert(&flow(1), Tick(0), Step::Created).unwrap();
    let second = ledger.insert(&flow(2), Tick(0), Step::Created).unwrap();
    ledger.step(first, Step::Updated);
    assert_eq!(ledger.owed(), 2);
    assert_eq!(ledger.next_owed(), Some(first), "it keeps its place");
    ledger.sent(first);
    ledger.step(first, Step::Updated);
    assert_eq!(
        ledger.next_owed(),
        Some(second),
        "it goes behind the others"
    );
    assert_eq!(ledger.owed(), 2);
}

#[test]
fn a_bulk_update_passes_everything_that_was_sent_once_and_ends() {
    let mut ledger = Ledger::new(64);
    for n in 0..10 {
        let slot = ledger.insert(&flow(n), Tick(0), Step::Created).unwrap();
        ledger.sent(slot);
    }
    let found = ledger.insert(&flow(20), Tick(0), Step::Adopted).unwrap();
    ledger.begin_bulk();
    // What changes meanwhile leaves the range: the live cursor sends it.
    let third = ledger.find(&flow(3).key()).unwrap();
    ledger.step(third, Step::Updated);
    let mut passed = Vec::new();
    while let Some(slot) = ledger.next_in_bulk(true) {
        passed.push(slot);
        ledger.sent(slot);
    }
    assert_eq!(passed.len(), 10, "nine of the ten, and the adopted one");
    assert!(!passed.contains(&third) && passed.contains(&found));
    assert_eq!(ledger.life(found), Life::Offered);
}

#[test]
fn what_leaves_the_ring_is_caught_up_with_unless_it_has_changed() {
    let mut ledger = Ledger::new(64);
    let sent: Vec<(Ticket, u64)> = (0..6)
        .map(|n| {
            let slot = ledger.insert(&flow(n), Tick(0), Step::Created).unwrap();
            (ledger.ticket(slot), ledger.sent(slot))
        })
        .collect();
    let changed = ledger.redeem(sent[0].0).unwrap();
    ledger.step(changed, Step::Updated);
    for n in [0, 2, 1] {
        ledger.forget_message(sent[n].0, sent[n].1);
    }
    let mut again = Vec::new();
    while let Some(slot) = ledger.next_to_catch_up() {
        again.push(slot);
        ledger.sent(slot);
    }
    let wanted = [sent[1].0, sent[2].0].map(|t| ledger.redeem(t).unwrap());
    assert_eq!(again, wanted);
    assert!(!ledger.has_to_catch_up());
    assert_eq!(ledger.next_owed(), Some(changed));
}

#[test]
fn the_oldest_tombstones_go_first_and_only_when_there_are_too_many() {
    let mut ledger = Ledger::new(64);
    let mut lost = Vec::new();
    for n in 0..6 {
        let slot = ledger.insert(&flow(n), Tick(0), Step::Created).unwrap();
        ledger.sent(slot);
        ledger.step(slot, Step::Ended);
        ledger.sent(slot);
        lost.push(ledger.bury(slot, 4));
    }
    assert_eq!(lost, [0, 0, 0, 0, 1, 1]);
    let held = |n| ledger.find(&flow(n).key()).is_some();
    assert_eq!([0, 1, 2, 5].map(held), [false, false, true, true]);
}
