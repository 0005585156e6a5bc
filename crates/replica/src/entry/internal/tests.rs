//! Every step from every state that can be reached.

use std::collections::BTreeSet;

use super::*;

const STEPS: [Step; 18] = [
    Step::Created,
    Step::Noticed,
    Step::Adopted,
    Step::Reused,
    Step::Updated,
    Step::Traffic,
    Step::TakenByPeer,
    Step::EndedByPeer,
    Step::FoundAgain,
    Step::Committed,
    Step::Noted,
    Step::Doubted,
    Step::Answered,
    Step::Ended,
    Step::InBulk,
    Step::Promoted,
    Step::Sent,
    Step::Acknowledged,
];

/// Where each life leads by each step, and what follows; in the order of `STEPS`.
/// The letters: O ours, F found, S offered, T taken, E ended; then `+` announce,
/// `-` withdraw, `a` adopt, `x` remove, ` ` nothing.
const TABLE: [(Life, &str); 5] = [
    (Life::Ours, "O+O+FaO+O+O+T-O O O O O O E+O O O O "),
    (Life::Found, "O+O+FaO+O+O+T-F F F F F F E+F O+S F "),
    (Life::Offered, "O+O+FaO+O+O+T-S S S S S S E+S O+S S "),
    (Life::Taken, "O+O+FaO+O+O+T-T FaFaT T T TxT T T T "),
    (Life::Ended, "O+O+FaO+E E E E E O+E E E E E E E Ex"),
];

/// All states that the steps lead to from a new entry.
fn reachable() -> BTreeSet<(u8, u8)> {
    let mut known = BTreeSet::new();
    let mut open = vec![Internal::default()];
    while let Some(from) = open.pop() {
        if !known.insert((from.life as u8, from.flags)) {
            continue;
        }
        for step in STEPS {
            let mut to = from;
            if to.step(step) != Effect::Remove {
                open.push(to);
            }
        }
    }
    known
}

fn note((life, flags): (u8, u8)) -> Internal {
    let lives = TABLE.map(|(life, _)| life);
    Internal {
        life: *lives.iter().find(|l| **l as u8 == life).unwrap(),
        flags,
        ..Internal::default()
    }
}

#[test]
fn the_table_of_transitions_is_as_written_down() {
    let mut seen = 0;
    for state in reachable() {
        let from = note(state);
        let row = TABLE.iter().find(|(life, _)| *life == from.life).unwrap().1;
        for (step, wanted) in STEPS.iter().zip(row.as_bytes().chunks(2)) {
            let mut to = from;
            let effect = to.step(*step);
            let life = match to.life {
                Life::Ours => b'O',
                Life::Found => b'F',
                Life::Offered => b'S',
                Life::Taken => b'T',
                Life::Ended => b'E',
            };
            let follows = match effect {
                Effect::Nothing => b' ',
                Effect::Announce => b'+',
                Effect::Withdraw => b'-',
                Effect::Adopt => b'a',
                Effect::Remove => b'x',
            };
            // Nobody has been sent it: its end is no news.
            let is_unknown = from.flags & KNOWN == 0 && from.life == Life::Ours;
            if *step == Step::Ended && is_unknown {
                assert_eq!((life, follows), (b'O', b'x'), "{from:?}");
            } else {
                assert_eq!([life, follows], *wanted, "{from:?} by {step:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 18 * 30, "only {seen} transitions were reached");
}

#[test]
fn the_flags_of_a_life_go_with_it() {
    for state in reachable() {
        let note = note(state);
        if note.is_taken() {
            assert!(!note.is_in_bulk(), "{note:?}");
        } else {
            assert!(!note.is_noted() && !note.has_owner_ended(), "{note:?}");
        }
    }
}

#[test]
fn what_the_peer_may_know_stays_known_until_the_entry_goes() {
    for state in reachable() {
        let from = note(state);
        for step in STEPS.into_iter().filter(|s| *s != Step::Created) {
            let mut to = from;
            to.step(step);
            assert!(from.flags & KNOWN <= to.flags & KNOWN, "{from:?} {step:?}");
        }
    }
}

#[test]
fn a_version_survives_every_step() {
    for state in reachable() {
        for step in STEPS {
            let mut note = note(state);
            note.set_version(0x1_2345_6789);
            note.step(step);
            assert_eq!(note.version(), 0x1_2345_6789);
        }
    }
}
