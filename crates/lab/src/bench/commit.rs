//! A commit: time and CPU time to put the external cache into an empty kernel table.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::flows::{self, Family};
use super::load::{self, Action, Events, Load};
use super::pair::table_count;
use super::{Figure, Goal, KERNEL, KERNEL_EVENTS, Plan, Program, alternate};
use crate::topology::{Lab, Options};
use crate::world::World;

const FLOWS: u32 = 10_000;
/// Requests in one `send`: more gain nothing.
const GROUP: u32 = 64;

pub(crate) const TIME: &str = "time";
pub(crate) const CPU: &str = "CPU time";
/// Of a second commit, whose flows are all there.
pub(crate) const AGAIN: &str = "time of a second commit";

pub(crate) enum Contender {
    Daemon(Program),
    /// Creates in batches.
    Kernel(Events),
}

/// Both programs, and the requests alone.
pub(crate) fn contenders(programs: Vec<(&'static str, Program)>) -> Vec<(&'static str, Contender)> {
    let daemons = programs.into_iter();
    let mut all: Vec<_> = daemons
        .map(|(name, program)| (name, Contender::Daemon(program)))
        .collect();
    all.push((KERNEL, Contender::Kernel(Events::None)));
    all.push((KERNEL_EVENTS, Contender::Kernel(Events::Unreceived)));
    all
}

/// Time of `-c`, with the kernel's limit beside it, and of another `-c`.
pub fn commit(world: &World, plan: &Plan) -> Result<()> {
    let count = plan.flows(FLOWS);
    let title = format!("commit of {count} flows with source NAT");
    let goals = [
        Goal {
            figure: TIME.into(),
            by: &[KERNEL],
            at_most: 1.15,
        },
        Goal::beside(AGAIN, 0.35),
    ];
    let lab = Lab::build(Options::default())?;
    let contenders = contenders(plan.programs());
    alternate(&title, plan.rounds, &contenders, &goals, |contender, _| {
        measure(world, &lab, contender, count)
    })
}

/// One commit of `count` flows, or as many creates.
pub(crate) fn measure(
    world: &World,
    lab: &Lab,
    contender: &Contender,
    count: u32,
) -> Result<Vec<Figure>> {
    lab.fw[1].run("conntrack -F")?;
    match contender {
        Contender::Daemon(program) => by_daemon(world, lab, program, count),
        Contender::Kernel(events) => by_requests(lab, count, *events),
    }
}

fn by_daemon(world: &World, lab: &Lab, program: &Program, count: u32) -> Result<Vec<Figure>> {
    let (daemon, _) = flows::loaded(world, lab, program, count, Family::V4)?;
    let commit = || -> Result<f64> {
        let begun = Instant::now();
        daemon.ask(&["-c"])?;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        let held = table_count(lab, 1)?;
        ensure!(
            held >= u64::from(count),
            "{held} of {count} flows are there"
        );
        Ok(ms)
    };
    let cpu = daemon.cpu_ns()?;
    let first = commit()?;
    let used = (daemon.cpu_ns()? - cpu) as f64 / 1000.0 / f64::from(count);
    let again = commit()?;
    daemon.stop()?;
    Ok(vec![
        Figure::new(TIME, "ms", first),
        Figure::new(CPU, "µs per flow", used),
        Figure::new(AGAIN, "ms", again),
    ])
}

fn by_requests(lab: &Lab, count: u32, events: Events) -> Result<Vec<Figure>> {
    let load = Load {
        flow: super::flow,
        first: 0,
        count,
        group: GROUP,
        rate: None,
    };
    let spent = load::alone(lab, events, || load.run(&lab.fw[1], Action::Create))?;
    Ok(vec![
        Figure::new(TIME, "ms", spent.wall.as_secs_f64() * 1000.0),
        Figure::new(CPU, "µs per flow", spent.cpu_us(count)),
    ])
}
