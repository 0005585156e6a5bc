//! Faults, one by one, in their short form. `ftfw-lab faults` strikes them longer, beside
//! conntrackd.
//!
//! Goal: nothing is lost, and both replicas become equal by themselves.

use anyhow::{Context, Result};
use lab::faults::{self, Course};
use lab::world::World;

use crate::{Scenario, kind};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("faults/kills_in_bulk", |w| strike(w, "kills_in_bulk")),
    ("faults/kills_in_failover", |w| {
        strike(w, "kills_in_failover")
    }),
    ("faults/restart_storm", |w| strike(w, "restart_storm")),
    ("faults/stopped_primary", |w| strike(w, "stopped_primary")),
    ("faults/stopped_backup", |w| strike(w, "stopped_backup")),
    ("faults/cut", |w| strike(w, "cut")),
    ("faults/cut_from_primary", |w| strike(w, "cut_from_primary")),
    ("faults/cut_from_backup", |w| strike(w, "cut_from_backup")),
    ("faults/reordering", |w| strike(w, "reordering")),
    ("faults/duplication", |w| strike(w, "duplication")),
    ("faults/corruption", |w| strike(w, "corruption")),
    ("faults/replay", |w| strike(w, "replay")),
    ("faults/full_table", |w| strike(w, "full_table")),
    ("faults/memory", |w| strike(w, "memory")),
    ("faults/full_disk", |w| strike(w, "full_disk")),
    ("faults/clock", |w| strike(w, "clock")),
    ("faults/helper", |w| strike(w, "helper")),
    ("faults/two_primaries", |w| strike(w, "two_primaries")),
    ("faults/two_backups", |w| strike(w, "two_backups")),
    ("faults/flapping", |w| strike(w, "flapping")),
];

fn strike(world: &World, name: &str) -> Result<()> {
    let fault = faults::find(name).context("no such fault")?;
    let course = Course {
        world,
        kind: kind(),
        is_long: false,
    };
    fault.strike(&course)?.check()
}
