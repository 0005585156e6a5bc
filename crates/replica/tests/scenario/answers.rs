//! How commands end: what their clients are answered.

use replica::{
    Answer, Command, CommandId, DumpEnd, Event, Instant, KernelResult, Mode, Objects, Outcome,
    Replica, Settings, Shortfall,
};

use crate::flows::tcp;
use crate::pairs::{injecting, settings};

fn events(replica: &mut Replica) -> Vec<Event> {
    std::iter::from_fn(|| replica.poll_event()).collect()
}

/// What happens at once when a new replica gets a command.
fn at_once(settings: Settings, command: Command) -> Vec<Event> {
    let mut replica = Replica::new(settings);
    replica.handle_command(Instant::START, CommandId(1), command);
    events(&mut replica)
}

fn done(answer: Answer) -> Event {
    Event::Done(CommandId(1), answer)
}

#[test]
fn a_command_that_can_do_nothing_is_answered_why() {
    let commit = Command::Commit(Objects::All);
    let nothing = done(Answer::NothingToCommit);
    assert_eq!(
        at_once(injecting(), commit),
        [Event::CommitStarted, nothing]
    );
    let cacheless = Settings {
        internal_cache: false,
        ..settings()
    };
    let resync = Command::Resync(Objects::All);
    assert_eq!(at_once(cacheless, resync), [done(Answer::NoInternalCache)]);
    for command in [Command::Bulk, Command::RequestResync] {
        let alarm = Settings {
            mode: Mode::Alarm,
            ..settings()
        };
        assert_eq!(at_once(alarm, command), [done(Answer::NoControl)]);
    }
}

/// Goal: a command is answered by what it has done, not by what ends at the same time.
/// Method: the dump of a purge fails while the deletes of a flush are under way.
#[test]
fn a_flush_is_not_blamed_for_a_purge_that_ends_with_it() {
    let mut replica = Replica::new(settings());
    let (now, later) = (Instant::START, Instant::START + settings().purge_timeout);
    assert!(replica.poll_dump().is_some());
    replica.handle_dump_end(now, DumpEnd::Complete);
    replica.handle_command(now, CommandId(0), Command::ScheduleFlush);
    replica.handle_command(later, CommandId(1), Command::FlushKernel(Objects::Flows));
    replica.handle_timeout(later);
    assert!(replica.poll_dump().is_some());
    replica.handle_dump(later, &[tcp(1)]);
    replica.handle_dump_end(later, DumpEnd::Complete);
    assert!(replica.poll_dump().is_some());
    replica.handle_dump_end(later, DumpEnd::Failed);
    let mut requests = Vec::new();
    replica.poll_kernel(10, &mut requests);
    events(&mut replica);
    let results = requests.into_iter().map(|request| KernelResult {
        request,
        outcome: Outcome::Done,
    });
    replica.handle_results(later, &results.collect::<Vec<_>>());
    let purged = Event::Purged {
        deleted: 0,
        spared: 0,
    };
    let incomplete = Event::PurgeIncomplete(Shortfall::DumpFailed);
    assert_eq!(
        events(&mut replica),
        [purged, incomplete, done(Answer::Done)]
    );
}
