//! Many flows: nothing is lost without loss on the link.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::datagrams;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::Pair;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("large/a_hundred_thousand_flows_two_ftfw", |w| {
        large(w, [Kind::Ftfw; 2])
    }),
    ("large/a_hundred_thousand_flows_conntrackd_to_ftfw", |w| {
        large(w, [Kind::Conntrackd, Kind::Ftfw])
    }),
    ("large/a_hundred_thousand_flows_ftfw_to_conntrackd", |w| {
        large(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
    ("large/no_flow_is_lost_with_both_caches_off", caches_off),
];

/// A pair whose firewalls hold `flows` UDP flows for ten minutes.
fn pair(world: &World, kinds: [Kind; 2], settings: &Settings) -> Result<(Lab, [Daemon; 2])> {
    let lab = Lab::build(Options {
        datagrams: true,
        no_snat: true,
        ..Options::default()
    })?;
    for fw in &lab.fw {
        fw.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600")?;
        // Logging every packet would take longer than forwarding it.
        fw.run("iptables -D FORWARD -j LOG")?;
    }
    // B answers nothing: each flow is one datagram.
    lab.b.run("iptables -P INPUT DROP")?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(kinds[n], &lab.fw[n], n, settings, world.dir())?;
        daemon.context("no daemon")
    };
    let daemons = [start(0)?, start(1)?];
    Ok((lab, daemons))
}

fn large(world: &World, kinds: [Kind; 2]) -> Result<()> {
    const FLOWS: u64 = 100_000;
    let (lab, daemons) = pair(world, kinds, &Settings::new(Mode::Ftfw))?;
    datagrams::send(&lab.a, SERVER, FLOWS as usize)?;
    let held = lab.count_flows(0, "-p udp -s 192.168.0.3")?;
    ensure!(held as u64 == FLOWS, "FW1's kernel holds {held} flows");
    let line = "current active connections:";
    let mut known = 0;
    let caught_up = wait::until("FW2 knows them", Duration::from_secs(60), || {
        // The last such line is the external cache's.
        known = Pair::last_counter(&daemons[1], &["-s"], line).unwrap_or(0);
        known == FLOWS
    });
    caught_up.with_context(|| format!("it knows {known}"))
}

/// Goal: no flow is lost without loss on the link; the original loses 8 to 15 of 60 000.
fn caches_off(world: &World) -> Result<()> {
    const FLOWS: usize = 60_000;
    let settings = Settings {
        mode_lines: "DisableInternalCache on\nDisableExternalCache on".into(),
        ..Settings::new(Mode::Notrack)
    };
    let (lab, daemons) = pair(world, [Kind::Ftfw; 2], &settings)?;
    datagrams::send(&lab.a, SERVER, FLOWS)?;
    let held = lab.count_flows(0, "-p udp -s 192.168.0.3")?;
    ensure!(held == FLOWS, "FW1's kernel holds {held} flows");
    let mut known = 0;
    let caught_up = wait::until("FW2's kernel has them", Duration::from_secs(10), || {
        known = lab.count_flows(1, "-p udp -s 192.168.0.3").unwrap_or(0);
        known == FLOWS
    });
    caught_up.with_context(|| format!("it has {known}"))?;
    let lost = Pair::counter(&daemons[1], &["-s", "network"], "Packets lost:")?;
    ensure!(lost == 0, "{lost} messages lost");
    Ok(())
}
