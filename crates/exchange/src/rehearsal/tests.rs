//! Goal: each result of the kernel becomes the number and the reason that it means.
//! The conversation with a real kernel is in the end-to-end tests.

use flow::{Addrs, L4, Name, Proto, Tuple};
use replica::Found;

use super::*;

fn wanted(port: u16) -> Wanted {
    let orig = Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        },
        proto: Proto::UDP,
        l4: L4::Ports { src: port, dst: 9 },
    };
    Wanted {
        flow: Flow::new(orig),
        is_taken: false,
    }
}

fn commit(wanted: &[Wanted], room: u64) -> Commit<'_> {
    Commit {
        wanted,
        room,
        queue: VecDeque::new(),
        foreseen: Foreseen::default(),
    }
}

fn result(step: u8, op: Op, outcome: Outcome) -> KernelResult {
    KernelResult {
        request: request(step, op),
        outcome,
    }
}

#[test]
fn what_has_no_room_is_undone_and_counted_as_refused() {
    let wanted = [wanted(1), wanted(2)];
    let mut commit = commit(&wanted, 1);
    let done = |n: usize| result(0, Op::Create(wanted[n].flow), Outcome::Done);
    assert_eq!(commit.after(0, &done(0)), After::Nothing);
    let undo = After::Undo(wanted[1].flow.key());
    assert_eq!(commit.after(1, &done(1)), undo);
    assert_eq!((commit.foreseen.created, commit.foreseen.refused), (1, 1));
    assert_eq!(commit.foreseen.groups[0].reason, Reason::Full);
}

#[test]
fn what_takes_the_place_of_another_entry_needs_no_room() {
    let wanted = [wanted(1)];
    let flow = wanted[0].flow;
    let mut commit = commit(&wanted, 0);
    let held = Flow {
        reply: wanted[0].flow.orig,
        ..flow
    };
    let found = Outcome::Found(Box::new(Found {
        flow: held,
        is_liberal: false,
    }));
    commit.after(0, &result(1, Op::Get(flow.key()), found));
    let (_, asked) = commit.queue.pop_front().unwrap();
    assert!(matches!(asked.op, Op::Delete(..)));
    commit.after(0, &result(2, asked.op, Outcome::Done));
    let (_, asked) = commit.queue.pop_front().unwrap();
    let after = commit.after(0, &result(3, asked.op, Outcome::Done));
    assert_eq!(after, After::Nothing);
    assert_eq!(commit.foreseen.created, 1);
}

#[test]
fn a_flow_without_its_helper_is_created_and_noted() {
    let mut wanted = [wanted(1)];
    wanted[0].flow.helper = Name::new(b"none-such");
    let mut commit = commit(&wanted, 9);
    let unsupported = Outcome::Failed(KernelError::Unsupported);
    commit.after(0, &result(0, Op::Create(wanted[0].flow), unsupported));
    let (_, lesser) = commit.queue.pop_front().unwrap();
    commit.after(0, &result(1, lesser.op, Outcome::Done));
    let foreseen = &commit.foreseen;
    let numbers = (foreseen.created, foreseen.refused, foreseen.lessened);
    assert_eq!(numbers, (1, 0, 1));
    let group = &foreseen.groups[0];
    assert_eq!((group.reason, group.count), (Reason::NoHelper, 1));
    assert_eq!(group.examples[0].flow.helper, wanted[0].flow.helper);
}

#[test]
fn examples_are_few_however_many_flows_are_refused() {
    let wanted: Vec<_> = (0..100).map(wanted).collect();
    let mut commit = commit(&wanted, 0);
    for (n, w) in wanted.iter().enumerate() {
        let refused = Outcome::Failed(KernelError::Os(22));
        commit.after(n, &result(0, Op::Create(w.flow), refused));
    }
    let [group] = &commit.foreseen.groups[..] else {
        panic!("one reason: {:?}", commit.foreseen.groups);
    };
    assert_eq!((group.count, group.examples.len()), (100, EXAMPLES_MAX));
}

#[test]
fn a_flow_matters_if_it_has_a_tuple_of_either_direction_or_is_a_master() {
    let mut touched = Touched::default();
    let mut flow = wanted(1).flow;
    flow.master = Some(wanted(2).flow.orig);
    touched.add(&flow);
    assert!(touched.has(&wanted(2).flow), "the master");
    let mut other = Flow::new(flow.reply);
    assert!(touched.has(&other), "its original direction is our reply");
    assert!(!touched.has(&wanted(3).flow));
    other.zone = flow::Zone(7);
    assert!(!touched.has(&other), "another zone");
}
