//! The external cache of a backup that knows many flows: what it takes in memory, and what a
//! listing of it takes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::flows::{self, Family};
use super::pair::configuration;
use super::{Figure, Measurement, Plan, Table, alternate};
use crate::daemon::Kind;
use crate::topology::{Lab, Options};
use crate::world::World;

const FLOWS: u32 = 1_000_000;

/// Growth of resident memory while the external cache takes flows.
pub fn memory(world: &World, plan: &Plan, family: Family) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("external cache, growth of resident memory by {count} flows ({family:?})");
    let lab = Lab::build(Options::default())?;
    alternate(&title, plan, &plan.programs(), &[], |program, _| {
        let (daemon, before) = flows::loaded(world, &lab, program, count, family)?;
        let grown = daemon.resident_bytes()?.saturating_sub(before);
        let configurations = configuration(&daemon, "NOTRACK, FW2")?;
        daemon.stop()?;
        let each = grown as f64 / f64::from(count);
        Ok(Measurement {
            configurations,
            ..vec![Figure::new("memory", "bytes per flow", each)].into()
        })
    })
}

/// Time and CPU time of the daemon for a listing of the external cache: ours as JSON, the
/// original's as XML, and how much memory it takes meanwhile.
pub fn listing(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("listing of an external cache of {count} flows, JSON and XML");
    let lab = Lab::build(Options::default())?;
    alternate(&title, plan, &plan.programs(), &[], |program, _| {
        let (daemon, _) = flows::loaded(world, &lab, program, count, Family::V4)?;
        let (before, cpu) = (daemon.resident_bytes()?, daemon.cpu_ns()?);
        let mut command = match program.kind {
            Kind::Ftfw => daemon.own_command(&["flows", "external", "-o", "json"])?,
            _ => daemon.command(&["-e", "-x"])?,
        };
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("its output")?;
        let rows = BufReader::with_capacity(1 << 16, out).split(b'\n').count();
        child.wait()?;
        let took = begun.elapsed().as_secs_f64();
        ensure!(rows == count as usize, "{rows} of {count} listed");
        let growth = daemon.resident_bytes()?.saturating_sub(before);
        let mut figures = vec![
            Figure::new("time", "s", took),
            Figure::new(
                "growth of the daemon's memory",
                "MiB",
                growth as f64 / f64::from(1 << 20),
            ),
        ];
        // The original's child process does the work: its CPU time is not the daemon's.
        if program.kind == Kind::Ftfw {
            let used = (daemon.cpu_ns()? - cpu) as f64 / 1000.0 / f64::from(count);
            figures.push(Figure::new("CPU time of the daemon", "µs per flow", used));
        }
        daemon.stop()?;
        Ok(figures)
    })
}
