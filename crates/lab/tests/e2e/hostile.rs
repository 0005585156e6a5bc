//! Goal: what a hostile neighbour makes a daemon do is bounded by what he sends, and counted, and
//! honest flows reach the peer meanwhile; and what a backup has injected it never announces.
//! Method: the cases of `lab::hostile` in their short form; `ftfw-lab bench hostile` prints the
//! figures of both daemons in the long one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Mode, Settings, Transport};
use lab::hostile::{self, CASES, Extent};
use lab::relay::Relay;
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;

use crate::pair::SOON;
use crate::{Scenario, kind};

/// Flows that are invented; the cache holds half of them.
const INVENTED: u32 = 40_000;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("hostile/resync_begins_one_bulk_update", |w| {
        bounded(w, "hostile/resync_begins_one_bulk_update")
    }),
    ("hostile/hello_repeats_what_is_unacknowledged_once", |w| {
        bounded(w, "hostile/hello_repeats_what_is_unacknowledged_once")
    }),
    ("hostile/new_epochs_begin_one_bulk_update", |w| {
        bounded(w, "hostile/new_epochs_begin_one_bulk_update")
    }),
    ("hostile/forged_control_messages", |w| {
        bounded(w, "hostile/forged_control_messages")
    }),
    ("hostile/a_stranger_on_the_link", |w| {
        bounded(w, "hostile/a_stranger_on_the_link")
    }),
    ("hostile/garbage", |w| bounded(w, "hostile/garbage")),
    ("hostile/invented_flows_fill_the_cache_and_no_more", |w| {
        bounded(w, "hostile/invented_flows_fill_the_cache_and_no_more")
    }),
    ("hostile/another_user", |w| {
        bounded(w, "hostile/another_user")
    }),
    ("hostile/local_users", |w| bounded(w, "hostile/local_users")),
    ("hostile/a_flood_of_syn", |w| {
        bounded(w, "hostile/a_flood_of_syn")
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

/// Goal: each row of the table has a test.
pub(crate) fn tests_exist(names: &[&str]) -> Result<()> {
    let without = CASES.iter().find(|case| !names.contains(&case.test));
    ensure!(
        without.is_none(),
        "no test {}",
        without.map_or("", |c| c.test)
    );
    Ok(())
}

/// Every case whose short form this test is.
fn bounded(world: &World, test: &str) -> Result<()> {
    let lab = hostile::lab()?;
    for case in CASES.iter().filter(|case| case.test == test) {
        let measured = case.measure(world, &lab, kind(), Extent::Short, INVENTED)?;
        let broken = measured.broken(case, Extent::Short);
        ensure!(broken.is_empty(), "{}: {broken:?}: {measured:?}", case.name);
    }
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
