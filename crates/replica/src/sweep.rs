//! Dumps of the kernel table: at the start, on command, after an overrun, for a
//! flush or a bulk update, and the paced sweeps that find what no event reports.
//!
//! Some flows are silent: one created while nobody listened may never emit an
//! event, and packets refresh a timer without one. A sweep compares the table with
//! the internal cache: unknown flows are announced, refreshed timeouts are sent
//! again before half of the peer's copy has run down, and entries that the dump did
//! not show are looked up one by one before they are taken as gone (a dump may
//! miss entries while the table changes).
//!
//! At the start nothing is announced: the table of a replica that was the backup
//! holds copies of the peer's flows. Traffic shows which are ours.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use cache::Position;
use flow::{Flow, FlowKey};

use crate::command::CommandId;
use crate::kernel::DumpScope;
use crate::rounds::Rounds;
use crate::settings::Settings;
use crate::time::Instant;

/// Timeouts that differ by no more than this many seconds count as equal: the
/// kernel's are rounded, and so is our time.
pub(crate) const SLACK_SECS: u32 = 2;

/// What a dump is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The first one: fill the internal cache, say nothing.
    Start,
    /// The operator's `-R`: merge, remove nothing.
    Resync,
    /// Paced comparison.
    Sweep,
    /// Comparison after an overrun.
    Repair,
    /// Bulk update without an internal cache.
    Bulk,
    /// Repair without an internal cache: what is found is offered.
    Offer,
    /// Delete what the filter covers.
    Flush(CommandId),
    /// Scheduled flush: delete the copies that something else of ours holds.
    Purge,
    /// A purge that a commit has called off.
    CalledOff,
}

/// A dump owed or under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dump {
    pub(crate) reason: Reason,
    pub(crate) scope: DumpScope,
}

/// What has come of a flow since a dump began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    /// We have written it into our kernel.
    Written,
    /// It has changed.
    Changed,
    /// It has ended. A later life of it tells of itself.
    Ended,
}

/// What has come of flows while a dump is under way. The kernel fills a part of the dump before
/// we read it, and walks on through its table meanwhile, for 50 ms if there is little to find:
/// what a part shows of these flows may be older.
#[derive(Debug, Default)]
struct Meanwhile {
    latest: HashMap<FlowKey, Heard>,
    /// Those before; forgotten when the latest are `MAX`.
    before: HashMap<FlowKey, Heard>,
}

impl Meanwhile {
    /// More than 100 ms of 100 000 events a second.
    const MAX: usize = 16_384;

    fn note(&mut self, flow: FlowKey, heard: Heard) {
        // A part may show what was before the greatest of it.
        let heard = self.heard(&flow).max(Some(heard)).unwrap_or(heard);
        if self.latest.len() >= Meanwhile::MAX {
            self.before = std::mem::take(&mut self.latest);
        }
        self.latest.insert(flow, heard);
    }

    fn heard(&self, flow: &FlowKey) -> Option<Heard> {
        if self.latest.is_empty() {
            return None;
        }
        let latest = self.latest.get(flow);
        latest.or_else(|| self.before.get(flow)).copied()
    }
}

/// Dumps and when the next are due.
#[derive(Debug)]
pub(crate) struct Sweeps {
    pub(crate) owed: VecDeque<Dump>,
    pub(crate) running: Option<Dump>,
    /// Entries of the dump under way.
    pub(crate) dumped: usize,
    meanwhile: Meanwhile,
    /// The round of the whole comparison under way: on and off in turn.
    pub(crate) round: bool,
    /// Number of the latest comparison; entries note the last that saw them.
    pub(crate) number: u8,
    pub(crate) began: Instant,
    /// Walk over the internal cache for entries that the last comparison did not see.
    pub(crate) gone: Option<(Position, Dump)>,
    /// Walk over the copies of the peer's flows for the same.
    pub(crate) copies: Option<Position>,
    pub(crate) found: u64,
    pub(crate) ended: u64,
    pub(crate) rounds: Rounds,
    /// When expectations are looked through for those that have run out.
    pub(crate) expire_at: Instant,
    pub(crate) expire_interval: Duration,
    pub(crate) repair_at: Option<Instant>,
    /// The internal cache holds what the kernel holds, as far as we know.
    pub(crate) whole: bool,
    /// The dump under way showed a flow for which the cache had no room.
    pub(crate) missing: bool,
}

/// What the dump under way is to expectations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// It compares: what is unknown is news.
    pub(crate) compares: bool,
    /// Its number.
    pub(crate) number: u8,
}

impl Sweeps {
    pub(crate) fn running(&self) -> Option<Running> {
        let dump = self.running?;
        Some(Running {
            compares: matches!(dump.reason, Reason::Sweep | Reason::Repair),
            number: self.number,
        })
    }

    pub(crate) fn new(settings: &Settings) -> Sweeps {
        let mut owed = VecDeque::new();
        if settings.internal_cache {
            owed.push_back(Dump {
                reason: Reason::Start,
                scope: DumpScope::All,
            });
        }
        let mut rounds = Rounds::new(
            settings.sweep_short,
            settings.sweep_full,
            settings.sweep_leisurely,
        );
        if !settings.internal_cache {
            // Nothing can be compared; all is sent again.
            rounds.expect_no_events();
        }
        Sweeps {
            owed,
            running: None,
            dumped: 0,
            meanwhile: Meanwhile::default(),
            round: false,
            number: 0,
            began: Instant::START,
            gone: None,
            copies: None,
            found: 0,
            ended: 0,
            rounds,
            expire_at: Instant::START + settings.sweep_short,
            expire_interval: settings.sweep_short,
            repair_at: None,
            whole: false,
            missing: false,
        }
    }

    /// When the sweeps have something to do.
    pub(crate) fn next_due(&self) -> Instant {
        let due = self.rounds.next_due().min(self.expire_at);
        self.repair_at.map_or(due, |at| at.min(due))
    }

    /// There will be no events: sweeps tell of all flows.
    pub(crate) fn expect_no_events(&mut self) {
        self.rounds.expect_no_events();
    }

    /// An event or a result tells something of a flow.
    pub(crate) fn hear(&mut self, flow: FlowKey, heard: Heard) {
        if self.running.is_some() {
            self.meanwhile.note(flow, heard);
        }
    }

    /// What has come of a flow since the dump under way began.
    pub(crate) fn heard(&self, flow: &FlowKey) -> Option<Heard> {
        self.meanwhile.heard(flow)
    }

    /// The dump under way is over.
    pub(crate) fn take_running(&mut self) -> Option<Dump> {
        self.meanwhile = Meanwhile::default();
        self.running.take()
    }

    /// The kernel has a flow that is not to run down at the peer.
    pub(crate) fn note(&mut self, now: Instant, flow: &Flow) {
        self.rounds.note(now, flow);
    }

    /// A commit is over during which the group of NEW events was left.
    pub(crate) fn events_left_out(&mut self, now: Instant) {
        self.rounds.events_left_out(now);
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole && self.repair_at.is_none()
    }

    pub(crate) fn set_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// The cache had no room for a flow of the kernel.
    pub(crate) fn note_missing(&mut self) {
        self.whole = false;
        self.missing = true;
    }

    pub(crate) fn is_repair_due(&self) -> bool {
        self.repair_at.is_some()
    }

    /// A further overrun before the repair does not put it off.
    pub(crate) fn schedule_repair(&mut self, at: Instant) {
        self.repair_at = self.repair_at.or(Some(at));
    }

    pub(crate) fn owe_bulk(&mut self) {
        self.owe(Reason::Bulk, DumpScope::All);
    }

    pub(crate) fn owe_offers(&mut self) {
        self.owe(Reason::Offer, DumpScope::All);
    }

    pub(crate) fn owe_flush(&mut self, id: CommandId) {
        self.owe(Reason::Flush(id), DumpScope::All);
    }

    pub(crate) fn owe_purge(&mut self) {
        self.owe(Reason::Purge, DumpScope::All);
    }

    /// Calls a purge off that is owed or under way.
    pub(crate) fn call_purge_off(&mut self) {
        self.owed.retain(|d| d.reason != Reason::Purge);
        if let Some(dump) = self.running.as_mut().filter(|d| d.reason == Reason::Purge) {
            dump.reason = Reason::CalledOff;
        }
    }

    /// True while the dump of a bulk update is owed or under way.
    pub(crate) fn is_bulk_owed(&self) -> bool {
        let is_bulk = |d: &Dump| matches!(d.reason, Reason::Bulk | Reason::Offer);
        self.running.as_ref().is_some_and(is_bulk) || self.owed.iter().any(is_bulk)
    }

    /// True while the first dump, or an operator's resync, is not over.
    pub(crate) fn is_resync_owed(&self) -> bool {
        let is_resync = |d: &Dump| matches!(d.reason, Reason::Start | Reason::Resync);
        self.running.as_ref().is_some_and(is_resync) || self.owed.iter().any(is_resync)
    }

    pub(crate) fn owe(&mut self, reason: Reason, scope: DumpScope) {
        let same = |d: &&Dump| d.reason == reason && d.scope == scope;
        if self.owed.iter().find(same).is_none() {
            self.owed.push_back(Dump { reason, scope });
        }
    }
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, L4, Proto, Tuple, Zone};

    use super::*;

    fn key(n: u32) -> FlowKey {
        let orig = Tuple {
            addrs: Addrs::V4 {
                src: n.into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: 1, dst: 80 },
        };
        FlowKey {
            orig,
            zone: Zone(0),
        }
    }

    #[test]
    fn what_was_heard_is_known_for_thousands_more() {
        let mut meanwhile = Meanwhile::default();
        assert_eq!(meanwhile.heard(&key(0)), None);
        meanwhile.note(key(0), Heard::Changed);
        let most = u32::try_from(Meanwhile::MAX).unwrap();
        for n in 1..most {
            meanwhile.note(key(n), Heard::Changed);
        }
        // Again, just before the others make room.
        meanwhile.note(key(0), Heard::Ended);
        for n in most..2 * most {
            meanwhile.note(key(n), Heard::Written);
        }
        assert_eq!(meanwhile.heard(&key(0)), Some(Heard::Ended));
        assert_eq!(meanwhile.heard(&key(1)), None, "long ago");
        assert!(meanwhile.latest.len() + meanwhile.before.len() <= 2 * Meanwhile::MAX);
    }

    #[test]
    fn an_end_stays_an_end_whatever_is_written_then() {
        let mut meanwhile = Meanwhile::default();
        for heard in [Heard::Written, Heard::Ended, Heard::Written, Heard::Changed] {
            meanwhile.note(key(1), heard);
        }
        assert_eq!(meanwhile.heard(&key(1)), Some(Heard::Ended));
    }
}
