//! Measurements beside conntrackd: the same work, alternating, in one run.
//!
//! `alternate` is the one loop. Each kind of measurement is a file that gives the loop its
//! contenders, its goals, and a function that measures one contender once. The machine may be
//! shared: read the figures as ratios, and see the spread.

pub mod asymmetric;
mod bulk;
mod capacity;
mod commit;
pub(crate) mod cpu;
mod events;
mod external;
mod flows;
mod gate;
mod hostile;
mod http;
mod idle;
mod lag;
pub(crate) mod load;
mod loss;
mod pair;
pub(crate) mod raw;
pub(crate) mod recovery;
mod start;
mod table;
mod turns;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::daemon::{Kind, Settings};

pub use bulk::bulk;
pub use capacity::capacity;
pub use commit::commit;
pub use cpu::{Keeps, cpu};
pub use events::{events, events_without_caches, inject};
pub use external::{listing, memory};
pub use flows::Family;
pub use flows::flow;
pub use gate::{Contender, failovers, gate};
pub use hostile::hostile;
pub use http::{connections, http};
pub use idle::{idle, idle_tcp};
pub use lag::lag;
pub use loss::loss;
pub(crate) use pair::{external_flows, internal_flows, numbers, table_count};
pub use raw::kernel;
pub use recovery::{Pairing, keepalived, recover, recovery};
pub use start::start;
pub use table::{Refused, Row, Spread, Table};
pub(crate) use table::{circumstances, processor};
pub use turns::turns;

/// What the user asks for, beside the kind of measurement.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// Number of flows or connections, if not the default of what is measured
    #[arg(long)]
    flows: Option<u32>,
    /// How often each program is measured, alternating
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Our program, if not the one built beside this one
    #[arg(long)]
    ftfw: Option<PathBuf>,
    /// Another build of our program, measured in the same run
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Measure only these contenders, or cases of `hostile`; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Print JSON: a line for each measurement, and the table
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Number of flows or connections, if the user asks for one.
    pub fn wanted(&self) -> Option<u32> {
        self.flows
    }

    fn flows(&self, default: u32) -> u32 {
        self.flows.unwrap_or(default)
    }

    /// The two programs of a kind that cannot measure other builds.
    fn installed_programs(&self) -> Result<Vec<(&'static str, Program)>> {
        ensure!(
            self.ftfw.is_none() && self.beside.is_none(),
            "this kind measures only the program built beside this one"
        );
        Ok(self.programs())
    }

    /// conntrackd, ours, and another build of ours if one is given.
    fn programs(&self) -> Vec<(&'static str, Program)> {
        let ours = |path: &Option<PathBuf>| Program {
            kind: Kind::Ftfw,
            path: path.clone(),
        };
        let mut programs = vec![
            (
                CONNTRACKD,
                Program {
                    kind: Kind::Conntrackd,
                    path: None,
                },
            ),
            (FTFW, ours(&self.ftfw)),
        ];
        if self.beside.is_some() {
            programs.push((BESIDE, ours(&self.beside)));
        }
        programs
    }
}

/// Names of contenders.
const CONNTRACKD: &str = "conntrackd";
const FTFW: &str = "ftfw";
const BESIDE: &str = "other ftfw";
/// No program: the control.
const NONE: &str = "none";
/// The requests alone, by a program that does nothing else.
const KERNEL: &str = "kernel";
/// The same while the kernel makes an event of each, as it does when any daemon listens.
const KERNEL_EVENTS: &str = "kernel with events";

/// A program that replicates.
#[derive(Clone, Debug)]
struct Program {
    kind: Kind,
    path: Option<PathBuf>,
}

impl Program {
    /// Settings under which this program is started.
    fn with(&self, settings: &Settings) -> Settings {
        Settings {
            program: self.path.clone(),
            ..settings.clone()
        }
    }
}

/// One measured number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    name: String,
    /// What it was measured against, if against anything.
    at: Option<f64>,
    unit: String,
    value: f64,
}

impl Figure {
    fn new(name: impl Into<String>, unit: &str, value: f64) -> Figure {
        Figure {
            name: name.into(),
            at: None,
            unit: unit.to_owned(),
            value,
        }
    }

    /// The same, measured against something, e.g. at so many connections a second.
    fn at(self, at: f64) -> Figure {
        Figure {
            at: Some(at),
            ..self
        }
    }
}

/// What one contender measured in one round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurement {
    figures: Vec<Figure>,
    /// The configuration files with which it ran, by the name of the set-up: contenders with
    /// the same name there must have the same text.
    configurations: BTreeMap<String, String>,
    /// What was measured beside them and does not count, and why.
    refused: Vec<String>,
}

impl From<Vec<Figure>> for Measurement {
    fn from(figures: Vec<Figure>) -> Measurement {
        Measurement {
            figures,
            ..Measurement::default()
        }
    }
}

/// What our program shall reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// Name of the figure.
    figure: String,
    /// The figure is divided by the sum of these contenders' figures; by nothing if empty.
    by: Vec<String>,
    /// It shall be at most this.
    at_most: f64,
}

impl Goal {
    /// A ratio to the sum of some contenders' figures.
    fn by(figure: impl Into<String>, by: &[&str], at_most: f64) -> Goal {
        Goal {
            figure: figure.into(),
            by: by.iter().map(|&name| name.to_owned()).collect(),
            at_most,
        }
    }

    /// A ratio to conntrackd.
    fn beside(figure: impl Into<String>, at_most: f64) -> Goal {
        Goal::by(figure, &[CONNTRACKD], at_most)
    }

    /// A bound on the figure itself.
    fn absolute(figure: impl Into<String>, at_most: f64) -> Goal {
        Goal::by(figure, &[], at_most)
    }
}

/// What a measurement says on standard output when it is asked for JSON, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A contender has been measured once more.
    Step,
    /// The end.
    Table(Box<Table>),
}

impl Line {
    /// # Errors
    /// If nobody reads any more.
    fn write(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)?;
        Ok(())
    }
}

impl Plan {
    /// Prints a table, for people or as JSON.
    ///
    /// # Errors
    /// If a contender has no measurement that counts.
    pub fn show(&self, table: Table) -> Result<()> {
        if !self.json {
            return table.print();
        }
        let complete = table.complete();
        Line::Table(Box::new(table)).write()?;
        complete
    }

    /// Those of some contenders that the user wants to see measured.
    ///
    /// # Errors
    /// If there are none.
    fn chosen<'a, S>(
        &self,
        contenders: &'a [(&'static str, S)],
    ) -> Result<Vec<&'a (&'static str, S)>> {
        let is_wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|o| o == name);
        let chosen: Vec<_> = contenders.iter().filter(|c| is_wanted(c.0)).collect();
        let names: Vec<_> = contenders.iter().map(|c| c.0).collect();
        ensure!(
            !chosen.is_empty(),
            "--only: this kind has {}",
            names.join("; ")
        );
        Ok(chosen)
    }
}

/// Measures each contender once a round, one after the other.
///
/// A measurement that fails, because a pair did not hold what it should or the load was not
/// what it should be, does not count: its reason is in the table.
///
/// # Errors
/// If no contender is chosen, or nobody reads what is printed.
fn alternate<S, M: Into<Measurement>>(
    title: &str,
    plan: &Plan,
    contenders: &[(&'static str, S)],
    goals: &[Goal],
    mut measure: impl FnMut(&S, usize) -> Result<M>,
) -> Result<Table> {
    let contenders = plan.chosen(contenders)?;
    let names: Vec<_> = contenders.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(title, &names, plan.rounds);
    for round in 0..plan.rounds {
        // There and back: whoever is last in one round is first in the next.
        let order: Vec<_> = if round % 2 == 0 {
            contenders.iter().collect()
        } else {
            contenders.iter().rev().collect()
        };
        for (name, subject) in order {
            table.add(name, round, measure(subject, round).map(Into::into));
            if plan.json {
                Line::Step.write()?;
            }
        }
    }
    Ok(table.finish(goals))
}
