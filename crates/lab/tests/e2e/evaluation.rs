//! Goal: `ftfw-lab evaluation` ends with a report whose figures both daemons and the kernel have.
//! Method: its smallest subject, in namespaces of its own below these.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::daemon::Daemon;
use lab::evaluation::report::Report;
use lab::world::World;

use crate::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[("evaluation/one_subject_gives_a_report", one_subject)];

fn one_subject(world: &World) -> Result<()> {
    let out = world.dir().join("report");
    let program = Daemon::program()?.with_file_name("ftfw-lab");
    let done = Command::new(program)
        .args(["evaluation", "--quick", "--only", "start", "--out"])
        .arg(&out)
        .env_remove("FTFW_LAB_INSIDE")
        .output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: {errors}", done.status);

    let json = fs::read(out.join("evaluation.json"))?;
    let report: Report = serde_json::from_slice(&json)?;
    let names: Vec<_> = report.chapters.iter().map(|c| &*c.name).collect();
    ensure!(names == ["overview", "start"], "{names:?}");
    let table = report.chapters[1].table.as_ref().context("no table")?;
    ensure!(
        table.contenders == ["conntrackd", "ftfw", "kernel"],
        "{table:?}"
    );
    ensure!(table.refused.is_empty(), "{:?}", table.refused);
    for size in [1000.0, 10_000.0] {
        let row = |row: &&lab::bench::Row| row.name == "resync" && row.at == Some(size);
        let row = table.rows.iter().find(row).context("no resync")?;
        for n in 0..3 {
            let spread = row.spread(n).context("one has no figure")?;
            ensure!(spread.median > 0.0, "{row:?}");
        }
    }
    ensure!(table.configurations.len() == 1, "{table:?}");
    for name in ["evaluation.html", "evaluation.md", "resync.svg"] {
        ensure!(out.join(name).is_file(), "no {name}");
    }
    let png = fs::read(out.join("resync.png"))?;
    ensure!(png.starts_with(b"\x89PNG"), "resync.png is no PNG");
    Ok(())
}
