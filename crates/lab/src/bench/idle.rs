//! CPU time of a pair while nothing happens: FW1 and FW2 hold the same flows in their kernels
//! (direct injection), and no packet passes.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use flow::Flow;

use super::load::{Action, Load};
use super::pair::{Pair, Place};
use super::{Figure, Goal, Measurement, Plan, Table, alternate, flows};
use crate::daemon::{Mode, Settings};
use crate::topology::{Lab, Options};
use crate::world::World;

const FLOWS: u32 = 60_000;
/// A whole look through the table of as many flows takes 30 s: what is measured contains it once.
const WINDOW: Duration = Duration::from_secs(30);
/// After the last flow, until nothing is under way any more.
const SETTLE: Duration = Duration::from_secs(5);

/// Half of the flows are UDP, whose timeouts are short: silent ones must be found before.
pub fn idle(world: &World, plan: &Plan) -> Result<Table> {
    measure(world, plan, mixed, "half of them UDP", 0.2)
}

/// TCP alone.
pub fn idle_tcp(world: &World, plan: &Plan) -> Result<Table> {
    measure(world, plan, super::flow, "all TCP", 0.05)
}

fn mixed(n: u32) -> Flow {
    if n.is_multiple_of(2) {
        super::flow(n)
    } else {
        flows::udp_flow(n)
    }
}

fn measure(
    world: &World,
    plan: &Plan,
    flow: fn(u32) -> Flow,
    which: &str,
    percent_at_most: f64,
) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("idle, FT-FW, direct injection, {count} flows, {which}");
    let ends = ["sender", "receiver"];
    let share = |end: &str| format!("{end}, share");
    let goals = ends.map(|end| Goal::absolute(share(end), percent_at_most));
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        mode_lines: "DisableExternalCache on".into(),
        ..Settings::new(Mode::Ftfw).for_flows(count)
    };
    let load = Load {
        flow,
        first: 0,
        count,
        group: 16,
        rate: Some(if count > FLOWS { 30_000 } else { 15_000 }),
    };
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        let pair = Pair::start(world, &lab, program, &settings)?;
        if count > 0 {
            load.run(&lab.fw[0], Action::Create)?;
        }
        let places = [Place::InternalCache, Place::KernelOf(1)];
        for place in places {
            pair.wait_for(place, count)?;
        }
        thread::sleep(SETTLE);
        let before = pair.cpu_ns()?;
        thread::sleep(WINDOW);
        let used = pair.cpu_us_since(before, 1)?;
        for place in places {
            pair.wait_for(place, count).context("after it")?;
        }
        pair.wait_equal(Place::KernelOf(1), "tcp")?;
        let configurations = pair.configurations("FT-FW, direct injection")?;
        pair.stop()?;
        let mut figures = Vec::new();
        for (end, us) in ends.into_iter().zip(used) {
            let seconds = us / 1e6 / WINDOW.as_secs_f64();
            figures.push(Figure::new(end, "ms per 15 s", seconds * 15_000.0));
            figures.push(Figure::new(share(end), "% of a CPU", seconds * 100.0));
        }
        Ok(Measurement {
            configurations,
            ..figures.into()
        })
    })
}
