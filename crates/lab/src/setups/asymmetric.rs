//! Multiprimary, asymmetric: requests go through FW1, answers through FW2
//! (`docs/setups/asymmetric.md`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{CONNECTIONS, PORT, Report, SOON, Setup, Site};
use crate::delay::delay;
use crate::topology::SERVER;
use crate::traffic::opening::{self, Opening};
use crate::world::World;

/// Where the inner network sends what is for outside, and the outer one what is for inside.
const INSIDE: [&str; 2] = ["192.168.0.11", "192.168.0.12"];
const OUTSIDE: [&str; 2] = ["192.168.1.11", "192.168.1.12"];
/// A connection that has not been answered then is lost.
const LIMIT: Duration = Duration::from_secs(5);

/// Each firewall dies once, and the routers around it send everything to the other one.
pub(super) fn run(_: &World, setup: Setup, with_daemon: bool) -> Result<Report> {
    let mut site = build(setup, with_daemon, false)?;
    for node in [&site.clients[0], &site.server] {
        delay(node, ROUND_TRIP / 2)?;
    }
    let mut report = Report::new(&["connections"]);
    if !with_daemon {
        let opened = open(&site, CONNECTIONS, 100)?;
        let answered = opened.iter().filter(|o| o.answered.is_some()).count();
        report.add("opened through both firewalls", vec![answered], LIMIT);
        return Ok(report);
    }
    let begun = Instant::now();
    let mut all = [site.connect(0)?];
    report.look("opened through both firewalls", begun, SOON, &mut all)?;
    for n in 0..2 {
        for fw in 0..2 {
            site.wait_flows(fw, CONNECTIONS)?;
        }
        let died = Instant::now();
        site.power_off(n)?;
        let survivor = site.fw(1 - n)?;
        // What a routing daemon does; its script tells ftfw.
        route(&site, 1 - n, 1 - n)?;
        survivor.sh("ftfw primary")?;
        let what = format!("FW{} is dead, all goes through FW{}", n + 1, 2 - n);
        report.look(&what, died, SOON / 2, &mut all)?;
        site.power_on(n)?;
        site.wait_flows(n, CONNECTIONS)?;
        route(&site, 0, 1)?;
        let what = format!("FW{} is back, asymmetric again", n + 1);
        report.look(&what, Instant::now(), SOON, &mut all)?;
    }
    Ok(report)
}

/// The ways to the server and to the client take time, half of this each. Without, no
/// connection comes up at once.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// Both firewalls, and the routes: requests through FW1, answers through FW2, or through FW1 too.
fn build(setup: Setup, with_daemon: bool, symmetric: bool) -> Result<Site> {
    let clients = [("192.168.0.3/24", INSIDE[0])];
    let back = OUTSIDE[usize::from(!symmetric)];
    let mut site = Site::build(setup, with_daemon, &clients, Some(back))?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    if with_daemon {
        for n in 0..2 {
            let fw = site.fw(n)?;
            site.wait("the peers hear each other", SOON, || {
                fw.logs().contains("the peer is there")
            })?;
        }
    }
    Ok(site)
}

/// Requests go through firewall `there`, answers through firewall `back`.
fn route(site: &Site, there: usize, back: usize) -> Result<()> {
    let client = &site.clients[0];
    client.run(&format!("ip route replace default via {}", INSIDE[there]))?;
    let server = &site.server;
    server.run(&format!("ip route replace default via {}", OUTSIDE[back]))?;
    Ok(())
}

fn open(site: &Site, count: usize, rate: u32) -> Result<Vec<Opening>> {
    let server = SocketAddr::new(SERVER.parse()?, PORT);
    opening::open(&site.clients[0], server, count, rate, LIMIT)
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Which files; one of the asymmetric ones.
    pub setup: Setup,
    /// Answers come back through FW1, for comparison.
    pub symmetric: bool,
    /// What the way to the server and back takes, and the way to the client and back: half of
    /// this each, beside what the machine itself takes.
    pub round_trip: Duration,
    /// Connections.
    pub count: usize,
    /// How many of them a second.
    pub rate: u32,
}

/// How connections have come up.
#[derive(Clone, Debug)]
pub struct Openings {
    /// Part that was answered without a retransmission.
    pub at_once: f64,
    /// Part that was answered at all.
    pub answered: f64,
    /// Time until the connection was there, in order.
    pub connected: Vec<Duration>,
    /// Segments sent again, by client and server together.
    pub retransmitted: u64,
}

/// Opens connections, and looks at how they come up.
///
/// # Errors
/// If the site does not come up, or no connection does.
pub fn measure(course: &Course) -> Result<Openings> {
    let site = build(course.setup, true, course.symmetric)?;
    if !course.round_trip.is_zero() {
        for node in [&site.clients[0], &site.server] {
            delay(node, course.round_trip / 2)?;
        }
    }
    // Neighbours are found, and both daemons have seen a flow.
    open(&site, 5, 5)?;
    let before = retransmitted(&site)?;
    let opened = open(&site, course.count, course.rate)?;
    let again = retransmitted(&site)? - before;
    let answered = opened.iter().filter(|o| o.answered.is_some()).count();
    // The earliest retransmission of data comes after 200 ms beyond the round trip, of a SYN or
    // SYN-ACK after a second.
    let most = 2 * course.round_trip + Duration::from_millis(200);
    let at_once = |o: &&Opening| o.answered.is_some_and(|after| after < most);
    let mut connected: Vec<_> = opened.iter().filter_map(|o| o.connected).collect();
    connected.sort();
    let part = |n: usize| n as f64 / opened.len() as f64;
    Ok(Openings {
        at_once: part(opened.iter().filter(at_once).count()),
        answered: part(answered),
        connected,
        retransmitted: again,
    })
}

/// Segments that client and server have sent again since they are there.
fn retransmitted(site: &Site) -> Result<u64> {
    let mut sum = 0;
    for node in [&site.clients[0], &site.server] {
        // Of any kind, SYN and SYN-ACK among them.
        sum += value(&node.run("cat /proc/net/snmp")?, "Tcp:", "RetransSegs")?;
    }
    Ok(sum)
}

/// A number of a table that has a line of names and a line of values.
fn value(text: &str, table: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().filter(|l| l.starts_with(table));
    let mut words = || Some(lines.next()?.split_whitespace());
    let (mut names, mut values) = (words().context("names")?, words().context("values")?);
    let at = names.position(|n| n == name).context("no such number")?;
    Ok(values.nth(at).context("no value")?.parse()?)
}
