//! ftfw's one program. Called as `conntrackd`, or with `conntrackd` as its first
//! word, it takes the original's arguments.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use cli::compat::{self, Outcome};

const HELP: &str = "\
ftfw keeps the connections of a Linux stateful firewall alive when the firewall fails.

Usage: ftfw conntrackd ARGUMENTS    what conntrackd does with these arguments
       ftfw --version
       ftfw --help

Under the name `conntrackd` (a link to this program) it takes conntrackd's arguments
directly: `conntrackd -h` lists them.
";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let called_as_conntrackd = name.is_some_and(|n| n == "conntrackd");
    let words = if called_as_conntrackd { 1 } else { 2 };
    if !called_as_conntrackd {
        match arguments.get(1).map(String::as_str) {
            Some("conntrackd") => {}
            Some("--version" | "-V") => {
                println!("ftfw {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            Some("--help" | "-h") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Some(_) | None => {
                eprint!("{HELP}");
                return ExitCode::FAILURE;
            }
        }
    }
    match compat::run(&arguments.split_off(words.min(arguments.len()))) {
        Outcome::Exit(status) => ExitCode::from(status),
        Outcome::Daemon {
            config,
            warnings,
            background,
        } => match daemon::run(&config, &warnings, background) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                if !background {
                    eprintln!("conntrackd: {e:#}");
                }
                ExitCode::FAILURE
            }
        },
    }
}
