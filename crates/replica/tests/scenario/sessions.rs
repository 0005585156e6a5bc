//! Two peers that send to the same replica, each with numbers and epochs of its own.

use replica::{Epoch, Instant, LinkId, Mode, PeerId, Replica, Role, Seq, Settings, TableId, Which};
use wire::StateKind;
use wire::v1::{Bulk, BulkState, Control, Flags, Holdings, Trailer};

use crate::flows::tcp;
use crate::pairs::ftfw;
use crate::world::World;
use crate::{FW1, FW2, forged};

fn backup() -> Replica {
    Replica::new(Settings {
        mode: Mode::Notrack,
        ..ftfw()
    })
}

fn alive(epoch: u32, seq: u32) -> Vec<u8> {
    let trailer = Trailer {
        role: Role::Primary,
        has_bulks: false,
        epoch: Epoch(epoch),
        bulk: Bulk {
            number: 0,
            first: Seq(1),
            flows: 0,
            state: BulkState::None,
        },
        holdings: Some(Holdings {
            offers: false,
            wants: false,
            table: TableId(epoch),
            offered: 0,
            kept: 0,
            heard: None,
            former_table: TableId(0),
            held: 0,
        }),
    };
    forged::alive(&trailer, seq)
}

/// Sends ten flows each of two firewalls, in turn; `peer` names the sender to the replica.
fn hear_two(replica: &mut Replica, peer: impl Fn(u8) -> PeerId) {
    let mut hear = |sender: u8, bytes: &[u8]| {
        replica.handle_datagram(Instant::START, peer(sender), LinkId(0), bytes);
    };
    for (sender, first) in [(0, 1000), (1, 70_000)] {
        hear(sender, &alive(100 + u32::from(sender), first));
    }
    for n in 1..=10u16 {
        for (sender, first) in [(0u8, 1000), (1, 70_000)] {
            let flow = tcp(u16::from(sender) * 100 + n);
            let seq = first + u32::from(n);
            hear(
                sender,
                &forged::flow(StateKind::New, Flags::NONE, seq, &flow),
            );
        }
    }
}

#[test]
fn two_senders_do_not_disturb_the_numbers_of_each_other() {
    let mut replica = backup();
    hear_two(&mut replica, PeerId);
    let receive = replica.stats().receive;
    assert_eq!((receive.lost, receive.before), (0, 0));
    assert_eq!((replica.confirmed(), replica.unconfirmed()), (20, 0));
    let epoch = |n| replica.epoch_and_role_of(PeerId(n)).0;
    assert_eq!([epoch(0), epoch(1)], [Some(Epoch(100)), Some(Epoch(101))]);

    // The control: taken for one sender, their numbers make no sense.
    let mut replica = backup();
    hear_two(&mut replica, |_| PeerId::FIRST);
    let receive = replica.stats().receive;
    assert!(receive.lost + receive.before > 0, "{receive:?}");
}

#[test]
fn a_restart_of_one_peer_leaves_the_flows_of_the_other_confirmed() {
    let mut replica = backup();
    hear_two(&mut replica, PeerId);
    let later = Instant::START + std::time::Duration::from_secs(5);
    replica.handle_datagram(later, PeerId(1), LinkId(0), &alive(200, 5));
    assert_eq!((replica.confirmed(), replica.unconfirmed()), (10, 10));
    assert_eq!(replica.len(Which::External), 20, "nothing is removed");
}

#[test]
fn a_flow_that_another_peer_announces_is_counted_for_that_one_alone() {
    let mut replica = backup();
    hear_two(&mut replica, PeerId);
    let taken = forged::flow(StateKind::Update, Flags::NONE, 70_011, &tcp(1));
    replica.handle_datagram(Instant::START, PeerId(1), LinkId(0), &taken);
    assert_eq!((replica.confirmed(), replica.unconfirmed()), (20, 0));
    // The former owner starts again: what it lost is not its any more.
    let later = Instant::START + std::time::Duration::from_secs(5);
    replica.handle_datagram(later, PeerId(0), LinkId(0), &alive(200, 5));
    assert_eq!((replica.confirmed(), replica.unconfirmed()), (11, 9));
}

#[test]
fn a_sender_beyond_the_bound_is_not_obeyed() {
    let mut replica = backup();
    hear_two(&mut replica, |n| PeerId(8 + n));
    assert_eq!(replica.len(Which::External), 0);
    assert_eq!(replica.stats().sessions_refused, 22);
    hear_two(&mut replica, |n| PeerId(6 + n));
    assert_eq!(replica.len(Which::External), 20);
    assert_eq!(replica.stats().sessions_refused, 22);
}

const FW3: usize = 2;

/// Three replicas in FT-FW on one group; the numbers of each begin elsewhere.
fn third(n: u32) -> Settings {
    Settings {
        epoch: Epoch(n),
        table: TableId(n),
        first_seq: Seq(n * 100_000),
        ..ftfw()
    }
}

/// Two of three replicas announce 20 flows each.
fn two_senders() -> World {
    let mut w = World::of((1..=3).map(third).collect());
    w.run(2.0);
    for n in 1..=20 {
        w.traffic(FW1, &tcp(n));
        w.traffic(FW2, &tcp(100 + n));
    }
    w.run(3.0);
    w
}

/// Goal: the streams of two senders are acknowledged each by its own numbers, and nothing is
/// sent twice.
#[test]
fn a_listener_acknowledges_each_of_two_senders() {
    let w = two_senders();
    let fw3 = &w.nodes[FW3].replica;
    assert_eq!((fw3.confirmed(), fw3.unconfirmed()), (40, 0));
    for n in [FW1, FW2] {
        let node = &w.nodes[n];
        assert_eq!(node.replica.unacknowledged().0, 0, "node {n}");
        assert_eq!(node.sent, 20, "node {n}");
        assert_eq!(node.replica.stats().receive.lost, 0, "node {n}");
        assert_eq!(node.replica.stats().lacks_found, 0, "node {n}");
    }
    assert_eq!(fw3.stats().lacks_found, 0);
}

/// Goal: one sender starts again; the listener keeps and confirms the flows of both, and each
/// is acknowledged.
#[test]
fn a_restart_of_one_sender_leaves_the_flows_of_both_with_the_listener() {
    let mut w = two_senders();
    let before = w.nodes[FW2].replica.stats().peer_restarts;
    w.restart(FW1, third(1));
    w.run(20.0);
    let fw3 = &w.nodes[FW3].replica;
    assert_eq!(fw3.len(Which::External), 40);
    assert_eq!(fw3.stats().peer_restarts, 1);
    assert_eq!(w.nodes[FW2].replica.stats().peer_restarts, before + 1);
    assert_eq!(w.nodes[FW2].announced(), 20);
    for n in 21..=25 {
        w.traffic(FW1, &tcp(n));
        w.traffic(FW2, &tcp(100 + n));
    }
    w.run(3.0);
    assert_eq!(w.nodes[FW3].replica.len(Which::External), 50);
    for n in [FW1, FW2] {
        assert_eq!(w.nodes[n].replica.unacknowledged().0, 0, "node {n}");
    }
}

/// Goal: a listener that alone has missed what another one acknowledged gets it.
#[test]
fn what_one_of_two_listeners_has_missed_comes_again() {
    let mut w = two_senders();
    w.run(12.0);
    w.nodes[FW3].sockets.inbox.clear();
    w.traffic(FW1, &tcp(50));
    // FW2 takes it, FW3 never sees it.
    for _ in 0..20 {
        w.run(0.01);
        w.nodes[FW3].sockets.inbox.clear();
    }
    w.run(15.0);
    assert!(w.nodes[FW2].has(Which::External, &tcp(50)));
    assert!(w.nodes[FW3].has(Which::External, &tcp(50)));
}

/// Goal: an acknowledgement that is about another stream's numbers changes nothing; the
/// control: one of ours settles what is under way.
#[test]
fn an_acknowledgement_of_another_stream_changes_nothing() {
    let mut w = World::of((1..=3).map(third).collect());
    w.run(2.0);
    w.nodes[FW2].mute = true;
    w.nodes[FW3].mute = true;
    w.traffic(FW1, &tcp(1));
    w.run(0.1);
    let under_way = |w: &World| w.nodes[FW1].replica.unacknowledged();
    let before = under_way(&w);
    assert_eq!(before.0, 1);
    let sent = w.nodes[FW1].sent;
    let (from, to) = (Seq(99_990), Seq(200_000));
    for (n, theirs) in [Control::Ack(from, to), Control::Nack(from, to)]
        .into_iter()
        .enumerate()
    {
        w.forge(
            FW1,
            &forged::control(theirs, Flags::NONE, 200_050 + n as u32),
        );
        assert_eq!(under_way(&w), before, "{theirs:?}");
    }
    assert_eq!(w.nodes[FW1].sent, sent);
    for n in 0..100 {
        let ours = Control::Ack(from, Seq(100_000 + n));
        w.forge(FW1, &forged::control(ours, Flags::NONE, 200_060 + n));
    }
    assert_eq!(under_way(&w).0, 0);
}
