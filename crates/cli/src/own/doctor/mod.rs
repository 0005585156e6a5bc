//! `ftfw doctor`: is this node, and is the pair, fit for a takeover?
//!
//! `gather` collects facts and judges nothing; `node` and `pair` judge facts and ask nothing. So
//! the facts of the other node, which it has printed with `--facts`, are judged like our own.

mod firewall;
mod gather;
mod iptables;
mod nft;
mod node;
mod pair;
mod ruleset;
mod sockets;

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use control::facts::{Facts, Finding, Level};
use serde_json::Value;

use super::arguments::Output;
use super::client::Failure;
use crate::{Outcome, print};

/// Exit status if there are warnings and no problems.
const WARNINGS: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  ftfw doctor
  ssh fw2 ftfw doctor --facts | ftfw doctor --peer -
  ftfw doctor -o json | jq 'select(.level == \"problem\")'

It changes nothing. Run it as root: rules and other processes are out of reach otherwise.
Exit status: 0 neither problems nor warnings, 1 problems, 2 it could not look, 4 only warnings.";

/// What `ftfw doctor` is told.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Facts of the other node, as --facts prints them there; - is standard input
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
    /// Print the facts of this node as JSON, for --peer at the other one, and judge nothing
    #[arg(long, conflicts_with_all = ["peer", "output"])]
    facts: bool,
    #[command(flatten)]
    form: Output,
}

/// Looks, and prints what it finds.
pub(super) fn run(arguments: &Arguments, config: &Path) -> Result<Outcome, Failure> {
    let peer = arguments.peer.as_deref().map(read).transpose()?;
    let here = gather::facts(config);
    if arguments.facts {
        print::out(format_args!("{}\n", json(&here)));
        return Ok(Outcome::Exit(0));
    }
    let findings = findings(&here, peer.as_ref());
    match arguments.form.is_text() {
        true => print::out(text(&findings, peer.is_some())),
        false => {
            let lines: String = findings.iter().map(|f| json(f) + "\n").collect();
            print::out(lines);
        }
    }
    Ok(Outcome::Exit(status(&findings)))
}

fn json(row: &impl serde::Serialize) -> String {
    // Rows have no keys but strings, so this cannot fail.
    serde_json::to_string(row).unwrap_or_default()
}

/// Reads the peer's facts.
fn read(path: &Path) -> Result<Facts, Failure> {
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    };
    let facts = text
        .map_err(|e| e.to_string())
        .and_then(|text| -> Result<Facts, String> {
            let row: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            match row["facts"].as_u64() {
                None => Err("these are no facts of ftfw doctor".to_owned()),
                Some(_) => serde_json::from_value(row).map_err(|e| e.to_string()),
            }
        });
    facts.map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// All findings, the worst first.
fn findings(here: &Facts, peer: Option<&Facts>) -> Vec<Finding> {
    let mut found = Findings::default();
    found.of("here", |found| node::check(here, found));
    if let Some(peer) = peer {
        found.of("peer", |found| node::check(peer, found));
        found.of("pair", |found| pair::check(here, peer, found));
    }
    found.all.sort_by_key(|f| f.level);
    found.all
}

fn status(findings: &[Finding]) -> u8 {
    match findings.iter().map(|f| f.level).min() {
        Some(Level::Problem) => super::FAILED,
        Some(Level::Warning) => WARNINGS,
        Some(Level::Note) | None => 0,
    }
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Findings {
    node: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn of(&mut self, node: &'static str, check: impl FnOnce(&mut Findings)) {
        self.node = node;
        check(self);
    }

    fn add(
        &mut self,
        level: Level,
        check: &'static str,
        what: String,
        why: &'static str,
        mend: Option<String>,
    ) {
        self.all.push(Finding {
            level,
            check,
            node: self.node,
            what,
            why,
            mend,
        });
    }
}

/// For people: the verdict first.
fn text(findings: &[Finding], is_pair: bool) -> String {
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let many = |n: usize, word: &str| match n {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    let [problems, warnings, notes] = [Level::Problem, Level::Warning, Level::Note].map(count);
    let whom = if is_pair { "this pair" } else { "this node" };
    let verdict = match (problems, warnings) {
        (0, 0) => format!("{whom} is fit for a takeover"),
        (0, _) => format!("{whom} may lose connections at a takeover"),
        _ => format!("{whom} will lose connections at a takeover"),
    };
    let mut out = format!(
        "{verdict}: {}, {}, {}\n",
        many(problems, "problem"),
        many(warnings, "warning"),
        many(notes, "note")
    );
    if !is_pair {
        out += "The other node was not looked at: ftfw doctor --help shows how.\n";
    }
    // The facts of the peer may contain anything.
    let clean = |text: &str| text.replace(|c: char| c.is_control() && c != '\n', "?");
    for finding in findings {
        let level = match finding.level {
            Level::Problem => "problem",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let what = clean(&finding.what).replace('\n', "\n         ");
        let _ = writeln!(
            out,
            "\n{level:<8} {} ({}): {what}",
            finding.node, finding.check
        );
        let _ = writeln!(out, "         why:  {}", finding.why);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(out, "         mend: {}", clean(mend));
        }
    }
    out
}

#[cfg(test)]
mod tests;
