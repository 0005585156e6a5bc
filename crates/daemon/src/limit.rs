//! A bound on log lines that strangers can cause.
//!
//! Each kind of line has its own allowance, so that a flood of one kind does not hide
//! another. The bound on all lines together is the number of kinds times one allowance.
//! What is left out is counted, and [`Limiter::summary`] names it a few seconds later, also
//! when no further line comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use replica::Event;

/// Lines of one kind that may come at once.
const BURST: u32 = 10;
/// Afterwards one line of a kind may come in each such period: 8 MB a day.
const REFILL: Duration = Duration::from_secs(1);
/// From the first line that is left out until the summary.
const SUMMARY_AFTER: Duration = Duration::from_secs(5);

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Control clients that cannot be accepted.
    Accept,
    /// Control clients that are refused or disconnected.
    Clients,
    /// Flows and expectations that the kernel does not take.
    Refused,
    /// Other errors of the kernel.
    Kernel,
    /// Events that the kernel dropped.
    Overrun,
    /// Caches that are full.
    Cache,
    /// The peer is lost, back, or has restarted.
    Peer,
    /// Bulk updates, and who asks for them.
    Bulk,
    /// Dedicated links.
    Link,
    /// The export of metrics.
    Metrics,
}

impl Kind {
    /// The kind of an event that a datagram, a packet or the kernel can cause as often as it
    /// likes; `None` for one that only commands and timers cause.
    pub(crate) fn of(event: &Event) -> Option<Kind> {
        match event {
            Event::Clash(_)
            | Event::Refused { .. }
            | Event::ExpectationRefused { .. }
            | Event::WithoutHelper(_) => Some(Kind::Refused),
            Event::PeerRestarted { .. }
            | Event::PeerHeard
            | Event::PeerLost
            | Event::PeerBack { .. } => Some(Kind::Peer),
            Event::ResyncByPeer
            | Event::ClaimedBack
            | Event::Resync
            | Event::Bulk
            | Event::ResyncRequested
            | Event::Lacking { .. }
            | Event::HoldsMore { .. } => Some(Kind::Bulk),
            Event::LinkChosen(..) | Event::NoLink => Some(Kind::Link),
            Event::Overrun(_) | Event::Repaired { .. } => Some(Kind::Overrun),
            Event::DumpFailed => Some(Kind::Kernel),
            Event::Done(..)
            | Event::Ended(_)
            | Event::CommitStarted
            | Event::FlushingCaches(_)
            | Event::FlushingKernel { .. }
            | Event::FlushScheduled(_)
            | Event::Purged { .. }
            | Event::PurgeIncomplete(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Accept => "clients not accepted",
            Kind::Clients => "control clients",
            Kind::Refused => "refused flows",
            Kind::Kernel => "kernel errors",
            Kind::Overrun => "overruns",
            Kind::Cache => "full caches",
            Kind::Peer => "the life of the peer",
            Kind::Bulk => "bulk updates",
            Kind::Link => "dedicated links",
            Kind::Metrics => "metrics",
        }
    }
}

#[derive(Debug)]
struct Allowance {
    lines: u32,
    refilled: Instant,
    left_out: u64,
}

/// Decides which lines are written.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    kinds: BTreeMap<Kind, Allowance>,
    /// When the next summary is due; `None` while nothing is left out.
    summary_at: Option<Instant>,
}

impl Limiter {
    /// True if a line of this kind may be written now; otherwise it is counted.
    pub(crate) fn admits(&mut self, kind: Kind, now: Instant) -> bool {
        let allowance = self.kinds.entry(kind).or_insert(Allowance {
            lines: BURST,
            refilled: now,
            left_out: 0,
        });
        let periods = now.duration_since(allowance.refilled).as_secs() / REFILL.as_secs();
        let periods = u32::try_from(periods).unwrap_or(BURST);
        allowance.lines = allowance.lines.saturating_add(periods).min(BURST);
        if allowance.lines == BURST {
            allowance.refilled = now;
        } else {
            allowance.refilled += REFILL * periods;
        }
        if allowance.lines > 0 {
            allowance.lines -= 1;
            return true;
        }
        allowance.left_out += 1;
        self.summary_at.get_or_insert(now + SUMMARY_AFTER);
        false
    }

    /// The line about what was left out, if it is due.
    pub(crate) fn summary(&mut self, now: Instant) -> Option<String> {
        self.summary_at.take_if(|at| *at <= now)?;
        self.what_was_left_out()
    }

    /// The same without waiting for its time.
    pub(crate) fn what_was_left_out(&mut self) -> Option<String> {
        self.summary_at = None;
        let counts = self.kinds.iter_mut().filter(|(_, a)| a.left_out > 0);
        let (mut total, mut parts) = (0, Vec::new());
        for (kind, allowance) in counts {
            let count = std::mem::take(&mut allowance.left_out);
            total += count;
            parts.push(format!("{count} about {}", kind.name()));
        }
        (total > 0).then(|| format!("{total} lines left out: {}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_flood_of_one_kind_does_not_hide_another() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let written = (0..1000).filter(|_| limiter.admits(Kind::Bulk, now));
        assert_eq!(written.count(), 10);
        assert!(limiter.admits(Kind::Link, now));
    }

    #[test]
    fn a_flood_that_goes_on_writes_a_line_a_second() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let times = (0..60_000).map(|ms| now + Duration::from_millis(ms));
        let written = times.filter(|at| limiter.admits(Kind::Bulk, *at)).count();
        assert_eq!(written, 10 + 59);
        // Silence fills the allowance again, but no further.
        let later = now + secs(1000);
        let written = (0..100).filter(|_| limiter.admits(Kind::Bulk, later));
        assert_eq!(written.count(), 10);
    }

    #[test]
    fn the_summary_comes_when_the_flood_has_ended() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for _ in 0..14 {
            limiter.admits(Kind::Bulk, now);
        }
        for _ in 0..11 {
            limiter.admits(Kind::Peer, now);
        }
        assert_eq!(limiter.summary(now + secs(4)), None);
        let text = "5 lines left out: 1 about the life of the peer, 4 about bulk updates";
        assert_eq!(limiter.summary(now + secs(5)).as_deref(), Some(text));
        assert_eq!(limiter.summary(now + secs(60)), None);
    }
}
