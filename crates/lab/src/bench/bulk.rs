//! A bulk update: from `-n` until the backup knows the flows that it had not been sent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::{self, Action, Events, Load};
use super::pair::{Pair, Place};
use super::{Figure, Goal, KERNEL, Measurement, Plan, Program, Table, alternate, external_flows};
use crate::daemon::{Mode, Settings};
use crate::topology::{Lab, SERVER};
use crate::traffic::datagrams;
use crate::wait;
use crate::world::World;

const FLOWS: u32 = 100_000;

/// Longer than what passes between two bulk updates of ours.
const BULK_PAUSE: Duration = Duration::from_secs(11);

const RECEIVER: &str = "CPU time of the receiver";
/// What a backup that injects takes at least, beside what a cached one takes.
const CREATES: &str = "as many creates in batches";
const UNIT: &str = "µs per flow";

enum Contender {
    Pair(Program),
    /// Creates of as many flows in batches.
    Kernel,
}

/// Bulk update of UDP flows in FT-FW.
pub fn bulk(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("bulk update of {count} UDP flows, FT-FW, external cache");
    let goals = [Goal::beside(RECEIVER, 0.8), Goal::absolute(RECEIVER, 1.0)];
    let mut contenders = Vec::new();
    for (name, program) in plan.programs() {
        contenders.push((name, Contender::Pair(program)));
    }
    contenders.push((KERNEL, Contender::Kernel));
    let lab = datagrams::lab()?;
    datagrams::send(&lab.a, SERVER, count as usize)?;
    alternate(&title, plan, &contenders, &goals, |contender, _| {
        let held = lab.count_flows(0, "-p udp -s 192.168.0.3")?;
        ensure!(held == count as usize, "FW1's kernel holds {held} flows");
        match contender {
            Contender::Pair(program) => update(world, &lab, program, count),
            Contender::Kernel => {
                let load = Load::of_first(count);
                let creates = || load.run(&lab.fw[1], Action::Create);
                let spent = load::alone(&lab, Events::None, creates)?;
                Ok(vec![Figure::new(CREATES, UNIT, spent.cpu_us(count))].into())
            }
        }
    })
}

fn update(world: &World, lab: &Lab, program: &Program, count: u32) -> Result<Measurement> {
    let settings = Settings::new(Mode::Ftfw).for_flows(count);
    let pair = Pair::start_on_tables(world, lab, program, &settings)?;
    // Ours has sent everything by itself to a peer that it did not know, and does that once in
    // 10 s at most.
    thread::sleep(BULK_PAUSE);
    pair.daemons[1].ask(&["-f", "external"])?;
    let before = external_flows(&pair.daemons[1])?;
    ensure!(before < 100, "{before} flows known before");
    let cpu = pair.cpu_ns()?;
    let begun = Instant::now();
    pair.daemons[1].ask(&["-n"])?;
    let mut known = 0;
    wait::until("the backup knows all", Duration::from_secs(30), || {
        known = external_flows(&pair.daemons[1]).unwrap_or(0);
        known >= u64::from(count)
    })
    .with_context(|| format!("{known} of {count} known"))?;
    let took = begun.elapsed().as_secs_f64();
    let [sent, received] = pair.cpu_us_since(cpu, count)?;
    let text = pair.daemons[1].ask(&["-s", "network"])?;
    let lost = text.lines().find(|l| l.contains("Packets lost"));
    let lost = lost.and_then(|l| l.split_whitespace().next_back());
    let lost: f64 = lost.context("no count of lost packets")?.parse()?;
    pair.wait_equal(Place::ExternalCache, "udp")?;
    let configurations = pair.configurations("FT-FW")?;
    pair.stop()?;
    let figures = vec![
        Figure::new("rate", "thousand flows/s", f64::from(count) / took / 1000.0),
        Figure::new("CPU time of the sender", UNIT, sent),
        Figure::new(RECEIVER, UNIT, received),
        Figure::new("messages lost", "", lost),
    ];
    Ok(Measurement {
        configurations,
        ..figures.into()
    })
}
