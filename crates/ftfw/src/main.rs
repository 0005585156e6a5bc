//! ftfw's one program. Called as `conntrackd`, or with `conntrackd` as its first
//! word, it takes the original's arguments; otherwise ours.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use cli::{Outcome, compat, own, print};
use daemon::Ended;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    if daemon::is_to_run_nft(&arguments) {
        return match daemon::run_nft() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                print::error(format_args!("ftfw: {e:#}"));
                ExitCode::FAILURE
            }
        };
    }
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let (outcome, name) = if name.is_some_and(|n| n == "conntrackd") {
        (compat::run(&arguments[1..]), "conntrackd")
    } else if arguments.get(1).is_some_and(|word| word == "conntrackd") {
        (compat::run(&arguments[2..]), "conntrackd")
    } else {
        (own::run(&arguments), "ftfw")
    };
    match outcome {
        Outcome::Exit(status) => ExitCode::from(status),
        Outcome::Daemon {
            config,
            warnings,
            background,
        } => match daemon::run(&config, &warnings, background) {
            Ok(Ended::Well) => ExitCode::SUCCESS,
            Ok(Ended::Failed) => ExitCode::FAILURE,
            Err(e) => {
                print::error(format_args!("{name}: {e:#}"));
                ExitCode::FAILURE
            }
        },
    }
}
