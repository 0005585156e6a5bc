//! A transfer with windows far above 64 KiB goes on after a failover, whether or not the kernel
//! checks windows (`TCPWindowTracking`).
//!
//! Packets outside the window are INVALID, and the rules of the scenario drop them. A kernel that
//! takes a flow over knows neither its windows nor its sequence numbers: it must not check strictly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::bulk::Transfer;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{SOON, address};

const OURS: [Kind; 2] = [Kind::Ftfw; 2];
const PORTS: [u16; 4] = [5001, 5002, 5003, 5004];
/// Pieces of 16 KiB in each transfer: together some seconds.
const CHUNKS: usize = 10_000;
/// Bytes of each that are received before the failover: the windows have grown.
const BEFORE: usize = 8_000_000;
/// What follows the failover takes a second or two, more on a busy machine; a transfer that
/// hangs takes minutes.
const REST_MAX: Duration = Duration::from_secs(40);
const HANGS_AFTER: Duration = Duration::from_secs(10);

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("windows/tracked_and_committed", |w| {
        survive(w, OURS, "on", "")
    }),
    ("windows/tracked_and_injected", |w| {
        survive(w, OURS, "on", "DisableExternalCache on")
    }),
    ("windows/not_tracked_and_committed", |w| {
        survive(w, OURS, "off", "")
    }),
    ("windows/not_tracked_and_injected", |w| {
        survive(w, OURS, "off", "DisableExternalCache on")
    }),
    ("windows/tracked_from_conntrackd_to_ftfw", |w| {
        survive(w, [Kind::Conntrackd, Kind::Ftfw], "on", "")
    }),
    ("windows/tracked_by_conntrackd_with_the_wrong_scale", |w| {
        let ended = transfers(w, [Kind::Conntrackd; 2], "on", "", HANGS_AFTER)?;
        ensure!(ended < PORTS.len(), "all transfers of two originals ended");
        Ok(())
    }),
];

fn survive(world: &World, kinds: [Kind; 2], tracking: &str, mode_lines: &str) -> Result<()> {
    let ended = transfers(world, kinds, tracking, mode_lines, REST_MAX)?;
    let all = PORTS.len();
    ensure!(
        ended == all,
        "{ended} of {all} transfers ended within {REST_MAX:?}"
    );
    Ok(())
}

/// How many of the transfers under way end within `limit` after FW1 has died.
fn transfers(
    world: &World,
    kinds: [Kind; 2],
    tracking: &str,
    mode_lines: &str,
    limit: Duration,
) -> Result<usize> {
    let lab = Lab::build(Options::default())?;
    for fw in &lab.fw {
        // Logging each packet would bound the transfers.
        fw.run("iptables -D FORWARD -j LOG")?;
    }
    for host in [&lab.a, &lab.b] {
        host.sysctl("net/ipv4/tcp_rmem", "4096 8000000 16000000")?;
        host.sysctl("net/ipv4/tcp_wmem", "4096 8000000 16000000")?;
    }
    let settings = Settings {
        mode_lines: mode_lines.into(),
        sync_lines: format!("Options {{ TCPWindowTracking {tracking} }}"),
        ..Settings::new(Mode::Ftfw)
    };
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(kinds[n], &lab.fw[n], n, &settings, world.dir())?;
        daemon.context("no daemon")
    };
    let (mut fw1, fw2) = (start(0)?, start(1)?);
    let begin = |port: u16| {
        let server = address(SERVER, port);
        Transfer::start(&lab.a, &lab.b, server, CHUNKS, Duration::ZERO)
    };
    let transfers = PORTS.map(begin).into_iter().collect::<Result<Vec<_>>>()?;
    let have = |bytes: usize| {
        transfers
            .iter()
            .filter(move |t| t.progress().bytes > bytes)
            .count()
    };
    wait::until("the windows have grown", SOON, || {
        have(BEFORE) == PORTS.len()
    })?;
    wait::until("FW2 knows the flows", SOON, || {
        let is_known = |lines: Result<Vec<String>>| {
            lines.is_ok_and(|l| {
                l.iter().filter(|l| l.contains("ESTABLISHED")).count() == PORTS.len()
            })
        };
        is_known(fw2.external("dport=500")) || is_known(lab.flows(1, "-p tcp"))
    })?;
    lab.cut(0)?;
    fw1.kill();
    let total = transfers[0].total();
    ensure!(
        have(total - BEFORE) == 0,
        "a transfer had nearly ended before FW1 died"
    );
    lab.take_addresses(1)?;
    fw2.become_primary()?;
    let end = Instant::now() + limit;
    let ends = transfers
        .into_iter()
        .map(|t| t.finish(end.saturating_duration_since(Instant::now())));
    Ok(ends.filter(|ended| *ended).count())
}
