//! Measurements beside conntrackd: the same work, alternating, in one run.
//!
//! `alternate` is the one loop. Each kind of measurement is a file that gives the loop its
//! contenders, its goals, and a function that measures one contender once. The machine may be
//! shared: read the figures as ratios, and see the spread.

pub mod asymmetric;
mod bulk;
pub(crate) mod commit;
mod events;
mod external;
mod flows;
mod gate;
mod hostile;
pub(crate) mod http;
mod idle;
mod lag;
mod load;
mod loss;
pub(crate) mod pair;
pub(crate) mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::daemon::{Kind, Settings};
use table::Table;

pub use bulk::bulk;
pub use commit::commit;
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
pub(crate) use pair::external_flows;

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
}

impl Plan {
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
        let mut programs = both(self.ftfw.clone());
        if self.beside.is_some() {
            let path = self.beside.clone();
            let kind = Kind::Ftfw;
            programs.push((BESIDE, Program { kind, path }));
        }
        programs
    }
}

/// conntrackd and ours, the one built beside this program if `ftfw` names none.
pub(crate) fn both(ftfw: Option<PathBuf>) -> Vec<(&'static str, Program)> {
    let original = Program {
        kind: Kind::Conntrackd,
        path: None,
    };
    let ours = Program {
        kind: Kind::Ftfw,
        path: ftfw,
    };
    vec![(CONNTRACKD, original), (FTFW, ours)]
}

/// Names of contenders.
pub(crate) const CONNTRACKD: &str = "conntrackd";
pub(crate) const FTFW: &str = "ftfw";
const BESIDE: &str = "other ftfw";
/// The requests alone, by a program that does nothing else.
pub(crate) const KERNEL: &str = "kernel";
/// The same while the kernel makes an event of each, as it does when any daemon listens.
pub(crate) const KERNEL_EVENTS: &str = "kernel with events";

/// A program that replicates.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) path: Option<PathBuf>,
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
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
        Figure {
            name: name.into(),
            unit,
            value,
        }
    }
}

/// What our program shall reach.
#[derive(Clone, Debug)]
struct Goal {
    /// Name of the figure.
    figure: String,
    /// The figure is divided by the sum of these contenders' figures; by nothing if empty.
    by: &'static [&'static str],
    /// It shall be at most this.
    at_most: f64,
}

impl Goal {
    /// A ratio to conntrackd.
    fn beside(figure: impl Into<String>, at_most: f64) -> Goal {
        Goal {
            figure: figure.into(),
            by: &[CONNTRACKD],
            at_most,
        }
    }

    /// A bound on the figure itself.
    fn absolute(figure: impl Into<String>, at_most: f64) -> Goal {
        Goal {
            figure: figure.into(),
            by: &[],
            at_most,
        }
    }
}

/// Measures each contender once a round, one after the other, and prints medians, spreads,
/// ratios and goals.
///
/// A measurement that fails, because a pair did not hold what it should or the load was not
/// what it should be, does not count: its reason is printed.
///
/// # Errors
/// If a contender has no measurement that counts.
fn alternate<S>(
    title: &str,
    rounds: usize,
    contenders: &[(&'static str, S)],
    goals: &[Goal],
    measure: impl FnMut(&S, usize) -> Result<Vec<Figure>>,
) -> Result<()> {
    println!("{title}");
    println!("  {}", table::circumstances());
    let table = collect(rounds, contenders, measure, |reason| println!("  {reason}"));
    println!("  load average at the end: {}", table::load_average());
    table.print(goals, rounds)
}

/// Measures each contender once a round, one after the other. `say` gets the reason why a
/// measurement does not count.
pub(crate) fn collect<S>(
    rounds: usize,
    contenders: &[(&'static str, S)],
    mut measure: impl FnMut(&S, usize) -> Result<Vec<Figure>>,
    mut say: impl FnMut(String),
) -> Table {
    let mut table = Table::new(contenders.iter().map(|(name, _)| *name).collect());
    for round in 0..rounds {
        // There and back: whoever is last in one round is first in the next.
        let order: Vec<_> = if round % 2 == 0 {
            contenders.iter().collect()
        } else {
            contenders.iter().rev().collect()
        };
        for (name, subject) in order {
            match measure(subject, round) {
                Ok(figures) => table.add(name, round, figures),
                Err(e) => say(format!(
                    "round {}, {name}: does not count: {e:#}",
                    round + 1
                )),
            }
        }
    }
    table
}
