//! Two daemons of one program on FW1 and FW2, and what they hold and have used.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flow::{Flow, Proto, ProtoInfo, TcpState};

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

    /// Waits until the receiver has in `place` the flows of a protocol that the sender has, `tcp` or
    /// `udp`, in the same states.
    ///
    /// # Errors
    /// If it never does.
    pub(super) fn wait_equal(&self, place: Place, protocol: &str) -> Result<()> {
        // A cache is compared with a cache, as a daemon lists both.
        let first = match place {
            Place::KernelOf(_) => Place::KernelOf(0),
            _ => Place::InternalCache,
        };
        let mut differ = String::new();
        wait::until("both hold the same flows", LATEST, || {
            let both = [first, place].map(|place| self.flows(place, protocol));
            let [Ok(here), Ok(there)] = both else {
                return false;
            };
            let [lacks, has] = [here.difference(&there), there.difference(&here)]
                .map(|lines| lines.collect::<Vec<_>>());
            differ = format!(
                "{place:?} lacks {}, the first {:?}, and has {} others, the first {:?}",
                lacks.len(),
                lacks.first(),
                has.len(),
                has.first()
            );
            lacks.is_empty() && has.is_empty()
        })
        .context(differ)
    }

    /// How many TCP flows FW1's kernel has that FW2's kernel lacks, whatever their states.
    pub(super) fn lacking(&self) -> Result<usize> {
        let keys = |n: usize| -> Result<HashSet<_>> {
            let flows = kernel::dump(&self.lab.fw[n])?;
            let tcp = flows.iter().filter(|flow| flow.orig.proto == Proto::TCP);
            Ok(tcp.map(Flow::key).collect())
        };
        Ok(keys(0)?.difference(&keys(1)?).count())
    }

    /// Protocol, state and original tuple of each flow.
    fn flows(&self, place: Place, protocol: &str) -> Result<BTreeSet<String>> {
        let pattern = format!("{protocol} ");
        match place {
            Place::InternalCache => Ok(loss::lines(self.daemons[0].internal(&pattern)?)),
            Place::ExternalCache => Ok(loss::lines(self.daemons[1].external(&pattern)?)),
            Place::KernelOf(n) => {
                ensure!(protocol == "tcp", "only TCP flows of a kernel are compared");
                let flows = kernel::dump(&self.lab.fw[n])?;
                Ok(flows.iter().filter_map(tcp_line).collect())
            }
        }
    }

    /// The configuration files of both, by the name of the set-up.
    pub(super) fn configurations(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let mut all = configuration(&self.daemons[0], &format!("{name}, FW1"))?;
        all.extend(configuration(&self.daemons[1], &format!("{name}, FW2"))?);
        Ok(all)
    }

    /// Ends both in good order.
    pub(super) fn stop(self) -> Result<()> {
        for daemon in self.daemons {
            daemon.stop()?;
        }
        Ok(())
    }
}

/// The configuration file of a daemon, by the name of the set-up.
pub(super) fn configuration(daemon: &Daemon, name: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(daemon.config())?;
    Ok([(name.to_owned(), text)].into())
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

/// How many of the first `count` flows that no traffic made a firewall's kernel has, established.
pub(super) fn established(lab: &Lab, n: usize, count: u32) -> Result<u32> {
    let is_there = |flow: &&Flow| {
        let tcp = flow.proto_info;
        matches!(tcp, Some(ProtoInfo::Tcp(tcp)) if tcp.state == TcpState::ESTABLISHED)
    };
    let flows = kernel::dump(&lab.fw[n])?;
    let there: HashSet<_> = flows.iter().filter(is_there).map(Flow::key).collect();
    let found = (0..count).filter(|n| there.contains(&super::flow(*n).key()));
    Ok(u32::try_from(found.count())?)
}

/// Number of entries in a firewall's kernel table.
pub(crate) fn table_count(lab: &Lab, n: usize) -> Result<u64> {
    let text = lab.fw[n].run("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(text.trim().parse()?)
}

/// Number of flows in a daemon's internal cache.
pub(crate) fn internal_flows(daemon: &Daemon) -> Result<u64> {
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
pub(crate) fn numbers(text: &str, begin: &str, which: usize) -> Result<Vec<u64>> {
    let mut lines = text.lines().filter(|l| l.trim_start().starts_with(begin));
    let line = lines.nth(which).with_context(|| format!("no {begin}"))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(!numbers.is_empty(), "no number in {line}");
    Ok(numbers)
}
