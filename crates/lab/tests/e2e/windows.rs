//! A transfer with windows far above 64 KiB goes on after a failover, whether or not the kernel
//! checks windows (`TCPWindowTracking`).
//!
//! Packets outside the window are INVALID, and the rules of the scenario drop them. A kernel that
//! takes a flow over has to know both window scales, or must not check.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::bulk::Transfer;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{SOON, address};

const OURS: [Kind; 2] = [Kind::Ftfw; 2];
const BULK_PORT: u16 = 5001;
/// Pieces of 16 KiB: some seconds.
const CHUNKS: usize = 40_000;
/// Enough for the windows to have grown.
const BEFORE: usize = 30_000_000;
/// What follows the failover takes a second or two, more on a busy machine; a transfer that
/// hangs takes minutes.
const REST_MAX: Duration = Duration::from_secs(40);
const HANGS_AFTER: Duration = Duration::from_secs(10);

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("windows/tracked_and_committed", |w| {
        survives(w, OURS, "on", "")
    }),
    ("windows/tracked_and_injected", |w| {
        survives(w, OURS, "on", "DisableExternalCache on")
    }),
    ("windows/not_tracked_and_committed", |w| {
        survives(w, OURS, "off", "")
    }),
    ("windows/not_tracked_and_injected", |w| {
        survives(w, OURS, "off", "DisableExternalCache on")
    }),
    ("windows/tracked_from_conntrackd_to_ftfw", |w| {
        survives(w, [Kind::Conntrackd, Kind::Ftfw], "on", "")
    }),
    ("windows/tracked_by_conntrackd_with_the_wrong_scale", |w| {
        let ends = transfer(w, [Kind::Conntrackd; 2], "on", "", HANGS_AFTER)?;
        ensure!(!ends, "the original tracks windows without their scale");
        Ok(())
    }),
];

fn survives(world: &World, kinds: [Kind; 2], tracking: &str, mode_lines: &str) -> Result<()> {
    let ends = transfer(world, kinds, tracking, mode_lines, REST_MAX)?;
    ensure!(ends, "the transfer did not end within {REST_MAX:?}");
    Ok(())
}

/// Whether a transfer under way ends within `limit` after FW1 has died.
fn transfer(
    world: &World,
    kinds: [Kind; 2],
    tracking: &str,
    mode_lines: &str,
    limit: Duration,
) -> Result<bool> {
    let lab = Lab::build(Options::default())?;
    for fw in &lab.fw {
        // Logging each packet would bound the transfer.
        fw.run("iptables -D FORWARD -j LOG")?;
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
    let server = address(SERVER, BULK_PORT);
    let transfer = Transfer::start(&lab.a, &lab.b, server, CHUNKS, Duration::ZERO)?;
    wait::until("the windows have grown", SOON, || {
        transfer.progress().bytes > BEFORE
    })?;
    let filter = format!("-p tcp --orig-port-dst {BULK_PORT} --state ESTABLISHED");
    wait::until("FW2 knows the flow", SOON, || {
        let cached = fw2.external(&format!("dport={BULK_PORT} "));
        let injected = lab.count_flows(1, &filter);
        cached.is_ok_and(|l| l.iter().any(|l| l.contains("ESTABLISHED")))
            || injected.is_ok_and(|n| n == 1)
    })?;
    lab.cut(0)?;
    fw1.kill();
    let at = transfer.progress().bytes;
    ensure!(
        at < transfer.total() - BEFORE,
        "{at} bytes were received before FW1 died"
    );
    lab.take_addresses(1)?;
    fw2.become_primary()?;
    Ok(transfer.finish(limit))
}
