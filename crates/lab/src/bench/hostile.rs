//! What hostile neighbours make the daemons do: one table in Markdown.

use anyhow::{Result, ensure};

use super::{Plan, Program};
use crate::hostile::{self, CASES, Extent};
use crate::world::World;

/// Flows that are invented, unless the user asks for another number.
const INVENTED: u32 = 2_000_000;

/// One case after the other, each of both daemons.
pub fn hostile(world: &World, plan: &Plan) -> Result<()> {
    ensure!(!plan.json, "this kind prints a table in Markdown only");
    let invented = plan.flows(INVENTED);
    let programs = plan.installed_programs()?;
    check_names(plan, &programs)?;
    let programs = wanted(plan, programs, |(name, _)| name);
    let cases = wanted(plan, CASES.to_vec(), |case| case.name);
    let lab = hostile::lab()?;
    println!("{}\n\n{}", super::circumstances(), hostile::HEAD);
    for case in &cases {
        for (name, program) in &programs {
            for round in 1..=plan.rounds {
                match case.measure(world, &lab, program.kind, Extent::Long, invented) {
                    Ok(measured) => println!("{}", measured.row(case, program.kind)),
                    Err(e) => println!("\n{name}, {}, round {round}: {e:#}\n", case.name),
                }
            }
        }
    }
    Ok(())
}

/// `--only` names cases and programs: those of `all` that it names, or each if it names none of
/// them.
fn wanted<T>(plan: &Plan, mut all: Vec<T>, name: impl Fn(&T) -> &'static str) -> Vec<T> {
    let is_named = |one: &T| plan.only.iter().any(|only| only == name(one));
    if all.iter().any(is_named) {
        all.retain(is_named);
    }
    all
}

/// # Errors
/// If something is named that there is not.
fn check_names(plan: &Plan, programs: &[(&'static str, Program)]) -> Result<()> {
    let mut names: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
    names.extend(CASES.iter().map(|case| case.name));
    for only in &plan.only {
        ensure!(
            names.contains(&only.as_str()),
            "--only {only}: this kind has {}",
            names.join("; ")
        );
    }
    Ok(())
}
