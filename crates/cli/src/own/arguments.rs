//! Our arguments, as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use control::call::{Flush, Table};
use control::{EXPECTATION_FIELDS, FIELDS, Object};

use crate::load::CONFIG_DEFAULT;

const EXAMPLES: &str = "\
Examples:
  ftfw check                          is the configuration good?
  ftfw run                            replicate
  ftfw status                         how are we, and how is the peer?
  ftfw flows external state=ESTABLISHED dport=443
  ftfw commit                         become primary: peer's flows into the kernel
  ftfw doctor                         is anything wrong that a takeover would show?
  ftfw rules | nft -f -               nftables rules that go with the configuration

Called as `conntrackd`, or as `ftfw conntrackd ...`, it takes conntrackd's arguments.
Exit status: 0 done, 1 not done, 2 wrong arguments, 3 the kernel refused a part, 4 not safe.";

/// The filters, from where they are read, and examples.
fn filters_help(has: fn(&str) -> bool) -> String {
    let mut text = String::from("Filters, all of which must hold (FIELD!=VALUE: must not):\n");
    for (field, value, meaning) in FIELDS.iter().filter(|(field, ..)| has(field)) {
        text += &format!("  {:<32} {meaning}\n", format!("{field}={value}"));
    }
    text
}

fn expectations_help() -> String {
    filters_help(|field| EXPECTATION_FIELDS.contains(&field))
        + "\nExamples:
  ftfw expectations kernel helper=ftp
  ftfw expectations external dst=10.0.0.0/8 --count"
}

fn flows_help() -> String {
    filters_help(|_| true)
        + "\nExamples:
  ftfw flows kernel proto=udp timeout=0-30
  ftfw flows internal src=10.0.0.0/8 nat=src -o json
  ftfw flows external mark=0x100/0xff00 status!=ASSURED
  ftfw flows external dport=22,443 --count"
}

const EVENTS: &str = "\
Examples:
  ftfw events proto=tcp dport=22
  ftfw events -o json | jq 'select(.event == \"destroy\")'

Runs until Ctrl-C. A client that is too slow is told how many events it has missed.";

const COMMIT: &str = "\
Examples:
  ftfw commit
  ftfw commit --only expectations

Waits for the end. Exit status 3: the kernel refused a part, and the log says why.";

const STATUS: &str = "\
Exit status: 0 if it is safe to fail over now, 4 if it is not, 1 without a daemon.
Each line that begins with `attention` is followed by what to do.";

const READY: &str = "\
Examples:
  ftfw ready                 one line; exit status 0 if it may, 1 if not
  ftfw ready --wait 30       in a script that starts a firewall
  ftfw ready --instance VI_2 of several that move on their own
  ftfw ready --track-file /run/ftfw/not-ready

A firewall that is primary may be primary. In keepalived.conf give the script or file a negative
weight, so that a firewall alone still becomes primary; without a weight it does not:
  vrrp_script ftfw { script \"/usr/sbin/ftfw ready\" interval 1 weight -100 }";

const ROLES: &str = "\
Examples:
  ftfw primary
  ftfw backup --instance VI_2

Does what the original's failover script does, in its order, waits for the end of each step and
prints how long it took. A second call with the same role does nothing, unless a step has failed:
then it is done again, and those behind it. Exit status 3: the role has changed, and a step was
not done or the kernel refused a part; the log says why.

Without --instance the only instance is meant, or that with the name `default`.";

const KEEPALIVED: &str = "\
In keepalived.conf, in place of notify scripts:
  global_defs {
      vrrp_notify_fifo /run/keepalived.ftfw
      vrrp_notify_fifo_script \"/usr/sbin/ftfw keepalived\"
      fifo_write_vrrp_states_on_reload
  }

Changes stay in order. With `Gate { Instance NAME }` in the configuration each instance or group
of that name is followed, otherwise all as one. Addresses of `Gate` itself beside named instances
follow all others. A daemon that is started again learns its role, and a keepalived that stops
makes this firewall a backup.";

const DIFF: &str = "\
Examples:
  ftfw diff                  has the daemon missed something of the kernel?
  ssh fw2 ftfw flows external -o json | ftfw diff --peer -
  ftfw diff --sample 100     one flow of a hundred, with a large table

Timeouts are not compared. What differs is looked at again before it counts.
Exit status: 0 equal, 1 not equal, or not done.";

const TOP: &str = "\
Examples:
  ftfw top                         in a terminal; q ends
  ftfw top -o json --count 60      a row a second, for a minute

The kernel's table is read for those who have most: every interval, and at most a tenth of the time.";

const REHEARSE: &str = "\
Examples:
  ftfw rehearse              on the backup, before a planned failover
  ftfw rehearse -o json      for monitoring

Needs root: it tries the flows in a network namespace of its own, and the kernel's table does not
change. Expectations are not rehearsed. Whether the virtual addresses are here does not count.
Exit status: 0 no flow would be refused, 3 some would, 1 not done.";

const FLUSH: &str = "\
Examples:
  ftfw flush external        forget what the peer has said, after a commit
  ftfw flush kernel-later    become backup: empty the kernel's table in PurgeTimeout seconds";

const RESYNC: &str = "\
Examples:
  ftfw resync kernel    read the kernel's table again, after becoming primary
  ftfw resync peer      ask the peer for everything, after becoming backup";

/// Keeps the connections of a Linux stateful firewall alive when the firewall fails.
#[derive(Debug, Parser)]
#[command(name = "ftfw", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Configuration file, which also says where the daemon listens
    #[arg(short = 'C', long, global = true, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Replicate: run the daemon
    Run {
        /// Go to the background once everything works
        #[arg(short = 'd', long)]
        background: bool,
    },
    /// Check a configuration file: touches nothing, 0 if it is good
    Check {
        /// The file, if it is not that of -C
        file: Option<PathBuf>,
    },
    /// Is it safe to fail over now? And how this firewall, its links and its peer are
    #[command(after_help = STATUS)]
    Status {
        #[command(flatten)]
        form: Output,
    },
    /// May this firewall be primary: has it all flows of the peer?
    #[command(after_help = READY)]
    Ready {
        #[command(flatten)]
        ready: Ready,
    },
    /// Watch rates, queues, links, the peer, and who has most flows or bytes
    #[command(after_help = TOP)]
    Top {
        #[command(flatten)]
        top: Top,
    },
    /// List flows
    #[command(after_help = flows_help())]
    Flows {
        /// Which table
        table: Which,
        /// Filters, FIELD=VALUE
        filter: Vec<String>,
        /// Say how many there are
        #[arg(long)]
        count: bool,
        #[command(flatten)]
        form: Output,
    },
    /// List expectations
    #[command(after_help = expectations_help())]
    Expectations {
        /// Which table
        table: Which,
        /// Filters, FIELD=VALUE, on the predicted flow
        filter: Vec<String>,
        /// Say how many there are
        #[arg(long)]
        count: bool,
        #[command(flatten)]
        form: Output,
    },
    /// Put the flows of the peer into the kernel: become primary
    #[command(after_help = COMMIT)]
    Commit {
        #[command(flatten)]
        only: Only,
        #[command(flatten)]
        form: Output,
    },
    /// Become primary: the HA manager's notify script calls this when this firewall takes over
    #[command(after_help = ROLES)]
    Primary {
        #[command(flatten)]
        of: Of,
    },
    /// Become backup: the same when the other firewall has taken over
    #[command(after_help = ROLES)]
    Backup {
        #[command(flatten)]
        of: Of,
    },
    /// Note that this firewall cannot forward: the same for the HA manager's state FAULT
    #[command(after_help = ROLES)]
    Fault {
        #[command(flatten)]
        of: Of,
    },
    /// Forget an instance that a slip in `--instance` has made known; `Gate` in the configuration
    /// has none of these
    Forget {
        /// Its name
        #[arg(short, long, value_name = "NAME")]
        instance: String,
    },
    /// Follow keepalived: change roles as it writes them to a notify FIFO
    #[command(after_help = KEEPALIVED)]
    Keepalived {
        /// The FIFO, which keepalived names as the last argument of the program that it starts
        fifo: PathBuf,
    },
    /// Compare the internal cache with the kernel, or with what the peer holds
    #[command(after_help = DIFF)]
    Diff {
        #[command(flatten)]
        diff: Diff,
    },
    /// Foretell a commit: which flows would the kernel refuse, and why; changes nothing
    #[command(after_help = REHEARSE)]
    Rehearse {
        #[command(flatten)]
        form: Output,
    },
    /// Empty a cache, or the kernel's table
    #[command(after_help = FLUSH)]
    Flush {
        /// What
        what: What,
        #[command(flatten)]
        only: Only,
    },
    /// Learn again what the kernel, or the peer, has
    #[command(after_help = RESYNC)]
    Resync {
        /// From whom
        from: From,
        #[command(flatten)]
        only: Only,
    },
    /// Send the peer all flows
    Bulk,
    /// Show what the kernel tells of, as it happens
    #[command(after_help = EVENTS)]
    Events {
        /// Filters, FIELD=VALUE, as for flows
        filter: Vec<String>,
        #[command(flatten)]
        form: Output,
    },
    /// End the daemon
    Stop,
    /// Print nftables rules for this configuration; loads nothing
    Rules(super::rules::Arguments),
    /// Look whether this node, and the pair, is fit for a takeover; changes nothing
    Doctor(super::doctor::Arguments),
}

impl Action {
    /// Only the number of entries is to be printed.
    pub(crate) fn counts(&self) -> bool {
        match self {
            Action::Flows { count, .. } | Action::Expectations { count, .. } => *count,
            _ => false,
        }
    }
}

/// How often `top` looks, and at what.
// The variant `Top` has a group of this name already.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Top {
    /// Seconds between two looks, 0.1 to 3600
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// So many source addresses; for 0 the kernel's table is not read
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) talkers: u16,
    #[command(flatten)]
    pub(crate) form: Output,
}

/// Seconds, with a fraction or without.
fn interval(text: &str) -> Result<Duration, String> {
    let secs: Option<f64> = text.parse().ok();
    let good = secs.filter(|secs| (0.1..=3600.0).contains(secs));
    good.map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds from 0.1 to 3600".to_owned())
}

/// How `ready` answers.
// The variant `Ready` has a group of this name already.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Ready {
    /// Wait so long until it may, at most
    #[arg(short, long, value_name = "SECONDS", conflicts_with = "track_file")]
    pub(crate) wait: Option<u64>,
    /// It may if it is primary for this instance of the HA manager; otherwise as without
    #[arg(short, long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Go on, and keep a file for keepalived's `track_file`: 0 if it may, else 1. At the end it is removed
    #[arg(long, value_name = "FILE")]
    pub(crate) track_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) form: Output,
}

/// What `diff` compares.
// The variant `Diff` has a group of this name already.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Diff {
    /// The peer's `ftfw flows external -o json`; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) peer: Option<PathBuf>,
    /// Compare only one of so many flows, chosen by a hash
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sample: u32,
    #[command(flatten)]
    pub(crate) form: Output,
}

/// Whose role changes.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The instance of the HA manager, if there are several: a name of `Gate { Instance NAME }`,
    /// or any one without `Gate`
    #[arg(short, long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    #[command(flatten)]
    pub(crate) form: Output,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON object a line, see docs/json.md
    Json,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub(crate) output: Form,
}

impl Output {
    pub(crate) fn is_text(self) -> bool {
        self.output == Form::Text
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Only {
    /// Of one kind of object alone
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

impl Only {
    pub(crate) fn objects(self) -> Object {
        match self.only {
            None => Object::All,
            Some(Kind::Flows) => Object::Flows,
            Some(Kind::Expectations) => Object::Expectations,
        }
    }

    /// True if a kind is given.
    pub(crate) fn is_given(self) -> bool {
        self.only.is_some()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Flows,
    Expectations,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Which {
    /// The kernel's
    Kernel,
    /// What our kernel has told the daemon of
    Internal,
    /// What the peer has told the daemon of
    External,
}

impl std::convert::From<Which> for Table {
    fn from(which: Which) -> Table {
        match which {
            Which::Kernel => Table::Kernel,
            Which::Internal => Table::Internal,
            Which::External => Table::External,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The internal cache
    Internal,
    /// The external cache
    External,
    /// Both caches
    Caches,
    /// What the filter covers of the kernel's table, now
    Kernel,
    /// The same after PurgeTimeout
    KernelLater,
}

impl std::convert::From<What> for Flush {
    fn from(what: What) -> Flush {
        match what {
            What::Internal => Flush::Internal,
            What::External => Flush::External,
            What::Caches => Flush::Caches,
            What::Kernel => Flush::Kernel,
            What::KernelLater => Flush::KernelLater,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum From {
    /// The kernel's table into the internal cache
    Kernel,
    /// The peer's flows into the external cache
    Peer,
}
