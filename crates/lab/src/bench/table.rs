//! The result of a measurement: figures of contenders by round, their medians, spreads and
//! ratios, and under what circumstances they were measured. It is printed, or handed on as JSON.

use std::collections::BTreeMap;
use std::env;
use std::fs;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{BESIDE, CONNTRACKD, FTFW, Goal, KERNEL, KERNEL_EVENTS, Measurement};

/// Values of one figure, by contender and round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// What it was measured against, e.g. connections a second, if against anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    /// Of the values.
    pub unit: String,
    /// In the order of the contenders; each value with the number of its round.
    pub values: Vec<Vec<(usize, f64)>>,
}

/// A measurement that does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Who was measured.
    pub contender: String,
    /// From 0.
    pub round: usize,
    /// Why it does not count.
    pub reason: String,
}

/// What a loop has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// Machine and command.
    pub circumstances: String,
    /// Load average at the end.
    pub load_at_end: String,
    /// Names, in the order of the columns.
    pub contenders: Vec<String>,
    /// How often each was measured.
    pub rounds: usize,
    /// The figures.
    pub rows: Vec<Row>,
    /// What does not count.
    pub refused: Vec<Refused>,
    /// What our program shall reach.
    pub goals: Vec<Goal>,
    /// The configuration files with which all programs ran, by the name of the set-up.
    pub configurations: BTreeMap<String, String>,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of two in the middle, what is between them.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let middle = [values.len().checked_sub(1)? / 2, values.len() / 2];
    Some(Spread {
        median: middle.map(|n| values[n]).iter().sum::<f64>() / 2.0,
        min: *values.first()?,
        max: *values.last()?,
    })
}

impl Row {
    /// Median and range of what contender number `n` has measured, if anything.
    pub fn spread(&self, n: usize) -> Option<Spread> {
        spread(self.values.get(n)?.iter().map(|v| v.1).collect())
    }

    /// What each contender has more than contender number `base`, in the same round.
    fn differences(&self, base: usize) -> Row {
        let of_base = |round: usize| {
            let found = self.values[base].iter().find(|v| v.0 == round);
            found.map(|v| v.1)
        };
        let of = |n: usize, values: &[(usize, f64)]| {
            let both = values.iter().filter(|_| n != base);
            both.filter_map(|(round, value)| Some((*round, value - of_base(*round)?)))
                .collect()
        };
        let values = self.values.iter().enumerate();
        Row {
            name: format!("{}, added", self.name),
            values: values.map(|(n, values)| of(n, values)).collect(),
            ..self.clone()
        }
    }

    /// Its name, and against what it was measured.
    fn text(&self) -> String {
        match self.at {
            Some(at) => format!("{}, {at}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Table {
    pub(super) fn new(title: &str, contenders: &[&str], rounds: usize) -> Table {
        Table {
            title: title.to_owned(),
            circumstances: circumstances(),
            load_at_end: String::new(),
            contenders: contenders.iter().map(|&name| name.to_owned()).collect(),
            rounds,
            rows: Vec::new(),
            refused: Vec::new(),
            goals: Vec::new(),
            configurations: BTreeMap::new(),
        }
    }

    /// Adds what one contender measured in one round, or why it does not count.
    pub(super) fn add(&mut self, contender: &str, round: usize, measured: Result<Measurement>) {
        let mut reasons = Vec::new();
        let taken = measured.and_then(|mut measured| {
            reasons.append(&mut measured.refused);
            self.take(contender, round, measured)
        });
        reasons.extend(taken.err().map(|e| format!("{e:#}")));
        self.refused
            .extend(reasons.into_iter().map(|reason| Refused {
                contender: contender.to_owned(),
                round,
                reason,
            }));
    }

    /// # Errors
    /// If a set-up has another configuration file here than with an earlier contender.
    fn take(&mut self, contender: &str, round: usize, measured: Measurement) -> Result<()> {
        for (name, text) in measured.configurations {
            let known = self.configurations.entry(name).or_insert(text.clone());
            if *known != text {
                bail!("the configuration file differs:\n{text}\ninstead of:\n{known}");
            }
        }
        let column = self.contenders.iter().position(|c| c == contender);
        let column = column.expect("only contenders are measured");
        for figure in measured.figures {
            let is_this = |r: &Row| r.name == figure.name && r.at == figure.at;
            let row = self.rows.iter().position(is_this).unwrap_or_else(|| {
                self.rows.push(Row {
                    name: figure.name,
                    at: figure.at,
                    unit: figure.unit,
                    values: vec![Vec::new(); self.contenders.len()],
                });
                self.rows.len() - 1
            });
            self.rows[row].values[column].push((round, figure.value));
        }
        Ok(())
    }

    pub(super) fn finish(mut self, goals: &[Goal]) -> Table {
        self.goals = goals.to_vec();
        self.load_at_end = load_average();
        self
    }

    /// Adds to each figure that begins so a row with what every contender has more than `base`, in
    /// the same round.
    pub(super) fn add_differences(&mut self, begin: &str, base: &str) {
        let Some(base) = self.contenders.iter().position(|c| c == base) else {
            return;
        };
        let rows = self.rows.iter().filter(|row| row.name.starts_with(begin));
        let differences: Vec<_> = rows.map(|row| row.differences(base)).collect();
        self.rows.extend(differences);
    }

    /// Says of every row against what it was measured.
    pub fn at(mut self, at: f64) -> Table {
        for row in &mut self.rows {
            row.at = Some(at);
        }
        self
    }

    /// Adds the rows of another table, whose contenders need not be the same.
    pub fn join(&mut self, other: Table) {
        for name in &other.contenders {
            if !self.contenders.contains(name) {
                self.contenders.push(name.clone());
            }
        }
        let columns = self.contenders.len();
        for row in &mut self.rows {
            row.values.resize(columns, Vec::new());
        }
        for mut row in other.rows {
            let mut values = vec![Vec::new(); columns];
            for (name, of) in other.contenders.iter().zip(&mut row.values) {
                let column = self.contenders.iter().position(|c| c == name);
                values[column.expect("it was added")] = std::mem::take(of);
            }
            self.rows.push(Row { values, ..row });
        }
        self.rounds = self.rounds.max(other.rounds);
        self.refused.extend(other.refused);
        self.configurations.extend(other.configurations);
        self.load_at_end = other.load_at_end;
    }

    /// The bound of a figure itself, if it has one.
    pub fn goal(&self, figure: &str) -> Option<f64> {
        let mut goals = self.goals.iter();
        let goal = goals.find(|g| g.figure == figure && g.by.is_empty())?;
        Some(goal.at_most)
    }

    /// Names of those for whom nothing counts.
    pub fn unmeasured(&self) -> Vec<&str> {
        let has_none = |n: &usize| self.rows.iter().all(|row| row.values[*n].is_empty());
        let columns = (0..self.contenders.len()).filter(has_none);
        columns.map(|n| self.contenders[n].as_str()).collect()
    }

    /// Prints every figure, and beside it the ratios and goals that it has.
    ///
    /// # Errors
    /// If a contender has no figure at all.
    pub fn print(&self) -> Result<()> {
        println!("{}\n  {}", self.title, self.circumstances);
        for refused in &self.refused {
            println!("  {}", refused.text());
        }
        println!("  load average at the end: {}", self.load_at_end);
        for row in &self.rows {
            println!("{}", row.text());
            for (n, name) in self.contenders.iter().enumerate() {
                let Some(s) = row.spread(n) else {
                    continue;
                };
                let (count, rounds) = (row.values[n].len(), self.rounds);
                let of = if count < rounds {
                    format!("   ({count} of {rounds} rounds)")
                } else {
                    String::new()
                };
                println!(
                    "  {name:<18} {:>10.2} {}   ({:.2} to {:.2}){of}",
                    s.median, row.unit, s.min, s.max
                );
            }
            for line in self.ratios(row) {
                println!("  {line}");
            }
        }
        self.complete()
    }

    /// # Errors
    /// If a contender has no figure at all.
    pub fn complete(&self) -> Result<()> {
        match self.unmeasured().first() {
            Some(name) => bail!("no measurement of {name} counts"),
            None => Ok(()),
        }
    }

    /// Ratios of a row, one a line, and whether they reach their goals.
    pub fn ratios(&self, row: &Row) -> Vec<String> {
        let goals = || self.goals.iter().filter(|g| g.figure == row.name);
        let mut lines = Vec::new();
        for (of, by) in [
            (FTFW, CONNTRACKD),
            (BESIDE, CONNTRACKD),
            (FTFW, BESIDE),
            (FTFW, KERNEL_EVENTS),
            (FTFW, KERNEL),
        ] {
            let is_goal = of == FTFW && goals().any(|g| g.by == [by]);
            if let Some(ratio) = self.ratio(row, of, &[by])
                && !is_goal
            {
                lines.push(format!("{of} / {by}: {ratio}", ratio = text(ratio)));
            }
        }
        for goal in goals() {
            let by: Vec<&str> = goal.by.iter().map(String::as_str).collect();
            let Some(ratio) = self.ratio(row, FTFW, &by) else {
                continue;
            };
            let by = match by[..] {
                [] => String::new(),
                [one] => format!(" / {one}"),
                _ => format!(" / ({})", by.join(" + ")),
            };
            let reached = if ratio.median <= goal.at_most {
                "reached"
            } else {
                "missed"
            };
            lines.push(format!(
                "{FTFW}{by}: {}; goal at most {}: {reached}",
                text(ratio),
                goal.at_most
            ));
        }
        lines
    }

    /// Our figure divided by conntrackd's, in each mode that both have; the mode is what follows
    /// the program's name.
    pub fn beside(&self, row: &Row) -> Vec<(&str, Spread)> {
        let modes = self.contenders.iter().filter_map(|name| {
            let mode = name.strip_prefix(FTFW)?;
            let ratio = self.ratio(row, name, &[&format!("{CONNTRACKD}{mode}")])?;
            Some((mode.trim_start(), ratio))
        });
        modes.collect()
    }

    /// The ratio of the medians, and the spread of the ratios by round.
    fn ratio(&self, row: &Row, of: &str, by: &[&str]) -> Option<Spread> {
        let values = |name: &str| {
            let column = self.contenders.iter().position(|c| c == name)?;
            Some(&row.values[column])
        };
        let median = |name: &str| Some(spread(values(name)?.iter().map(|v| v.1).collect())?.median);
        let at = |name: &str, round: usize| {
            let value = values(name)?.iter().find(|v| v.0 == round);
            value.map(|v| v.1)
        };
        let divide = |of: f64, by: Vec<f64>| {
            let sum: f64 = by.iter().sum();
            if by.is_empty() {
                Some(of)
            } else {
                (sum > 0.0).then(|| of / sum)
            }
        };
        let median = {
            let by: Option<Vec<f64>> = by.iter().map(|name| median(name)).collect();
            divide(median(of)?, by?)?
        };
        let rounds = values(of)?.iter().filter_map(|(round, value)| {
            let by: Option<Vec<f64>> = by.iter().map(|name| at(name, *round)).collect();
            divide(*value, by?)
        });
        let range = spread(rounds.collect()).unwrap_or(Spread {
            median,
            min: median,
            max: median,
        });
        Some(Spread { median, ..range })
    }
}

impl Refused {
    /// In one line.
    pub fn text(&self) -> String {
        let (round, reason) = (self.round + 1, &self.reason);
        format!(
            "round {round}, {}: does not count: {reason}",
            self.contender
        )
    }
}

fn text(s: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2} by round)", s.median, s.min, s.max)
}

/// Name of the processor, as the kernel gives it.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name"));
    let name = line.and_then(|l| l.split_once(": ")).map(|(_, name)| name);
    name.unwrap_or("unknown processor").to_owned()
}

pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Machine and command, for whoever reads the figures later.
pub(crate) fn circumstances() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let words: Vec<String> = env::args().skip(1).collect();
    format!(
        "{}, {cpus} CPUs, Linux {}; load average {}; ftfw-lab {}",
        processor(),
        kernel.trim(),
        load_average(),
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::{CONNTRACKD, FTFW, Figure, KERNEL, Measurement};
    use super::{Table, spread};

    /// Three contenders, one figure; a value for each of some rounds.
    fn table(columns: [&[(usize, f64)]; 3]) -> Table {
        let names = [CONNTRACKD, FTFW, KERNEL];
        let mut table = Table::new("made up", &names, 2);
        for (name, values) in names.iter().zip(columns) {
            for (round, value) in values {
                let figures = vec![Figure::new("time", "ms", *value)];
                table.add(name, *round, Ok(figures.into()));
            }
        }
        table
    }

    /// Goal: one slow round moves neither the median nor the ratio.
    /// Method: it is in the spread by round only.
    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let table = table([
            &[(0, 10.0), (1, 10.0), (2, 100.0)],
            &[(0, 5.0), (1, 6.0), (2, 7.0)],
            &[],
        ]);
        let ratio = table.ratio(&table.rows[0], FTFW, &[CONNTRACKD]);
        let ratio = ratio.expect("both have figures");
        assert_eq!([ratio.median, ratio.min, ratio.max], [0.6, 0.07, 0.6]);
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        let s = spread(vec![3.0, 1.0]).expect("there are some");
        assert_eq!([s.median, s.min, s.max], [2.0, 1.0, 3.0]);
        assert!(spread(Vec::new()).is_none());
    }

    /// Goal: a goal may be the sum of two others' figures, or the figure itself.
    #[test]
    fn a_ratio_to_a_sum_and_to_nothing() {
        let table = table([&[(0, 3.0)], &[(0, 6.0)], &[(0, 1.0)]]);
        let row = &table.rows[0];
        let to_sum = table.ratio(row, FTFW, &[CONNTRACKD, KERNEL]);
        assert_eq!(to_sum.map(|s| s.median), Some(1.5));
        assert_eq!(table.ratio(row, FTFW, &[]).map(|s| s.median), Some(6.0));
    }

    /// Goal: a round that does not count for one of the two has no ratio, and without any
    /// there is none.
    #[test]
    fn only_what_both_have_measured_has_a_ratio() {
        let table = table([&[(1, 2.0)], &[(0, 8.0), (1, 4.0)], &[]]);
        let row = &table.rows[0];
        let ratio = table.ratio(row, FTFW, &[CONNTRACKD]).expect("round 1");
        assert_eq!([ratio.min, ratio.max], [2.0, 2.0]);
        assert!(table.ratio(row, FTFW, &[KERNEL]).is_none());
        assert!(table.complete().is_err(), "the kernel has no figure");
    }

    /// Goal: figures of two programs count only if both ran with the same configuration file.
    #[test]
    fn another_configuration_does_not_count() {
        let mut table = Table::new("made up", &[CONNTRACKD, FTFW], 1);
        for (name, file) in [(CONNTRACKD, "General { }"), (FTFW, "General { Nice 1 }")] {
            let mut measured = Measurement::from(vec![Figure::new("time", "ms", 1.0)]);
            measured.configurations.insert("pair".into(), file.into());
            table.add(name, 0, Ok(measured));
        }
        assert_eq!(table.unmeasured(), [FTFW]);
        assert!(table.refused[0].reason.contains("Nice 1"));
    }

    /// Goal: what is added is what the same round has more, and nothing where the base was not
    /// measured.
    #[test]
    fn a_difference_is_that_of_a_round() {
        let mut table = table([&[(0, 5.0), (1, 9.0)], &[(0, 3.0)], &[(1, 10.0)]]);
        table.add_differences("time", FTFW);
        assert_eq!(table.rows[1].name, "time, added");
        assert_eq!(table.rows[1].values, [vec![(0, 2.0)], vec![], vec![]]);
    }

    /// Goal: a table that was measured at another size adds its rows, each value in the column of
    /// its contender.
    #[test]
    fn tables_of_several_sizes_become_one() {
        let mut small = table([&[(0, 1.0)], &[(0, 2.0)], &[]]).at(10.0);
        let mut large = Table::new("made up", &[FTFW, "other"], 3);
        for (name, value) in [(FTFW, 5.0), ("other", 6.0)] {
            let figures = vec![Figure::new("time", "ms", value)];
            large.add(name, 0, Ok(figures.into()));
        }
        small.join(large.at(1000.0));
        assert_eq!(small.contenders, [CONNTRACKD, FTFW, KERNEL, "other"]);
        let rows: Vec<_> = small.rows.iter().map(|row| (row.at, &row.values)).collect();
        let value = |n: f64| vec![(0, n)];
        assert_eq!(
            rows,
            [
                (Some(10.0), &vec![value(1.0), value(2.0), vec![], vec![]]),
                (Some(1000.0), &vec![vec![], value(5.0), vec![], value(6.0)]),
            ]
        );
    }
}
