//! CPU time per event: flows with source NAT are created, updated and deleted in FW1's kernel,
//! and the daemons of FW1 and FW2 use what they use for it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{self, Action, Events, Load};
use super::pair::{LATEST, Pair, Place, numbers};
use super::{
    FTFW, Figure, Goal, KERNEL, KERNEL_EVENTS, Measurement, Plan, Program, Table, alternate,
};
use crate::daemon::{Mode, Settings};
use crate::topology::{Lab, Options};
use crate::wait;
use crate::world::World;

/// Flows, unless the user asks for another number.
const FLOWS: u32 = 60_000;
/// Events a second, and how many of them at once.
const RATE: u32 = 15_000;
const GROUP: u32 = 16;
/// After the last event: whoever gathers, acknowledges or injects has done so by then.
const SETTLE: Duration = Duration::from_millis(500);

const PHASES: [(Action, &str); 3] = [
    (Action::Create, "create"),
    (Action::Update, "update"),
    (Action::Delete, "delete"),
];

/// The load of this file.
fn load(count: u32) -> Load {
    Load {
        flow: super::flow,
        first: 0,
        count,
        group: GROUP,
        rate: Some(RATE),
    }
}

/// At most this much of conntrackd, in every phase.
fn goals(sender: f64, receiver: f64) -> Vec<Goal> {
    let of = |(_, phase): &(_, &str)| {
        [
            Goal::beside(format!("sender, {phase}"), sender),
            Goal::beside(format!("receiver, {phase}"), receiver),
        ]
    };
    PHASES.iter().flat_map(of).collect()
}

/// FT-FW with both caches.
pub fn events(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!(
        "CPU time per event, FT-FW, external cache: {}",
        load_text(count)
    );
    let goals = goals(0.5, 0.7);
    let lab = Lab::build(Options::default())?;
    let settings = Settings::new(Mode::Ftfw);
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        measure(world, &lab, program, &settings, count)
    })
}

/// NOTRACK without any cache, where FW2's daemon injects.
pub fn events_without_caches(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!(
        "CPU time per event, NOTRACK, no caches: {}",
        load_text(count)
    );
    let goals = goals(0.7, 0.7);
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        mode_lines: "DisableInternalCache on\nDisableExternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        measure(world, &lab, program, &settings, count)
    })
}

/// What is measured by [`inject`].
enum Contender {
    /// A pair whose receiver injects.
    Injects(Program),
    /// A pair whose receiver keeps an external cache.
    Keeps(Program),
    /// The requests alone.
    Kernel(Events),
}

/// Ours with an external cache: the part of the work that is not injection.
const CACHED: &str = "ftfw, cached";

/// FT-FW with direct injection, and its limits beside it.
pub fn inject(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!(
        "CPU time per event, FT-FW, direct injection: {}",
        load_text(count)
    );
    let mut goals = Vec::new();
    for (_, phase) in PHASES {
        let receiver = format!("receiver, {phase}");
        goals.push(Goal::beside(receiver.clone(), 0.65));
        goals.push(Goal::by(receiver, &[KERNEL_EVENTS, CACHED], 1.5));
    }
    let mut contenders = Vec::new();
    for (name, program) in plan.programs() {
        if name == FTFW {
            contenders.push((CACHED, Contender::Keeps(program.clone())));
        }
        contenders.push((name, Contender::Injects(program)));
    }
    contenders.push((KERNEL_EVENTS, Contender::Kernel(Events::Unreceived)));
    contenders.push((KERNEL, Contender::Kernel(Events::None)));

    let lab = Lab::build(Options::default())?;
    let cached = Settings::new(Mode::Ftfw);
    let injects = Settings {
        mode_lines: "DisableExternalCache on".into(),
        ..Settings::new(Mode::Ftfw)
    };
    alternate(
        &title,
        plan,
        &contenders,
        &goals,
        |contender, _| match contender {
            Contender::Injects(program) => measure(world, &lab, program, &injects, count),
            Contender::Keeps(program) => measure(world, &lab, program, &cached, count),
            Contender::Kernel(events) => requests_alone(&lab, count, *events).map(Into::into),
        },
    )
}

fn load_text(count: u32) -> String {
    format!("{count} TCP flows with source NAT at {RATE}/s in groups of {GROUP}")
}

/// Runs the three phases on one pair. A figure counts only if, when it was taken, both
/// firewalls held what they should.
fn measure(
    world: &World,
    lab: &Lab,
    program: &Program,
    settings: &Settings,
    count: u32,
) -> Result<Measurement> {
    let place = |disabled: &str, n: usize, cache: Place| {
        if settings.mode_lines.contains(disabled) {
            Place::KernelOf(n)
        } else {
            cache
        }
    };
    let sender = place("DisableInternalCache", 0, Place::InternalCache);
    let receiver = place("DisableExternalCache", 1, Place::ExternalCache);
    let pair = Pair::start(world, lab, program, settings)?;
    let mut figures = Vec::new();
    for (action, phase) in PHASES {
        let before = pair.cpu_ns()?;
        let sent_before = lab.link_sent(0)?;
        load(count).run(&lab.fw[0], action)?;
        thread::sleep(SETTLE);
        let held = if action == Action::Delete { 0 } else { count };
        for place in [sender, receiver] {
            pair.wait_for(place, held)
                .with_context(|| format!("after each {phase}"))?;
        }
        if action == Action::Update {
            let mut updates = 0;
            // conntrackd in NOTRACK keeps what does not fill a datagram for a while.
            wait::until("FW2 has made the updates", LATEST, || {
                updates = updated(&pair).unwrap_or(0);
                updates >= u64::from(count)
            })
            .with_context(|| format!("{updates} of {count} updates"))?;
        }
        let [sent, received] = pair.cpu_us_since(before, count)?;
        let link = lab.link_sent(0)?;
        pair.wait_equal(receiver, "tcp")?;
        figures.push(Figure::new(
            format!("sender, {phase}"),
            "µs per event",
            sent,
        ));
        figures.push(Figure::new(
            format!("receiver, {phase}"),
            "µs per event",
            received,
        ));
        for (n, unit) in ["bytes per event", "packets per event"]
            .into_iter()
            .enumerate()
        {
            let each = (link[n] - sent_before[n]) as f64 / f64::from(count);
            let name = format!("sent, {unit}, {phase}");
            figures.push(Figure::new(name, unit, each));
        }
    }
    let configurations =
        pair.configurations(&format!("{} {}", settings.mode, settings.mode_lines))?;
    pair.stop()?;
    Ok(Measurement {
        configurations,
        ..figures.into()
    })
}

/// Updates that FW2's daemon has made, in its cache or in the kernel.
fn updated(pair: &Pair) -> Result<u64> {
    let text = pair.daemons[1].ask(&["-s"])?;
    let at = text
        .find("external")
        .context("nothing external in the statistics")?;
    let numbers = numbers(&text[at..], "connections updated:", 0)?;
    numbers.first().copied().context("no number")
}

/// The same requests in the same batches by a program that does nothing else: a delete is a
/// get and a delete.
fn requests_alone(lab: &Lab, count: u32, events: Events) -> Result<Vec<Figure>> {
    load::alone(lab, events, || {
        let mut figures = Vec::new();
        for (action, phase) in PHASES {
            let action = match action {
                Action::Delete => Action::GetAndDelete,
                other => other,
            };
            let spent = load(count).run(&lab.fw[1], action)?;
            let name = format!("receiver, {phase}");
            figures.push(Figure::new(name, "µs per event", spent.cpu_us(count)));
        }
        Ok(figures)
    })
}
