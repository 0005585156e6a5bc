//! The result of a measurement: figures of contenders by round, their medians, spreads and
//! ratios, and under what circumstances they were measured.

use std::env;
use std::fs;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{BESIDE, CONNTRACKD, FTFW, Figure, Goal, KERNEL, KERNEL_EVENTS};

/// Values of one figure, by contender and round.
struct Row {
    name: String,
    unit: &'static str,
    /// In the order of the contenders.
    values: Vec<Vec<(usize, f64)>>,
}

pub(crate) struct Table {
    contenders: Vec<&'static str>,
    rows: Vec<Row>,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn times(self, factor: f64) -> Spread {
        Spread {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }
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

impl Table {
    pub(super) fn new(contenders: Vec<&'static str>) -> Table {
        Table {
            contenders,
            rows: Vec::new(),
        }
    }

    /// Adds what one contender measured in one round.
    pub(super) fn add(&mut self, contender: &str, round: usize, figures: Vec<Figure>) {
        let column = self.contenders.iter().position(|c| *c == contender);
        let column = column.expect("only contenders are measured");
        for figure in figures {
            let found = self.rows.iter().position(|r| r.name == figure.name);
            let row = found.unwrap_or_else(|| {
                self.rows.push(Row {
                    name: figure.name,
                    unit: figure.unit,
                    values: vec![Vec::new(); self.contenders.len()],
                });
                self.rows.len() - 1
            });
            self.rows[row].values[column].push((round, figure.value));
        }
    }

    /// A figure of a contender over the rounds.
    pub(crate) fn spread(&self, contender: &str, figure: &str) -> Option<Spread> {
        let column = self.contenders.iter().position(|c| *c == contender)?;
        let row = self.rows.iter().find(|row| row.name == figure)?;
        spread(row.values[column].iter().map(|v| v.1).collect())
    }

    /// Prints every figure, and beside it the ratios and goals that it has.
    ///
    /// # Errors
    /// If a contender has no figure at all.
    pub(super) fn print(&self, goals: &[Goal], rounds: usize) -> Result<()> {
        for row in &self.rows {
            println!("{}", row.name);
            for (name, values) in self.contenders.iter().zip(&row.values) {
                let Some(s) = spread(values.iter().map(|v| v.1).collect()) else {
                    continue;
                };
                let count = values.len();
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
            self.print_ratios(row, goals);
        }
        for (n, name) in self.contenders.iter().enumerate() {
            if self.rows.iter().all(|row| row.values[n].is_empty()) {
                bail!("no measurement of {name} counts");
            }
        }
        Ok(())
    }

    fn print_ratios(&self, row: &Row, goals: &[Goal]) {
        let goals = || goals.iter().filter(|g| g.figure == row.name);
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
                println!("  {of} / {by}: {ratio}", ratio = text(ratio));
            }
        }
        for goal in goals() {
            let Some(ratio) = self.ratio(row, FTFW, goal.by) else {
                continue;
            };
            let by = match goal.by {
                [] => String::new(),
                [one] => format!(" / {one}"),
                many => format!(" / ({})", many.join(" + ")),
            };
            let reached = if ratio.median <= goal.at_most {
                "reached"
            } else {
                "missed"
            };
            println!(
                "  {FTFW}{by}: {}; goal at most {}: {reached}",
                text(ratio),
                goal.at_most
            );
        }
    }

    /// The ratio of the medians, and the spread of the ratios by round.
    fn ratio(&self, row: &Row, of: &str, by: &[&str]) -> Option<Spread> {
        let values = |name: &str| {
            let column = self.contenders.iter().position(|c| *c == name)?;
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

pub(crate) fn load_average() -> String {
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
    use super::super::{CONNTRACKD, FTFW, Figure, KERNEL};
    use super::{Table, spread};

    /// Three contenders, one figure; a value for each of some rounds.
    fn table(columns: [&[(usize, f64)]; 3]) -> Table {
        let names = [CONNTRACKD, FTFW, KERNEL];
        let mut table = Table::new(names.to_vec());
        for (name, values) in names.iter().zip(columns) {
            for (round, value) in values {
                table.add(name, *round, vec![Figure::new("time", "ms", *value)]);
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
        assert!(table.print(&[], 2).is_err(), "the kernel has no figure");
    }
}
