//! Replicas that start again: their peers keep what is certain, and ask for the rest.

use replica::{Command, Epoch, Mode, Objects, PeerId, Role, Seq, Settings, TableId, Which};
use wire::v1::{Control, Flags};

use crate::flows::tcp;
use crate::pairs::{learned, reborn};
use crate::world::World;
use crate::{FW1, FW2, forged};

#[test]
fn replicas_recognise_each_other_and_their_roles() {
    let mut w = learned(Mode::Ftfw, 1);
    w.command(FW1, Command::Commit(Objects::All));
    w.command(FW2, Command::ScheduleFlush);
    w.run(1.5);
    assert_eq!(
        w.nodes[FW1].replica.epoch_and_role_of(PeerId::FIRST),
        (Some(Epoch(2)), Role::Backup)
    );
    assert_eq!(
        w.nodes[FW2].replica.epoch_and_role_of(PeerId::FIRST),
        (Some(Epoch(1)), Role::Primary)
    );
}

#[test]
fn a_restart_of_the_peer_removes_nothing_and_leaves_a_minute_to_show_life() {
    for mode in [Mode::Notrack, Mode::Ftfw] {
        let mut w = learned(mode, 100);
        // FW1 reboots: its table is empty, and so is its bulk update.
        w.nodes[FW1].kernel = sim::kernel::Kernel::default();
        let table = TableId(2);
        w.restart(
            FW1,
            Settings {
                table,
                ..reborn(mode, 77)
            },
        );
        w.run(2.5);
        w.traffic(FW1, &tcp(1));
        w.command(FW1, Command::Bulk);
        w.run(3.0);
        let fw2 = &w.nodes[FW2].replica;
        assert_eq!(fw2.len(Which::External), 100, "{mode:?}");
        assert_eq!((fw2.confirmed(), fw2.unconfirmed()), (1, 99), "{mode:?}");
        assert_eq!(fw2.stats().peer_restarts, 1);
        w.command(FW2, Command::Commit(Objects::All));
        w.run(1.0);
        let timeout = |n| w.nodes[FW2].kernel.get(&tcp(n).key()).unwrap().timeout;
        assert_eq!(timeout(2), Some(60));
        assert!(timeout(1) > Some(400_000), "{:?}", timeout(1));
    }
}

#[test]
fn what_a_complete_bulk_does_not_mention_is_removed() {
    for mode in [Mode::Notrack, Mode::Ftfw] {
        let mut w = learned(mode, 100);
        // FW1 forgets that flows have ended: their deletes are never said.
        for n in 1..=30 {
            w.nodes[FW1].kernel.end(&tcp(n).key());
        }
        w.command(FW1, Command::FlushInternal);
        w.run(0.5);
        assert_eq!(w.nodes[FW2].replica.len(Which::External), 100);
        w.command(FW1, Command::Resync(Objects::All));
        w.command(FW1, Command::Bulk);
        w.run(3.0);
        let fw2 = &w.nodes[FW2];
        assert_eq!(fw2.replica.len(Which::External), 70, "{mode:?}");
        assert!((31..=100).all(|n| fw2.has(Which::External, &tcp(n))));
    }
}

#[test]
fn nothing_is_removed_without_the_trailer_or_with_something_lost() {
    for (mode, trailer, lossy) in [
        (Mode::Ftfw, false, false),
        (Mode::Notrack, false, false),
        (Mode::Notrack, true, true),
    ] {
        let mut w = learned(mode, 100);
        if !trailer {
            let plain = |n: u32| Settings {
                trailer: false,
                ..reborn(mode, n)
            };
            w = World::with(plain(1), plain(2));
            for n in 1..=100 {
                w.traffic(FW1, &tcp(n));
            }
            w.run(1.0);
            assert_eq!(
                w.nodes[FW1].replica.epoch_and_role_of(PeerId::FIRST).0,
                None
            );
        }
        w.nodes[FW1].mute = true;
        w.nodes[FW1].kernel.deaf = true;
        for n in 1..=30 {
            w.nodes[FW1].kernel.end(&tcp(n).key());
        }
        w.nodes[FW1].kernel.deaf = false;
        w.command(FW1, Command::FlushInternal);
        w.command(FW1, Command::Resync(Objects::All));
        w.run(0.2);
        w.nodes[FW1].mute = false;
        w.seed(7);
        w.nodes[FW1].loss = if lossy { 0.5 } else { 0.0 };
        w.command(FW1, Command::Bulk);
        w.run(1.0);
        w.nodes[FW1].loss = 0.0;
        w.run(3.0);
        let left = w.nodes[FW2].replica.len(Which::External);
        assert_eq!(left, 100, "{mode:?}, trailer {trailer}, lossy {lossy}");
    }
}

#[test]
fn a_backup_that_starts_again_is_told_everything_by_itself() {
    for (mode, trailer) in [
        (Mode::Notrack, true),
        (Mode::Ftfw, true),
        (Mode::Ftfw, false),
    ] {
        let mut w = learned(mode, 100);
        if !trailer {
            let plain = |n: u32| Settings {
                trailer: false,
                ..reborn(mode, n)
            };
            w = World::with(plain(1), plain(2));
            for n in 1..=100 {
                w.traffic(FW1, &tcp(n));
            }
            w.run(1.0);
        }
        w.restart(
            FW2,
            Settings {
                trailer,
                ..reborn(mode, 99)
            },
        );
        w.run(3.0);
        let known = w.nodes[FW2].replica.len(Which::External);
        assert_eq!(known, 100, "{mode:?}, trailer {trailer}");
    }
}

#[test]
fn a_backup_asks_a_primary_that_has_started_again() {
    let mut w = learned(Mode::Ftfw, 100);
    w.command(FW2, Command::ScheduleFlush);
    // Only the daemon dies: the kernel's table stays, and no packet passes.
    w.restart(FW1, reborn(Mode::Ftfw, 77));
    w.run(3.0);
    assert_eq!(w.nodes[FW2].replica.unconfirmed(), 0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 100);
}

#[test]
fn copies_in_a_restarted_backups_kernel_are_not_sent_as_its_own() {
    let mut w = learned(Mode::Ftfw, 100);
    // FW2 holds copies, as after a failover and back, and starts again; then FW1 does.
    for n in 1..=100 {
        w.nodes[FW2].kernel.silently(w.now, &tcp(n));
    }
    w.restart(FW2, reborn(Mode::Ftfw, 88));
    w.run(3.0);
    w.restart(FW1, reborn(Mode::Ftfw, 77));
    w.run(12.0);
    assert_eq!(w.nodes[FW2].announced(), 0);
    assert_eq!(
        w.nodes[FW1].replica.confirmed(),
        0,
        "offers are not certain"
    );
}

/// Goal: a bulk update that leaves out what was only found in the kernel, because the peer's
/// trailer has not come yet, ends nothing at the peer.
#[test]
fn a_repair_before_the_peers_first_trailer_ends_nothing() {
    let mut w = learned(Mode::Ftfw, 100);
    w.nodes[FW2].mute = true;
    w.restart(FW1, reborn(Mode::Ftfw, 77));
    w.run(1.0);
    w.traffic(FW1, &tcp(101));
    // Somebody greets FW1 twice, goes on, and acknowledges everything.
    for seq in [0x4000_0001, 1] {
        w.forge(FW1, &forged::control(Control::Alive, Flags::HELLO, seq));
        w.run(2.0);
    }
    for seq in 2..40 {
        w.forge(FW1, &forged::control(Control::Alive, Flags::NONE, seq));
        w.run(0.1);
    }
    let all = Control::Ack(Seq(0), Seq(1000));
    w.forge(FW1, &forged::control(all, Flags::NONE, 40));
    w.run(5.0);
    let fw2 = &w.nodes[FW2].replica;
    assert_eq!(fw2.len(Which::External), 101);
}
