//! CPU time of both daemons per TCP connection through FW1: at a given rate with a small
//! transfer, and as fast as one client goes.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::pair::{Pair, Place, numbers};
use super::{Figure, Goal, Plan, Table, alternate, table};
use crate::daemon::{Mode, Settings};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::http;
use crate::wait;
use crate::world::World;

/// Connections, unless the user asks for another number.
const CONNECTIONS: u32 = 10_000;
const RATES: [u32; 2] = [1000, 2500];
/// After the last connection: whoever gathers or acknowledges has done so by then.
const SETTLE: Duration = Duration::from_millis(500);
const UNIT: &str = "µs per connection";

/// A laboratory with a server of HTTP on B.
pub(super) fn lab() -> Result<(Lab, SocketAddr)> {
    let lab = Lab::build(Options::default())?;
    many_connections(&lab)?;
    let server = SocketAddr::new(SERVER.parse()?, 80);
    http::serve(&lab.b, server)?;
    Ok((lab, server))
}

/// Many short connections from A use up neither its ports nor FW1's time.
fn many_connections(lab: &Lab) -> Result<()> {
    lab.a.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    lab.a.sysctl("net/ipv4/ip_local_port_range", "1025 65000")?;
    for fw in &lab.fw {
        // Logging every packet would take longer than forwarding it.
        fw.run("iptables -D FORWARD -j LOG")?;
    }
    Ok(())
}

/// GET of 4 KB, a new connection each, FT-FW with external cache. The flows stay in TIME_WAIT for
/// longer than the measurement, so that both firewalls hold them all when it ends; what an end
/// costs is measured by `bench events`.
pub fn http(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(CONNECTIONS);
    let title = format!("HTTP, FT-FW, external cache: GET of 4 KB, {count} connections a rate");
    // A wake-up costs less there, and with it conntrackd.
    let (sender, receiver) = if table::processor().contains("Xeon") {
        ([0.3, 0.2], [0.35, 0.13])
    } else {
        ([0.3, 0.17], [0.25, 0.1])
    };
    let mut goals = Vec::new();
    for (n, rate) in RATES.into_iter().enumerate() {
        goals.push(Goal::beside(format!("sender, {rate}/s"), sender[n]));
        goals.push(Goal::beside(format!("receiver, {rate}/s"), receiver[n]));
    }
    let (lab, server) = lab()?;
    alternate(&title, plan, &plan.programs(), &goals, |program, _| {
        let mut figures = Vec::new();
        for rate in RATES {
            let pair = Pair::start(world, &lab, program, &Settings::new(Mode::Ftfw))?;
            let before = pair.cpu_ns()?;
            http::get(&lab.a, server, count, rate)?;
            thread::sleep(SETTLE);
            pair.wait_for(Place::InternalCache, count)?;
            pair.wait_for(Place::ExternalCache, count)?;
            let [sent, received] = pair.cpu_us_since(before, count)?;
            pair.stop()?;
            figures.push(Figure::new(format!("sender, {rate}/s"), UNIT, sent));
            figures.push(Figure::new(format!("receiver, {rate}/s"), UNIT, received));
        }
        Ok(figures)
    })
}

/// Flows that have ever come to FW2's external cache.
fn created(pair: &Pair) -> Result<u64> {
    let text = pair.daemons[1].ask(&["-s"])?;
    let numbers = numbers(&text, "connections created:", 1)?;
    numbers.first().copied().context("no number")
}

/// TCP connections through FW1, opened and closed one after the other as fast as one client goes,
/// NOTRACK.
pub fn connections(world: &World, plan: &Plan) -> Result<Table> {
    let count = plan.flows(CONNECTIONS);
    let title = format!("NOTRACK, external cache: {count} connections as fast as one client goes");
    let lab = Lab::build(Options::default())?;
    many_connections(&lab)?;
    let server = SocketAddr::new(SERVER.parse()?, 7);
    let listener = lab.b.inside(move || TcpListener::bind(server))??;
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let settings = Settings::new(Mode::Notrack);
    alternate(&title, plan, &plan.programs(), &[], |program, _| {
        let pair = Pair::start(world, &lab, program, &settings)?;
        let before = pair.cpu_ns()?;
        let begun = Instant::now();
        lab.a.inside(move || -> Result<()> {
            for _ in 0..count {
                let mut stream = TcpStream::connect(server)?;
                // The server closes first: the client's ports are free at once.
                let _ = stream.read(&mut [0; 1]);
            }
            Ok(())
        })??;
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        wait::until("FW2 knows all", Duration::from_secs(5), || {
            created(&pair).is_ok_and(|n| n >= u64::from(count))
        })?;
        let [sent, received] = pair.cpu_us_since(before, count)?;
        pair.stop()?;
        Ok(vec![
            Figure::new("sender", UNIT, sent),
            Figure::new("receiver", UNIT, received),
            Figure::new("rate", "connections/s", rate),
        ])
    })
}
