//! Two peers that send to the same replica, each with numbers and epochs of its own.

use replica::{Epoch, Instant, LinkId, Mode, PeerId, Replica, Role, Seq, Settings, TableId, Which};
use wire::StateKind;
use wire::v1::{Bulk, BulkState, Flags, Holdings, Trailer};

use crate::flows::tcp;
use crate::forged;
use crate::pairs::ftfw;

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
    hear_two(&mut replica, |n| PeerId(100 + n));
    assert_eq!(replica.len(Which::External), 0);
}
