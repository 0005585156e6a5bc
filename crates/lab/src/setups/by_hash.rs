//! Multiprimary, symmetric, hash-based: both firewalls receive every packet, and each carries
//! the flows of its share of the clients (`docs/setups/hash.md`).

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{CONNECTIONS, PORT, Report, SOON, Setup, Site};
use crate::traffic::numbered::Connections;
use crate::world::World;

const GATEWAY: &str = "192.168.0.100";

/// Each firewall dies once and comes back. Without a daemon the run ends with the first death.
pub(super) fn run(_: &World, setup: Setup, with_daemon: bool) -> Result<Report> {
    // By their hashes, which are the same with nftables and iptables, the first client belongs
    // to share 1, the second to share 2.
    let clients = ["192.168.0.3/24", "192.168.0.5/24"];
    let clients = clients.map(|at| (at, GATEWAY));
    let mut site = Site::build(setup, with_daemon, &clients, None)?;
    for n in 0..2 {
        site.power_on(n)?;
    }
    home(&site)?;
    let mut report = Report::new(&["share 1", "share 2"]);
    let begun = Instant::now();
    let mut shares = [site.connect(0)?, site.connect(1)?];
    report.look("both firewalls work", begun, SOON, &mut shares)?;
    if !with_daemon {
        // Each flow is in one kernel only: nobody has forwarded a packet of the other share.
        for n in 0..2 {
            let has = site.fw(n)?.flows(&format!("-p tcp --dport {PORT}"))?;
            ensure!(has == CONNECTIONS, "FW{} has {has} flows", n + 1);
        }
    }
    for n in 0..2 {
        if with_daemon {
            site.wait_flows(0, 2 * CONNECTIONS)?;
            site.wait_flows(1, 2 * CONNECTIONS)?;
        }
        dies(&mut site, n, &mut report, &mut shares)?;
        if !with_daemon {
            break;
        }
        site.power_on(n)?;
        home(&site)?;
        let what = format!("FW{} is back and has its share", n + 1);
        report.look(&what, Instant::now(), SOON, &mut shares)?;
    }
    Ok(report)
}

/// True if firewall `n` carries the share that is at home on firewall `of`.
fn carries(site: &Site, n: usize, of: usize) -> bool {
    let list = site
        .fw(n)
        .and_then(|fw| fw.sh("/etc/conntrackd/share list"))
        .unwrap_or_default();
    // As nft and as iptables list it.
    let words = [
        format!("0x0000000{}", of + 1),
        format!("--cluster-local-node {}", of + 1),
    ];
    words.iter().any(|word| list.contains(word))
}

/// Waits until each firewall carries its share and no other.
fn home(site: &Site) -> Result<()> {
    site.wait("the shares are at home", SOON, || {
        (0..2).all(|n| carries(site, n, n) && !carries(site, 1 - n, n))
    })
}

fn dies(site: &mut Site, n: usize, report: &mut Report, shares: &mut [Connections]) -> Result<()> {
    let died = Instant::now();
    site.power_off(n)?;
    site.wait("the other one takes the share", SOON, || {
        carries(site, 1 - n, n)
    })?;
    let what = format!("FW{} is dead, FW{} has both shares", n + 1, 2 - n);
    report.look(&what, died, SOON / 2, shares)
}
