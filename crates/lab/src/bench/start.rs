//! From a full kernel to a daemon that knows it: start-up, and a resync after the internal cache has
//! been flushed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::{Action, Load};
use super::pair::{LATEST, configuration, internal_flows};
use super::{Figure, KERNEL, Measurement, Plan, Table, alternate, raw};
use crate::daemon::{Daemon, Mode, Settings};
use crate::topology::{Lab, Options};
use crate::wait;
use crate::world::World;

const FLOWS: u32 = 10_000;

const START: &str = "start-up";
const RESYNC: &str = "resync";

/// Time and CPU time of FW1's daemon until its internal cache holds all flows of the kernel.
pub fn start(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("{count} TCP flows with source NAT are in the kernel, FT-FW");
    let lab = Lab::build(Options::default())?;
    let load = Load::of_first(count);
    for action in [Action::Create, Action::Update] {
        load.run(&lab.fw[0], action)?;
    }
    let settings = Settings::new(Mode::Ftfw).for_flows(count);
    let programs = plan.programs().into_iter();
    let mut contenders: Vec<_> = programs.map(|(name, p)| (name, Some(p))).collect();
    contenders.push((KERNEL, None));
    alternate(&title, plan, &contenders, &[], |program, _| {
        let Some(program) = program else {
            // Whoever wants to know the flows reads them at least once.
            let ms = raw::dump(&lab.fw[0], count)?.as_secs_f64() * 1e3;
            let figures = [START, RESYNC].map(|name| Figure::new(name, "ms", ms));
            return Ok(figures.to_vec().into());
        };
        let begun = Instant::now();
        let settings = program.with(&settings);
        let daemon = Daemon::start(program.kind, &lab.fw[0], 0, &settings, world.dir())?;
        let daemon = daemon.context("no daemon")?;
        let mut figures = Vec::new();
        let mut add = |name: &str, begun: Instant, cpu: u64| -> Result<()> {
            wait_known(&daemon, count)?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let used = (daemon.cpu_ns()? - cpu) as f64 / 1e3 / f64::from(count);
            figures.push(Figure::new(name, "ms", took));
            figures.push(Figure::new(
                format!("{name}, CPU time"),
                "µs per flow",
                used,
            ));
            Ok(())
        };
        add(START, begun, 0)?;
        daemon.ask(&["-f", "internal"])?;
        wait::until("the internal cache is empty", LATEST, || {
            internal_flows(&daemon).is_ok_and(|n| n < u64::from(count))
        })?;
        let (begun, cpu) = (Instant::now(), daemon.cpu_ns()?);
        daemon.ask(&["-R"])?;
        add(RESYNC, begun, cpu)?;
        let configurations = configuration(&daemon, "FT-FW, FW1")?;
        daemon.stop()?;
        Ok(Measurement {
            configurations,
            ..figures.into()
        })
    })
}

fn wait_known(daemon: &Daemon, count: u32) -> Result<()> {
    let mut known = 0;
    wait::until("it knows the flows", Duration::from_secs(60), || {
        known = internal_flows(daemon).unwrap_or(0);
        known >= u64::from(count)
    })
    .with_context(|| format!("it knows {known} of {count}"))
}
