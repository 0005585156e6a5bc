//! Multiprimary, symmetric, static: the clients are divided over two gateways, each firewall
//! is primary for its half and backup for the other (`docs/setups/static.md`).

use std::time::Instant;

use anyhow::Result;

use super::{CONNECTIONS, Report, SOON, Setup, Site};
use crate::traffic::numbered::Connections;
use crate::world::World;

/// The virtual gateway of each half, inside.
const GATEWAYS: [&str; 2] = ["192.168.0.100", "192.168.0.200"];
const CLIENTS: [(&str, &str); 2] = [
    ("192.168.0.3/24", GATEWAYS[0]),
    ("192.168.0.130/24", GATEWAYS[1]),
];

/// Each firewall dies once and comes back. Without a daemon the run ends with the first death.
pub(super) fn run(_: &World, with_daemon: bool) -> Result<Report> {
    let mut site = Site::build(Setup::Static, with_daemon, &CLIENTS, None)?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    home(&site)?;
    let mut report = Report::new(&["half of FW1", "half of FW2"]);
    let begun = Instant::now();
    let mut halves = [site.connect(0)?, site.connect(1)?];
    report.look("both firewalls work", begun, SOON, &mut halves)?;
    for n in 0..2 {
        if with_daemon {
            site.wait_flows(0, 2 * CONNECTIONS)?;
            site.wait_flows(1, 2 * CONNECTIONS)?;
        }
        dies(&mut site, n, &mut report, &mut halves)?;
        if !with_daemon {
            break;
        }
        site.power_on(n)?;
        home(&site)?;
        let what = format!("FW{} is back and has its half", n + 1);
        report.look(&what, Instant::now(), SOON, &mut halves)?;
    }
    Ok(report)
}

/// Waits until each firewall has the gateway of its half.
fn home(site: &Site) -> Result<()> {
    for (n, gateway) in GATEWAYS.iter().enumerate() {
        site.wait_address(n, gateway)?;
        site.wait("the other one does not have it", SOON, || {
            site.fw(1 - n).is_ok_and(|fw| !fw.holds(gateway))
        })?;
    }
    Ok(())
}

fn dies(site: &mut Site, n: usize, report: &mut Report, halves: &mut [Connections]) -> Result<()> {
    let died = Instant::now();
    site.power_off(n)?;
    site.wait_address(1 - n, GATEWAYS[n])?;
    let what = format!("FW{} is dead, FW{} has both halves", n + 1, 2 - n);
    report.look(&what, died, SOON / 2, halves)
}
