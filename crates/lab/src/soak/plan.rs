//! What befalls the pair, and when: a plan that follows from its seed alone.

use std::fmt;

/// Faults of ten seconds each that make a minute.
pub const SLOTS: usize = 6;

/// Something that befalls the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// A fifth of the datagrams of the dedicated link is lost.
    Loss,
    /// A fifth of them comes twice.
    Duplicates,
    /// None from FW1 arrives for three seconds.
    CutFromFw1,
    /// None from FW2.
    CutFromFw2,
    /// FW2's end of the link has no carrier for two seconds.
    LinkDown,
    /// The primary's daemon is stopped (SIGSTOP) for two seconds.
    PrimaryStopped,
    /// The backup's.
    BackupStopped,
    /// The primary's daemon is killed (SIGKILL), and started again at once.
    PrimaryRestarted,
    /// The backup's.
    BackupRestarted,
    /// `conntrack -F` on the backup.
    BackupFlushed,
    /// The primary's daemon runs with a buffer for events that is too small, and events are lost.
    Overrun,
    /// Somebody deletes the table of the backup's gate.
    GateFlushed,
    /// Failover: the primary's keepalived is stopped, and later started again.
    Planned,
    /// Failover: the primary's carrier inside is lost, and comes back.
    CarrierLost,
    /// Failover: the primary's daemon is killed, and started again when the other one is primary.
    DaemonKilled,
    /// Failover: the primary loses its power, and is switched on again.
    PowerLost,
}

/// All that is no failover.
pub const FAULTS: [Trouble; 12] = [
    Trouble::Loss,
    Trouble::Duplicates,
    Trouble::CutFromFw1,
    Trouble::CutFromFw2,
    Trouble::LinkDown,
    Trouble::PrimaryStopped,
    Trouble::BackupStopped,
    Trouble::PrimaryRestarted,
    Trouble::BackupRestarted,
    Trouble::BackupFlushed,
    Trouble::Overrun,
    Trouble::GateFlushed,
];

/// All failovers.
pub const FAILOVERS: [Trouble; 4] = [
    Trouble::Planned,
    Trouble::CarrierLost,
    Trouble::DaemonKilled,
    Trouble::PowerLost,
];

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Loss => "20 % loss",
            Trouble::Duplicates => "duplicates",
            Trouble::CutFromFw1 => "cut from FW1",
            Trouble::CutFromFw2 => "cut from FW2",
            Trouble::LinkDown => "link down",
            Trouble::PrimaryStopped => "primary stopped",
            Trouble::BackupStopped => "backup stopped",
            Trouble::PrimaryRestarted => "primary restarted",
            Trouble::BackupRestarted => "backup restarted",
            Trouble::BackupFlushed => "backup flushed",
            Trouble::Overrun => "event overrun",
            Trouble::GateFlushed => "gate flushed",
            Trouble::Planned => "planned switch",
            Trouble::CarrierLost => "carrier lost",
            Trouble::DaemonKilled => "daemon killed",
            Trouble::PowerLost => "power lost",
        })
    }
}

/// One minute: a failover with a fault laid over it, and five faults of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// It and the way back are the first slot.
    pub failover: Trouble,
    /// One a slot; the first one lasts as long as the failover.
    pub faults: [Trouble; SLOTS],
}

/// The whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// From which it follows.
    pub seed: u64,
    /// One after the other.
    pub minutes: Vec<Minute>,
}

impl Plan {
    /// The plan of a seed. Every fault comes once before one comes again, and so do failovers.
    pub fn new(seed: u64, minutes: usize) -> Plan {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut faults, mut failovers) = (Vec::new(), Vec::new());
        let minute = |_| {
            let failover = deal(&mut random, &mut failovers, &FAILOVERS);
            let over = over(failover);
            let mut slots = [over[random.usize(..over.len())]; SLOTS];
            for slot in &mut slots[1..] {
                *slot = deal(&mut random, &mut faults, &FAULTS);
            }
            Minute {
                failover,
                faults: slots,
            }
        };
        let minutes = (0..minutes).map(minute).collect();
        Plan { seed, minutes }
    }
}

/// What may be laid over a failover without a loss by its nature: a primary that dies cannot
/// send again what the link has just lost.
fn over(failover: Trouble) -> &'static [Trouble] {
    match failover {
        Trouble::Planned | Trouble::CarrierLost => &[Trouble::Duplicates, Trouble::Loss],
        _ => &[Trouble::Duplicates],
    }
}

/// The next card of a shuffled pack, a new pack if there is none left.
fn deal(random: &mut fastrand::Rng, pack: &mut Vec<Trouble>, all: &[Trouble]) -> Trouble {
    if pack.is_empty() {
        pack.extend(all);
        random.shuffle(pack);
    }
    pack.pop().unwrap_or(all[0])
}

impl fmt::Display for Plan {
    /// A line a minute.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, minute) in (1..).zip(&self.minutes) {
            let faults = minute.faults.map(|fault| fault.to_string()).join(", ");
            writeln!(f, "  {n:>3}  {}: {faults}", minute.failover)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_repeats_its_plan() {
        assert_eq!(Plan::new(7, 60), Plan::new(7, 60));
        assert_ne!(Plan::new(7, 60), Plan::new(8, 60));
    }

    /// Goal: the form of a release, ten minutes, has everything, whatever its seed.
    #[test]
    fn ten_minutes_have_every_trouble() {
        for seed in 0..100 {
            let plan = Plan::new(seed, 10);
            let faults: BTreeSet<_> = (plan.minutes.iter())
                .flat_map(|m| m.faults[1..].iter().copied())
                .collect();
            let failovers: BTreeSet<_> = plan.minutes.iter().map(|m| m.failover).collect();
            assert_eq!(faults, FAULTS.into());
            assert_eq!(failovers, FAILOVERS.into());
        }
    }

    #[test]
    fn a_primary_that_dies_has_a_link_that_loses_nothing() {
        for minute in Plan::new(3, 400).minutes {
            if [Trouble::DaemonKilled, Trouble::PowerLost].contains(&minute.failover) {
                assert_eq!(minute.faults[0], Trouble::Duplicates);
            }
        }
    }
}
