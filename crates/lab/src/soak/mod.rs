//! The soak: mixed traffic through a pair for as long as one likes, a failover every minute, a
//! fault every ten seconds, and at the end everything is as it should be.
//!
//! The pair is the set-up `primary-backup` with its own files under keepalived, IPv4 with source
//! NAT and IPv6. What befalls it follows from a seed ([`plan`]). A minute has six slots of ten
//! seconds. The first one has the failover to FW2 and the way back, the others a fault each;
//! a failover begins when both firewalls report that it is safe, and the way back when FW1 is
//! ready: keepalived alone would let it preempt as soon as its checks pass, with flows that FW2 has
//! made since still on their way, and connections lost.
//!
//! ```text
//!  0 s                10 s      20 s      30 s      40 s      50 s
//!  failover+failback  fault     fault     fault     fault     fault  look  ...
//!  a fault of the link over it
//! ```
//!
//! What is lost by its nature is kept out, or counted as such:
//!
//! - Over a failover only the link is spoiled, by duplicates; by loss if the primary lives on and
//!   sends again what was lost. No other fault is laid over a failover: what began while the
//!   link was cut is nowhere else when the primary dies.
//! - Short traffic (a request, a file, a query, a ping) that is under way while a failover is may
//!   fail: what began in the last moments of a primary is not at its peer yet. It is counted. A
//!   failure at any other time is an error.
//! - Long connections must all live, always. When one has died the run ends.

mod compare;
mod counters;
mod faults;
pub mod plan;
mod report;
mod traffic;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use plan::Plan;
pub use report::Report;

use counters::Watch;
use plan::Minute;
use report::Row;
use traffic::{Load, Mix};

use crate::setups::primary_backup::{build, status};
use crate::setups::{Machine, Setup, Site};

/// Time from one fault to the next one.
const SLOT: Duration = Duration::from_secs(10);
/// How long datagrams are lost or doubled.
const HOLD: Duration = Duration::from_secs(6);
/// A pair has healed by then.
const HEALED: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: u64,
    /// Chooses faults and failovers; one that is printed repeats its plan
    #[arg(long)]
    pub seed: Option<u64>,
    /// The backup has the flows in its external cache, and not in its kernel
    #[arg(long)]
    pub cached: bool,
    /// Little traffic
    #[arg(long)]
    pub light: bool,
    /// A line for each fault, too
    #[arg(long)]
    pub verbose: bool,
}

/// Runs it. What happens is given to `print`, line by line.
///
/// # Errors
/// If something does not come to its place at all. What else is wrong is in
/// [`Report::findings`].
pub fn run(options: &Options, print: &mut dyn FnMut(&str)) -> Result<Report> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let plan = Plan::new(seed, usize::try_from(options.minutes)?);
    print(&format!("soak --minutes {} --seed {seed}", options.minutes));
    print(&plan.to_string());
    let setup = match options.cached {
        true => Setup::PrimaryBackupCached,
        false => Setup::PrimaryBackup,
    };
    let load = if options.light {
        Load::LIGHT
    } else {
        Load::FULL
    };
    let site = build(setup, true, &lines())?;
    let mix = Mix::start(&site.clients[0], &site.server, load)?;
    let mut course = Course {
        site,
        mix,
        held: if options.cached { "external" } else { "kernel" },
        watch: Watch::default(),
        report: Report {
            long: load.long(),
            ..Report::default()
        },
        print,
        verbose: options.verbose,
        begun: Instant::now(),
    };
    match course.run(&plan) {
        Ok(()) => Ok(course.report),
        Err(e) => Err(e.context(format!("until then:\n{}", course.report))),
    }
}

/// What the firewalls have beyond the files of the set-up: the helper of FTP, a mark that is to be
/// replicated, metrics, and a file with a small buffer for events.
fn lines() -> String {
    let rules = "table inet soak {
ct helper ftp {
type \"ftp\" protocol tcp
}
chain pre {
type filter hook prerouting priority filter;
tcp dport 21 ct helper set \"ftp\"
iifname eth1 ct state new ct mark set 7
}
}";
    let metrics = counters::METRICS.replace('\n', "\\n");
    format!(
        "nft -f - <<'end'\n{rules}\nend\n\
         sed -i 's/^General {{/&\\n{metrics}/; \
         s/^Sync {{/&\\nOptions {{ ExpectationSync {{ ftp }} }}/' conntrackd.conf\n{}",
        faults::small_buffer()
    )
}

/// A run.
struct Course<'a> {
    site: Site,
    mix: Mix,
    /// Where the backup has the flows of its peer.
    held: &'static str,
    watch: Watch,
    report: Report,
    print: &'a mut dyn FnMut(&str),
    verbose: bool,
    begun: Instant,
}

impl Course<'_> {
    fn run(&mut self, plan: &Plan) -> Result<()> {
        self.wait_safe()?;
        let alive = self.mix.look()?.total();
        ensure!(
            alive == self.report.long,
            "{alive} long connections at the begin"
        );
        self.mix.take_silence();
        for n in 0..2 {
            let node = self.site.fw(n)?.node().clone();
            self.watch.begin(n, &node)?;
        }
        self.begun = Instant::now();
        self.report.begun = Some(self.begun);
        (self.print)(Row::HEAD);
        for (n, minute) in plan.minutes.iter().enumerate() {
            self.minute(n, minute)
                .with_context(|| format!("minute {}", n + 1))?;
        }
        self.mix.end_short()?;
        self.wait_safe()?;
        let comparison = compare::compare(&self.site, self.held)?;
        if self.verbose && !comparison.is_equal() {
            for n in 0..2 {
                (self.print)(&format!("FW{}:\n{}", n + 1, self.site.fw(n)?.logs()));
            }
        }
        self.report.comparison = Some(comparison);
        for n in 0..2 {
            self.look_at(n)?;
        }
        self.report.risen = std::mem::take(&mut self.watch.risen);
        self.report.unexplained = std::mem::take(&mut self.watch.unexplained);
        Ok(())
    }

    fn minute(&mut self, n: usize, minute: &Minute) -> Result<()> {
        let since = self.report.resident[0].len();
        let mut minute_silence = Duration::ZERO;
        for (slot, fault) in minute.faults.into_iter().enumerate() {
            // What took longer than a slot delays all that follows.
            let due = SLOT * (n * plan::SLOTS + slot) as u32;
            thread::sleep(due.saturating_sub(self.begun.elapsed()));
            if slot == 0 {
                self.wait_safe()?;
                let begun = Instant::now();
                self.failover_over(minute.failover, fault)
                    .with_context(|| format!("{} and {fault}", minute.failover))?;
                self.wait_safe()?;
                self.report.windows.push([begun, Instant::now()]);
                *self.report.troubles.entry(minute.failover).or_default() += 1;
            } else {
                self.fault(fault).with_context(|| fault.to_string())?;
            }
            *self.report.troubles.entry(fault).or_default() += 1;
            self.look()?;
            let trouble = if slot == 0 { minute.failover } else { fault };
            let silence = self.mix.take_silence();
            let longest = self.report.silences.entry(trouble).or_default();
            *longest = silence.max(*longest);
            minute_silence = silence.max(minute_silence);
            if self.verbose {
                let at = self.begun.elapsed().as_secs_f64();
                let silence = silence.as_secs_f64();
                (self.print)(&format!(
                    "  until {at:.1} s {trouble}: silence {silence:.1} s"
                ));
            }
        }
        let most = |n: usize| self.report.resident[n][since..].iter().copied().max();
        let resident = [most(0).unwrap_or(0), most(1).unwrap_or(0)];
        let row = Row {
            failover: minute.failover,
            alive: self.mix.look()?,
            silence: minute_silence,
            tallies: self.mix.tallies(),
            flows: kernel_flows(self.site.fw(0)?)?,
            resident,
            at: self.begun.elapsed(),
        };
        (self.print)(&row.line(n + 1, self.report.rows.last()));
        let (alive, long) = (row.alive, self.report.long);
        self.report.rows.push(row);
        ensure!(
            alive.total() == long,
            "of {long} long connections live {alive:?}"
        );
        Ok(())
    }

    /// A look at both daemons after a fault.
    fn look(&mut self) -> Result<()> {
        for n in 0..2 {
            self.look_at(n)?;
            let resident = resident(self.site.fw(n)?)?;
            self.report.resident[n].push(resident);
        }
        Ok(())
    }

    /// Looks for counters of a daemon that nothing explains.
    fn look_at(&mut self, n: usize) -> Result<()> {
        let node = self.site.fw(n)?.node().clone();
        self.watch.look(n, &node)
    }

    /// Waits until FW1 is primary, and both report that it is safe to fail over.
    fn wait_safe(&self) -> Result<()> {
        let (primary, backup) = (self.site.fw(0)?, self.site.fw(1)?);
        let is = |fw: &Machine, role: &str| {
            status(fw).is_ok_and(|status| status["role"] == role && status["safe"] == true)
        };
        self.site.wait("it is safe to fail over", HEALED, || {
            is(primary, "primary") && is(backup, "backup")
        })
    }
}

/// Resident memory of the daemon of a firewall in bytes.
fn resident(fw: &Machine) -> Result<u64> {
    let pid = &status(fw)?["pid"];
    let text = fw.sh(&format!("cat /proc/{pid}/statm"))?;
    let pages = text.split_whitespace().nth(1).context("statm")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}

fn kernel_flows(fw: &Machine) -> Result<u64> {
    let text = fw
        .node()
        .run("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(text.trim().parse()?)
}
