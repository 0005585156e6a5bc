//! Two daemons of one program on FW1 and FW2, and what they hold and have used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flow::{Flow, Proto, ProtoInfo};

use super::Program;
use super::load::{EVENTS, EVENTS_DEFAULT};
use crate::daemon::{Daemon, Settings};
use crate::kernel;
use crate::loss;
use crate::topology::Lab;
use crate::wait;
use crate::world::World;

/// In this time two daemons in FT-FW have greeted each other.
const GREETING: Duration = Duration::from_millis(2500);
/// How long a pair may take until it holds what it should.
pub(super) const LATEST: Duration = Duration::from_secs(15);
/// Flows that a firewall may hold beside those of the measurement: its link, and what the
/// machines do by themselves.
const OTHERS: u64 = 20;

/// The daemons of FW1, the sender, and FW2, the receiver.
pub(super) struct Pair {
    pub(super) daemons: [Daemon; 2],
    lab: Lab,
}

impl Pair {
    /// Starts both on empty tables and waits until they have greeted each other.
    pub(super) fn start(
        world: &World,
        lab: &Lab,
        program: &Program,
        settings: &Settings,
    ) -> Result<Pair> {
        for fw in &lab.fw {
            fw.run("conntrack -F")?;
        }
        Pair::start_on_tables(world, lab, program, settings)
    }

    /// The same on the tables as they are.
    pub(super) fn start_on_tables(
        world: &World,
        lab: &Lab,
        program: &Program,
        settings: &Settings,
    ) -> Result<Pair> {
        for fw in &lab.fw {
            // A daemon of ours that was killed has left its own value.
            fw.sysctl(EVENTS, EVENTS_DEFAULT)?;
        }
        let settings = program.with(settings);
        let start = |n: usize| -> Result<Daemon> {
            let daemon = Daemon::start(program.kind, &lab.fw[n], n, &settings, world.dir())?;
            daemon.context("no daemon")
        };
        let daemons = [start(0)?, start(1)?];
        thread::sleep(GREETING);
        Ok(Pair {
            daemons,
            lab: lab.clone(),
        })
    }

    /// CPU time of each, all threads, in nanoseconds.
    pub(super) fn cpu_ns(&self) -> Result<[u64; 2]> {
        Ok([self.daemons[0].cpu_ns()?, self.daemons[1].cpu_ns()?])
    }

    /// CPU time of each since then, in microseconds, divided by `count`.
    pub(super) fn cpu_us_since(&self, before: [u64; 2], count: u32) -> Result<[f64; 2]> {
        let now = self.cpu_ns()?;
        let each = |n: usize| (now[n] - before[n]) as f64 / 1000.0 / f64::from(count);
        Ok([each(0), each(1)])
    }

    /// Waits until a place holds `count` flows.
    ///
    /// # Errors
    /// If it never does: what was measured meanwhile does not count.
    pub(super) fn wait_for(&self, place: Place, count: u32) -> Result<()> {
        let count = u64::from(count);
        let mut held = 0;
        wait::until("the flows are there", LATEST, || {
            held = self.held(place).unwrap_or(u64::MAX);
            (count..=count + OTHERS).contains(&held)
        })
        .with_context(|| format!("{place:?} holds {held} of {count} flows"))
    }

    /// Number of flows in a place.
    pub(super) fn held(&self, place: Place) -> Result<u64> {
        match place {
            Place::InternalCache => cached(&self.daemons[0], 0),
            Place::ExternalCache => cached(&self.daemons[1], 1),
            Place::KernelOf(n) => table_count(&self.lab, n),
        }
    }

    /// Waits until two places hold the same TCP flows, in the same states.
    ///
    /// # Errors
    /// If they never do.
    pub(super) fn wait_equal(&self, places: [Place; 2]) -> Result<()> {
        let mut differ = (0, 0);
        wait::until("both hold the same flows", LATEST, || {
            let both = places.map(|place| self.tcp_flows(place));
            let [Ok(here), Ok(there)] = both else {
                return false;
            };
            differ = (
                here.difference(&there).count(),
                there.difference(&here).count(),
            );
            differ == (0, 0)
        })
        .with_context(|| format!("{places:?}: only in the one, only in the other: {differ:?}"))
    }

    /// Protocol, state and original tuple of each TCP flow.
    fn tcp_flows(&self, place: Place) -> Result<BTreeSet<String>> {
        match place {
            Place::InternalCache => Ok(loss::lines(self.daemons[0].internal("tcp ")?)),
            Place::ExternalCache => Ok(loss::lines(self.daemons[1].external("tcp ")?)),
            Place::KernelOf(n) => {
                let flows = kernel::dump(&self.lab.fw[n])?;
                Ok(flows.iter().filter_map(tcp_line).collect())
            }
        }
    }

    /// The configuration files of both, by the name of the set-up.
    pub(super) fn configurations(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let each = (1..).zip(&self.daemons).map(|(n, daemon)| {
            let text = fs::read_to_string(daemon.config())?;
            Ok((format!("{name}, FW{n}"), text))
        });
        each.collect()
    }

    /// Ends both in good order.
    pub(super) fn stop(self) -> Result<()> {
        for daemon in self.daemons {
            daemon.stop()?;
        }
        Ok(())
    }
}

/// Where flows are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Of FW1's daemon.
    InternalCache,
    /// Of FW2's daemon.
    ExternalCache,
    /// The table of FW1 (0) or FW2 (1).
    KernelOf(usize),
}

/// A TCP flow of a kernel as a daemon lists it.
fn tcp_line(flow: &Flow) -> Option<String> {
    let Some(ProtoInfo::Tcp(tcp)) = flow.proto_info.filter(|_| flow.orig.proto == Proto::TCP)
    else {
        return None;
    };
    Some(format!("{:?} {:?} {:?}", tcp.state, flow.orig, flow.reply))
}

/// Number of entries in a firewall's kernel table.
pub(super) fn table_count(lab: &Lab, n: usize) -> Result<u64> {
    let text = lab.fw[n].run("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(text.trim().parse()?)
}

/// Number of flows in a daemon's internal cache.
pub(super) fn internal_flows(daemon: &Daemon) -> Result<u64> {
    cached(daemon, 0)
}

/// Number of flows in a daemon's external cache.
pub(crate) fn external_flows(daemon: &Daemon) -> Result<u64> {
    cached(daemon, 1)
}

/// Cache `which` of those that `-s` shows.
fn cached(daemon: &Daemon, which: usize) -> Result<u64> {
    numbers(&daemon.ask(&["-s"])?, "current active connections:", which)?
        .first()
        .copied()
        .context("no number")
}

/// The numbers of the statistics' `which`th line that begins like this.
pub(super) fn numbers(text: &str, begin: &str, which: usize) -> Result<Vec<u64>> {
    let mut lines = text.lines().filter(|l| l.trim_start().starts_with(begin));
    let line = lines.nth(which).with_context(|| format!("no {begin}"))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(!numbers.is_empty(), "no number in {line}");
    Ok(numbers)
}
