//! Failovers and failbacks with the scripts of an HA manager, and the scheduled flush
//! that follows them.

use flow::Flow;
use replica::{
    Answer, Command, Epoch, Event, Instant, Mode, Objects, PeerId, Settings, Shortfall, Which,
};

use crate::flows::tcp;
use crate::pairs::settings;
use crate::world::World;
use crate::{FW1, FW2};

const FLOWS: u16 = 50;

fn flows() -> Vec<Flow> {
    (1..=FLOWS).map(tcp).collect()
}

fn pair(external_cache: bool) -> World {
    let own = |epoch| Settings {
        mode: Mode::Ftfw,
        epoch: Epoch(epoch),
        external_cache,
        ..settings()
    };
    let mut w = World::with(own(1), own(2));
    w.run(1.5);
    for flow in flows() {
        w.traffic(FW1, &flow);
    }
    w.run(1.5);
    assert_eq!(w.nodes[FW2].held(&flows()), FLOWS.into());
    w
}

/// Packets of every flow pass through node `n`: no event tells of them.
fn packets(w: &mut World, n: usize) {
    let now: Instant = w.now;
    for flow in flows() {
        w.nodes[n].kernel.refresh(now, &flow.key(), 432_000);
    }
}

/// What the original's scripts do at a failover.
pub(crate) fn take_over(w: &mut World, n: usize) {
    become_primary(w, n, 0.1);
    become_backup(w, 1 - n);
}

/// The steps of a new primary, each `pause` seconds after the one before.
fn become_primary(w: &mut World, n: usize, pause: f64) {
    for command in [
        Command::Commit(Objects::All),
        Command::FlushCaches,
        Command::Resync(Objects::All),
        Command::Bulk,
    ] {
        w.command(n, command);
        w.run(pause);
    }
}

fn become_backup(w: &mut World, n: usize) {
    w.command(n, Command::ScheduleFlush);
    w.command(n, Command::RequestResync);
}

/// A pair after a failover to FW2 for `seconds` and back, with packets all the time.
fn failed_back(external_cache: bool, seconds: u32) -> World {
    let mut w = pair(external_cache);
    take_over(&mut w, FW2);
    for _ in 0..10 * seconds {
        packets(&mut w, FW2);
        w.run(0.1);
    }
    take_over(&mut w, FW1);
    packets(&mut w, FW1);
    w
}

fn cut(w: &mut World, is_cut: bool) {
    for node in &mut w.nodes {
        node.mute = is_cut;
    }
}

/// Goal: a failback with the dedicated link out for longer than `PurgeTimeout` loses nothing.
/// Method: the timeouts of FW2's copies are those of its time as primary with packets,
/// which no event has told; sweeps see them, and the scheduled flush follows.
#[test]
fn a_failback_with_the_link_out_keeps_every_flow() {
    for external_cache in [true, false] {
        let mut w = failed_back(external_cache, 4);
        w.run(1.0);
        cut(&mut w, true);
        for _ in 0..75 {
            packets(&mut w, FW1);
            w.run(1.0);
        }
        cut(&mut w, false);
        w.run(20.0);
        assert_eq!(
            w.nodes[FW2].held(&flows()),
            FLOWS.into(),
            "{external_cache}"
        );
        w.command(FW2, Command::Commit(Objects::All));
        w.run(1.0);
        let kernel = &w.nodes[FW2].kernel;
        let lost = flows()
            .iter()
            .filter(|f| kernel.get(&f.key()).is_none())
            .count();
        assert_eq!(lost, 0, "cache {external_cache}");
    }
}

/// The same while the link is out at the failback itself: FW1's announcements never come.
#[test]
fn a_failback_that_the_peer_never_heard_of_keeps_every_flow() {
    let mut w = pair(true);
    take_over(&mut w, FW2);
    w.run(2.0);
    cut(&mut w, true);
    take_over(&mut w, FW1);
    packets(&mut w, FW1);
    w.run(70.0);
    assert_eq!(w.nodes[FW2].kernel.len(), FLOWS.into());
    assert_eq!(w.nodes[FW2].replica.stats().purge_spared, FLOWS.into());
}

#[test]
fn a_scheduled_flush_deletes_copies_that_the_external_cache_holds() {
    let mut w = failed_back(true, 1);
    w.run(65.0);
    let fw2 = &w.nodes[FW2];
    assert_eq!(fw2.kernel.len(), 0);
    assert_eq!(fw2.replica.len(Which::Internal), 0);
    assert_eq!(fw2.replica.len(Which::External), FLOWS.into());
    let deleted = u64::from(FLOWS);
    assert!(fw2.heard.contains(&Event::Purged { deleted, spared: 0 }));
    assert_eq!(w.nodes[FW1].replica.len(Which::Internal), FLOWS.into());
}

#[test]
fn a_scheduled_flush_deletes_copies_whose_end_the_owner_has_announced() {
    let mut w = failed_back(true, 1);
    w.run(1.0);
    for flow in &flows()[..20] {
        w.nodes[FW1].kernel.end(&flow.key());
    }
    w.run(1.0);
    assert_eq!(w.nodes[FW2].replica.len(Which::External), 30);
    w.run(65.0);
    assert_eq!(w.nodes[FW2].kernel.len(), 0);
    assert_eq!(w.nodes[FW2].replica.stats().purge_spared, 0);
}

#[test]
fn a_scheduled_flush_spares_what_was_injected() {
    let mut w = failed_back(false, 1);
    w.run(65.0);
    assert_eq!(w.nodes[FW2].kernel.len(), FLOWS.into());
    assert_eq!(w.nodes[FW2].replica.stats().purge_spared, FLOWS.into());
}

#[test]
fn a_commit_calls_a_scheduled_flush_off() {
    let mut w = pair(true);
    w.command(FW2, Command::ScheduleFlush);
    w.command(FW2, Command::ScheduleFlush);
    w.run(59.9);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(61.0);
    assert_eq!(w.nodes[FW2].kernel.len(), FLOWS.into());
    assert_eq!(w.nodes[FW2].replica.stats().kernel_flushes, 0);
}

/// Goal: what our own kernel shows of a flow of the peer deletes nothing that the peer
/// was acknowledged for, until the peer has received that the flow is ours.
#[test]
fn evidence_of_traffic_does_not_delete_what_the_peer_announced() {
    for external_cache in [true, false] {
        let mut w = pair(external_cache);
        // FW2 is not heard while a stray packet makes and ends the flow there.
        w.nodes[FW2].mute = true;
        w.traffic(FW2, &tcp(1));
        w.run(1.0);
        assert!(w.nodes[FW2].has(Which::External, &tcp(1)));
        w.nodes[FW2].kernel.end(&tcp(1).key());
        w.run(1.0);
        assert!(
            w.nodes[FW2].has(Which::External, &tcp(1)),
            "{external_cache}"
        );
        w.nodes[FW2].mute = false;
        w.run(3.0);
        assert!(w.nodes[FW1].has(Which::Internal, &tcp(1)));
        assert!(
            w.nodes[FW2].has(Which::External, &tcp(1)),
            "{external_cache}"
        );
        w.command(FW2, Command::Commit(Objects::All));
        w.run(1.0);
        assert!(w.nodes[FW2].kernel.get(&tcp(1).key()).is_some());
    }
}

/// When the peer has received that a flow is ours, its announcement is over.
#[test]
fn a_flow_that_moved_is_held_by_the_peer_of_its_new_owner() {
    for external_cache in [true, false] {
        let mut w = pair(external_cache);
        w.traffic(FW2, &tcp(1));
        w.run(1.0);
        assert!(!w.nodes[FW2].has(Which::External, &tcp(1)));
        assert!(w.nodes[FW1].has(Which::External, &tcp(1)));
        w.nodes[FW2].kernel.end(&tcp(1).key());
        w.run(1.0);
        assert!(
            !w.nodes[FW1].has(Which::External, &tcp(1)),
            "{external_cache}"
        );
    }
}

#[test]
fn a_kernel_flush_is_over_when_its_last_delete_is_answered_and_a_failed_dump_is_said() {
    let mut replica = replica::Replica::new(settings());
    let now = Instant::from_nanos(1);
    let id = replica::CommandId(1);
    // The first dump is that of the start.
    assert!(replica.poll_dump().is_some());
    replica.handle_dump_end(now, replica::DumpEnd::Complete);
    replica.handle_command(now, id, Command::FlushKernel(Objects::Flows));
    assert!(replica.poll_dump().is_some());
    replica.handle_dump(now, &[tcp(1), tcp(2)]);
    replica.handle_dump_end(now, replica::DumpEnd::Failed);
    let mut requests = Vec::new();
    replica.poll_kernel(10, &mut requests);
    assert_eq!(requests.len(), 2);
    let events = |replica: &mut replica::Replica| {
        std::iter::from_fn(|| replica.poll_event()).collect::<Vec<_>>()
    };
    let done = |request| replica::KernelResult {
        request,
        outcome: replica::Outcome::Done,
    };
    replica.handle_results(now, &[done(requests[0])]);
    let is_done = |e: &Event| matches!(e, Event::Done(..));
    assert!(!events(&mut replica).iter().any(is_done));
    replica.handle_results(now, &[done(requests[1])]);
    let last = events(&mut replica);
    let answer = Answer::FlushIncomplete(Shortfall::DumpFailed);
    assert_eq!(last, [Event::Done(id, answer)]);
}

/// Goal: what a living peer announces between the commands of the script is not lost.
/// Method: flows begin at FW1 after the commit of FW2 has ended, and before its flush.
#[test]
fn what_is_announced_between_commit_and_flush_is_committed_too() {
    let mut w = pair(true);
    w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    for n in 101..=120 {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.5);
    w.command(FW2, Command::FlushCaches);
    let again = w.command(FW2, Command::Commit(Objects::All));
    w.run(0.5);
    let fw2 = &w.nodes[FW2];
    assert_eq!(fw2.kernel.len(), usize::from(FLOWS) + 20);
    assert_eq!(fw2.replica.len(Which::External), 0);
    assert!(matches!(fw2.answer(again), Some(Answer::Committed { .. })));
}

/// Goal: when both replicas are told at once to take over, one owns each flow.
/// Method: their bulk updates cross; then the copy of the other one is flushed.
#[test]
fn two_that_take_over_at_once_agree_on_an_owner() {
    for external_cache in [true, false] {
        let mut w = pair(external_cache);
        for command in [
            Command::Commit(Objects::All),
            Command::FlushCaches,
            Command::Resync(Objects::All),
        ] {
            w.command(FW1, command);
            w.command(FW2, command);
            w.run(0.1);
        }
        w.command(FW1, Command::Bulk);
        w.command(FW2, Command::Bulk);
        w.run(3.0);
        let (first, second) = (w.nodes[FW1].announced(), w.nodes[FW2].announced());
        assert_eq!(first + second, usize::from(FLOWS), "{first} and {second}");
        w.command(FW1, Command::ScheduleFlush);
        w.command(FW2, Command::ScheduleFlush);
        w.run(70.0);
        for node in &w.nodes {
            assert_eq!(node.held(&flows()), FLOWS.into(), "cache {external_cache}");
        }
    }
}

/// Goal: FW2 has taken over and is made the backup before FW1 has acknowledged it. FW1 takes
/// back, and keeps the flows although its epoch is the lower one: that take-over is the later.
#[test]
fn a_take_over_after_the_peer_was_made_the_backup_crosses_nothing() {
    let mut w = pair(true);
    let script = |w: &mut World, n: usize| {
        w.command(n, Command::Commit(Objects::All));
        w.run(0.05);
        w.command(n, Command::FlushCaches);
        w.command(n, Command::Resync(Objects::All));
        w.run(0.05);
        w.command(n, Command::Bulk);
    };
    w.nodes[FW1].mute = true;
    script(&mut w, FW2);
    w.run(0.1);
    w.command(FW2, Command::ScheduleFlush);
    script(&mut w, FW1);
    w.nodes[FW1].mute = false;
    w.run(2.0);
    assert_eq!(w.nodes[FW1].announced(), FLOWS.into());
    assert_eq!(w.nodes[FW2].replica.len(Which::External), FLOWS.into());
}

/// Goal: what a backup still sends, in answer to an earlier request, takes nothing back from
/// the one that has taken over since, also if the epoch of that one is the lower one.
/// Method: FW2 says that it is backup, then sends everything, and hears FW1 only then.
#[test]
fn what_a_backup_still_sends_takes_nothing_back() {
    for external_cache in [true, false] {
        let mut w = pair(external_cache);
        w.command(FW1, Command::ScheduleFlush);
        take_over(&mut w, FW2);
        w.run(5.0);
        w.nodes[FW1].mute = true;
        take_over(&mut w, FW1);
        w.run(1.1);
        w.command(FW2, Command::Bulk);
        w.run(0.1);
        w.nodes[FW1].mute = false;
        w.run(3.0);
        let announced = [FW1, FW2].map(|n| w.nodes[n].announced());
        assert_eq!(announced, [FLOWS.into(), 0], "cache {external_cache}");
    }
}

/// Goal: FW2 takes over from a living FW1, and what FW1 sends late takes nothing back.
/// Method: FW1 sends everything once more between two commands of FW2's script, as it does in
/// answer to an earlier request; FW1 is made the backup only then.
#[test]
fn what_the_former_primary_sends_during_a_take_over_takes_nothing_back() {
    let script = [
        Command::Commit(Objects::All),
        Command::FlushCaches,
        Command::Resync(Objects::All),
        Command::Bulk,
    ];
    for (external_cache, moment) in [(true, 2), (true, 3), (false, 2), (false, 3)] {
        let mut w = pair(external_cache);
        w.command(FW2, Command::ScheduleFlush);
        w.command(FW1, Command::Commit(Objects::All));
        w.run(3.0);
        for (n, command) in script.iter().enumerate() {
            if n == moment {
                w.command(FW1, Command::Bulk);
                w.run(0.05);
            }
            w.command(FW2, *command);
            w.run(0.05);
        }
        w.command(FW1, Command::ScheduleFlush);
        w.run(1.0);
        let (first, second) = (w.nodes[FW1].announced(), w.nodes[FW2].announced());
        let what = format!("cache {external_cache}, before command {moment}");
        assert_eq!((first, second), (0, FLOWS.into()), "{what}");
    }
}

/// Goal: the same, however long it takes to read the kernel.
/// Method: FW2's dump takes 3 s; FW1 sends everything once more before its end, or behind that.
#[test]
fn a_take_over_claims_its_flows_until_the_kernel_is_read() {
    for (external_cache, behind) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut w = pair(external_cache);
        w.command(FW2, Command::ScheduleFlush);
        w.command(FW1, Command::Commit(Objects::All));
        w.run(3.0);
        w.command(FW2, Command::Commit(Objects::All));
        w.run(0.1);
        w.command(FW2, Command::FlushCaches);
        w.nodes[FW2].pace.dump_part = 0;
        w.command(FW2, Command::Resync(Objects::All));
        w.run(3.0);
        if !behind {
            w.command(FW1, Command::Bulk);
            w.run(0.1);
        }
        w.nodes[FW2].pace.dump_part = 1000;
        w.run(0.1);
        if behind {
            w.command(FW1, Command::Bulk);
            w.run(0.1);
        }
        w.command(FW2, Command::Bulk);
        w.run(0.1);
        w.command(FW1, Command::ScheduleFlush);
        w.run(1.0);
        let (first, second) = (w.nodes[FW1].announced(), w.nodes[FW2].announced());
        let what = format!("cache {external_cache}, behind the dump {behind}");
        assert_eq!((first, second), (0, FLOWS.into()), "{what}");
    }
}

/// Goal: a backup that was primary beside the primary for a moment, as its HA manager has missed
/// some advertisements, does not keep the flows that it has claimed. Method: nobody tells the
/// primary; without packets no look through its table shows whose the flows are.
#[test]
fn what_a_backup_has_claimed_for_a_moment_is_the_primarys_again() {
    for external_cache in [true, false] {
        for (pause, primary_for) in [(0.001, 0.001), (0.001, 0.02), (0.1, 0.0), (0.1, 2.0)] {
            let mut w = pair(external_cache);
            take_over(&mut w, FW1);
            w.run(15.0);
            become_primary(&mut w, FW2, pause);
            w.run(primary_for);
            become_backup(&mut w, FW2);
            w.run(2.0);
            let all = usize::from(FLOWS);
            let held = w.nodes[FW1].replica.held_by(PeerId::FIRST);
            let shown = format!("cache {external_cache}, {pause} s, {primary_for} s");
            assert_eq!(held, Some((all, all)), "{shown}");
            // The scheduled flush of the backup comes, and the primary dies.
            w.run(60.0);
            cut(&mut w, true);
            w.command(FW2, Command::Commit(Objects::All));
            w.run(1.0);
            assert_eq!(w.nodes[FW2].kernel.len(), FLOWS.into(), "{shown}");
        }
    }
}

/// Goal: whoever says again and again that it has become primary and the backup again, in the
/// peer's name perhaps, causes one claim in ten seconds, and nothing is left unclaimed.
#[test]
fn a_backup_that_comes_and_goes_causes_one_claim_in_ten_seconds() {
    let mut w = pair(true);
    take_over(&mut w, FW1);
    w.run(15.0);
    let before = w.nodes[FW1].replica.stats().resyncs;
    let claims = |w: &World| w.nodes[FW1].replica.stats().resyncs - before;
    for _ in 0..8 {
        become_primary(&mut w, FW2, 0.1);
        become_backup(&mut w, FW2);
        w.run(0.6);
    }
    assert_eq!(claims(&w), 1);
    w.run(12.0);
    assert_eq!(claims(&w), 2);
    let held = w.nodes[FW1].replica.held_by(PeerId::FIRST);
    assert_eq!(held, Some((FLOWS.into(), FLOWS.into())));
}
