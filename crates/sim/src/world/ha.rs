//! The HA manager: which replica is the primary, and the scripts that it then runs.
//!
//! Both scripts are those of the manual: the new primary commits, empties its caches,
//! reads its kernel and sends a bulk update; the other one schedules a kernel flush and
//! asks for everything. Scripts of one replica run one after the other, also those of
//! takeovers that follow each other quickly.
//!
//! Outages are here too: the links are likely to fail at the moment of a takeover.

use std::collections::VecDeque;
use std::time::Duration;

use replica::{Command, Instant, Objects};

use crate::plan::Fault;
use crate::random::Random;

use super::{PURGE_TIMEOUT, World};

/// What the HA manager is about to do.
#[derive(Debug)]
pub(super) struct Manager {
    random: Random,
    /// When the backup takes over, again and again.
    takeovers: VecDeque<Instant>,
    /// When the next outage begins, if that is known, and when the present one is over.
    outage_at: Option<Instant>,
    outage_until: Option<Instant>,
    /// The replica that is primary beside the primary, and until when.
    beside: Option<(usize, Instant)>,
    /// The one that was so last, and when that ended.
    was_beside: Option<(usize, Instant)>,
}

/// What the script of a new primary does.
const PRIMARY: [Command; 4] = [
    Command::Commit(Objects::All),
    Command::FlushCaches,
    Command::Resync(Objects::All),
    Command::Bulk,
];
/// What the script of a backup does.
const BACKUP: [Command; 2] = [Command::ScheduleFlush, Command::RequestResync];
/// What a replica has claimed beside the primary is sent, and sent again, within this time.
const BESIDE_SENT: Duration = Duration::from_secs(1);

impl Manager {
    pub(super) fn new(seed: u64) -> Manager {
        Manager {
            random: Random::new(seed, "manager"),
            takeovers: VecDeque::new(),
            outage_at: None,
            outage_until: None,
            beside: None,
            was_beside: None,
        }
    }

    /// Plans a takeover, and that the former primary takes back after a short while; now
    /// and then all of this twice.
    fn plan_failback(&mut self, now: Instant) {
        let takeovers = if self.random.chance(0.3) { 4 } else { 2 };
        let mut at = now;
        for _ in 0..takeovers {
            self.takeovers.push_back(at);
            let short = *self.random.pick(&[100, 1000, 4000]);
            at = at + self.random.within(Duration::from_millis(short));
        }
    }
}

impl World {
    /// What the HA manager does in this step.
    pub(super) fn manage(&mut self) {
        let now = self.now;
        if self.plan.has(Fault::Failover) && self.operator.chance(0.0015) {
            let n = self.backup();
            if self.nodes[n].back_at.is_none() {
                self.fail_over(n);
            }
        }
        if self.plan.has(Fault::Failback) {
            let manager = &mut self.manager;
            if manager.takeovers.is_empty() && manager.random.chance(0.0015) {
                manager.plan_failback(now);
            }
            let is_due = manager.takeovers.front().is_some_and(|at| *at <= now);
            let n = self.backup();
            // Nobody hands over to a machine that does not answer.
            if is_due && self.nodes[n].back_at.is_none() {
                self.manager.takeovers.pop_front();
                self.fail_over(n);
            }
        }
        if self.plan.has(Fault::Beside) {
            self.be_primary_beside();
        }
        if self.plan.has(Fault::Outage) {
            self.cut_and_mend();
        }
    }

    /// The backup's manager misses the primary for a moment. The primary's own sees nothing; it
    /// has told the primary what it is before.
    fn be_primary_beside(&mut self) {
        let now = self.now;
        match self.manager.beside {
            Some((_, until)) if until <= now => self.end_beside(),
            None if self.manager.random.chance(0.0015) => {
                let short = *self.manager.random.pick(&[20, 200, 2000]);
                let until = now + self.manager.random.within(Duration::from_millis(short));
                let n = self.backup();
                self.manager.beside = Some((n, until));
                self.script(n, &PRIMARY);
            }
            _ => {}
        }
    }

    /// The replica that is primary beside the primary becomes the backup.
    pub(super) fn end_beside(&mut self) {
        let Some((n, _)) = self.manager.beside.take() else {
            return;
        };
        self.manager.was_beside = Some((n, self.now));
        // It may be the primary by now.
        if n != self.primary {
            self.script(n, &BACKUP);
        }
    }

    /// True while a replica is primary beside the primary, and until what it has claimed has left.
    pub(super) fn is_beside(&self, n: usize) -> bool {
        let manager = &self.manager;
        let is_now = manager.beside.is_some_and(|(beside, _)| beside == n);
        is_now
            || manager
                .was_beside
                .is_some_and(|(beside, until)| beside == n && self.now.since(until) < BESIDE_SENT)
    }

    /// The HA manager tells both what they are, if it is going to confuse them.
    pub(super) fn tell_roles(&mut self) {
        if self.plan.has(Fault::Beside) {
            self.script(self.primary, &PRIMARY);
            self.script(self.backup(), &BACKUP);
        }
    }

    /// Outages: longer than a scheduled flush waits, or nobody would miss anything.
    fn cut_and_mend(&mut self) {
        let now = self.now;
        let manager = &mut self.manager;
        if let Some(until) = manager.outage_until {
            if until <= now {
                manager.outage_until = None;
                self.network.is_out = false;
                self.trace.line(now, format_args!("the outage is over"));
            }
            return;
        }
        let is_due = manager.outage_at.is_some_and(|at| at <= now);
        if is_due || manager.random.chance(0.0005) {
            manager.outage_at = None;
            let more = manager.random.within(Duration::from_secs(4));
            manager.outage_until = Some(now + PURGE_TIMEOUT + more);
            self.network.is_out = true;
            self.trace.line(now, format_args!("outage of all links"));
        }
    }

    /// The peer of the primary.
    pub(super) fn backup(&self) -> usize {
        let peer = self.edges.peer(self.primary);
        peer.expect("the primary is one of the pair")
    }

    /// Replica `n` takes over: what the scripts of the HA manager do.
    fn fail_over(&mut self, n: usize) {
        self.may_hold_more = true;
        self.trace.line(self.now, format_args!("{n} takes over"));
        let former = std::mem::replace(&mut self.primary, n);
        self.script(n, &PRIMARY);
        self.script(former, &BACKUP);
        // Packets of what the commit brings go here from now on; the rest is lost.
        self.lives.clear();
        self.kept.on_takeover();
        if self.plan.has(Fault::Outage) && self.manager.random.chance(0.5) {
            let after = self.manager.random.within(Duration::from_millis(300));
            self.manager.outage_at = Some(self.now + after);
        }
    }
}
