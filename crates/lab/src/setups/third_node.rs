//! A third firewall on the dedicated link: a cold spare that is started when one has failed
//! (`docs/setups/third-node.md`).

use std::time::Instant;

use anyhow::Result;

use super::{CONNECTIONS, Report, SOON, Setup, Site};
use crate::traffic::numbered::Connections;
use crate::world::World;

const GATEWAY: &str = "192.168.0.100";

/// FW1 dies and FW2 takes over; the spare FW3 is started; FW2 dies, too, and FW3 takes over; the
/// former ones come back and FW3 dies.
pub(super) fn run(_: &World, with_daemon: bool) -> Result<Report> {
    let clients = [("192.168.0.3/24", GATEWAY)];
    let mut site = Site::build(Setup::ThirdNode, with_daemon, &clients, None)?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    site.wait_address(0, GATEWAY)?;
    let mut report = Report::new(&["connections"]);
    let begun = Instant::now();
    let mut all = [site.connect(0)?];
    report.look("FW1 is primary, FW2 backup", begun, SOON, &mut all)?;
    wait_known(&site, 1)?;
    dies(&mut site, 0, 1, &mut report, &mut all)?;
    site.power_on(2)?;
    wait_known(&site, 2)?;
    let limit = if with_daemon { SOON } else { SOON / 5 };
    report.look("the spare FW3 is started", Instant::now(), limit, &mut all)?;
    wait_safe(&site, 1)?;
    dies(&mut site, 1, 2, &mut report, &mut all)?;
    if !with_daemon {
        return Ok(report);
    }
    for n in 0..2 {
        site.power_on(n)?;
        wait_known(&site, n)?;
    }
    report.look("FW1 and FW2 are back", Instant::now(), SOON, &mut all)?;
    dies(&mut site, 2, 0, &mut report, &mut all)?;
    Ok(report)
}

/// Waits until a backup holds the connections.
fn wait_known(site: &Site, n: usize) -> Result<()> {
    if !site.with_daemon {
        return Ok(());
    }
    let fw = site.fw(n)?;
    let what = format!("FW{} knows the connections", n + 1);
    site.wait(&what, SOON, || {
        let count = fw.sh("ftfw flows external dport=7 --count");
        count.is_ok_and(|text| text.trim() == CONNECTIONS.to_string())
    })
}

/// Waits until a primary that has lost one of two peers knows that the other one would take over.
fn wait_safe(site: &Site, n: usize) -> Result<()> {
    if !site.with_daemon {
        return Ok(());
    }
    let fw = site.fw(n)?;
    let what = format!("FW{} is safe, and misses a peer", n + 1);
    site.wait(&what, 2 * SOON, || {
        let text = fw.sh("ftfw status");
        text.is_ok_and(|text| text.contains("another peer is lost: 1 of 1"))
    })
}

fn dies(
    site: &mut Site,
    n: usize,
    heir: usize,
    report: &mut Report,
    all: &mut [Connections],
) -> Result<()> {
    let died = Instant::now();
    site.power_off(n)?;
    site.wait_address(heir, GATEWAY)?;
    let what = format!("FW{} is dead, FW{} takes over", n + 1, heir + 1);
    report.look(&what, died, SOON / 2, all)
}
