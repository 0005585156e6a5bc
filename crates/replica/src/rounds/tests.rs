use flow::{Addrs, L4, Tuple};

use super::*;

const UDP4: DumpScope = DumpScope::Protocol {
    v6: false,
    proto: Proto::UDP,
};

fn at(secs: u64) -> Instant {
    Instant::START + Duration::from_secs(secs)
}

fn flow(proto: Proto, timeout: u32) -> Flow {
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        },
        proto,
        l4: L4::Ports { src: 1, dst: 2 },
    });
    flow.timeout = Some(timeout);
    flow
}

fn new_rounds() -> Rounds {
    let [short, full, leisurely] = [5, 15, 80].map(Duration::from_secs);
    Rounds::new(short, full, leisurely)
}

/// After a first dump of so many flows.
fn rounds(flows: usize) -> Rounds {
    let mut rounds = new_rounds();
    rounds.begin_whole(at(0));
    rounds.dumped(at(0), flows);
    if flows == 0 {
        rounds.trust_events();
    }
    rounds
}

/// When the next looks at the whole table begin, which find nothing.
fn looks(rounds: &mut Rounds, flows: usize, count: usize) -> Vec<u64> {
    let look = |_| {
        rounds.held = flows;
        let due = rounds.next_due();
        assert_eq!(rounds.take_due(due, flows), [DumpScope::All]);
        rounds.dumped(due, flows);
        rounds.compared();
        due.since(Instant::START).as_secs()
    };
    (0..count).map(look).collect()
}

#[test]
fn a_short_lived_protocol_is_looked_at_only_while_it_has_flows() {
    let mut rounds = rounds(0);
    rounds.note(at(4), &flow(Proto::UDP, 30));
    rounds.note(at(6), &flow(Proto::UDP, 30));
    assert_eq!(rounds.take_due(at(11), 0), []);
    assert_eq!(rounds.take_due(at(12), 0), [UDP4]);
    assert_eq!(rounds.take_due(at(14), 0), []);
}

#[test]
fn a_protocol_is_looked_at_within_a_quarter_of_its_timeout_and_no_more_often_than_allowed() {
    for (timeout, expected) in [(120, 30), (30, 8), (1, 5)] {
        let mut rounds = rounds(100_000);
        rounds.note(at(5), &flow(Proto::UDP, timeout));
        assert_eq!(rounds.take_due(at(4 + expected), 100_000), []);
        assert_eq!(rounds.take_due(at(5 + expected), 100_000), [UDP4]);
    }
}

#[test]
fn without_a_first_dump_every_protocol_is_looked_at() {
    let mut rounds = new_rounds();
    assert_eq!(rounds.take_due(at(4), 0), []);
    assert_eq!(rounds.take_due(at(5), 0), SHORT_LIVED.map(|p| scope_of(&p)));
    assert_eq!(rounds.take_due(at(6), 0), []);
}

#[test]
fn a_look_at_the_whole_table_is_one_at_each_protocol() {
    let mut rounds = rounds(100);
    rounds.note(at(8), &flow(Proto::UDP, 30));
    assert_eq!(rounds.take_due(at(15), 100), [DumpScope::All]);
    assert_eq!(rounds.take_due(at(16), 100), []);
}

#[test]
fn a_failed_look_is_repeated() {
    let mut rounds = rounds(100_000);
    rounds.failed(at(10), UDP4);
    assert_eq!(rounds.take_due(at(15), 100_000), [UDP4]);
    looks(&mut rounds, 100_000, 5);
    let now = rounds.looked;
    rounds.failed(now, DumpScope::All);
    assert_eq!(rounds.next_due(), now + Duration::from_secs(5));
    assert_eq!(rounds.whole_due(), now + Duration::from_secs(50));
}

#[test]
fn a_small_table_in_which_nothing_is_found_is_looked_at_as_its_buckets_allow() {
    assert_eq!(looks(&mut rounds(100), 100, 5), [15, 45, 105, 185, 265]);
}

#[test]
fn a_large_table_in_which_nothing_is_found_is_looked_at_ever_more_rarely() {
    let found = looks(&mut rounds(60_000), 60_000, 6);
    assert_eq!(found, [30, 90, 210, 450, 930, 1530]);
    // Without any flow at the start none can be silent.
    let mut rounds = rounds(0);
    assert_eq!(looks(&mut rounds, 60_000, 2), [600, 1200]);
    rounds.doubt();
    assert_eq!(looks(&mut rounds, 60_000, 2), [1230, 1290]);
}

#[test]
fn what_is_found_makes_the_next_looks_urgent() {
    let mut rounds = rounds(60_000);
    looks(&mut rounds, 60_000, 5);
    let found = |rounds: &mut Rounds, proto| {
        let now = rounds.next_due();
        rounds.take_due(now, 60_000);
        rounds.found(&flow(proto, 1).key());
        rounds.compared();
        rounds.next_due().since(now).as_secs()
    };
    assert_eq!(found(&mut rounds, Proto::UDP), 600);
    assert_eq!(found(&mut rounds, Proto::TCP), 30);
}

#[test]
fn a_timeout_that_runs_down_makes_the_next_look_urgent() {
    let mut rounds = rounds(0);
    rounds.held = 60_000;
    rounds.note(at(100), &flow(Proto::TCP, 400_000));
    assert_eq!(rounds.next_due(), at(600));
    rounds.note(at(100), &flow(Proto::TCP, 400));
    assert_eq!(rounds.next_due(), at(200));
    rounds.note(at(100), &flow(Proto::TCP, 40));
    assert_eq!(rounds.next_due(), at(110));
    rounds.held = 400_000;
    assert_eq!(rounds.next_due(), at(200));
    assert_eq!(rounds.take_due(at(110), 60_000), [DumpScope::All]);
    assert_eq!(rounds.next_due(), at(710));
}

#[test]
fn without_events_the_table_is_looked_at_as_often_as_allowed() {
    let mut rounds = rounds(0);
    rounds.expect_no_events();
    assert_eq!(looks(&mut rounds, 60_000, 3), [30, 60, 90]);
}
