//! `ftfw-sim`: runs seeds, and reports which fail and how to run them again.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::minimise::minimise;
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
    /// Run so many seeds at once; as many as there are processors unless something is printed.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,
    /// Leave a fault out that the seed has chosen. May be given several times.
    #[arg(long, value_name = "FAULT")]
    without: Vec<Fault>,
    /// Have no other faults than these.
    #[arg(long, value_name = "FAULT")]
    only: Vec<Fault>,
    /// End the phase of faults and traffic after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    until: Option<Duration>,
    /// Actions of the workload in a second.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: Option<u64>,
    /// Replicate no expectations.
    #[arg(long)]
    no_expectations: bool,
    /// Let the primary live.
    #[arg(long)]
    no_kill: bool,
    /// Stop at the first seed that fails.
    #[arg(long)]
    stop: bool,
    /// Make what fails smaller: fewer faults, less traffic, less time.
    #[arg(long)]
    minimise: bool,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Print also what happens to the flows with this source port.
    #[arg(long, value_name = "PORT")]
    watch: Option<u16>,
}

/// Up to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let secs = text.parse().ok().filter(|s| (0.001..=3600.0).contains(s));
    let secs: f64 = secs.ok_or("seconds, from 0.001 to 3600")?;
    Ok(Duration::from_secs_f64(secs))
}

/// How often a terminal is told how far the runs are.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What the runs have come to.
#[derive(Debug, Default)]
struct Tally {
    converged: Vec<Duration>,
    excepted: u64,
    safety: u64,
    liveness: u64,
    panics: u64,
}

impl Tally {
    fn runs(&self) -> u64 {
        self.converged.len() as u64 + self.failed()
    }

    fn failed(&self) -> u64 {
        self.safety + self.liveness + self.panics
    }

    /// Time until the caches were equal, of all but so many percent of the runs that passed.
    fn converged(&self, percent: usize) -> Duration {
        let at = self.converged.len() * percent / 100;
        self.converged.get(at).copied().unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let threads = threads(&arguments);
    let next = AtomicU64::new(arguments.seed);
    let stops = AtomicBool::new(false);
    let tally = Mutex::new(Tally::default());
    let end = arguments.seed.saturating_add(arguments.seeds);
    let work = || {
        while !stops.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let has_failed = run(&arguments, seed, &tally);
            stops.fetch_or(has_failed && arguments.stop, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        if arguments.seeds > 1 && io::stderr().is_terminal() {
            while !workers.iter().all(|w| w.is_finished()) {
                show_progress(&arguments, &tally, begun);
                thread::sleep(PROGRESS_INTERVAL);
            }
            // Back to the begin of the line, which is cleared.
            eprint!("\r\x1b[K");
        }
    });
    let took = begun.elapsed();
    let mut tally = tally.into_inner().unwrap_or_else(|e| e.into_inner());
    tally.converged.sort();
    println!(
        "{} passed, {} unsafe, {} not converged, {} crashed; {} excepted; \
         equal after {:?} (median), {:?} (p99); {:.0} seeds a minute on each of {threads} processors",
        tally.converged.len(),
        tally.safety,
        tally.liveness,
        tally.panics,
        tally.excepted,
        tally.converged(50),
        tally.converged(99),
        tally.runs() as f64 * 60.0 / took.as_secs_f64() / threads as f64
    );
    match (tally.panics, tally.safety, tally.liveness) {
        (0, 0, 0) => ExitCode::SUCCESS,
        (0, 0, _) => ExitCode::from(2),
        (0, ..) => ExitCode::from(1),
        _ => ExitCode::from(101),
    }
}

/// What is printed while seeds run belongs to one of them.
fn threads(arguments: &Arguments) -> u64 {
    let processors = thread::available_parallelism().map_or(1, usize::from) as u64;
    let wanted = if arguments.trace || arguments.watch.is_some() {
        1
    } else {
        arguments.threads.unwrap_or(processors)
    };
    wanted.min(arguments.seeds).max(1)
}

/// Runs one seed; true if it fails.
fn run(arguments: &Arguments, seed: u64, tally: &Mutex<Tally>) -> bool {
    let plan = plan(arguments, seed);
    let is_alone = arguments.seeds == 1;
    if is_alone {
        println!("seed {seed}: {plan}");
    }
    let mut world = World::new(plan.clone());
    world.trace.is_printed = arguments.trace;
    world.trace.watched = arguments.watch;
    let result = run_to_the_end(world);
    if let (Ok(finished), true) = (&result, is_alone) {
        println!("{}", line(finished));
    }
    // Several lines of one seed stay together.
    let report = result.as_ref().err().map(|f| report(arguments, &plan, f));
    let mut tally = tally.lock().unwrap_or_else(|e| e.into_inner());
    match &result {
        Ok(finished) => {
            tally.converged.push(finished.converged);
            tally.excepted += finished.excepted;
        }
        Err(Failure::Safety(_)) => tally.safety += 1,
        Err(Failure::Liveness(_)) => tally.liveness += 1,
        Err(Failure::Panic(_)) => tally.panics += 1,
    }
    if let Some(report) = report {
        print!("{report}");
    }
    result.is_err()
}

/// A seed that crashes is one that fails, and has a name like the others.
fn run_to_the_end(mut world: World) -> Result<Finished, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(Failure::Panic(text.unwrap_or("no text").to_owned()))
    })
}

/// What has failed, and how to run it again.
fn report(arguments: &Arguments, plan: &Plan, failure: &Failure) -> String {
    let seed = plan.seed;
    let mut out = format!("seed {seed} FAILED: {plan}\n  {}\n", text(failure));
    let _ = writeln!(out, "  again: {}", again(plan));
    if arguments.minimise {
        let mut last = failure.clone();
        let fails = |smaller: &Plan| match run_to_the_end(World::new(smaller.clone())) {
            Err(other) if is_alike(failure, &other) => {
                last = other;
                true
            }
            _ => false,
        };
        let smallest = minimise(plan, fails);
        let _ = writeln!(out, "  smaller: {smallest}\n  {}", text(&last));
        let _ = writeln!(out, "  again: {}", again(&smallest));
    }
    out
}

fn text(failure: &Failure) -> String {
    match failure {
        Failure::Safety(v) => format!("safety, {}: {}", v.invariant, v.what),
        Failure::Liveness(what) => format!("liveness: {what}"),
        Failure::Panic(what) => format!("crash: {what}"),
    }
}

/// True if two runs failed in the same way.
fn is_alike(one: &Failure, other: &Failure) -> bool {
    match (one, other) {
        (Failure::Safety(one), Failure::Safety(other)) => one.invariant == other.invariant,
        (Failure::Liveness(_), Failure::Liveness(_)) => true,
        (Failure::Panic(one), Failure::Panic(other)) => one == other,
        _ => false,
    }
}

fn plan(arguments: &Arguments, seed: u64) -> Plan {
    let mut plan = Plan::new(seed);
    plan.faults.retain(|f| !arguments.without.contains(f));
    if !arguments.only.is_empty() {
        plan.faults.retain(|f| arguments.only.contains(f));
    }
    plan.safety = arguments.until.unwrap_or(plan.safety);
    plan.rate = arguments.rate.unwrap_or(plan.rate);
    plan.expectations &= !arguments.no_expectations;
    plan.kills &= !arguments.no_kill;
    plan
}

fn line(finished: &Finished) -> String {
    format!(
        "passed: {} flows equal after {:?}, {} exempted, {} excepted, digest {:016x}",
        finished.compared,
        finished.converged,
        finished.exempted,
        finished.excepted,
        finished.digest
    )
}

/// The command that runs a plan again: its seed, and what differs from that seed's own plan.
fn again(plan: &Plan) -> String {
    let own = Plan::new(plan.seed);
    let mut out = format!("target/release/ftfw-sim --seed {} --trace", plan.seed);
    for fault in own.faults.iter().filter(|f| !plan.has(**f)) {
        let _ = write!(out, " --without {fault}");
    }
    if plan.safety != own.safety {
        let _ = write!(out, " --until {}", plan.safety.as_secs_f64());
    }
    if plan.rate != own.rate {
        let _ = write!(out, " --rate {}", plan.rate);
    }
    if plan.expectations != own.expectations {
        out += " --no-expectations";
    }
    if plan.kills != own.kills {
        out += " --no-kill";
    }
    out
}

/// Tells a terminal how far the runs are.
fn show_progress(arguments: &Arguments, tally: &Mutex<Tally>, begun: Instant) {
    let (done, failed) = {
        let tally = tally.lock().unwrap_or_else(|e| e.into_inner());
        (tally.runs(), tally.failed())
    };
    let each = begun.elapsed().as_secs_f64() / done.max(1) as f64;
    let left = each * arguments.seeds.saturating_sub(done) as f64;
    let all = arguments.seeds;
    eprint!("\r\x1b[K{done} of {all} seeds, {failed} failed, {left:.0} s left");
    let _ = io::stderr().flush();
}
