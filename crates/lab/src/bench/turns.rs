//! The longest turns of our daemons' loops while they do what takes long: start with a full
//! kernel, a bulk update, a resync, listings, a commit, looks through the table.

use std::io::{Read, Write};
use std::mem;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{Action, Load};
use super::pair::{Pair, Place, established};
use super::{FTFW, Figure, Goal, Plan, Table, alternate};
use crate::daemon::{Daemon, Mode, Settings};
use crate::node::Node;
use crate::topology::{Lab, Options};
use crate::wait;
use crate::world::World;

const FLOWS: u32 = 100_000;
/// A look through the whole table takes 30 s.
const LOOKS: Duration = Duration::from_secs(35);
/// How long a pair may take until the receiver has everything, at 10 µs a flow and some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(1);
/// Turns that took longer than 5 ms.
const LONG: &str = "ftfw_turns_total{over=\"0.005\"}";
const METRICS: &str = "Metrics {\nIPv4_address 127.0.0.1\nPort 9411\n}";

const ENDS: [&str; 2] = ["sender", "receiver"];

/// A pair with that many flows, whose daemons have done all of it.
pub fn turns(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("longest turns of the loop with {count} TCP flows, FT-FW, external cache");
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: METRICS.into(),
        ..Settings::new(Mode::Ftfw).for_flows(count)
    };
    let goals = ENDS.map(|end| Goal::absolute(cpu(end), 5.0));
    let programs: Vec<_> = (plan.programs().into_iter())
        .filter(|(name, _)| *name == FTFW)
        .collect();
    alternate(&title, plan, &programs, &goals, |program, _| {
        for fw in &lab.fw {
            fw.run("conntrack -F")?;
        }
        let load = Load::of_first(count);
        for action in [Action::Create, Action::Update] {
            load.run(&lab.fw[0], action)?;
        }
        let pair = Pair::start_on_tables(world, &lab, program, &settings)?;
        let mut figures = work(&pair, &lab, count)?;
        let held = established(&lab, 1, count)?;
        ensure!(held == count, "{held} of {count} flows are committed");
        for (end, fw) in ENDS.into_iter().zip(&lab.fw) {
            figures.extend(measured(end, &page(fw)?)?);
        }
        pair.stop()?;
        Ok(figures)
    })
}

/// All that takes long, one after the other. How many turns of each end took longer than 5 ms
/// meanwhile.
fn work(pair: &Pair, lab: &Lab, count: u32) -> Result<Vec<Figure>> {
    let [sender, receiver] = &pair.daemons;
    let all_hold = || {
        let places = [Place::InternalCache, Place::ExternalCache];
        wait::until("both hold the flows", PATIENCE, || {
            (places.iter()).all(|p| pair.held(*p).is_ok_and(|n| n >= u64::from(count)))
        })
    };
    let own = |daemon: &Daemon, table| daemon.own(&["flows", table, "-o", "json"]).map(drop);
    let ask = |daemon: &Daemon, letter| daemon.ask(&[letter]).map(drop);
    let looks = || {
        thread::sleep(LOOKS);
        Ok(())
    };
    let refilled = || {
        receiver.ask(&["-f", "external"])?;
        ask(receiver, "-n")?;
        all_hold()
    };
    type Step<'a> = (&'static str, &'a dyn Fn() -> Result<()>);
    let steps: [Step<'_>; 10] = [
        ("start, first bulk update", &all_hold),
        ("listing, internal", &|| own(sender, "internal")),
        ("listing, kernel", &|| own(sender, "kernel")),
        ("listing, external", &|| own(receiver, "external")),
        ("listing, external, as the original's", &|| {
            ask(receiver, "-e")
        }),
        ("bulk update", &|| ask(sender, "-B")),
        ("resync", &|| ask(sender, "-R")),
        ("looks through the table", &looks),
        ("flush, and a bulk update into nothing", &refilled),
        ("commit", &|| ask(receiver, "-c")),
    ];
    let mut figures = Vec::new();
    let mut before = [0.0; 2];
    for (name, step) in steps {
        step()?;
        // What it has begun goes on for a moment.
        thread::sleep(SETTLE);
        for ((end, fw), before) in ENDS.into_iter().zip(&lab.fw).zip(&mut before) {
            let now = value(&page(fw)?, LONG)?;
            let long = now - mem::replace(before, now);
            figures.push(Figure::new(format!("{end}, long turns, {name}"), "", long));
        }
    }
    looks()?;
    Ok(figures)
}

fn cpu(end: &str) -> String {
    format!("{end}, longest turn, CPU time")
}

/// A sample of a page of metrics.
fn value(page: &str, name: &str) -> Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let text = line.with_context(|| format!("no {name}"))?;
    Ok(text.trim().parse()?)
}

/// The figures of one end, from its page of metrics.
fn measured(end: &str, page: &str) -> Result<Vec<Figure>> {
    let all = value(page, "ftfw_turns_total{over=\"0\"}")?;
    let longest = |clock: &str| {
        let name = format!("ftfw_turn_longest_seconds{{clock=\"{clock}\"}}");
        Ok::<_, anyhow::Error>(value(page, &name)? * 1e3)
    };
    let part = value(page, LONG)? / all * 100.0;
    Ok(vec![
        Figure::new(cpu(end), "ms", longest("cpu")?),
        Figure::new(format!("{end}, longest turn"), "ms", longest("wall")?),
        Figure::new(format!("{end}, turns"), "", all),
        Figure::new(format!("{end}, turns longer than 5 ms"), "%", part),
    ])
}

/// The page of metrics of a firewall's daemon.
fn page(node: &Node) -> Result<String> {
    node.inside(|| -> Result<String> {
        let mut server = TcpStream::connect(("127.0.0.1", 9411))?;
        server.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        server.read_to_string(&mut page)?;
        Ok(page)
    })?
}
