//! `ftfw rules`: nftables rules for a configuration, as `nft -f -` reads them.
//!
//! It prints and loads nothing. Each part is a table of its own, which is deleted and made
//! again in one transaction: loading the text twice changes nothing, and no other table is
//! touched. Every rule has a comment that says why it is there.

mod events;
mod gate;
pub(super) mod link;

use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::path::Path;

use clap::{Args, ValueEnum};
use config::Config;

use super::client::Failure;

const EXAMPLES: &str = "\
Examples:
  ftfw rules | nft -f -                  load the parts link and events
  ftfw rules link > /etc/ftfw-link.nft
  ftfw rules static-gate --virtual 192.168.1.100 --virtual fd00:1::100 | nft -f -
  nft delete table inet ftfw_events      take one part away

Without PART: all but static-gate, which drops what other rules may want to see.
The parts are the tables inet ftfw_link, inet ftfw_events and inet ftfw_static_gate.
The gate that the daemon moves (`Gate` in the configuration) is inet ftfw_gate: it needs neither.";

/// What `ftfw rules` is told.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Parts to print; all but static-gate if none is given
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Virtual address that the static gate guards, beside those of `Gate` in the configuration;
    /// may be given several times
    #[arg(long = "virtual", value_name = "ADDRESS")]
    virtual_addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Do not track the dedicated links' traffic; drop what only looks like it
    Link,
    /// Let the kernel report fewer events of TCP connections
    Events,
    /// Drop packets of connections that this kernel does not know, without an answer
    StaticGate,
}

/// The text for a configuration that was read from `file`.
pub(super) fn text(arguments: &Arguments, config: &Config, file: &Path) -> Result<String, Failure> {
    let chosen = |part| match arguments.parts.is_empty() {
        true => part != Part::StaticGate,
        false => arguments.parts.contains(&part),
    };
    if !arguments.virtual_addresses.is_empty() && !chosen(Part::StaticGate) {
        return Err(Failure::usage(
            "`--virtual` goes with the part `static-gate`",
        ));
    }
    let sync = config.sync.as_ref();
    let sync = sync.ok_or_else(|| {
        Failure::plain(format!(
            "{}: no `Sync`, so there is no link",
            file.display()
        ))
    })?;
    let mut out = Ruleset::default();
    out.comment(&format!(
        "Rules of ftfw {} for {}.",
        env!("CARGO_PKG_VERSION"),
        // A comment ends with its line.
        file.display().to_string().replace(char::is_control, "?")
    ));
    out.comment("Read them, then load them: ftfw rules | nft -f -");
    out.comment("Loading them again replaces the tables below and touches no other table.");
    if arguments.parts.is_empty() {
        out.comment("Not printed: static-gate. See ftfw rules --help.");
    }
    if chosen(Part::Link) {
        link::write(&mut out, sync);
    }
    if chosen(Part::Events) {
        events::write(&mut out);
    }
    if chosen(Part::StaticGate) {
        let mut addresses = arguments.virtual_addresses.clone();
        addresses.extend(sync.gate.iter().flat_map(config::Gate::virtual_addresses));
        addresses.sort();
        addresses.dedup();
        gate::write(&mut out, sync, &addresses);
    }
    Ok(out.0)
}

/// The text so far.
#[derive(Debug, Default)]
struct Ruleset(String);

impl Ruleset {
    /// A line of its own, outside all tables.
    fn comment(&mut self, text: &str) {
        self.line(0, format_args!("# {text}").to_string().trim_end());
    }

    /// A table that replaces the one of that name.
    fn table(&mut self, name: &str, why: &[&str], body: impl FnOnce(&mut Ruleset)) {
        self.0.push('\n');
        why.iter().for_each(|line| self.comment(line));
        self.comment("The next two lines empty the table, whether it was there or not.");
        self.line(0, format_args!("table inet {name} {{}}"));
        self.line(0, format_args!("delete table inet {name}"));
        self.line(0, format_args!("table inet {name} {{"));
        body(self);
        self.line(0, "}");
    }

    /// A chain at a hook, or one that is jumped to.
    fn chain(&mut self, name: &str, base: Option<&str>, why: &str, rules: &[Rule]) {
        self.line(1, format_args!("# {why}"));
        self.line(1, format_args!("chain {name} {{"));
        if let Some(base) = base {
            self.line(2, format_args!("type filter hook {base}; policy accept;"));
        }
        for rule in rules {
            self.line(2, format_args!("# {}", rule.why));
            self.line(2, &rule.text);
        }
        self.line(1, "}");
    }

    fn line(&mut self, depth: usize, text: impl Display) {
        let _ = writeln!(self.0, "{:\t<depth$}{text}", "");
    }
}

/// One rule and why it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) why: String,
}

impl Rule {
    pub(super) fn new(text: impl Into<String>, why: impl Into<String>) -> Rule {
        Rule {
            text: text.into(),
            why: why.into(),
        }
    }

    /// The same with what is to be done.
    pub(super) fn then(&self, verdict: &str) -> Rule {
        Rule::new(format!("{} {verdict}", self.text), &self.why)
    }
}

#[cfg(test)]
mod tests;
