//! How long a flow is known to FW1 alone.
//!
//! Both kernels note when an entry began (`nf_conntrack_timestamp`). So with direct injection
//! the time from a flow's begin in FW1's kernel, when its event is sent, until FW2's kernel has
//! the entry is read from two listings afterwards: nothing listens or asks meanwhile. It contains
//! both daemons, the link, and the kernel's part of the injection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ctnetlink::{DumpFilter, Message, Request, decode, decode_details, messages};
use flow::FlowKey;
use sys::netlink::{Netlink, RECEIVE_BYTES};

use super::http;
use super::load::{Action, Load};
use super::pair::{Pair, Place};
use super::{Figure, Goal, Measurement, Plan, Program, Table, alternate};
use crate::daemon::{Mode, Settings};
use crate::node::Node;
use crate::topology::{Lab, SERVER};
use crate::traffic::http::get;
use crate::world::World;

const CONNECTIONS: u32 = 5000;
const RATE: u32 = 1000;
/// Single flows, each when nothing has happened for a while. The pauses differ, so that no timer
/// of a daemon keeps step with them.
const SINGLES: u32 = 50;
const PAUSE_MS: std::ops::Range<u64> = 70..130;
const UNIT: &str = "ms";

/// At 1000 connections a second through FW1, and of single flows while nothing else happens.
pub fn lag(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(CONNECTIONS);
    let title = format!(
        "lag, FT-FW, direct injection: {count} connections at {RATE}/s, then {SINGLES} single flows"
    );
    let goals = [
        Goal::absolute(format!("{RATE}/s, p99"), 3.0),
        Goal::absolute("single, p50", 0.3),
    ];
    let (lab, server) = http::lab()?;
    for fw in &lab.fw {
        fw.sysctl("net/netfilter/nf_conntrack_timestamp", "1")?;
    }
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        measure(world, &lab, server, program, count)
    })
}

fn measure(
    world: &World,
    lab: &Lab,
    server: SocketAddr,
    program: &Program,
    count: u32,
) -> Result<Measurement> {
    let settings = Settings {
        mode_lines: "DisableExternalCache on".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let mut figures = Vec::new();
    let mut add = |name: String, lags: Vec<f64>| {
        let at = |part: f64| lags[((lags.len() - 1) as f64 * part) as usize];
        for (what, value) in [("p50", at(0.5)), ("p99", at(0.99)), ("max", at(1.0))] {
            figures.push(Figure::new(format!("{name}, {what}"), UNIT, value));
        }
    };
    let pair = Pair::start(world, lab, program, &settings)?;
    get(&lab.a, server, count, RATE)?;
    add(format!("{RATE}/s"), lags(lab, pair, count)?);

    let pair = Pair::start(world, lab, program, &settings)?;
    let configurations = pair.configurations("FT-FW, direct injection")?;
    singles(&lab.fw[0])?;
    add("single".into(), lags(lab, pair, SINGLES)?);
    Ok(Measurement {
        configurations,
        ..figures.into()
    })
}

/// Waits until FW2's kernel has as many flows, and ends the pair. Returns the lags in
/// milliseconds, in order.
fn lags(lab: &Lab, pair: Pair, count: u32) -> Result<Vec<f64>> {
    pair.wait_for(Place::KernelOf(1), count)?;
    let (first, second) = (begins(&lab.fw[0])?, begins(&lab.fw[1])?);
    pair.stop()?;
    // Both tables have the dedicated link's flows, too, which nobody replicates.
    let server: IpAddr = SERVER.parse()?;
    let mut lags = Vec::new();
    for (key, begun) in first.iter().filter(|f| f.0.orig.addrs.dst() == server) {
        if let Some(there) = second.get(key) {
            lags.push((*there as f64 - *begun as f64) / 1e6);
        }
    }
    let both = lags.len();
    ensure!(
        both == count as usize,
        "{both} of {count} flows are in both kernels"
    );
    lags.sort_by(f64::total_cmp);
    Ok(lags)
}

/// Flows one by one into a machine's table.
fn singles(node: &Node) -> Result<()> {
    for n in 0..SINGLES {
        thread::sleep(Duration::from_millis(fastrand::u64(PAUSE_MS)));
        let load = Load {
            flow: super::flow,
            first: n,
            count: 1,
            group: 1,
            rate: None,
        };
        load.run(node, Action::Create)?;
    }
    Ok(())
}

/// When each entry of a machine's table began, in nanoseconds since 1970.
fn begins(node: &Node) -> Result<HashMap<FlowKey, u64>> {
    node.inside(|| -> Result<HashMap<FlowKey, u64>> {
        let socket = Netlink::open(false)?;
        let mut out = Vec::new();
        Request::new(&mut out, 1, false).dump(DumpFilter::All);
        socket.send(&out)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut begins = HashMap::new();
        loop {
            for message in messages(socket.receive(&mut buffer)?) {
                let message = message?;
                match decode(&message)? {
                    Message::Flow { flow, .. } => {
                        let attributes = message.payload.get(NFGENMSG_LEN..);
                        let details = decode_details(attributes.context("no attributes")?)?;
                        let begin = details.timestamps.0.context("no timestamp")?;
                        begins.insert(flow.key(), begin);
                    }
                    Message::Done { error: 0, .. } => return Ok(begins),
                    other => bail!("{other:?}"),
                }
            }
        }
    })?
}

/// `struct nfgenmsg`, before the attributes.
const NFGENMSG_LEN: usize = 4;
