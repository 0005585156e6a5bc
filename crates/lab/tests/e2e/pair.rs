//! A laboratory with a daemon on each firewall, as most tests begin.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER, SERVER6};
use lab::traffic::numbered::{self, Connections};
use lab::wait;
use lab::world::World;

/// Port of the numbered server on B.
pub(crate) const PORT: u16 = 7;
/// How long a replica may take to catch up.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Pair {
    pub(crate) lab: Lab,
    pub(crate) fw1: Daemon,
    pub(crate) fw2: Daemon,
    pub(crate) settings: Settings,
    pub(crate) dir: PathBuf,
    kinds: [Kind; 2],
}

pub(crate) fn notrack() -> Settings {
    Settings::new(Mode::Notrack)
}

pub(crate) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Flows of the numbered server that firewall `n` holds, in its daemon's external cache or
/// in its kernel, by original tuple.
pub(crate) fn known(lab: &Lab, n: usize, daemon: &Daemon) -> Result<BTreeSet<String>> {
    let mut lines = lab.flows(n, &format!("-p tcp --orig-port-dst {PORT}"))?;
    lines.extend(daemon.external(&format!("dport={PORT} "))?);
    if daemon.kind() == Kind::Ftfw {
        // Also what an injecting one holds for a commit: offers, which do not go to its kernel.
        let held = daemon.own(&["flows", "external", &format!("dport={PORT}")])?;
        lines.extend(held.lines().map(str::to_owned));
    }
    Ok(tuples(&lines))
}

/// The original tuples of a listing, of the kernel's table or of a cache.
pub(crate) fn tuples(lines: &[String]) -> BTreeSet<String> {
    let tuple = |line: &String| {
        let words = line.split_whitespace().filter(|w| w.contains('='));
        words.take(4).collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(tuple).collect()
}

impl Pair {
    /// Both firewalls run ftfw, and B runs the numbered server.
    pub(crate) fn start(world: &World, settings: Settings, options: Options) -> Result<Pair> {
        Pair::of(world, Kind::Ftfw, settings, options)
    }

    /// The same with another program.
    pub(crate) fn of(
        world: &World,
        kind: Kind,
        settings: Settings,
        options: Options,
    ) -> Result<Pair> {
        Pair::mixed(world, [kind; 2], settings, options)
    }

    /// The same with a program for each firewall.
    pub(crate) fn mixed(
        world: &World,
        kinds: [Kind; 2],
        settings: Settings,
        options: Options,
    ) -> Result<Pair> {
        let lab = Lab::build(options)?;
        let start = |n: usize| -> Result<Daemon> {
            Daemon::start(kinds[n], &lab.fw[n], n, &settings, world.dir())?.context("no daemon")
        };
        let (fw1, fw2) = (start(0)?, start(1)?);
        for ip in [SERVER, SERVER6] {
            numbered::serve(&lab.b, address(ip, PORT))?;
        }
        Ok(Pair {
            fw1,
            fw2,
            lab,
            settings,
            dir: world.dir().to_owned(),
            kinds,
        })
    }

    /// Kills the daemon of firewall `n`, if it still runs.
    pub(crate) fn kill(&mut self, n: usize) {
        match n {
            0 => self.fw1.kill(),
            _ => self.fw2.kill(),
        }
    }

    /// Kills the daemon of firewall `n`, if it still runs, and starts it again.
    pub(crate) fn restart(&mut self, n: usize) -> Result<()> {
        self.kill(n);
        let daemon = Daemon::start(self.kinds[n], &self.lab.fw[n], n, &self.settings, &self.dir)?;
        let daemon = daemon.context("no daemon")?;
        match n {
            0 => self.fw1 = daemon,
            _ => self.fw2 = daemon,
        }
        Ok(())
    }

    /// Opens `count` connections that work.
    pub(crate) fn connect(&self, ip: &str, count: usize) -> Result<Connections> {
        let mut c = Connections::open(&self.lab.a, address(ip, PORT), count)?;
        let works = c.round(SOON);
        ensure!(works == count, "{works} of {count} connections work");
        Ok(c)
    }

    /// Waits until FW2's external cache has `count` lines with `pattern`.
    pub(crate) fn wait_external(&self, pattern: &str, count: usize) -> Result<()> {
        self.wait_external_for(pattern, count, SOON)
    }

    pub(crate) fn wait_external_for(
        &self,
        pattern: &str,
        count: usize,
        limit: Duration,
    ) -> Result<()> {
        let what = format!("{count} flows with `{pattern}` in FW2's external cache");
        let mut last = 0;
        wait::until(&what, limit, || {
            last = self.fw2.external(pattern).map_or(usize::MAX, |l| l.len());
            last == count
        })
        .with_context(|| format!("it has {last}"))
    }

    /// Waits until all but `left` flows to the server have ended on FW1, and FW2 knows it.
    ///
    /// The kernel deletes a flow whose time is over when the table is read, otherwise up to a
    /// minute later (`gc_worker`).
    pub(crate) fn wait_ended(&self, left: usize) -> Result<()> {
        let filter = format!("-p tcp --dport {PORT}");
        wait::until("they have ended on FW1", Duration::from_secs(15), || {
            self.lab.count_flows(0, &filter).is_ok_and(|n| n == left)
        })?;
        self.wait_external(&format!("dport={PORT} "), left)
    }

    /// Waits until FW2 holds `count` flows of the numbered server, see [`known`].
    pub(crate) fn wait_held(&self, count: usize, limit: Duration) -> Result<()> {
        let mut held = 0;
        wait::until("FW2 holds the flows", limit, || {
            held = known(&self.lab, 1, &self.fw2).map_or(usize::MAX, |k| k.len());
            held == count
        })
        .with_context(|| format!("it holds {held} of {count}"))
    }

    /// Waits until FW2's kernel has `count` flows for the words of `filter`.
    pub(crate) fn wait_kernel(&self, filter: &str, count: usize) -> Result<()> {
        let what = format!("{count} flows for `{filter}` in FW2's kernel");
        let mut last = 0;
        wait::until(&what, SOON, || {
            last = self.lab.count_flows(1, filter).unwrap_or(usize::MAX);
            last == count
        })
        .with_context(|| format!("it has {last}"))
    }

    /// The number at the end of a line of statistics.
    pub(crate) fn counter(daemon: &Daemon, which: &[&str], line: &str) -> Result<u64> {
        Pair::counters(daemon, which, line)?
            .first()
            .copied()
            .context("a number")
    }

    /// The same of the last such line.
    pub(crate) fn last_counter(daemon: &Daemon, which: &[&str], line: &str) -> Result<u64> {
        Pair::counters(daemon, which, line)?
            .last()
            .copied()
            .context("a number")
    }

    fn counters(daemon: &Daemon, which: &[&str], line: &str) -> Result<Vec<u64>> {
        let text = daemon.ask(which)?;
        let found = text.lines().filter(|l| l.trim_start().starts_with(line));
        let numbers = found.filter_map(|l| l.split_whitespace().next_back()?.parse().ok());
        let numbers: Vec<u64> = numbers.collect();
        ensure!(!numbers.is_empty(), "no line `{line}` in\n{text}");
        Ok(numbers)
    }
}
