//! The longest turns of our daemons' loops while they do what takes long: start with a full
//! kernel, a bulk update, a resync, listings, a commit, looks through the table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{Action, Load};
use super::pair::{Pair, Place, established};
use super::{FTFW, Figure, Goal, Plan, Table, alternate};
use crate::daemon::{Mode, Settings};
use crate::node::Node;
use crate::topology::{Lab, Options};
use crate::wait;
use crate::world::World;

const FLOWS: u32 = 100_000;
/// A look through the whole table takes 30 s.
const LOOKS: Duration = Duration::from_secs(35);
/// How long a pair may take until the receiver has everything, at 10 µs a flow and some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
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
        work(&pair, count)?;
        let held = established(&lab, 1, count)?;
        ensure!(held == count, "{held} of {count} flows are committed");
        let mut figures = Vec::new();
        for (end, fw) in ENDS.into_iter().zip(&lab.fw) {
            figures.extend(measured(end, &page(fw)?)?);
        }
        pair.stop()?;
        Ok(figures)
    })
}

/// All that takes long, one after the other.
fn work(pair: &Pair, count: u32) -> Result<()> {
    let [sender, receiver] = &pair.daemons;
    let all_hold = || {
        let places = [Place::InternalCache, Place::ExternalCache];
        wait::until("both hold the flows", PATIENCE, || {
            (places.iter()).all(|p| pair.held(*p).is_ok_and(|n| n >= u64::from(count)))
        })
    };
    all_hold()?;
    for list in [
        ["flows", "internal", "-o", "json"],
        ["flows", "kernel", "-o", "json"],
    ] {
        sender.own(&list)?;
    }
    receiver.own(&["flows", "external", "-o", "json"])?;
    receiver.ask(&["-e"])?;
    sender.ask(&["-B"])?;
    sender.ask(&["-R"])?;
    thread::sleep(LOOKS);
    receiver.ask(&["-f", "external"])?;
    receiver.ask(&["-n"])?;
    all_hold()?;
    receiver.ask(&["-c"])?;
    thread::sleep(LOOKS);
    Ok(())
}

fn cpu(end: &str) -> String {
    format!("{end}, longest turn, CPU time")
}

/// The figures of one end, from its page of metrics.
fn measured(end: &str, page: &str) -> Result<Vec<Figure>> {
    let value = |name: &str| -> Result<f64> {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        let text = line.with_context(|| format!("no {name}"))?;
        Ok(text.trim().parse()?)
    };
    let longer = |secs: &str| value(&format!("ftfw_turns_total{{over=\"{secs}\"}}"));
    let longest = |clock: &str| value(&format!("ftfw_turn_longest_seconds{{clock=\"{clock}\"}}"));
    let part = longer("0.005")? / longer("0")?;
    Ok(vec![
        Figure::new(cpu(end), "ms", longest("cpu")? * 1e3),
        Figure::new(format!("{end}, longest turn"), "ms", longest("wall")? * 1e3),
        Figure::new(format!("{end}, turns"), "", longer("0")?),
        Figure::new(format!("{end}, turns longer than 5 ms"), "%", part * 100.0),
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
