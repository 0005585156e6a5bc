//! One firewall is primary, the other one backup, under a cluster manager other than keepalived
//! (`docs/setups/pacemaker.md`, `docs/setups/heartbeat.md`).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::manager::Manager;
use super::{CONNECTIONS, Report, SOON, Setup, Site};
use crate::traffic::numbered::Connections;
use crate::world::World;

/// The virtual addresses, inside and outside.
const ADDRESSES: [&str; 2] = ["192.168.0.100", "192.168.1.100"];
/// Longest start or change: the managers run many processes for it, which need the processor more
/// than a question every 10 ms.
const LONG: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// The primary dies and comes back; the addresses are moved to it and back by command; Pacemaker's
/// primary loses its daemon. Without a daemon the run ends with the death.
pub(super) fn run(_: &World, setup: Setup, with_daemon: bool) -> Result<Report> {
    let clients = [("192.168.0.3/24", ADDRESSES[0])];
    let mut site = Site::build(setup, with_daemon, &clients, None)?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    if site.manager == Manager::Pacemaker {
        configure(&site)?;
    }
    let old = wait_any_primary(&site)?;
    let new = 1 - old;
    let mut report = Report::new(&["connections"]);
    let begun = Instant::now();
    let mut all = [site.connect(0)?];
    let what = format!("FW{} is primary, FW{} backup", old + 1, new + 1);
    report.look(&what, begun, SOON, &mut all)?;
    if with_daemon {
        site.wait_flows(new, CONNECTIONS)?;
    }
    let died = Instant::now();
    site.power_off(old)?;
    wait_addresses(&site, new)?;
    let what = format!("FW{} is dead, FW{} takes over", old + 1, new + 1);
    report.look(&what, died, SOON / 2, &mut all)?;
    if !with_daemon {
        return Ok(report);
    }
    site.power_on(old)?;
    wait_primary(&site, new)?;
    site.wait_flows(old, CONNECTIONS)?;
    let what = format!("FW{} is back as backup", old + 1);
    report.look(&what, Instant::now(), SOON, &mut all)?;
    moves(&site, new, &mut report, &mut all)?;
    moves(&site, old, &mut report, &mut all)?;
    if site.manager == Manager::Pacemaker {
        loses_daemon(&site, new, &mut report, &mut all)?;
    }
    Ok(report)
}

/// Loads the files of the cluster, as the chapter does.
fn configure(site: &Site) -> Result<()> {
    let fw = site.fw(0)?;
    wait(site, "the cluster has both firewalls", || {
        let said = fw.sh("crm_mon -1");
        said.is_ok_and(|text| text.contains("Online: [ fw1 fw2 ]"))
    })?;
    let load = |file: &str| fw.sh(&format!("crm configure load update /etc/conntrackd/{file}"));
    load("addresses.crm")?;
    if site.with_daemon {
        load("ftfw.crm")?;
    }
    Ok(())
}

/// Firewall `n`, the primary, gives its role to the other one by command, and is backup then.
fn moves(site: &Site, n: usize, report: &mut Report, all: &mut [Connections]) -> Result<()> {
    let (fw, heir) = (site.fw(n)?, 1 - n);
    let begun = Instant::now();
    match site.manager {
        Manager::Pacemaker => fw.sh(&format!("crm node standby fw{}", n + 1))?,
        _ => fw.sh("/usr/share/heartbeat/hb_standby")?,
    };
    wait_addresses(site, heir)?;
    let what = format!("FW{} gives the addresses to FW{}", n + 1, heir + 1);
    report.look(&what, begun, SOON, all)?;
    if site.manager == Manager::Pacemaker {
        fw.sh(&format!("crm node online fw{}", n + 1))?;
    }
    wait_primary(site, heir)?;
    site.wait_flows(n, CONNECTIONS)
}

/// The daemon of firewall `n`, the primary, is killed: a monitor notices it, and Pacemaker makes
/// the clone whole again, with its primary on either.
fn loses_daemon(site: &Site, n: usize, report: &mut Report, all: &mut [Connections]) -> Result<()> {
    let fw = site.fw(n)?;
    let begun = Instant::now();
    fw.sh("kill -9 $(pgrep -f ' run -d$')")?;
    wait(site, "a monitor notices it", || {
        let said = fw.sh("crm_mon -1 --failcounts");
        said.is_ok_and(|text| text.contains(" ftfw: ") && text.contains("fail-count="))
    })?;
    wait_any_primary(site)?;
    let what = format!("FW{} loses its daemon", n + 1);
    report.look(&what, begun, SOON, all)
}

fn wait(site: &Site, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    site.wait(what, LONG, || {
        thread::sleep(PAUSE);
        condition()
    })
}

/// Waits until firewall `n` has the addresses.
fn wait_addresses(site: &Site, n: usize) -> Result<()> {
    let what = format!("FW{} has the addresses", n + 1);
    wait(site, &what, || has_addresses(site, n))
}

/// Waits until firewall `n` is primary and the other one backup.
fn wait_primary(site: &Site, n: usize) -> Result<()> {
    let what = format!("FW{} is primary and FW{} backup", n + 1, 2 - n);
    wait(site, &what, || is_primary(site, n))
}

/// The same for whichever is primary.
fn wait_any_primary(site: &Site) -> Result<usize> {
    let mut primary = None;
    wait(site, "one is primary and the other one backup", || {
        primary = (0..2).find(|n| is_primary(site, *n));
        primary.is_some()
    })?;
    primary.context("no primary")
}

/// True if firewall `n` has both addresses, and the other one, if it is on, has none.
fn has_addresses(site: &Site, n: usize) -> bool {
    let holds = |n: usize, address: &str| site.fw(n).is_ok_and(|fw| fw.holds(address));
    let mut addresses = ADDRESSES.iter();
    addresses.all(|address| holds(n, address) && !holds(1 - n, address))
}

/// True if firewall `n` has the addresses, and if both daemons and the manager say that it is
/// primary and the other one backup.
fn is_primary(site: &Site, n: usize) -> bool {
    let has_role = |n: usize, role: &str| {
        // It fails while it is not safe to fail over.
        let status = on(site, n, "ftfw status || true");
        !site.with_daemon || status.contains(&format!(" role {role},"))
    };
    has_addresses(site, n)
        && has_role(n, "primary")
        && has_role(1 - n, "backup")
        && match site.manager {
            Manager::Pacemaker if site.with_daemon => is_promoted(site, n),
            // It passes over a command while resources change their places.
            Manager::Heartbeat => (0..2).all(|n| is_done(site, n)),
            _ => true,
        }
}

/// True if Pacemaker says that firewall `n` is promoted and the other one is not.
fn is_promoted(site: &Site, n: usize) -> bool {
    let text = on(site, n, "crm_mon -1");
    text.contains(&format!(" Promoted: [ fw{} ]", n + 1))
        && text.contains(&format!(" Unpromoted: [ fw{} ]", 2 - n))
}

/// True if heartbeat has moved all that it wants to move.
fn is_done(site: &Site, n: usize) -> bool {
    let said = on(site, n, "cl_status rscstatus");
    ["all", "none", "local", "foreign"].contains(&said.trim())
}

/// What a command prints on firewall `n`; nothing if it fails.
fn on(site: &Site, n: usize, line: &str) -> String {
    let said = site.fw(n).and_then(|fw| fw.sh(line));
    said.unwrap_or_default()
}
