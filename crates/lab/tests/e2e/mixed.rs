//! One conntrackd and one of ours, in all combinations of mode, caches and link, and whatever
//! befalls them.
//!
//! Goal: each comes to hold exactly the flows of the other one, and after a commit the kernels of
//! both firewalls have the flows of both. Method: flows are made and ended in both kernels,
//! before, during and after the trouble.
//!
//! `make test` runs a selection in which every two values of different properties that can meet
//! do meet; `FTFW_E2E_FULL=1` (`make test-full`) all runs.

use std::collections::HashSet;
use std::env;
use std::fmt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Kind, Mode, Settings, Transport};
use lab::relay::{Faults, Relay};
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;

use crate::ends::{Ends, SETTLED};

mod troubles;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Udp,
    Multicast,
    Tcp,
    /// UDP through a relay that spoils it.
    Relayed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Both daemons are killed; the second firewall's starts first.
    BothKilled,
    /// The first firewall's daemon is killed, and flows begin before it starts again.
    Killed,
    /// `-n` at both after they have lost the flows of the other one.
    Asked,
    /// `-B` at both after the same.
    Bulk,
    /// `-t` at the first, and `PurgeTimeout` passes.
    Purged,
    Loss(u8),
    Reordered,
    Doubled,
    /// The sequence numbers of the first firewall's daemon pass their end.
    Wrapped,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Ours runs on this firewall.
    ours: usize,
    mode: Mode,
    /// Without, events go straight to the link.
    internal: bool,
    /// Without, what is received goes straight into the kernel.
    external: bool,
    link: Link,
    is_ipv6: bool,
    trouble: Trouble,
}

/// The values of all properties.
const MODES: [Mode; 3] = [Mode::Notrack, Mode::Alarm, Mode::Ftfw];
const LINKS: [Link; 4] = [Link::Udp, Link::Multicast, Link::Tcp, Link::Relayed];
const TROUBLES: [Trouble; 12] = [
    Trouble::None,
    Trouble::BothKilled,
    Trouble::Killed,
    Trouble::Asked,
    Trouble::Bulk,
    Trouble::Purged,
    Trouble::Loss(1),
    Trouble::Loss(5),
    Trouble::Loss(20),
    Trouble::Reordered,
    Trouble::Doubled,
    Trouble::Wrapped,
];

impl fmt::Display for Run {
    /// Its name, which [`find`] takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caches = match (self.internal, self.external) {
            (true, true) => "cached",
            (true, false) => "injected",
            (false, true) => "no_internal",
            (false, false) => "no_cache",
        };
        let link = match self.link {
            Link::Udp => "udp",
            Link::Multicast => "multicast",
            Link::Tcp => "tcp",
            Link::Relayed => "relayed",
        };
        let trouble = match self.trouble {
            Trouble::None => "no_trouble".to_owned(),
            Trouble::BothKilled => "both_killed".to_owned(),
            Trouble::Killed => "killed".to_owned(),
            Trouble::Asked => "asked".to_owned(),
            Trouble::Bulk => "bulk".to_owned(),
            Trouble::Purged => "purged".to_owned(),
            Trouble::Loss(percent) => format!("loss_of_{percent}_percent"),
            Trouble::Reordered => "reordered".to_owned(),
            Trouble::Doubled => "doubled".to_owned(),
            Trouble::Wrapped => "wrapped".to_owned(),
        };
        let mode = self.mode.to_string().to_lowercase();
        let family = if self.is_ipv6 { "6" } else { "" };
        let first = ["ours", "conntrackd"][self.ours];
        write!(
            f,
            "mixed/{mode}_{caches}_{link}{family}_{trouble}_{first}_first"
        )
    }
}

/// Every combination that can be.
fn all() -> Vec<Run> {
    let mut all = vec![Run {
        ours: 0,
        mode: Mode::Ftfw,
        internal: true,
        external: true,
        link: Link::Udp,
        is_ipv6: false,
        trouble: Trouble::None,
    }];
    vary(&mut all, [0, 1], |run, ours| run.ours = ours);
    vary(&mut all, MODES, |run, mode| run.mode = mode);
    vary(&mut all, [true, false], |run, is| run.internal = is);
    vary(&mut all, [true, false], |run, is| run.external = is);
    vary(&mut all, LINKS, |run, link| run.link = link);
    vary(&mut all, [false, true], |run, is| run.is_ipv6 = is);
    vary(&mut all, TROUBLES, |run, trouble| run.trouble = trouble);
    all.retain(Run::can_be);
    all
}

/// Each run once with each value.
fn vary<T: Copy, const N: usize>(runs: &mut Vec<Run>, values: [T; N], set: fn(&mut Run, T)) {
    let with = |run: &Run| {
        values.map(|value| {
            let mut run = *run;
            set(&mut run, value);
            run
        })
    };
    *runs = runs.iter().flat_map(with).collect();
}

/// The runs of this call.
pub(crate) fn chosen() -> Vec<Run> {
    match env::var_os("FTFW_E2E_FULL") {
        Some(_) => all(),
        None => pairwise(&all()),
    }
}

pub(crate) fn find(name: &str) -> Option<Run> {
    all().into_iter().find(|run| run.to_string() == name)
}

/// As few of the runs as a greedy choice finds in which every two values of different properties
/// meet that meet in any of them, and those three of [`Run::triple`].
fn pairwise(all: &[Run]) -> Vec<Run> {
    let mut left: HashSet<_> = all.iter().flat_map(Run::pairs).collect();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let new = |run: &&Run| run.pairs().iter().filter(|p| left.contains(*p)).count();
        // The first of the best, for the same choice each time.
        let best = all.iter().rev().max_by_key(new);
        let best = *best.expect("there are runs");
        best.pairs().iter().for_each(|p| {
            left.remove(p);
        });
        chosen.push(best);
    }
    chosen
}

impl Run {
    fn can_be(&self) -> bool {
        let is_spoiled = matches!(
            self.trouble,
            Trouble::Loss(_) | Trouble::Reordered | Trouble::Doubled | Trouble::Wrapped
        );
        let has_caches = match self.mode {
            Mode::Notrack => true,
            Mode::Alarm => self.internal && self.external,
            Mode::Ftfw => self.internal,
        };
        // Without an internal cache the original answers no request, and repeats nothing.
        let can_repeat = self.internal || self.trouble == Trouble::None;
        // The original often dies of its own scheduled flush in ALARM, also beside another one.
        let survives =
            self.trouble != Trouble::Purged || self.mode != Mode::Alarm || self.ours == 0;
        has_caches
            && can_repeat
            && survives
            && is_spoiled == (self.link == Link::Relayed)
            && !(self.link == Link::Relayed && self.is_ipv6)
    }

    /// Conntrackd takes all flows for its own that it finds in its kernel when it starts: also
    /// those of the other firewall, which it had injected. When it sends them we do not end them
    /// any more, lest the end of an old copy ends a live flow, until we see their packets.
    fn claims(&self) -> bool {
        let is_restarted = match self.trouble {
            Trouble::BothKilled => true,
            Trouble::Killed => self.ours == 1,
            _ => false,
        };
        is_restarted && !self.external
    }

    /// True if NOTRACK must be told to repair what the link has spoiled.
    fn is_spoiled_for_good(&self) -> bool {
        self.mode == Mode::Notrack && self.link == Link::Relayed
    }

    /// Each two of its values, by property.
    fn pairs(&self) -> Vec<[(usize, String); 2]> {
        let values = [
            self.ours.to_string(),
            self.mode.to_string(),
            self.internal.to_string(),
            self.external.to_string(),
            format!("{:?}", self.link),
            self.is_ipv6.to_string(),
            format!("{:?}", self.trouble),
        ];
        let mut pairs = Vec::from_iter(self.triple());
        for (n, one) in values.iter().enumerate() {
            for (m, other) in values.iter().enumerate().skip(n + 1) {
                pairs.push([(n, one.clone()), (m, other.clone())]);
            }
        }
        pairs
    }

    /// Three values that must meet, as a pair: FT-FW answers a request from other places without
    /// an external cache, and then the scheduled flush of ours spares what the original's deletes.
    fn triple(&self) -> Option<[(usize, String); 2]> {
        let with = match self.trouble {
            Trouble::Asked | Trouble::Bulk if self.mode == Mode::Ftfw => "ftfw",
            Trouble::Purged if !self.external => ["ours", "conntrackd"][self.ours],
            _ => return None,
        };
        let trouble = format!("{:?}", self.trouble);
        Some([(7, format!("{with} {}", self.external)), (6, trouble)])
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings {
            transport: match (self.link, self.is_ipv6) {
                (Link::Udp, false) => Transport::Udp,
                (Link::Udp, true) => Transport::Udp6,
                (Link::Multicast, false) => Transport::Multicast,
                (Link::Multicast, true) => Transport::Multicast6,
                (Link::Tcp, false) => Transport::Tcp,
                (Link::Tcp, true) => Transport::Tcp6,
                (Link::Relayed, _) => Transport::Relayed,
            },
            ..Settings::new(self.mode)
        };
        if self.mode == Mode::Alarm && self.link == Link::Relayed {
            // Of 100 messages 20 may be lost: flows are repeated often enough to be held all the
            // time, and those whose end was lost are dropped within the time of a check.
            settings.mode_lines = "RefreshTime 1\nCacheTimeout 8".to_owned();
        }
        if self.trouble == Trouble::Purged {
            settings.mode_lines += "\nPurgeTimeout 2";
        }
        if !self.external {
            settings.mode_lines += "\nDisableExternalCache on";
        }
        if !self.internal {
            settings.mode_lines += "\nDisableInternalCache on";
        }
        settings
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        match self.trouble {
            Trouble::Loss(percent) => faults.loss = f64::from(percent) / 100.0,
            Trouble::Reordered => {
                faults.late = 0.3;
                faults.late_max = Duration::from_millis(50);
            }
            Trouble::Doubled => faults.duplicate = 0.3,
            _ => {}
        }
        faults
    }

    pub(crate) fn execute(&self, world: &World) -> Result<()> {
        let lab = Lab::build(Options::default())?;
        let relay = match self.link {
            Link::Relayed => Some(Relay::start(&lab, 1)?),
            _ => None,
        };
        if let Some(relay) = &relay {
            relay.set(self.faults());
            if self.trouble == Trouble::Wrapped {
                relay.wrap_soon();
            }
        }
        let mut kinds = [Kind::Conntrackd; 2];
        kinds[self.ours] = Kind::Ftfw;
        let mut ends = Ends::start(world, lab, kinds, self.settings())?;
        self.greet();
        make(&mut ends, 100)?;
        if let Some(relay) = &relay
            && self.is_spoiled_for_good()
        {
            self.repair(&mut ends, relay)?;
        }
        ends.agree().context("at first")?;
        self.befall(&mut ends)?;
        ends.agree().context("after the trouble")?;
        make(&mut ends, 50)?;
        ends.agree().context("after more flows")?;
        for n in 0..2 {
            let (ended, live) = (ends.ended(n), ends.live(n) as u16);
            let ended = match self.claims() {
                false => ended..ended + 30,
                true => live - 30..live,
            };
            ends.end(n, ended)?;
        }
        ends.agree().context("after ends")?;
        if self.external {
            ask_both(&ends, "-c")?;
        }
        for n in 0..2 {
            kernel_has(&ends, n, [ends.live(0), ends.live(1)])?;
        }
        if let Some(relay) = relay.filter(|_| self.trouble == Trouble::Wrapped) {
            let wrapped = relay.passed[0].wrapped.load(Ordering::Relaxed);
            ensure!(wrapped >= 50, "{wrapped} numbers behind the wrap");
        }
        ensure!(ends.live(0) >= 90 && ends.live(1) >= 90, "flows were made");
        Ok(())
    }

    /// Daemons that have just been started find each other: over TCP they connect once a second,
    /// and what FT-FW sends before its greeting is heard may have to be sent again.
    fn greet(&self) {
        if self.mode == Mode::Ftfw || self.link == Link::Tcp {
            thread::sleep(Duration::from_millis(2500));
        }
    }
}

/// Waits until the kernel of firewall `n` has so many flows of the first and the second one.
fn kernel_has(ends: &Ends, n: usize, wanted: [usize; 2]) -> Result<()> {
    let mut last = [0; 2];
    wait::until("the kernel has the flows", SETTLED, || {
        last = [0, 1].map(|of| ends.in_kernel(n, of).unwrap_or(usize::MAX));
        last == wanted
    })
    .with_context(|| format!("FW{} has {last:?} of {wanted:?}", n + 1))
}

fn make(ends: &mut Ends, count: u16) -> Result<()> {
    for n in 0..2 {
        ends.make(n, count)?;
    }
    Ok(())
}

fn ask_both(ends: &Ends, request: &str) -> Result<()> {
    for daemon in &ends.daemons {
        daemon.ask(&[request])?;
    }
    Ok(())
}
