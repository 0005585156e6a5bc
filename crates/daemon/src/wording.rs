//! The log lines of what happens at the replica: level and text of each event.
//!
//! Where the original logs the same thing, the words are the original's, because monitoring
//! rules match them. The control clients get their answers elsewhere (`serve::tail_of`).

use std::io;

use replica::{Answer, Caches, Event, KernelError, LinkReason, Shortfall};

use crate::line::Level::{self, Error, Notice, Warning};

/// The log lines of an event; `None` if it has none, as the end of most commands.
pub(crate) fn of(event: &Event) -> Option<(Level, String)> {
    let (level, text) = match event {
        Event::Done(_, answer) => return of_answer(*answer),
        // It has a log of its own.
        Event::Ended(_) => return None,
        Event::CommitStarted => (Notice, "committing all external caches".into()),
        Event::WithoutHelper(flow) => (
            Warning,
            format!(
                "this kernel lacks the helper of {flow}: created without; load the helper's module"
            ),
        ),
        Event::Clash(flow) => (
            Warning,
            format!(
                "another flow holds the reply tuple of {flow}: not created; do the NAT rules of both \
                 firewalls agree (`ftfw doctor`)?"
            ),
        ),
        Event::Refused { flow, error } => {
            (Warning, format!("kernel refuses {flow}: {}", why(*error)))
        }
        Event::ExpectationRefused { expectation, error } => {
            let why = match error {
                KernelError::NotFound => "its master is not there".into(),
                KernelError::Unsupported => {
                    "its helper is not there: load the helper's module".into()
                }
                error => why(*error),
            };
            let text = format!("kernel refuses the expectation {expectation}: {why}");
            (Warning, text)
        }
        Event::FlushingCaches(caches) => {
            let text = match caches {
                Caches::Both => "flushing caches",
                Caches::Internal => "flushing internal cache",
                Caches::External => "flushing external cache",
            };
            (Notice, text.into())
        }
        Event::FlushingKernel { scheduled: false } => {
            (Notice, "flushing kernel conntrack table".into())
        }
        Event::FlushingKernel { scheduled: true } => {
            (Notice, "flushing kernel conntrack table (scheduled)".into())
        }
        Event::FlushScheduled(after) => (
            Notice,
            format!("flushing conntrack table in {} secs", after.as_secs()),
        ),
        Event::Purged { deleted, spared } => (
            Notice,
            format!(
                "scheduled flush: {deleted} copies deleted, {spared} flows spared: \
                 our own, injected, or held by nothing else"
            ),
        ),
        Event::PurgeIncomplete(shortfall) => (Error, incomplete(*shortfall)),
        Event::Resync => (Notice, "resync with master conntrack table".into()),
        Event::ClaimedBack => (
            Warning,
            "the peer was primary beside this firewall, and is the backup again: what it had \
             claimed is claimed back. Look at the HA manager at both ends, and the way between them"
                .into(),
        ),
        Event::ResyncRequested => (Notice, "resync requested".into()),
        Event::ResyncByPeer => (Notice, "resync requested by other node".into()),
        Event::Bulk => (Notice, "sending bulk update".into()),
        Event::LinkChosen(name, reason) => {
            let why = match reason {
                LinkReason::NotUsable => "the one before is not usable",
                LinkReason::PeerHeard => "the peer is heard there",
                LinkReason::Silence => "the peer is not heard",
                LinkReason::Unanswered => "the peer acknowledges nothing",
            };
            let line = format!("device `{name}' becomes dedicated link: {why}");
            (Notice, line)
        }
        Event::NoLink => (Error, "no dedicated links available!".into()),
        Event::Overrun(Some(after)) => (
            Warning,
            format!(
                "the kernel dropped events (ENOBUFS): resync in {} s. If this comes again, raise \
                 NetlinkBufferSize",
                after.as_secs()
            ),
        ),
        Event::Overrun(None) => (
            Warning,
            "the kernel dropped events (ENOBUFS), and NetlinkOverrunResync is off: \
             `ftfw resync kernel` repairs what was missed"
                .into(),
        ),
        Event::Repaired { found, gone } => (
            Notice,
            format!("resync after overrun: {found} flows had been missed, {gone} were gone"),
        ),
        Event::DumpFailed => (
            Error,
            "dump of the kernel conntrack table failed: `ftfw resync kernel` reads it again".into(),
        ),
        Event::PeerHeard => (Notice, "the peer is there".into()),
        Event::PeerLost => (
            Warning,
            "the peer is lost: nothing has come from it for 5 s. Look at its daemon, and at the \
             dedicated link at both ends"
                .into(),
        ),
        Event::PeerBack { silence } => (
            Notice,
            format!("the peer is back after {} s", silence.as_secs()),
        ),
        Event::Lacking { counts_on, holds } => (
            Warning,
            format!(
                "the peer counts on {counts_on} flows here, and {holds} are held: asking for all"
            ),
        ),
        Event::HoldsMore { counts_on, holds } => (
            Warning,
            format!(
                "{holds} flows of the peer are held here, and it has {counts_on}: asking for all"
            ),
        ),
        Event::PeerRestarted { unconfirmed } => (
            Notice,
            format!("the peer has started again: {unconfirmed} of its flows are kept, unconfirmed"),
        ),
    };
    Some((level, text))
}

fn of_answer(answer: Answer) -> Option<(Level, String)> {
    Some(match answer {
        Answer::Done | Answer::NothingToCommit | Answer::NoControl => return None,
        Answer::Committed {
            created,
            updated,
            failed,
            took,
        } => {
            let mut lines = vec![format!("Committed {created} new entries")];
            if updated > 0 {
                lines.push(format!("{updated} entries were there already"));
            }
            if failed > 0 {
                lines.push(format!("{failed} entries can't be committed"));
            }
            let (s, us) = (took.as_secs(), took.subsec_micros());
            lines.push(format!("commit has taken {s}.{us:06} seconds"));
            (Notice, lines.join("\n"))
        }
        Answer::CommitRunning => (Notice, "commit already in progress, skipping".into()),
        Answer::CommitReadsCache => (
            Error,
            "ignoring flush command, commit still in progress".into(),
        ),
        Answer::FlushIncomplete(shortfall) => (Error, incomplete(shortfall)),
        Answer::NoInternalCache => (Warning, "resync is unsupported in this mode".into()),
    })
}

fn incomplete(shortfall: Shortfall) -> String {
    match shortfall {
        Shortfall::DumpFailed => {
            "kernel flush incomplete: the table could not be read to its end. Flush it again".into()
        }
        Shortfall::Refused(deletes) => {
            format!("kernel flush incomplete: the kernel refused {deletes} deletes. Flush it again")
        }
    }
}

/// Why the kernel refuses something, and what helps.
fn why(error: KernelError) -> String {
    let text = match error {
        KernelError::Exists => "one of its tuples is taken",
        KernelError::NotFound => "there is no such entry",
        KernelError::Unsupported => "this kernel lacks what it needs, mostly a helper's module",
        KernelError::Busy => "it would change a status bit that cannot change",
        KernelError::TableFull => "the table is full: raise nf_conntrack_max",
        KernelError::Os(number) => return io::Error::from_raw_os_error(number).to_string(),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use replica::CommandId;

    use super::*;

    fn done(answer: Answer) -> Event {
        Event::Done(CommandId(7), answer)
    }

    fn committed(updated: u64, failed: u64) -> Event {
        done(Answer::Committed {
            created: 12,
            updated,
            failed,
            took: Duration::from_micros(2_000_345),
        })
    }

    #[test]
    fn the_end_of_a_commit_has_the_originals_lines_and_ours_where_there_is_something() {
        let text = "Committed 12 new entries\ncommit has taken 2.000345 seconds";
        assert_eq!(of(&committed(0, 0)), Some((Notice, text.into())));
        let text = "Committed 12 new entries\n3 entries were there already\n\
                    4 entries can't be committed\ncommit has taken 2.000345 seconds";
        assert_eq!(of(&committed(3, 4)), Some((Notice, text.into())));
    }

    #[test]
    fn lines_that_monitoring_matches_are_the_originals() {
        let secs = Duration::from_secs(60);
        let kernel = |scheduled| Event::FlushingKernel { scheduled };
        let lines = [
            (
                Event::CommitStarted,
                Notice,
                "committing all external caches",
            ),
            (
                done(Answer::CommitRunning),
                Notice,
                "commit already in progress, skipping",
            ),
            (
                done(Answer::CommitReadsCache),
                Error,
                "ignoring flush command, commit still in progress",
            ),
            (
                Event::FlushingCaches(Caches::Both),
                Notice,
                "flushing caches",
            ),
            (
                Event::FlushingCaches(Caches::Internal),
                Notice,
                "flushing internal cache",
            ),
            (
                Event::FlushingCaches(Caches::External),
                Notice,
                "flushing external cache",
            ),
            (kernel(false), Notice, "flushing kernel conntrack table"),
            (
                kernel(true),
                Notice,
                "flushing kernel conntrack table (scheduled)",
            ),
            (
                Event::FlushScheduled(secs),
                Notice,
                "flushing conntrack table in 60 secs",
            ),
            (Event::Resync, Notice, "resync with master conntrack table"),
            (
                Event::ClaimedBack,
                Warning,
                "the peer was primary beside this firewall, and is the backup again: what it had \
                 claimed is claimed back. Look at the HA manager at both ends, and the way between them",
            ),
            (
                done(Answer::NoInternalCache),
                Warning,
                "resync is unsupported in this mode",
            ),
            (Event::ResyncRequested, Notice, "resync requested"),
            (
                Event::ResyncByPeer,
                Notice,
                "resync requested by other node",
            ),
            (Event::Bulk, Notice, "sending bulk update"),
            (
                Event::LinkChosen("eth1".into(), LinkReason::PeerHeard),
                Notice,
                "device `eth1' becomes dedicated link: the peer is heard there",
            ),
            (Event::NoLink, Error, "no dedicated links available!"),
        ];
        for (event, level, text) in lines {
            assert_eq!(of(&event), Some((level, text.to_owned())));
        }
    }

    #[test]
    fn an_incomplete_flush_is_an_error_whoever_asked_for_it() {
        let read =
            "kernel flush incomplete: the table could not be read to its end. Flush it again";
        let refused = "kernel flush incomplete: the kernel refused 3 deletes. Flush it again";
        for (shortfall, text) in [
            (Shortfall::DumpFailed, read),
            (Shortfall::Refused(3), refused),
        ] {
            let line = Some((Error, text.to_owned()));
            assert_eq!(of(&Event::PurgeIncomplete(shortfall)), line);
            assert_eq!(of(&done(Answer::FlushIncomplete(shortfall))), line);
        }
    }

    #[test]
    fn a_command_with_nothing_to_add_has_no_line_at_its_end() {
        for answer in [Answer::Done, Answer::NothingToCommit, Answer::NoControl] {
            assert_eq!(of(&done(answer)), None);
        }
    }
}
