//! The evaluation of the original design beside ftfw: what replication costs, as a report that
//! people look at.
//!
//! Each part measures with the loop of [`crate::bench`] and yields charts and tables; `report`
//! writes them. A figure counts only if both programs ran with the same configuration and
//! the pair was shown equal, with the expected number of flows.

mod chart;
mod commit;
mod cpu;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::bench::http;
use crate::bench::table::{self, Spread};
use crate::world::World;

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// A short form of it, in under three minutes
    #[arg(long)]
    quick: bool,
    /// Folder of the report
    #[arg(long, default_value = "target/evaluation")]
    out: PathBuf,
}

/// What a part has found.
#[derive(Clone, Debug, Default, Serialize)]
struct Part {
    title: String,
    /// How to read it.
    text: String,
    charts: Vec<Chart>,
    tables: Vec<Table>,
    /// Measurements that do not count, and why.
    left_out: Vec<String>,
}

/// Lines over an axis.
#[derive(Clone, Debug, Serialize)]
struct Chart {
    /// Name of its files.
    name: String,
    title: String,
    x: String,
    y: String,
    series: Vec<Series>,
}

#[derive(Clone, Debug, Serialize)]
struct Series {
    name: String,
    /// Of conntrackd: drawn dashed.
    original: bool,
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Point {
    x: f64,
    y: Spread,
}

#[derive(Clone, Debug, Serialize)]
struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The whole of it.
#[derive(Clone, Debug, Serialize)]
struct Report {
    circumstances: String,
    conntrackd: String,
    load_at_the_end: String,
    parts: Vec<Part>,
}

/// Measures, and writes the report.
///
/// # Errors
/// The laboratory cannot be built, or the report cannot be written. A measurement that does not
/// count is in the report.
pub fn run(world: &World, plan: &Plan) -> Result<()> {
    let circumstances = table::circumstances();
    println!("{circumstances}");
    let (lab, server) = http::lab()?;
    let parts = vec![
        cpu::measure(world, &lab, server, plan.quick)?,
        commit::measure(world, &lab, plan.quick)?,
    ];
    let report = Report {
        circumstances,
        conntrackd: report::version_of_conntrackd(),
        load_at_the_end: table::load_average(),
        parts,
    };
    report::write(&report, &plan.out)?;
    println!("see {}", plan.out.join("index.html").display());
    Ok(())
}

/// `31.4 (29.6 to 37.2)`, `31.4` of one round; a dash where nothing counts.
fn cell(value: Option<Spread>) -> String {
    match value {
        None => "–".to_owned(),
        Some(s) if s.min < s.max => {
            let [median, min, max] = [s.median, s.min, s.max].map(number);
            format!("{median} ({min} to {max})")
        }
        Some(s) => number(s.median),
    }
}

/// Three digits that say something.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// How the median of one stands to that of the other.
fn ratio(of: Option<Spread>, by: Option<Spread>) -> String {
    match (of, by) {
        (Some(of), Some(by)) => format!("{:.2}", of.median / by.median),
        _ => "–".to_owned(),
    }
}

/// Lines on standard error: what is being measured, and how long that takes still.
struct Progress {
    what: &'static str,
    begun: Instant,
    done: u32,
    steps: u32,
}

impl Progress {
    fn new(what: &'static str, steps: usize) -> Progress {
        Progress {
            what,
            begun: Instant::now(),
            done: 0,
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
        }
    }

    /// The next step begins.
    fn next(&mut self, step: &str) {
        let Progress { what, steps, .. } = self;
        let left = match self.done {
            0 => String::new(),
            done => {
                let each: Duration = self.begun.elapsed() / done;
                let left = each * steps.saturating_sub(done);
                format!("; about {} s left of this part", left.as_secs())
            }
        };
        self.done += 1;
        eprintln!("{what}, {} of {steps}: {step}{left}", self.done);
    }
}

impl Table {
    fn new(title: &str, head: &[&str]) -> Table {
        Table {
            title: title.to_owned(),
            head: head.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_three_digits_and_a_spread_if_there_is_one() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(cell(spread(31.42, 29.6, 137.2)), "31.4 (29.6 to 137)");
        assert_eq!(cell(spread(0.0821, 0.0821, 0.0821)), "0.082");
        assert_eq!(cell(spread(14_735.578, 1.0, 2.345)), "14736 (1.00 to 2.35)");
        assert_eq!(cell(None), "–");
        let ours = spread(1.0, 1.0, 1.0);
        assert_eq!(
            (ratio(ours, spread(4.0, 1.0, 9.0)), ratio(ours, None)),
            ("0.25".into(), "–".into())
        );
    }
}
