//! Goal: what somebody who can write to the dedicated link makes a daemon send and log is
//! bounded by what he sends; and what a backup has injected it never announces.
//! Method: forged datagrams, see `lab::hostile`; `ftfw-lab bench hostile` prints the figures
//! of both daemons.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Mode, Settings, Transport};
use lab::hostile::{self, Attack};
use lab::relay::Relay;
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;

use crate::pair::SOON;
use crate::{Scenario, kind};

/// Bytes that a byte may cause, beside a bulk update.
const FACTOR: u64 = 10;
/// Bytes of log that an attack of some seconds may cause.
const LOG_MAX: u64 = 64 << 10;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("hostile/resync_begins_one_bulk_update", |w| {
        bounded(w, Attack::Resync)
    }),
    ("hostile/hello_repeats_what_is_unacknowledged_once", |w| {
        bounded(w, Attack::Hello)
    }),
    ("hostile/new_epochs_begin_one_bulk_update", |w| {
        bounded(w, Attack::Epochs)
    }),
    (
        "hostile/what_was_injected_without_timeout_is_not_announced",
        |w| announced(w, Mode::Notrack),
    ),
    (
        "hostile/what_was_injected_without_timeout_is_not_announced_in_ftfw",
        |w| announced(w, Mode::Ftfw),
    ),
];

/// Sent: all flows once, a fifth for what keeps the peers alive, and the factor. Logged: 64 KiB.
fn bounded(world: &World, attack: Attack) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let m = hostile::measure(world, &lab, kind(), attack)?;
    let limit = m.copy + m.copy / 5 + FACTOR * m.forged;
    ensure!(
        m.answered <= limit,
        "more than {limit} bytes are sent: {m:?}"
    );
    ensure!(
        m.log <= LOG_MAX,
        "more than {LOG_MAX} bytes are logged: {m:?}"
    );
    Ok(())
}

/// Goal: a copy of the peer's flow is the peer's, whatever its timeout.
/// Method: an injecting FW2 without a peer gets flows without a timeout; two sweeps of
/// the whole table later it must not have sent a message about any flow.
fn announced(world: &World, mode: Mode) -> Result<()> {
    const COUNT: u32 = 6;
    const SWEEPS: Duration = Duration::from_secs(35);
    let lab = Lab::build(Options::default())?;
    let relay = Relay::start(&lab, 1)?;
    let settings = Settings {
        transport: Transport::Relayed,
        mode_lines: "DisableExternalCache on".into(),
        ..Settings::new(mode)
    };
    let fw2 = Daemon::start(kind(), &lab.fw[1], 1, &settings, world.dir())?;
    let fw2 = fw2.context("no daemon")?;
    let datagrams = hostile::flows_without_timeout(COUNT)?;
    hostile::send(&lab, 0, datagrams, Duration::from_millis(10))?;
    let count = || lab.count_flows(1, "--orig-dst 192.168.1.2");
    wait::until("FW2's kernel has the flows", SOON, || {
        count().is_ok_and(|n| n == COUNT as usize)
    })
    .with_context(|| format!("it has {:?}", count()))?;
    let begun = Instant::now();
    let states = || relay.passed[1].states.load(Ordering::Relaxed);
    while begun.elapsed() < SWEEPS && states() < u64::from(COUNT) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (states, after) = (states(), begun.elapsed().as_secs_f64());
    ensure!(
        states == 0,
        "{states} messages about {COUNT} flows after {after:.1} s"
    );
    ensure!(
        relay.passed[1].datagrams.load(Ordering::Relaxed) > 20,
        "FW2 is silent"
    );
    let held = count()?;
    ensure!(
        held == COUNT as usize,
        "FW2's kernel has {held} flows at the end"
    );
    fw2.stop()?;
    Ok(())
}
