//! Runs faults in their long form, each in namespaces of its own, and prints the table.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::table::{self, Row};
use super::{Course, FAULTS, Fault, Outcome, find};
use crate::daemon::Kind;
use crate::node::Process;
use crate::wait;
use crate::world::{self, World};

/// Longest time of one fault with one program.
const LIMIT: Duration = Duration::from_secs(200);

/// Strikes all faults, or one, one after the other, and prints the table. To be called outside
/// of namespaces. Progress goes to standard error.
///
/// # Errors
/// If there is no such fault, something of two ftfw does not hold, or a flow lives without a
/// daemon.
pub fn all(name: Option<&str>) -> Result<()> {
    let faults: Vec<&Fault> = match name {
        Some(name) => vec![known(name)?],
        None => FAULTS.iter().collect(),
    };
    let begun = Instant::now();
    let mut rows = Vec::new();
    for fault in &faults {
        for kind in [Kind::Ftfw].iter().chain(fault.beside) {
            eprintln!(
                "{:6.0} s  {}, {kind}",
                begun.elapsed().as_secs_f64(),
                fault.name
            );
            rows.push(Row {
                fault,
                kind: *kind,
                outcome: elsewhere(fault, *kind).map_err(|e| format!("{e:#}")),
            });
        }
    }
    table::print(&rows, begun.elapsed(), name);
    let broken = rows.iter().filter(|row| row.breaks());
    let names: Vec<_> = broken.map(|row| row.fault.name).collect();
    ensure!(names.is_empty(), "does not hold: {}", names.join(", "));
    Ok(())
}

fn known(name: &str) -> Result<&'static Fault> {
    match find(name) {
        Some(fault) => Ok(fault),
        None => {
            let names: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
            bail!("no fault `{name}`; there are {}", names.join(", "))
        }
    }
}

/// Strikes a fault in namespaces of its own.
fn elsewhere(fault: &Fault, kind: Kind) -> Result<Outcome> {
    let words = ["fault".into(), fault.name.into(), kind.to_string().into()];
    let mut command = world::command(words)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Process(command.spawn().context("setpriv")?);
    // What it prints fits into a pipe.
    wait::until("an end", LIMIT, || {
        child.0.try_wait().is_ok_and(|status| status.is_some())
    })?;
    let (mut text, mut errors) = (String::new(), String::new());
    if let (Some(out), Some(err)) = (&mut child.0.stdout, &mut child.0.stderr) {
        out.read_to_string(&mut text)?;
        err.read_to_string(&mut errors)?;
    }
    if !child.0.wait()?.success() {
        bail!("{}", errors.trim());
    }
    serde_json::from_str(&text).context(text)
}

/// Strikes a fault once in its long form, inside of namespaces, and prints the outcome as JSON,
/// for [`all`].
///
/// # Errors
/// If it could not be struck.
pub fn one(world: &World, name: &str, kind: Kind) -> Result<()> {
    let course = Course {
        world,
        kind,
        is_long: true,
    };
    let outcome = known(name)?.strike(&course)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
