//! The set-ups of docs/setups, with the files that their chapters show, each with its control
//! experiment: the same run without ftfw.

use anyhow::{Result, ensure};
use lab::setups::primary_backup::{self, Part};
use lab::setups::{CONNECTIONS, Setup};
use lab::world::World;

use crate::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("setups/primary_backup_changes_places", |_| {
        pair_lives(Setup::PrimaryBackup, Part::Switches)
    }),
    ("setups/primary_backup_outlives_losses", |_| {
        pair_lives(Setup::PrimaryBackup, Part::Losses)
    }),
    ("setups/primary_backup_cached_changes_places", |_| {
        pair_lives(Setup::PrimaryBackupCached, Part::Switches)
    }),
    ("setups/primary_backup_cached_outlives_losses", |_| {
        pair_lives(Setup::PrimaryBackupCached, Part::Losses)
    }),
    (
        "setups/primary_backup_without_ftfw_saves_nothing",
        pair_dies,
    ),
    ("setups/static_keeps_both_halves", |w| {
        lives(w, Setup::Static)
    }),
    (
        "setups/static_without_ftfw_loses_the_half_of_the_dead",
        |w| dies(w, Setup::Static, &[0, CONNECTIONS]),
    ),
    ("setups/hash_keeps_both_shares", |w| lives(w, Setup::Hash)),
    (
        "setups/hash_without_ftfw_loses_the_share_of_the_dead",
        |w| dies(w, Setup::Hash, &[0, CONNECTIONS]),
    ),
    ("setups/hash_with_iptables_keeps_both_shares", |w| {
        lives(w, Setup::HashIptables)
    }),
    (
        "setups/hash_with_iptables_without_ftfw_loses_the_share_of_the_dead",
        |w| dies(w, Setup::HashIptables, &[0, CONNECTIONS]),
    ),
    ("setups/asymmetric_comes_up_and_lives_on", |w| {
        lives(w, Setup::Asymmetric)
    }),
    ("setups/asymmetric_in_notrack_comes_up_and_lives_on", |w| {
        lives(w, Setup::AsymmetricNotrack)
    }),
    ("setups/asymmetric_without_ftfw_opens_no_connection", |w| {
        dies(w, Setup::Asymmetric, &[0])
    }),
    ("setups/third_node_takes_over_as_a_cold_spare", |w| {
        lives(w, Setup::ThirdNode)
    }),
    ("setups/third_node_without_ftfw_saves_nothing", |w| {
        dies(w, Setup::ThirdNode, &[0])
    }),
    ("setups/pacemaker_moves_promotes_and_recovers", |w| {
        lives(w, Setup::Pacemaker)
    }),
    ("setups/pacemaker_without_ftfw_saves_nothing", |w| {
        dies(w, Setup::Pacemaker, &[0])
    }),
    ("setups/heartbeat_moves_the_connections", |w| {
        lives(w, Setup::Heartbeat)
    }),
    ("setups/heartbeat_without_ftfw_saves_nothing", |w| {
        dies(w, Setup::Heartbeat, &[0])
    }),
];

fn pair_lives(setup: Setup, part: Part) -> Result<()> {
    let report = primary_backup::run(setup, true, &[part])?;
    ensure!(report.all_lived(), "\n{report}");
    Ok(())
}

/// Connections work, and each change ends all of them.
fn pair_dies(world: &World) -> Result<()> {
    let report = Setup::PrimaryBackup.run(world, false)?;
    let mut rows = report.alive();
    ensure!(rows.next() == Some(&[CONNECTIONS; 2]), "\n{report}");
    let changes: Vec<_> = rows.collect();
    ensure!(changes == [[0; 2]; 5], "\n{report}");
    Ok(())
}

fn lives(world: &World, setup: Setup) -> Result<()> {
    let report = setup.run(world, true)?;
    ensure!(report.all_lived(), "\n{report}");
    Ok(())
}

/// `survive`: the connections of each group that live on without ftfw.
fn dies(world: &World, setup: Setup, survive: &[usize]) -> Result<()> {
    let report = setup.run(world, false)?;
    ensure!(report.survived() == survive, "\n{report}");
    Ok(())
}
