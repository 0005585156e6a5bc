//! End-to-end tests on the real kernel, each in namespaces of its own.
//!
//! The runner starts this program again inside new namespaces for each test, so
//! tests run side by side and leave nothing behind. Without root or namespaces
//! every test is listed as ignored and the reason is printed; with
//! `FTFW_NO_SKIP=1` (in CI) that is a failure instead.
//!
//! For comparison, `FTFW_E2E_DAEMON=conntrackd` runs those of `restart`, `faults` and `hostile` with two
//! conntrackd, many of which then fail.

mod alarm;
mod command_line;
mod control_experiment;
mod doctor;
mod documents;
mod ends;
mod evaluation;
mod expectations;
mod failback;
mod failover;
mod faults;
mod filters;
mod ftfw;
mod gate;
mod hostile;
mod journal;
mod kernel_facts;
mod kinds;
mod large;
mod links;
mod loss;
mod managers;
mod metrics;
mod migration;
mod mixed;
mod operation;
mod pair;
mod ready;
mod rehearse;
mod restart;
mod rules;
mod service;
mod setups;
mod site;
mod soak;
mod sources;
mod statistics;
mod tables;
mod top;
mod trouble;
mod view;
mod weak_points;
mod windows;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use lab::daemon::Kind;
use lab::world::{self, World};
use libtest_mimic::{Arguments, Failed, Trial};

/// A test's name and what it does inside.
pub(crate) type Scenario = (&'static str, fn(&World) -> anyhow::Result<()>);

/// The daemon under test, where a scenario leaves it open.
pub(crate) fn kind() -> Kind {
    match env::var("FTFW_E2E_DAEMON") {
        Ok(name) if name == "conntrackd" => Kind::Conntrackd,
        _ => Kind::Ftfw,
    }
}

/// Controls that show by chance what they are to show: one of three attempts must.
const BY_CHANCE: [&str; 1] = ["windows/tracked_by_conntrackd_with_the_wrong_scale"];

/// Those that only root can run: an ordinary user's namespace has no other user.
const FOR_ROOT: [&str; 1] = ["hostile/another_user"];

fn scenarios() -> Vec<Scenario> {
    [
        control_experiment::SCENARIOS,
        failover::SCENARIOS,
        failback::SCENARIOS,
        faults::SCENARIOS,
        tables::SCENARIOS,
        top::SCENARIOS,
        kernel_facts::SCENARIOS,
        alarm::SCENARIOS,
        ftfw::SCENARIOS,
        loss::SCENARIOS,
        restart::SCENARIOS,
        rules::SCENARIOS,
        doctor::SCENARIOS,
        hostile::SCENARIOS,
        evaluation::SCENARIOS,
        large::SCENARIOS,
        links::SCENARIOS,
        expectations::SCENARIOS,
        kinds::SCENARIOS,
        operation::SCENARIOS,
        command_line::SCENARIOS,
        trouble::SCENARIOS,
        managers::SCENARIOS,
        metrics::SCENARIOS,
        migration::SCENARIOS,
        statistics::SCENARIOS,
        filters::SCENARIOS,
        service::SCENARIOS,
        journal::SCENARIOS,
        sources::SCENARIOS,
        weak_points::SCENARIOS,
        windows::SCENARIOS,
        gate::SCENARIOS,
        ready::SCENARIOS,
        rehearse::SCENARIOS,
        setups::SCENARIOS,
        soak::SCENARIOS,
        view::SCENARIOS,
    ]
    .concat()
}

fn main() -> ExitCode {
    if world::is_inside() {
        return inside();
    }
    let mut arguments = Arguments::from_args();
    // Most tests wait most of the time.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(2 * processors);
    let reason = world::unavailable();
    if let Some(reason) = &reason {
        if env::var_os("FTFW_NO_SKIP").is_some() {
            eprintln!("end-to-end tests cannot run, and none may be skipped: {reason}");
            return ExitCode::FAILURE;
        }
        println!("end-to-end tests skipped: {reason}");
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!(
            "skipped, as only root can run them: {}",
            FOR_ROOT.join(", ")
        );
    }
    let trials = scenarios().into_iter().map(|(name, _)| {
        let is_ignored = reason.is_some() || (!is_root && FOR_ROOT.contains(&name));
        let run = move || match BY_CHANCE.contains(&name) {
            true => start(name)
                .or_else(|_| start(name))
                .or_else(|_| start(name)),
            false => start(name),
        };
        Trial::test(name, run).with_ignored_flag(is_ignored)
    });
    let mixed = mixed::chosen().into_iter().map(|run| {
        let name = run.to_string();
        let trial = move || start(&run.to_string());
        Trial::test(name, trial).with_ignored_flag(reason.is_some())
    });
    // These need no namespaces.
    let documents = Trial::test("documents/weak_points_name_tests_that_exist", || {
        let names: Vec<_> = scenarios().into_iter().map(|(name, _)| name).collect();
        documents::weak_points(&names).map_err(|e| format!("{e:#}").into())
    });
    let neighbours = Trial::test("documents/hostile_neighbours_name_tests_that_exist", || {
        let names: Vec<_> = scenarios().into_iter().map(|(name, _)| name).collect();
        hostile::tests_exist(&names).map_err(|e| format!("{e:#}").into())
    });
    let chapters = Trial::test("documents/chapters_show_the_files_that_run", || {
        documents::chapters().map_err(|e| format!("{e:#}").into())
    });
    let faults = Trial::test("documents/each_fault_has_a_test_and_a_row", || {
        let names: Vec<_> = scenarios().into_iter().map(|(name, _)| name).collect();
        documents::faults(&names).map_err(|e| format!("{e:#}").into())
    });
    let all = (trials.chain(mixed)).chain([documents, neighbours, chapters, faults]);
    libtest_mimic::run(&arguments, all.collect()).exit_code()
}

/// Runs one scenario in new namespaces.
fn start(name: &str) -> Result<(), Failed> {
    let mut command = world::command([OsString::from(name)])?;
    let out = command.output()?;
    if out.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text += &String::from_utf8_lossy(&out.stderr);
    Err(text.into())
}

fn inside() -> ExitCode {
    lab::daemon::kill_by_system_calls();
    let name = env::args().nth(1).unwrap_or_default();
    let scenario = scenarios().into_iter().find(|(n, _)| *n == name);
    let outcome = match (scenario, mixed::find(&name)) {
        (Some((_, scenario)), _) => World::new().and_then(|world| scenario(&world)),
        (None, Some(run)) => World::new().and_then(|world| run.execute(&world)),
        (None, None) => {
            eprintln!("no scenario {name}");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
