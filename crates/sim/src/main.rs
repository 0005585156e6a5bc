//! `ftfw-sim`: runs seeds, and reports which fail and how to run them again.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::plan::{Fault, Plan};
use sim::world::{Failure, Finished, World};

/// Runs simulated replicas. A failed seed is named with the command that runs
/// it again. Exit status: 0 all passed, 1 a safety invariant failed, 2 a run did not
/// converge, 101 a crash.
#[derive(Debug, Parser)]
#[command(name = "ftfw-sim")]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds from there.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Leave a fault out that the seed has chosen. May be given several times.
    #[arg(long, value_name = "FAULT")]
    without: Vec<Fault>,
    /// Have no other faults than these.
    #[arg(long, value_name = "FAULT")]
    only: Vec<Fault>,
    /// End the phase of faults and traffic after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    until: Option<u64>,
    /// Stop at the first seed that fails.
    #[arg(long)]
    stop: bool,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Print also what happens to the flows with this source port.
    #[arg(long, value_name = "PORT")]
    watch: Option<u16>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut times: Vec<Duration> = Vec::new();
    let mut run = 0;
    let (mut safety, mut liveness) = (0, 0);
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        run += 1;
        let plan = plan(&arguments, seed);
        if arguments.seeds == 1 {
            println!("seed {seed}: {plan}");
        }
        let mut world = World::new(plan.clone());
        world.trace.is_printed = arguments.trace;
        world.trace.watched = arguments.watch;
        match world.run() {
            Ok(finished) => {
                if arguments.seeds == 1 {
                    println!("{}", line(&finished));
                }
                times.push(finished.converged);
            }
            Err(failure) => {
                println!("seed {seed} FAILED: {plan}");
                match failure {
                    Failure::Safety(v) => {
                        safety += 1;
                        println!("  safety, {}: {}", v.invariant, v.what);
                    }
                    Failure::Liveness(what) => {
                        liveness += 1;
                        println!("  liveness: {what}");
                    }
                }
                println!("  again: {}", again(&arguments, seed));
                if arguments.stop {
                    break;
                }
            }
        }
    }
    times.sort();
    let part = |p: usize| {
        times
            .get(times.len() * p / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{} passed, {safety} unsafe, {liveness} not converged; equal after {:?} (median), {:?} \
         (p99); {:.0} seeds a minute",
        times.len(),
        part(50),
        part(99),
        f64::from(run) * 60.0 / begun.elapsed().as_secs_f64()
    );
    match (safety, liveness) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}

fn plan(arguments: &Arguments, seed: u64) -> Plan {
    let mut plan = Plan::new(seed);
    plan.faults.retain(|f| !arguments.without.contains(f));
    if !arguments.only.is_empty() {
        plan.faults.retain(|f| arguments.only.contains(f));
    }
    if let Some(secs) = arguments.until {
        plan.safety = Duration::from_secs(secs);
    }
    plan
}

fn line(finished: &Finished) -> String {
    format!(
        "passed: {} flows equal after {:?}, {} exempted, digest {:016x}",
        finished.compared, finished.converged, finished.exempted, finished.digest
    )
}

/// The command that runs one seed of this run again.
fn again(arguments: &Arguments, seed: u64) -> String {
    let mut out = format!("target/release/ftfw-sim --seed {seed} --trace");
    for fault in &arguments.without {
        out += &format!(" --without {fault}");
    }
    for fault in &arguments.only {
        out += &format!(" --only {fault}");
    }
    if let Some(secs) = arguments.until {
        out += &format!(" --until {secs}");
    }
    out
}
