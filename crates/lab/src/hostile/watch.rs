//! What a pair does while a neighbour is hostile: how long `status` takes, how much memory the
//! daemon has, and how soon an honest flow is at the peer.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flow::Flow;

use super::Stage;
use crate::bench;
use crate::daemon::{Daemon, Kind};
use crate::kernel;

/// Neither `status` nor a flow is waited for longer.
pub(super) const LATEST: Duration = Duration::from_secs(5);
/// Honest flows have numbers from here on.
const HONEST: u32 = 0xf0_0000;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// The worst that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    /// From the start of the command to its end, at most [`LATEST`].
    pub(super) took: Duration,
    /// A command of the same program that asks nobody: what the machine itself takes.
    pub(super) control: Duration,
    /// Resident memory of the daemon in bytes.
    pub(super) resident: u64,
}

/// Asks again and again until the attack is over, and once more.
pub(super) fn status(daemon: &Daemon, is_over: &AtomicBool) -> Result<Status> {
    let mut worst = Status::default();
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        worst.took = worst.took.max(ask(daemon)?);
        let control = time(daemon.own_command(&["--version"])?)?;
        worst.control = worst.control.max(control);
        worst.resident = worst.resident.max(daemon.resident_bytes().unwrap_or(0));
        if is_last {
            return Ok(worst);
        }
        thread::sleep(PAUSE);
    }
}

/// How long `status` takes, that of our own command line for ours.
pub(super) fn ask(daemon: &Daemon) -> Result<Duration> {
    time(match daemon.kind() {
        Kind::Ftfw => daemon.own_command(&["status"])?,
        _ => daemon.command(&["-s"])?,
    })
}

/// How long a command takes.
fn time(mut command: Command) -> Result<Duration> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().context("a command")?;
    while child.try_wait()?.is_none() {
        if begun.elapsed() >= LATEST {
            child.kill()?;
            child.wait()?;
            return Ok(LATEST);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(begun.elapsed())
}

/// The honest flows of both firewalls, made in their kernels one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Honest {
    /// How long the slowest of those that came took until it was at the peer.
    pub(super) took: Duration,
    pub(super) made: u64,
    /// Those that were not at the peer within [`LATEST`], though its cache had room.
    pub(super) missing: u64,
}

/// Makes honest flows until the attack is over, and one of each firewall after it.
pub(super) fn honest(stage: &Stage<'_>, peer: &Daemon, is_over: &AtomicBool) -> Result<Honest> {
    let mut honest = Honest::default();
    let ends = [stage.victim(), peer];
    let mut number = HONEST;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        for (n, to) in [(0, ends[1]), (1, ends[0])] {
            if !stage.has_room(to)? {
                continue;
            }
            number += 1;
            let flow = bench::flow(number);
            if kernel::create(&stage.lab.fw[n], &[flow]).is_err() {
                // The kernel's own table is full.
                continue;
            }
            match arrives(to, &flow)? {
                Some(took) => honest.took = honest.took.max(took),
                None if stage.has_room(to)? => honest.missing += 1,
                None => continue,
            }
            honest.made += 1;
        }
        if is_last {
            return Ok(honest);
        }
        thread::sleep(PAUSE);
    }
}

/// How long it takes until a daemon holds a flow of its peer.
fn arrives(daemon: &Daemon, flow: &Flow) -> Result<Option<Duration>> {
    let begun = Instant::now();
    loop {
        let asked = begun.elapsed();
        if holds(daemon, flow)? {
            return Ok(Some(match daemon.kind() {
                // It lists every flow, as they were when it was asked, which takes its time.
                Kind::Conntrackd => asked,
                _ => begun.elapsed(),
            }));
        }
        if begun.elapsed() >= LATEST {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A daemon that does not answer holds nothing for anybody.
fn holds(daemon: &Daemon, flow: &Flow) -> Result<bool> {
    let src = format!("src={}", flow.orig.addrs.src());
    match daemon.kind() {
        Kind::Ftfw => {
            let count = daemon.own(&["flows", "external", &src, "--count"]);
            Ok(count.is_ok_and(|count| count.trim() != "0"))
        }
        // It has no filter.
        _ => Ok(daemon
            .external(&format!("{src} "))
            .is_ok_and(|l| !l.is_empty())),
    }
}
