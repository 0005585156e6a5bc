//! What the kernel itself takes, by a program that does nothing else: flows created in batches, read
//! in a dump, and events received. No daemon is faster than this.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ctnetlink::{DumpFilter, Message, Request, decode, messages};
use sys::netlink::{Netlink, RECEIVE_BYTES};

use super::load::{self, Action, Events, Load};
use super::{Figure, KERNEL, Plan, Table, alternate};
use crate::node::Node;
use crate::topology::{Lab, Options};

const FLOWS: u32 = 10_000;
/// Events that wait in a buffer until they are read.
const EVENTS: u32 = 20_000;
/// Each takes 1280 bytes of it.
const BUFFER_BYTES: usize = 64 << 20;
/// No event comes any more.
const SILENCE: Duration = Duration::from_millis(200);
const UNIT: &str = "thousand/s";
/// Names of figures.
pub(crate) const CREATES: &str = "created in batches";
pub(crate) const WITH_EVENTS: &str = "created with events";
pub(crate) const RECEIVED: &str = "events received";
pub(crate) const DUMPED: &str = "read in a dump";

/// Rates of the kernel.
pub fn kernel(plan: &Plan) -> Result<Table> {
    let count = plan.flows(FLOWS);
    let title = format!("the kernel alone, {count} TCP flows with source NAT");
    let lab = Lab::build(Options::default())?;
    let load = Load::of_first;
    let rate = |count: u32, took: Duration| f64::from(count) / took.as_secs_f64() / 1e3;
    alternate(&title, plan, &[(KERNEL, ())], &[], |(), _| {
        let mut figures = Vec::new();
        for (events, name) in [(Events::Unreceived, WITH_EVENTS), (Events::None, CREATES)] {
            load::alone(&lab, events, || {
                let spent = load(count).run(&lab.fw[1], Action::Create)?;
                figures.push(Figure::new(name, UNIT, rate(count, spent.wall)));
                if events == Events::None {
                    let took = dump(&lab.fw[1], count)?;
                    figures.push(Figure::new(DUMPED, UNIT, rate(count, took)));
                }
                Ok(())
            })?;
        }
        lab.fw[0].run("conntrack -F")?;
        let listener = load::listen(&lab.fw[0], BUFFER_BYTES)?;
        load(EVENTS).run(&lab.fw[0], Action::Create)?;
        let took = drain(&listener)?;
        figures.push(Figure::new(RECEIVED, UNIT, rate(EVENTS, took)));
        lab.fw[0].run("conntrack -F")?;
        Ok(figures)
    })
}

/// Time to read the whole table of a machine, no flow decoded.
pub(super) fn dump(node: &Node, count: u32) -> Result<Duration> {
    node.inside(move || -> Result<Duration> {
        let socket = Netlink::open(false)?;
        let mut out = Vec::new();
        Request::new(&mut out, 1, false).dump(DumpFilter::All);
        let mut buffer = vec![0; RECEIVE_BYTES];
        let begun = Instant::now();
        socket.send(&out)?;
        let mut found = 0;
        loop {
            for message in messages(socket.receive(&mut buffer)?) {
                let message = message?;
                if message.kind != NLMSG_DONE {
                    found += 1;
                    continue;
                }
                let took = begun.elapsed();
                match decode(&message)? {
                    Message::Done { error: 0, .. } if found >= count => return Ok(took),
                    other => bail!("{other:?}, {found} of {count} flows"),
                }
            }
        }
    })?
}

/// `include/uapi/linux/netlink.h`
const NLMSG_DONE: u16 = 3;

/// Time to read all events that wait.
fn drain(socket: &Netlink) -> Result<Duration> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let (mut found, begun) = (0, Instant::now());
    let mut last = begun;
    while last.elapsed() < SILENCE {
        match socket.receive(&mut buffer) {
            Ok(bytes) => {
                found += messages(bytes).count();
                last = Instant::now();
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e).context("events"),
        }
    }
    ensure!(found >= EVENTS as usize, "{found} of {EVENTS} events");
    Ok(last.duration_since(begun))
}
