//! The soak in its form of one minute: traffic of all kinds, a failover, six faults; at the end
//! every long connection lives, the tables are equal, and every counter is explained.

use anyhow::{Result, ensure};
use lab::soak::{self, Options};
use lab::world::World;

use crate::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[("soak/one_minute", one_minute)];

/// A daemon that is killed, and the faults that interrupt most. The long forms have other plans.
const SEED: u64 = 12;

fn one_minute(_: &World) -> Result<()> {
    let options = Options {
        minutes: 1,
        seed: Some(SEED),
        cached: false,
        light: true,
        verbose: true,
    };
    let mut lines = Vec::new();
    let report = soak::run(&options, &mut |line| lines.push(line.to_owned()));
    let said = lines.join("\n");
    let report = report.map_err(|e| e.context(said.clone()))?;
    let findings = report.findings();
    ensure!(
        findings.is_empty(),
        "{}\n{said}\n{report}",
        findings.join("\n")
    );
    Ok(())
}
