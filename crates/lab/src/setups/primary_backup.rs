//! One firewall works, the other one waits; IPv4 with source NAT, IPv6 without
//! (`docs/setups/primary-backup.md`).
//!
//! Both ends of all connections send all the time. What the ends have read is looked at after
//! each change: the connections pass the firewall that is primary then.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::manager::Manager;
use super::{CONNECTIONS, Machine, Report, SOON, Setup, Site};
use crate::topology::{SERVER, address, hub};
use crate::traffic::push::Pushes;
use crate::wait;

/// The gateways inside, and what is theirs outside; of both families.
const VIRTUAL: [&str; 4] = [
    "192.168.0.100",
    "192.168.1.100",
    "2001:db8::100",
    "2001:db8:1::100",
];
/// Of the client, both families.
pub(crate) const CLIENTS: [&str; 2] = ["192.168.0.3", "2001:db8::3"];
/// IPv6 address of the server.
pub(crate) const SERVER6: &str = "2001:db8:1::2";
/// Of the connections that are there from the beginning, and of those that are made later.
const PORTS: [u16; 2] = [5007, 5008];
/// How often each end sends.
const EVERY: Duration = Duration::from_millis(100);
/// Connections of each family that are made while the dedicated link is out.
const LATE: usize = 20;
/// How often the outer carrier of FW1 comes and goes.
const FLAPS: usize = 4;
/// Connections that have not been heard then are dead.
const DEAD: Duration = Duration::from_secs(2);

/// A part of what may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// keepalived is stopped, carriers are lost, one of them many times.
    Switches,
    /// FW1 loses its power, its daemon, the dedicated link.
    Losses,
}

impl Part {
    /// All of it.
    pub const ALL: [Part; 2] = [Part::Switches, Part::Losses];
}

/// Runs parts of it on one pair. Without a daemon each change has connections of its own.
///
/// # Errors
/// If something does not come to its place at all, or the daemons do not report what they must.
pub fn run(setup: Setup, with_daemon: bool, parts: &[Part]) -> Result<Report> {
    let mut course = Course {
        site: build(setup, with_daemon, "")?,
        report: Report {
            time: "longest silence",
            ..Report::new(&["IPv4", "IPv6"])
        },
        traffic: None,
        is_cached: setup == Setup::PrimaryBackupCached,
    };
    let done = course.run(parts);
    done.with_context(|| format!("until then:\n{}", course.report))?;
    Ok(course.report)
}

/// The pair with FW1 as primary; `lines` are those of [`Site::set_lines`].
pub(crate) fn build(setup: Setup, with_daemon: bool, lines: &str) -> Result<Site> {
    let clients = [("192.168.0.3/24", VIRTUAL[0])];
    let mut site = Site::build(setup, with_daemon, &clients, None)?;
    site.set_lines(lines);
    let client = &site.clients[0];
    address(client, "eth0", &["2001:db8::3/64"])?;
    client.run("ip -6 route add default via 2001:db8::100")?;
    address(&site.server, "eth0", &["2001:db8:1::2/64"])?;
    // IPv6 is not translated: the router outside needs a route.
    let back = "ip -6 route add 2001:db8::/64 via 2001:db8:1::100";
    site.server.run(back)?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    wait_primary(&site, 0)?;
    Ok(site)
}

/// The pair, what passes through it, and what has been seen.
struct Course {
    site: Site,
    report: Report,
    traffic: Option<[Pushes; 2]>,
    is_cached: bool,
}

impl Course {
    fn run(&mut self, parts: &[Part]) -> Result<()> {
        self.row("FW1 is primary", |_| Ok(()))?;
        self.wait_equal(0)?;
        for part in parts {
            match part {
                Part::Switches => self.switches()?,
                Part::Losses => self.losses()?,
            }
        }
        Ok(())
    }

    fn switches(&mut self) -> Result<()> {
        let what = "FW1's keepalived is stopped, FW2 takes over";
        self.row(what, |site| {
            stop_keepalived(site, 0)?;
            wait_primary(site, 1)
        })?;
        self.back("keepalived is started again, FW1 takes over", |site| {
            start_keepalived(site, 0)
        })?;
        for (side, port) in [("inside", "fw1-in"), ("outside", "fw1-out")] {
            let what = format!("FW1 loses its carrier {side}, FW2 takes over");
            self.row(&what, |site| {
                carrier(port, false)?;
                wait_primary(site, 1)
            })?;
            let what = format!("the carrier {side} is back, FW1 takes over");
            self.back(&what, |_| carrier(port, true))?;
        }
        let what = format!("the carrier goes and comes {FLAPS} times, and goes");
        self.row(&what, |site| {
            for _ in 0..FLAPS {
                carrier("fw1-out", false)?;
                wait_addresses(site, 1)?;
                carrier("fw1-out", true)?;
                wait_addresses(site, 0)?;
            }
            carrier("fw1-out", false)?;
            wait_primary(site, 1)
        })?;
        self.back("the carrier stays, FW1 takes over", |_| {
            carrier("fw1-out", true)
        })
    }

    fn losses(&mut self) -> Result<()> {
        self.row("FW1 loses its power, FW2 takes over", |site| {
            site.power_off(0)?;
            wait_primary(site, 1)
        })?;
        self.back("FW1 is switched on again, and takes over", |site| {
            site.power_on(0)
        })?;
        if !self.site.with_daemon {
            return Ok(());
        }
        self.daemon_dies()?;
        self.link_out_during()?;
        self.link_out_before()
    }

    fn daemon_dies(&mut self) -> Result<()> {
        let mut meanwhile = None;
        self.row("FW1's ftfw is killed, and started at once", |site| {
            kill_daemon(site.fw(0)?)?;
            meanwhile = Some(open(site, LATE, PORTS[1])?);
            start_daemon(site.fw(0)?)?;
            wait_primary(site, 0)
        })?;
        self.wait_equal(0)?;
        let (fw2, holds) = (self.site.fw(1)?, self.holds());
        let what = "FW2 has what began meanwhile";
        self.site.wait(what, SOON, || {
            table(fw2, holds, PORTS[1]).is_ok_and(|flows| flows.len() == 2 * LATE)
        })?;
        drop(meanwhile);
        self.row("FW1's ftfw is killed, FW2 takes over", |site| {
            kill_daemon(site.fw(0)?)?;
            wait_primary(site, 1)
        })?;
        let survivor = self.site.fw(1)?;
        self.site.wait("the survivor warns", SOON, || {
            status(survivor)
                .is_ok_and(|status| status["safe"] == false && names(&status, "the peer is lost"))
        })?;
        self.back("FW1's ftfw is started again, it takes over", |site| {
            start_daemon(site.fw(0)?)
        })
    }

    fn link_out_during(&mut self) -> Result<()> {
        self.row("no dedicated link, no carrier: FW2 takes over", |site| {
            carrier("fw2-sync", false)?;
            carrier("fw1-in", false)?;
            wait_primary(site, 1)
        })?;
        carrier("fw2-sync", true)?;
        self.wait_equal(1)?;
        self.back("both are back, FW1 takes over", |_| carrier("fw1-in", true))
    }

    /// FW1 dies after the dedicated link: what was made in between is nowhere else.
    fn link_out_before(&mut self) -> Result<()> {
        // What was made for a change before this one ends some time: not while others are counted.
        self.forget(PORTS[1])?;
        self.wait_equal(0)?;
        carrier("fw2-sync", false)?;
        let late = open(&self.site, LATE, PORTS[1])?;
        let (fw1, fw2) = (self.site.fw(0)?, self.site.fw(1)?);
        let mut last = Value::Null;
        self.site
            .wait("FW1 counts what nobody else holds", SOON, || {
                last = status(fw1).unwrap_or_default();
                let late = 2 * LATE as u64;
                // Of what FW2 holds a few flows of other hosts end meanwhile.
                let is_counted = unheld(&last).is_some_and(|n| n.abs_diff(late) <= late / 4);
                last["safe"] == false && is_counted
            })
            .with_context(|| last.to_string())?;
        ensure!(names(&status(fw2)?, "link eth2"), "FW2 names the link");
        self.row("FW1 loses its power after the dedicated link", |site| {
            site.power_off(0)?;
            wait_primary(site, 1)
        })?;
        let alive = heard(&late, LATE, DEAD);
        let what = "  made while the link was out, counted by status";
        let silence = longest_silence(&late);
        self.report.add_lost(what, alive, LATE, silence);
        drop(late);
        carrier("fw2-sync", true)?;
        self.back("FW1 and the link are back, FW1 takes over", |site| {
            site.power_on(0)
        })
    }

    /// Ends what FW1's kernel has of flows to a port.
    fn forget(&self, port: u16) -> Result<()> {
        let fw1 = self.site.fw(0)?;
        for family in ["ipv4", "ipv6"] {
            let delete = format!("conntrack -D -f {family} -p tcp --dport {port}");
            // It fails if there is none.
            fw1.sh(&format!("{delete} >/dev/null 2>&1 || true"))?;
        }
        let left = table(fw1, "kernel", port)?.len();
        ensure!(left == 0, "FW1 still has {left} flows to port {port}");
        Ok(())
    }

    /// Makes a change, and looks at what has become of the connections.
    fn row(&mut self, what: &str, change: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
        let traffic = match self.traffic.take() {
            Some(traffic) => traffic,
            None => open(&self.site, CONNECTIONS, PORTS[0])?,
        };
        longest_silence(&traffic);
        change(&mut self.site)?;
        let limit = if self.site.with_daemon { SOON } else { DEAD };
        let alive = heard(&traffic, CONNECTIONS, limit);
        self.report.add(what, alive, longest_silence(&traffic));
        if self.site.with_daemon {
            self.traffic = Some(traffic);
        }
        Ok(())
    }

    /// A change after which FW1 is primary again, and both have the same flows.
    fn back(&mut self, what: &str, change: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
        let home = |site: &mut Site| {
            change(site)?;
            wait_primary(site, 0)
        };
        match self.site.with_daemon {
            true => self.row(what, home)?,
            false => home(&mut self.site)?,
        }
        self.wait_equal(0)
    }

    /// Where a backup has the flows of its peer.
    fn holds(&self) -> &'static str {
        if self.is_cached { "external" } else { "kernel" }
    }

    /// Waits until firewall `primary` and the other one have the same flows, and both are ready
    /// to change places.
    fn wait_equal(&self, primary: usize) -> Result<()> {
        if !self.site.with_daemon {
            return Ok(());
        }
        let (fw, other) = (self.site.fw(primary)?, self.site.fw(1 - primary)?);
        let holds = self.holds();
        let mut seen = [0, 0];
        let what = "both have the same flows, and it is safe to fail over";
        let mut equal = || {
            let (here, there) = (
                table(fw, "kernel", PORTS[0])?,
                table(other, holds, PORTS[0])?,
            );
            seen = [here.len(), there.len()];
            let (status, theirs) = (status(fw)?, status(other)?);
            // What the other one has reported is younger than its role.
            let is_reported = unheld(&status) == Some(0) && status["peer"]["role"] == "backup";
            let is_safe = status["safe"] == true && theirs["safe"] == true;
            let is_all = here == there && here.len() >= 2 * CONNECTIONS;
            Ok::<_, anyhow::Error>(is_all && is_reported && is_safe)
        };
        self.site
            .wait(what, SOON, || equal().unwrap_or(false))
            .with_context(|| format!("{seen:?}"))
    }
}

/// Opens connections of both families, on which both ends send from now on.
fn open(site: &Site, count: usize, port: u16) -> Result<[Pushes; 2]> {
    let start = |server: &str| -> Result<Pushes> {
        let server = SocketAddr::new(server.parse()?, port);
        Pushes::start(&site.clients[0], &site.server, server, count, EVERY)
    };
    Ok([start(SERVER)?, start(SERVER6)?])
}

/// How many connections of each family are alive: both ends have read something that has come
/// after this was called. Waits for at most `limit` until all are.
fn heard(traffic: &[Pushes; 2], count: usize, limit: Duration) -> Vec<usize> {
    // What had come before is read within some periods, also on a busy machine.
    let since = Instant::now() + 5 * EVERY;
    let alive = || traffic.iter().map(|pushes| pushes.survey(since).alive);
    let all = || alive().all(|n| n == count);
    let _ = wait::until("all are heard", limit, all);
    alive().collect()
}

/// Longest time for which an end has read nothing, since this was last asked.
fn longest_silence(traffic: &[Pushes; 2]) -> Duration {
    let [four, six] = traffic.each_ref().map(Pushes::take_silence);
    four.max(six)
}

/// Ends keepalived on firewall `n` in good order.
pub(crate) fn stop_keepalived(site: &Site, n: usize) -> Result<()> {
    site.fw(n)?.sh("kill $(cat /run/keepalived.pid)").map(drop)
}

/// Starts it again, once the one before has ended.
pub(crate) fn start_keepalived(site: &Site, n: usize) -> Result<()> {
    let fw = site.fw(n)?;
    site.wait("the one before has ended", SOON, || {
        fw.text("/run/keepalived.pid").is_empty()
    })?;
    fw.sh(Manager::Keepalived.start()).map(drop)
}

/// The carrier of a firewall's interface, by the other end of its wire.
pub(crate) fn carrier(port: &str, is_there: bool) -> Result<()> {
    let state = if is_there { "up" } else { "down" };
    hub(&format!("link set {port} {state}"))
}

/// Waits until all virtual addresses are on firewall `n`, and none on the other one.
fn wait_addresses(site: &Site, n: usize) -> Result<()> {
    let (this, other) = (site.fw(n)?, site.fw(1 - n).ok());
    let what = format!("FW{} has the virtual addresses", n + 1);
    site.wait(&what, SOON, || {
        VIRTUAL
            .iter()
            .all(|a| this.holds(a) && !other.is_some_and(|fw| fw.holds(a)))
    })
}

/// Waits until firewall `n` has the virtual addresses and, with a daemon, its role.
pub(crate) fn wait_primary(site: &Site, n: usize) -> Result<()> {
    wait_addresses(site, n)?;
    if !site.with_daemon {
        return Ok(());
    }
    let fw = site.fw(n)?;
    site.wait("its daemon is primary", SOON, || {
        status(fw).is_ok_and(|status| status["role"] == "primary")
    })
}

/// Ends the daemon without warning, and waits until it has let go of its lock.
pub(crate) fn kill_daemon(fw: &Machine) -> Result<()> {
    let pid = &status(fw)?["pid"];
    let gone = format!("while readlink /proc/{pid}/exe >/dev/null; do sleep 0.02; done");
    fw.sh(&format!("kill -9 {pid}; {gone}"))?;
    Ok(())
}

pub(crate) fn start_daemon(fw: &Machine) -> Result<()> {
    fw.sh("conntrackd -d")?;
    Ok(())
}

/// What the daemon of a firewall reports.
pub(crate) fn status(fw: &Machine) -> Result<Value> {
    // Exit status 4: it is not safe to fail over.
    let text = fw.sh("ftfw status -o json || [ $? = 4 ]")?;
    Ok(serde_json::from_str(&text)?)
}

/// True if the daemon names something that needs attention and begins like that.
fn names(status: &Value, begin: &str) -> bool {
    let list = status["attention"].as_array();
    let mut whats = list
        .into_iter()
        .flatten()
        .filter_map(|a| a["what"].as_str());
    whats.any(|what| what.starts_with(begin))
}

/// How many flows of a firewall its peer has not reported to hold.
pub(crate) fn unheld(status: &Value) -> Option<u64> {
    let number = |name: &str| status["peer"][name].as_u64();
    number("should_hold")?.checked_sub(number("held")?)
}

/// The flows to a port, without what differs between two tables of them.
fn table(fw: &Machine, place: &str, port: u16) -> Result<BTreeSet<String>> {
    let text = fw.sh(&format!("ftfw flows {place} dport={port} -o json"))?;
    let rows = text.lines().map(|line| -> Result<String> {
        let row: Value = serde_json::from_str(line)?;
        ensure!(row["orig"].is_object(), "no flow: {line}");
        Ok(["orig", "reply", "state"]
            .map(|key| row[key].to_string())
            .join(" "))
    });
    rows.collect()
}
