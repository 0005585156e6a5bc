//! Expectations: they follow their masters in everything.

use flow::{Direction, ExpectNat, Expectation, L4, Name, SeqAdj, SeqAdjPair, Status};
use replica::{Change, Command, Epoch, Event, Mode, Objects, Op, Settings, Which};

use crate::flows::tcp;
use crate::pairs::settings;
use crate::world::World;
use crate::{FW1, FW2};

/// What the FTP helper predicts after a PORT of the control connection `n`.
fn predicted(n: u16) -> Expectation {
    let master = tcp(n);
    let mut tuple = master.reply;
    tuple.l4 = L4::Ports {
        src: 0,
        dst: 5000 + n,
    };
    let mut mask = tuple;
    mask.l4 = L4::Ports {
        src: 0,
        dst: u16::MAX,
    };
    let mut saved = master.orig;
    saved.l4 = L4::Ports { src: 6000, dst: 0 };
    Expectation {
        master: master.orig,
        tuple,
        mask,
        zone: master.zone,
        timeout: Some(300),
        flags: 0,
        class: Some(1),
        nat: Some(ExpectNat {
            tuple: saved,
            dir: Direction::Reply,
        }),
        helper: Name::new(b"ftp"),
        function: Name::new(b"nat-follow-master"),
        id: Some(7),
    }
}

fn with_expectations(mode: Mode) -> Settings {
    Settings {
        mode,
        expectations: Some(Vec::new()),
        ..settings()
    }
}

fn pair(first: Settings, second: Settings) -> World {
    let second = Settings {
        epoch: Epoch(2),
        ..second
    };
    let mut w = World::with(first, second);
    w.run(1.5);
    w.traffic(FW1, &tcp(1));
    w.run(0.5);
    w
}

fn tell(w: &mut World, n: usize, change: Change, e: &Expectation) {
    let kernel = &mut w.nodes[n].kernel;
    match change {
        Change::Destroy => kernel.end_expectation(&e.key()),
        _ => kernel.predict(w.now, e),
    }
}

fn listed(w: &World, n: usize, which: Which) -> Vec<Expectation> {
    let mut all = Vec::new();
    let replica = &w.nodes[n].replica;
    replica.walk_expectations(which, None, 100, |e, _| all.push(*e));
    all
}

/// What the original's script asks of a replica that takes over.
const TAKE_OVER: [Command; 4] = [
    Command::Commit(Objects::All),
    Command::FlushCaches,
    Command::Resync(Objects::All),
    Command::Bulk,
];

#[test]
fn a_backup_predicts_what_the_primary_predicted() {
    for mode in [Mode::Notrack, Mode::Alarm, Mode::Ftfw] {
        let mut w = pair(with_expectations(mode), with_expectations(mode));
        tell(&mut w, FW1, Change::New, &predicted(1));
        w.run(100.0);
        let known = listed(&w, FW2, Which::External);
        assert_eq!(known.len(), 1, "{mode:?}");
        let said = Expectation {
            id: Some(7),
            timeout: Some(300),
            ..known[0]
        };
        assert_eq!(said, predicted(1), "{mode:?}");
        w.command(FW2, Command::Commit(Objects::All));
        w.run(0.5);
        let kernel = &w.nodes[FW2].kernel;
        let made = kernel.expectation(&predicted(1).key());
        let left = made.expect("it is committed").timeout;
        assert!(left.is_some_and(|t| (190..=201).contains(&t)), "{left:?}");
        let ours = listed(&w, FW2, Which::Internal);
        assert_eq!(ours.len(), 1, "the new primary knows it, too");
    }
}

#[test]
fn a_commit_of_one_kind_leaves_the_other() {
    let both = || with_expectations(Mode::Notrack);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.command(FW2, Command::Commit(Objects::Expectations));
    w.run(0.5);
    let kernel = &w.nodes[FW2].kernel;
    assert_eq!((kernel.len(), kernel.expectations_len()), (0, 0));
    let refused = |e: &Event| matches!(e, Event::ExpectationRefused { .. });
    assert!(w.nodes[FW2].heard.iter().any(refused), "without its master");
    w.command(FW2, Command::Commit(Objects::Flows));
    w.run(0.5);
    let kernel = &w.nodes[FW2].kernel;
    assert_eq!((kernel.len(), kernel.expectations_len()), (1, 0));
    w.command(FW2, Command::Commit(Objects::Expectations));
    w.run(0.5);
    assert_eq!(w.nodes[FW2].kernel.expectations_len(), 1);
    // A second time changes nothing.
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    assert_eq!(w.nodes[FW2].kernel.expectations_len(), 1);
}

#[test]
fn a_late_sequence_adjustment_of_the_master_is_read() {
    let mut w = pair(with_expectations(Mode::Ftfw), with_expectations(Mode::Ftfw));
    let adj = |n| SeqAdj {
        correction_pos: n,
        offset_before: 0,
        offset_after: 3,
    };
    let mut adjusted = tcp(1);
    adjusted.seq_adj = Some(SeqAdjPair {
        orig: adj(1000),
        reply: SeqAdj::default(),
    });
    adjusted.status = adjusted.status.with(Status::SEQ_ADJUST);
    // The kernel emits nothing when it happens.
    let now = w.now;
    w.nodes[FW1].kernel.silently(now, &adjusted);
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    let known = w.nodes[FW2].flows(Which::External)[&tcp(1).key()];
    assert_eq!(known.seq_adj, adjusted.seq_adj);
    assert!(known.status.contains(Status::SEQ_ADJUST));
}

#[test]
fn only_what_can_be_said_rightly_is_said() {
    let only = |names: &[&str]| Settings {
        expectations: Some(names.iter().map(|&n| n.into()).collect()),
        ..with_expectations(Mode::Ftfw)
    };
    let mut w = pair(only(&["SIP", "f"]), with_expectations(Mode::Ftfw));
    let mut irc = predicted(1);
    irc.helper = Name::new(b"irc");
    tell(&mut w, FW1, Change::New, &irc);
    let masterless = predicted(2);
    tell(&mut w, FW1, Change::New, &masterless);
    let mut zoned = predicted(1);
    zoned.zone = flow::Zone(3);
    tell(&mut w, FW1, Change::New, &zoned);
    w.run(0.5);
    assert!(listed(&w, FW2, Which::External).is_empty());
    let stats = w.nodes[FW1].replica.stats();
    assert_eq!((stats.masterless, stats.not_carried), (1, 1));
    assert!(stats.events_filtered >= 1);
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
}

#[test]
fn what_a_bad_link_loses_comes_later() {
    let mut w = pair(with_expectations(Mode::Ftfw), with_expectations(Mode::Ftfw));
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.nodes[FW1].mute = true;
    w.traffic(FW1, &tcp(2));
    w.run(0.1);
    tell(&mut w, FW1, Change::New, &predicted(2));
    tell(&mut w, FW1, Change::Destroy, &predicted(1));
    w.run(1.0);
    assert_eq!(listed(&w, FW2, Which::External)[0].master, tcp(1).orig);
    w.nodes[FW1].mute = false;
    w.run(2.0);
    let known = listed(&w, FW2, Which::External);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].master, tcp(2).orig);
    assert_eq!(w.nodes[FW1].replica.unacknowledged().0, 0);
}

#[test]
fn a_bulk_update_tells_of_all() {
    let both = || with_expectations(Mode::Notrack);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.command(FW2, Command::FlushExternal);
    w.run(0.1);
    assert!(listed(&w, FW2, Which::External).is_empty());
    w.command(FW2, Command::RequestResync);
    w.run(0.5);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
    // Found in the kernel at the start, it is told of by a bulk update alone.
    w.restart(FW1, both());
    w.restart(FW2, both());
    w.run(1.0);
    assert_eq!(listed(&w, FW1, Which::Internal).len(), 1);
    assert!(listed(&w, FW2, Which::External).is_empty());
    w.command(FW1, Command::Bulk);
    w.run(0.5);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
}

/// FW1 forgets that an expectation has ended: its end is never announced. The control: a peer
/// without trailers cannot know that the bulk update was complete.
#[test]
fn what_a_complete_bulk_update_does_not_mention_is_removed() {
    for (trailer, left) in [(true, 1), (false, 2)] {
        let both = || Settings {
            trailer,
            ..with_expectations(Mode::Ftfw)
        };
        let mut w = pair(both(), both());
        w.traffic(FW1, &tcp(2));
        for n in 1..=2 {
            tell(&mut w, FW1, Change::New, &predicted(n));
        }
        w.run(0.5);
        assert_eq!(listed(&w, FW2, Which::External).len(), 2);
        w.nodes[FW1].kernel.deaf = true;
        tell(&mut w, FW1, Change::Destroy, &predicted(2));
        w.run(0.1);
        w.nodes[FW1].kernel.deaf = false;
        w.command(FW1, Command::FlushInternal);
        w.command(FW1, Command::Resync(Objects::All));
        w.run(0.5);
        assert_eq!(listed(&w, FW2, Which::External).len(), 2);
        w.command(FW1, Command::Bulk);
        w.run(3.0);
        assert_eq!(listed(&w, FW2, Which::External).len(), left, "{trailer}");
        assert_eq!(w.nodes[FW2].replica.len(Which::External), 2);
    }
}

#[test]
fn an_injected_expectation_comes_after_its_master_and_goes_with_the_peers_word() {
    let injecting = Settings {
        external_cache: false,
        ..with_expectations(Mode::Ftfw)
    };
    let mut w = pair(with_expectations(Mode::Ftfw), injecting);
    w.traffic(FW1, &tcp(2));
    w.run(0.1);
    tell(&mut w, FW1, Change::New, &predicted(2));
    w.run(0.5);
    let kernel = &w.nodes[FW2].kernel;
    assert!(kernel.expectation(&predicted(2).key()).is_some());
    let place = |wanted: fn(&Op) -> bool| kernel.requests.iter().position(|r| wanted(&r.op));
    let flow = place(|op| matches!(op, Op::Create(f) if f.orig == tcp(2).orig));
    let expectation = place(|op| matches!(op, Op::CreateExpectation(_)));
    assert!(flow < expectation && flow.is_some());
    tell(&mut w, FW1, Change::Destroy, &predicted(2));
    w.run(0.5);
    assert!(w.nodes[FW2].kernel.expectations_len() == 0);
    // Nothing of it is announced as our own.
    assert!(listed(&w, FW2, Which::Internal).is_empty());
}

#[test]
fn a_former_primary_does_not_speak_of_the_copies_that_end_there() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    w.command(FW2, Command::Bulk);
    w.run(0.5);
    assert_eq!(listed(&w, FW1, Which::External).len(), 1);
    tell(&mut w, FW1, Change::Destroy, &predicted(1));
    w.run(0.5);
    assert_eq!(w.nodes[FW2].kernel.expectations_len(), 1);
    assert_eq!(listed(&w, FW2, Which::Internal).len(), 1);
    assert!(listed(&w, FW1, Which::Internal).is_empty());
}

/// Goal: a bulk update leaves out what the peer's flows have predicted: once our kernel has
/// dropped the copy, nobody would announce its end.
#[test]
fn a_bulk_update_leaves_out_what_the_peers_flows_have_predicted() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    for command in TAKE_OVER {
        w.command(FW2, command);
        w.run(0.5);
    }
    assert_eq!(listed(&w, FW1, Which::External).len(), 1);
    w.command(FW1, Command::Bulk);
    w.run(0.5);
    assert!(listed(&w, FW2, Which::External).is_empty());
}

/// Goal: when two replicas take over at once, the peer's copy of an expectation leaves the
/// owner of its master, and nothing is left when the master ends.
#[test]
fn two_that_take_over_at_once_keep_no_expectation_of_each_other() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    for command in TAKE_OVER {
        w.command(FW1, command);
        w.command(FW2, command);
        w.run(0.1);
    }
    w.run(3.0);
    let copies = |w: &World| {
        let listed = |n| listed(w, n, Which::External).len();
        listed(FW1) + listed(FW2)
    };
    assert_eq!(copies(&w), 1, "one owns it, and the other one has a copy");
    for n in [FW1, FW2] {
        w.nodes[n].kernel.end(&tcp(1).key());
    }
    w.run(1.0);
    assert_eq!(copies(&w), 0);
}

#[test]
fn lost_events_about_expectations_are_repaired() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.nodes[FW1].kernel.deaf = true;
    w.nodes[FW1].kernel.end_expectation(&predicted(1).key());
    let mut other = predicted(1);
    other.tuple.l4 = L4::Ports { src: 0, dst: 7777 };
    let now = w.now;
    w.nodes[FW1].kernel.predict(now, &other);
    w.nodes[FW1].kernel.deaf = false;
    w.nodes[FW1].replica.handle_overrun(now);
    w.run(2.5);
    let known = listed(&w, FW2, Which::External);
    assert!(
        known.iter().any(|e| e.key() == other.key()),
        "found at once"
    );
    w.run(40.0);
    let known = listed(&w, FW2, Which::External);
    assert_eq!(known.len(), 1, "what is gone goes with the next comparison");
    assert_eq!(known[0].key(), other.key());
}

#[test]
fn without_an_internal_cache_expectations_go_straight_on() {
    let bypass = Settings {
        internal_cache: false,
        ..with_expectations(Mode::Notrack)
    };
    let mut w = pair(bypass, with_expectations(Mode::Notrack));
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
    tell(&mut w, FW1, Change::Destroy, &predicted(1));
    w.run(0.5);
    assert!(listed(&w, FW2, Which::External).is_empty());
}

#[test]
fn an_expectation_that_has_run_down_is_not_committed() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    let mut short = predicted(1);
    short.timeout = Some(3);
    tell(&mut w, FW1, Change::New, &short);
    w.run(0.5);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
    w.nodes[FW1].mute = true;
    // Longer than it lives, shorter than it takes to be swept away.
    w.run(3.6);
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    let kernel = &w.nodes[FW2].kernel;
    assert_eq!((kernel.len(), kernel.expectations_len()), (1, 0));
    w.run(10.0);
    assert!(listed(&w, FW2, Which::External).is_empty());
}

#[test]
fn a_flush_of_the_kernel_tells_the_peer_nothing_of_expectations() {
    let both = || with_expectations(Mode::Ftfw);
    let mut w = pair(both(), both());
    let mut master = tcp(1);
    master.helper = Name::new(b"ftp");
    w.traffic(FW1, &master);
    w.run(0.1);
    tell(&mut w, FW1, Change::New, &predicted(1));
    w.run(0.5);
    w.command(FW1, Command::FlushKernel(Objects::Flows));
    w.run(0.5);
    // The kernel has ended what the flow had predicted after the flow, in nobody's name.
    assert_eq!(w.nodes[FW1].kernel.expectations_len(), 0);
    assert!(listed(&w, FW1, Which::Internal).is_empty());
    assert_eq!(listed(&w, FW2, Which::External).len(), 1);
}

/// Goal: what waits for the link is what is owed, however often expectations come and go.
#[test]
fn removed_expectations_do_not_wait_to_be_sent() {
    let mut replica = replica::Replica::new(with_expectations(Mode::Notrack));
    let now = replica::Instant::START;
    let event = |change, e: &Expectation| replica::ExpectationEvent {
        change,
        origin: replica::Origin::Traffic,
        expectation: *e,
    };
    let masters = [1, 2, 3].map(|n| replica::KernelEvent {
        change: Change::New,
        origin: replica::Origin::Traffic,
        flow: tcp(n),
    });
    replica.handle_events(now, &masters);
    let before = replica.owed();
    for n in 0..10_000 {
        let e = predicted(1 + n % 3);
        replica.handle_expectation(now, &event(Change::New, &e));
        // Our own flush ends it: nobody is told.
        let own = replica::ExpectationEvent {
            origin: replica::Origin::Commit,
            ..event(Change::Destroy, &e)
        };
        replica.handle_expectation(now, &own);
    }
    assert_eq!(replica.owed(), before);
    replica.handle_expectation(now, &event(Change::New, &predicted(1)));
    assert_eq!(replica.owed(), before + 1);
}

#[test]
fn the_end_of_an_expectation_during_a_bulk_update_is_sent() {
    use replica::Seq;
    use replica::{
        CommandId, DumpEnd, ExpectationEvent, Instant, KernelEvent, LinkId, Origin, PeerId, Replica,
    };
    use wire::v1::{Control, Flags, MessageType, messages};
    use wire::{ObjectKind, StateKind};
    let mut r = Replica::new(with_expectations(Mode::Ftfw));
    let now = Instant::START;
    let first = r.settings().first_seq;
    let mut last = first;
    while r.poll_dump().is_some() {
        r.handle_dump_end(now, DumpEnd::Complete);
    }
    let ev = |change, n| ExpectationEvent {
        change,
        origin: Origin::Traffic,
        expectation: predicted(n),
    };
    for n in 1..=40 {
        r.handle_events(
            now,
            &[KernelEvent {
                change: Change::New,
                origin: Origin::Traffic,
                flow: tcp(n),
            }],
        );
        r.handle_expectation(now, &ev(Change::New, n));
    }
    let poll = |r: &mut Replica, last: &mut Seq| -> Option<Vec<MessageType>> {
        let (_, b) = r.poll_transmit()?;
        let kinds: Vec<MessageType> = messages(b)
            .flatten()
            .map(|m| {
                *last = m.header.seq;
                m.header.kind
            })
            .collect();
        Some(kinds)
    };
    while poll(&mut r, &mut last).is_some() {}
    r.handle_command(now, CommandId(1), Command::Bulk);
    r.advance(now, 1000);
    let mut datagrams = 0;
    while let Some(kinds) = poll(&mut r, &mut last) {
        datagrams += 1;
        if kinds
            .iter()
            .any(|k| matches!(k, MessageType::State(ObjectKind::Expectation, _)))
        {
            break;
        }
    }
    assert!(datagrams > 0);
    for n in 1..=40 {
        r.handle_expectation(now, &ev(Change::Destroy, n));
    }
    let ack = crate::forged::control(Control::Ack(first, last), Flags::NONE, 7);
    r.handle_datagram(now, PeerId::FIRST, LinkId(0), &ack);
    r.advance(now, 1000);
    let mut ends = 0;
    while let Some(kinds) = poll(&mut r, &mut last) {
        ends += kinds
            .iter()
            .filter(|k| **k == MessageType::State(ObjectKind::Expectation, StateKind::Delete))
            .count();
    }
    assert_eq!(ends, 40);
}
