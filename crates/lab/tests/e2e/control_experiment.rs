//! The laboratory itself: without a daemon connections must die, and with
//! Debian's conntrackd they must live. So the demonstration can fail and can pass.

use anyhow::{Result, ensure};
use lab::daemon::{Kind, Mode, Settings};
use lab::demo;
use lab::topology::Options;
use lab::world::World;

use crate::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("control/no_daemon_and_every_connection_hangs", |w| {
        failover(w, [Kind::None; 2], Mode::Notrack)
    }),
    ("control/conntrackd_keeps_connections_in_notrack", |w| {
        failover(w, [Kind::Conntrackd; 2], Mode::Notrack)
    }),
    ("control/conntrackd_keeps_connections_in_alarm", |w| {
        failover(w, [Kind::Conntrackd; 2], Mode::Alarm)
    }),
    ("control/conntrackd_keeps_connections_in_ftfw", |w| {
        failover(w, [Kind::Conntrackd; 2], Mode::Ftfw)
    }),
];

/// Runs the demonstration and requires its outcome to be the expected one.
pub(crate) fn failover(world: &World, kinds: [Kind; 2], mode: Mode) -> Result<()> {
    let outcome = demo::run(world, kinds, &Settings::new(mode), Options::default(), true)?;
    ensure!(outcome.as_expected(), "{outcome:?}");
    Ok(())
}
