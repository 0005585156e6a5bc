//! What a run showed: a row a minute, a summary, and what was found wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::compare::Comparison;
use super::plan::{FAULTS, Trouble};
use super::traffic::{Alive, SHORT, Short, Tally};

/// Growth of memory that counts as none: the second half's most may be so much above the first
/// half's.
const GROWTH: f64 = 0.1;
const GROWTH_BYTES: u64 = 1 << 20;

/// Longest silence of a long connection that sends all the time, also over a failover.
const SILENCE: Duration = Duration::from_secs(20);
/// Most of the short traffic that may fail in failovers: one in so many, and a few.
const FAILED_OF: u64 = 50;
const FEW: usize = 5;

/// A minute.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) failover: Trouble,
    pub(super) alive: Alive,
    pub(super) silence: Duration,
    /// Short traffic until now.
    pub(super) tallies: BTreeMap<Short, Tally>,
    /// Flows of the primary's kernel.
    pub(super) flows: u64,
    /// Most resident memory of each daemon.
    pub(super) resident: [u64; 2],
    /// After the begin of the run.
    pub(super) at: Duration,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Long connections that there are.
    pub(super) long: usize,
    pub(super) begun: Option<Instant>,
    pub(super) rows: Vec<Row>,
    /// How often each trouble was made.
    pub(super) troubles: BTreeMap<Trouble, usize>,
    /// Longest silence of a long TCP connection in the slots of each.
    pub(super) silences: BTreeMap<Trouble, Duration>,
    /// From the begin of each failover until it was safe to fail over again.
    pub(super) windows: Vec<[Instant; 2]>,
    /// Resident memory of each daemon, slot by slot.
    pub(super) resident: [Vec<u64>; 2],
    pub(super) comparison: Option<Comparison>,
    /// Error counters that rose, and what explains them.
    pub(super) risen: BTreeMap<(usize, String), u64>,
    pub(super) unexplained: Vec<String>,
}

impl Report {
    /// What is not as it must be. Empty: the run was good.
    pub fn findings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (n, row) in (1..).zip(&self.rows) {
            let alive = row.alive.total();
            if alive != self.long {
                let what = format!("{alive} of {} long connections live", self.long);
                found.push(format!("minute {n}: {what}: {:?}", row.alive));
            }
        }
        if let Some(row) = self.rows.last() {
            for short in SHORT {
                found.extend(self.unexpected(short, row.tallies.get(&short)));
            }
        } else {
            found.push("not one minute was seen".to_owned());
        }
        for (trouble, silence) in &self.silences {
            if *silence > SILENCE {
                let secs = silence.as_secs_f64();
                found.push(format!(
                    "{trouble}: long connections were silent for {secs:.1} s"
                ));
            }
        }
        for (short, done, failed) in self.failures() {
            if failed > (done / FAILED_OF) as usize + FEW {
                found.push(format!("{failed} of {done} {short} failed"));
            }
        }
        for (n, resident) in self.resident.iter().enumerate() {
            found.extend(growth(resident).map(|text| format!("FW{}: {text}", n + 1)));
        }
        match &self.comparison {
            None => found.push("nothing was compared".to_owned()),
            Some(c) => {
                if c.flows < self.long {
                    found.push(format!("FW1 has {} flows, not {}", c.flows, self.long));
                }
                found.extend(c.differences.iter().cloned());
                if c.diff["equal"] != true {
                    found.push(format!(
                        "FW1's cache is not what its kernel has: {}",
                        c.diff
                    ));
                }
            }
        }
        found.extend(self.unexplained.iter().cloned());
        found
    }

    /// Failures of short traffic that no failover explains, and traffic that there was none of.
    fn unexpected(&self, short: Short, tally: Option<&Tally>) -> Vec<String> {
        let Some(tally) = tally.filter(|tally| tally.done > 0) else {
            return vec![format!("no {short} was done")];
        };
        let over = |begun: Instant, ended: Instant| {
            self.windows
                .iter()
                .any(|[from, to]| begun < *to && ended > *from)
        };
        let failures = tally.failures.iter().filter(|f| !over(f.begun, f.ended));
        failures
            .map(|f| {
                let [begun, ended] = [f.begun, f.ended].map(|at| self.seconds(at));
                format!(
                    "{}, from {begun} to {ended} s, while no failover was under way",
                    f.what
                )
            })
            .collect()
    }

    /// When something was, in seconds after the begin of the run.
    fn seconds(&self, at: Instant) -> String {
        let after = self.begun.map(|begun| at.saturating_duration_since(begun));
        format!("{:.1}", after.unwrap_or_default().as_secs_f64())
    }

    fn failures(&self) -> impl Iterator<Item = (Short, u64, usize)> {
        let tallies = self.rows.last().map(|row| &row.tallies);
        SHORT.into_iter().map(move |short| {
            let tally = tallies.and_then(|all| all.get(&short));
            tally.map_or((short, 0, 0), |t| (short, t.done, t.failures.len()))
        })
    }
}

/// Says how memory has grown, if it has.
fn growth(resident: &[u64]) -> Option<String> {
    let (first, second) = resident.split_at(resident.len() / 2);
    let (first, second) = (*first.iter().max()?, *second.iter().max()?);
    let most = (first as f64 * (1.0 + GROWTH)) as u64 + GROWTH_BYTES;
    (second > most).then(|| {
        format!(
            "resident memory grew from {} to {} kB",
            first >> 10,
            second >> 10
        )
    })
}

impl Row {
    /// Its heading.
    pub(super) const HEAD: &str = "| minute | failover | long alive | longest silence | HTTP | FTP | UDP | ICMP | flows | RSS FW1, FW2 |\n\
         |---|---|---|---|---|---|---|---|---|---|";

    /// Its line, with short traffic since the row before.
    pub(super) fn line(&self, n: usize, before: Option<&Row>) -> String {
        let mut text = format!("| {n} | {} | {} |", self.failover, self.alive.total());
        text += &format!(" {:.1} s |", self.silence.as_secs_f64());
        let count = |row: &Row, short| {
            let tally = row.tallies.get(&short);
            tally.map_or((0, 0), |t| (t.done, t.failures.len()))
        };
        for short in SHORT {
            let (done, failed) = count(self, short);
            let (old_done, old_failed) = before.map_or((0, 0), |row| count(row, short));
            text += &format!(" {}", done - old_done);
            if failed > old_failed {
                text += &format!(", {} failed", failed - old_failed);
            }
            text += " |";
        }
        let [one, two] = self.resident.map(|bytes| bytes as f64 / f64::from(1 << 20));
        text + &format!(" {} | {one:.1}, {two:.1} MB |", self.flows)
    }
}

impl fmt::Display for Report {
    /// The summary; rows are printed while the run lasts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.rows.iter().map(|row| row.alive.total()).min();
        let took = self.rows.last().map(|row| row.at).unwrap_or_default();
        writeln!(f, "| what | result |\n|---|---|")?;
        writeln!(
            f,
            "| long connections alive, at the worst minute | {} of {} |",
            least.unwrap_or(0),
            self.long
        )?;
        writeln!(f, "| time | {:.0} s |", took.as_secs_f64())?;
        let (faults, failovers): (Vec<_>, Vec<_>) =
            (self.troubles.iter()).partition(|(t, _)| FAULTS.contains(t));
        for (what, list) in [
            ("failovers, each with its failback", failovers),
            ("faults", faults),
        ] {
            let total: usize = list.iter().map(|(_, n)| **n).sum();
            let words = list.iter().map(|(t, n)| format!("{t} {n}"));
            let words = words.collect::<Vec<_>>().join(", ");
            writeln!(f, "| {what} | {total}: {words} |")?;
        }
        let silences = self.silences.iter();
        let silences = silences.map(|(t, s)| format!("{t} {:.1}", s.as_secs_f64()));
        let silences = silences.collect::<Vec<_>>().join(", ");
        writeln!(
            f,
            "| longest silence of a long TCP connection, seconds | {silences} |"
        )?;
        for (short, done, failed) in self.failures() {
            writeln!(f, "| {short} | {done} done, {failed} failed |")?;
        }
        for (n, resident) in self.resident.iter().enumerate() {
            let (first, second) = resident.split_at(resident.len() / 2);
            let most = |part: &[u64]| part.iter().max().copied().unwrap_or(0) >> 10;
            writeln!(
                f,
                "| most resident memory of FW{}, first and second half | {} kB, {} kB |",
                n + 1,
                most(first),
                most(second)
            )?;
        }
        if let Some(c) = &self.comparison {
            let verdict = if c.is_equal() { "equal" } else { "not equal" };
            writeln!(
                f,
                "| FW1's cache, its kernel and FW2, {} flows | {verdict}; the master of {} unknown to FW2 |",
                c.flows, c.masterless
            )?;
        }
        writeln!(
            f,
            "\nCounters of errors, all explained unless they are named below:\n"
        )?;
        for ((n, series), by) in &self.risen {
            writeln!(f, "- FW{} `{series}` {by}", n + 1)?;
        }
        Ok(())
    }
}
