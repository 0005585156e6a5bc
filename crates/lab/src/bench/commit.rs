//! A commit: time and CPU time to put the external cache into an empty kernel table.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::flows::{self, Family};
use super::load::{self, Action, Events, Load};
use super::pair::{configuration, established};
use super::{Figure, Goal, KERNEL, KERNEL_EVENTS, Measurement, Plan, Program, Table, alternate};
use crate::daemon::Daemon;
use crate::topology::{Lab, Options};
use crate::world::World;

const FLOWS: u32 = 10_000;

const TIME: &str = "time";
const CPU: &str = "CPU time";
/// Of a commit over the flows of the first one.
const SECOND: &str = "second commit, ";

enum Contender {
    Daemon(Program),
    /// Creates in batches.
    Kernel(Events),
}

/// Time of `-c`, with the kernel's limit beside it.
pub fn commit(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("commit of {count} flows with source NAT");
    let mut contenders = Vec::new();
    for (name, program) in plan.programs() {
        contenders.push((name, Contender::Daemon(program)));
    }
    contenders.push((KERNEL, Contender::Kernel(Events::None)));
    contenders.push((KERNEL_EVENTS, Contender::Kernel(Events::Unreceived)));
    let goals = [
        Goal::by(TIME, &[KERNEL], 1.15),
        Goal::beside(format!("{SECOND}{TIME}"), 0.35),
    ];
    let lab = Lab::build(Options::default())?;
    alternate(&title, plan, &contenders, &goals, |contender, _| {
        lab.fw[1].run("conntrack -F")?;
        let mut figures = Vec::new();
        let mut add = |which: &str, [ms, us]: [f64; 2]| {
            figures.push(Figure::new(format!("{which}{TIME}"), "ms", ms));
            figures.push(Figure::new(format!("{which}{CPU}"), "µs per flow", us));
        };
        let mut configurations = BTreeMap::new();
        match contender {
            Contender::Daemon(program) => {
                let (daemon, _) = flows::loaded(world, &lab, program, count, Family::V4)?;
                for which in ["", SECOND] {
                    add(which, by_daemon(&lab, &daemon, count)?);
                }
                configurations = configuration(&daemon, "NOTRACK, FW2")?;
                daemon.stop()?;
            }
            Contender::Kernel(events) => add("", by_requests(&lab, count, *events)?),
        }
        Ok(Measurement {
            configurations,
            ..figures.into()
        })
    })
}

/// Milliseconds, and microseconds of CPU time per flow, of a commit.
fn by_daemon(lab: &Lab, daemon: &Daemon, count: u32) -> Result<[f64; 2]> {
    let cpu = daemon.cpu_ns()?;
    let begun = Instant::now();
    daemon.ask(&["-c"])?;
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let used = daemon.cpu_ns()? - cpu;
    let held = established(lab, 1, count)?;
    ensure!(held == count, "{held} of {count} flows are committed");
    Ok([ms, used as f64 / 1000.0 / f64::from(count)])
}

fn by_requests(lab: &Lab, count: u32, events: Events) -> Result<[f64; 2]> {
    let load = Load::of_first(count);
    let spent = load::alone(lab, events, || load.run(&lab.fw[1], Action::Create))?;
    Ok([spent.wall.as_secs_f64() * 1000.0, spent.cpu_us(count)])
}
