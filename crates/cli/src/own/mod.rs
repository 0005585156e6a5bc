//! `ftfw run | check | status | flows | expectations | commit | flush | resync | bulk | events | forget | stop`;
//! `ftfw rules` asks no daemon, and `ftfw doctor` does without one.

mod arguments;
mod client;
mod diff;
mod doctor;
mod keepalived;
mod listeners;
mod listing;
mod ready;
mod rehearse;
mod row;
mod rules;
mod surroundings;
mod text;
mod top;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use config::{Config, Sync};
use control::Query;
use control::call::{Call, Outcome as Status, Role, Tail, Task};

use serde_json::{Value, json};

use crate::load::load;
use crate::{Outcome, print};
use arguments::{Action, Arguments, Form, From, Of, What};
use client::Failure;

/// Exit status of a command that could not be done.
const FAILED: u8 = 1;
/// Exit status of wrong arguments, as clap has it.
const USAGE: u8 = 2;
/// Exit status of a commit that the kernel refused in part.
const PARTIAL: u8 = 3;

/// Exit status of `status` if it is not safe to fail over now.
const UNSAFE: u8 = 4;

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Acts on the arguments, the program's name first.
pub fn run(arguments: &[String]) -> Outcome {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version are no errors. If they cannot be printed, nothing is left to do.
            let _ = e.print();
            return Outcome::Exit(u8::try_from(e.exit_code()).unwrap_or(FAILED));
        }
    };
    match act(&arguments) {
        Ok(outcome) => outcome,
        Err(failure) => {
            print::error(format_args!("ftfw: {}", failure.error));
            if let Some(help) = failure.help {
                print::error(format_args!("      {help}"));
            }
            Outcome::Exit(failure.status)
        }
    }
}

fn act(arguments: &Arguments) -> Result<Outcome, Failure> {
    let path = arguments.config.as_path();
    match &arguments.action {
        Action::Run { background } => {
            let loaded = load(path).map_err(Failure::plain)?;
            Ok(Outcome::Daemon {
                config: loaded.config,
                warnings: loaded.warnings,
                background: *background,
            })
        }
        Action::Check { file } => Ok(check(file.as_deref().unwrap_or(path))),
        Action::Doctor(what) => doctor::run(what, path),
        Action::Rules(what) => {
            let loaded = load(path).map_err(Failure::plain)?;
            print::out(rules::text(what, &loaded.config, path)?);
            Ok(Outcome::Exit(0))
        }
        Action::Status { form } => {
            let mut status = ask_status(path)?;
            let listeners = listeners::others(status["pid"].as_u64().unwrap_or(0));
            if !listeners.is_empty() {
                status["listeners"] = json!(listeners);
            }
            match form.output {
                Form::Text => print::out(text::status(&status)),
                Form::Json => print::out(format_args!("{status}\n")),
            }
            let is_safe = status["safe"] == true;
            Ok(Outcome::Exit(if is_safe { 0 } else { UNSAFE }))
        }
        Action::Ready { ready } => ready::run(path, ready),
        Action::Keepalived { fifo } => keepalived::run(path, fifo),
        Action::Diff { diff } => diff::run(path, diff),
        Action::Top { top } => top::run(path, top),
        Action::Rehearse { form } => rehearse::run(path, *form),
        action => {
            let (task, form) = task(action)?;
            let call = Call::new(task, form == Form::Json);
            let counts = action.counts();
            let mut out = io::stdout().lock();
            // A reader that has seen enough (`| head`) is no failure.
            let row = |line: &str| counts || writeln!(out, "{line}").is_ok();
            let tail = client::ask(path, &call, row)?;
            Ok(tail.map_or(Outcome::Exit(0), |tail| {
                if let Some(words) = last_line(&tail, counts, form) {
                    let _ = writeln!(out, "{words}");
                }
                Outcome::Exit(exit_status(&tail))
            }))
        }
    }
}

/// The configuration of a daemon that replicates, and what its section Sync says.
fn load_replicating(config: &Path) -> Result<(Config, Sync), Failure> {
    let loaded = load(config).map_err(Failure::plain)?.config;
    let sync = loaded.sync.clone().ok_or_else(|| {
        Failure::plain("this daemon does not replicate: no section Sync in the configuration")
    })?;
    Ok((loaded, sync))
}

/// A daemon that has not answered for this long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// The row of `status`.
fn ask_status(config: &Path) -> Result<Value, Failure> {
    ask_status_within(HANGS_AFTER, config)
}

/// The same, with a limit of its own.
fn ask_status_within(limit: Duration, config: &Path) -> Result<Value, Failure> {
    let mut rows = Vec::new();
    let call = Call::new(Task::Status, true);
    client::ask_within(Some(limit), config, &call, |line| {
        rows.push(line.to_owned());
        true
    })?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::plain("an empty answer"))?;
    serde_json::from_str(row).map_err(|e| Failure::plain(format!("unreadable answer: {e}")))
}

/// What is printed when all rows are there.
fn last_line(tail: &Tail, counts: bool, form: Form) -> Option<String> {
    match (form, counts && tail.status == Status::Ok) {
        (Form::Text, true) => Some(tail.rows.to_string()),
        (Form::Json, true) => Some(format!("{{\"count\":{}}}", tail.rows)),
        (Form::Text, false) => text::done(tail),
        (Form::Json, false) => serde_json::to_string(tail.commit.as_ref()?).ok(),
    }
}

fn exit_status(tail: &Tail) -> u8 {
    match tail.status {
        Status::Ok => 0,
        Status::Partial => PARTIAL,
        Status::Error => FAILED,
    }
}

/// What is sent to the daemon, and the form of the rows.
fn task(action: &Action) -> Result<(Task, Form), Failure> {
    let good = |filter: &[String]| -> Result<Vec<String>, Failure> {
        Query::parse(filter).map_err(|e| Failure::usage(e.to_string()))?;
        Ok(filter.to_vec())
    };
    let plain = |task| Ok((task, Form::Text));
    match action {
        Action::Flows {
            table,
            filter,
            count,
            form,
        } => Ok((
            Task::Flows {
                table: (*table).into(),
                filter: good(filter)?,
                count: *count,
            },
            form.output,
        )),
        Action::Expectations {
            table,
            filter,
            count,
            form,
        } => {
            let query = Query::parse_for_expectations(filter);
            query.map_err(|e| Failure::usage(e.to_string()))?;
            let task = Task::Expectations {
                table: (*table).into(),
                filter: filter.clone(),
                count: *count,
            };
            Ok((task, form.output))
        }
        Action::Events { filter, form } => Ok((
            Task::Events {
                filter: good(filter)?,
            },
            form.output,
        )),
        Action::Commit { only, form } => Ok((
            Task::Commit {
                objects: only.objects(),
            },
            form.output,
        )),
        Action::Flush { what, only } if *what == What::Kernel || !only.is_given() => {
            plain(Task::Flush {
                what: (*what).into(),
                objects: only.objects(),
            })
        }
        Action::Flush { .. } => Err(Failure::usage("`--only` goes with `flush kernel` alone")),
        Action::Resync { from, only } => match from {
            From::Kernel => plain(Task::ResyncKernel {
                objects: only.objects(),
            }),
            From::Peer if only.is_given() => {
                Err(Failure::usage("`--only` goes with `resync kernel` alone"))
            }
            From::Peer => plain(Task::ResyncPeer),
        },
        Action::Primary { of } => role(Role::Primary, of),
        Action::Backup { of } => role(Role::Backup, of),
        Action::Fault { of } => role(Role::Fault, of),
        Action::Forget { instance } => plain(Task::Forget {
            instance: instance.clone(),
        }),
        Action::Bulk => plain(Task::Bulk),
        Action::Stop => plain(Task::Stop),
        Action::Run { .. }
        | Action::Check { .. }
        | Action::Status { .. }
        | Action::Ready { .. }
        | Action::Keepalived { .. }
        | Action::Rules(_)
        | Action::Doctor(_)
        | Action::Diff { .. }
        | Action::Rehearse { .. }
        | Action::Top { .. } => Err(Failure::plain("this is not for the daemon")),
    }
}

fn role(role: Role, of: &Of) -> Result<(Task, Form), Failure> {
    let instance = of.instance.clone();
    Ok((Task::Role { role, instance }, of.form.output))
}

fn check(path: &Path) -> Outcome {
    match load(path) {
        Ok(loaded) => {
            if !loaded.shown.is_empty() {
                print::out(format_args!("{}\n", loaded.shown));
            }
            let missing = surroundings::missing(&loaded.config);
            let wanting = surroundings::wanting(&loaded.config);
            for what in missing.iter().chain(&wanting) {
                print::out(format_args!("warning: {what}\n"));
            }
            let verdict = match missing.is_empty() {
                true if wanting.is_some() => {
                    "no errors; the daemon starts, and tries again".to_owned()
                }
                true => format!("good, {}", loaded.counts),
                false => "no errors, but the daemon does not start here".to_owned(),
            };
            print::out(format_args!("{}: {verdict}\n", path.display()));
            Outcome::Exit(0)
        }
        Err(text) => {
            print::error(text);
            Outcome::Exit(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use control::Object;
    use control::call::Table;

    use super::*;

    fn parsed(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    fn asked(line: &str) -> (Task, Form) {
        match task(&parsed(line).action) {
            Ok(asked) => asked,
            Err(failure) => panic!("{line}: {}", failure.error),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn words_become_tasks() {
        let flows = Task::Flows {
            table: Table::External,
            filter: vec!["proto=tcp".into(), "dport!=22".into()],
            count: false,
        };
        assert_eq!(
            asked("ftfw flows external proto=tcp dport!=22 -o json"),
            (flows, Form::Json)
        );
        let objects = Object::Expectations;
        assert_eq!(
            asked("ftfw commit --only expectations").0,
            Task::Commit { objects }
        );
        assert_eq!(asked("ftfw -C /x resync peer").0, Task::ResyncPeer);
        assert_eq!(parsed("ftfw bulk -C /x").config, Path::new("/x"));
    }

    #[test]
    fn a_bad_filter_is_refused_before_anybody_is_asked() {
        let failure = task(&parsed("ftfw flows kernel dport=http").action).unwrap_err();
        assert!(failure.error.contains("dport=N[-M]"), "{}", failure.error);
    }

    #[test]
    fn a_kind_that_would_mean_nothing_is_refused() {
        for line in [
            "ftfw flush caches --only flows",
            "ftfw resync peer --only flows",
        ] {
            let failure = task(&parsed(line).action).unwrap_err();
            assert!(failure.error.contains("--only"), "{}", failure.error);
        }
        let objects = Object::Flows;
        assert_eq!(
            asked("ftfw resync kernel --only flows").0,
            Task::ResyncKernel { objects }
        );
    }

    #[test]
    fn every_filter_is_in_the_help() {
        let mut command = command();
        let flows = command.find_subcommand_mut("flows").unwrap();
        let help = flows.render_long_help().to_string();
        for (field, ..) in control::FIELDS {
            assert!(help.contains(&format!("  {field}=")), "{field}\n{help}");
        }
    }

    #[test]
    fn a_table_must_be_named() {
        assert!(Arguments::try_parse_from(["ftfw", "flows"]).is_err());
        assert!(Arguments::try_parse_from(["ftfw", "flows", "proto=tcp"]).is_err());
        assert!(Arguments::try_parse_from(["ftfw", "dance"]).is_err());
    }
}
