//! Goal: every connection lives after a failover, a failback, and the death of the primary.
//! Method: Debian's keepalived and the original's script on both firewalls. FW2 is primary
//! for two seconds, then FW1 again; some tests then cut the dedicated link until FW2 has
//! flushed its kernel. From then on FW2 must hold every flow, in a cache or in its kernel,
//! until FW1 dies and after.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::keepalived::State;
use lab::traffic::numbered::Connections;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{SOON, known};
use crate::site::{Site, pass_messages};

const COUNT: usize = 50;
/// A backup flushes its kernel's table this many seconds after `-t`: later than the next
/// sweep of the whole table, which comes every 15 s.
const PURGE: u64 = 16;
/// How long the link is cut, from a second after the failback.
const CUT: Duration = Duration::from_secs(PURGE + 1);
/// From the failback to the death of FW1.
const WATCH: Duration = Duration::from_secs(PURGE + 14);

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("failback/ftfw_keeps_connections", |w| {
        keeps(w, Kind::Ftfw, &[])
    }),
    ("failback/ftfw_keeps_connections_after_a_cut_link", |w| {
        keeps(w, Kind::Ftfw, &[CutLink])
    }),
    ("failback/ftfw_keeps_connections_injected", |w| {
        keeps(w, Kind::Ftfw, &[Injected])
    }),
    (
        "failback/ftfw_keeps_connections_injected_after_a_cut_link",
        |w| keeps(w, Kind::Ftfw, &[Injected, CutLink]),
    ),
    ("failback/conntrackd_keeps_connections", |w| {
        keeps(w, Kind::Conntrackd, &[])
    }),
    (
        "failback/conntrackd_keeps_connections_after_a_cut_link",
        |w| keeps(w, Kind::Conntrackd, &[CutLink]),
    ),
    ("failback/ftfw_keeps_connections_while_it_flaps", |w| {
        flaps(w, &[])
    }),
    (
        "failback/ftfw_keeps_connections_while_it_flaps_injected",
        |w| flaps(w, &[Injected]),
    ),
    ("failback/conntrackd_loses_injected_connections", originals),
    ("failback/without_a_daemon_nothing_survives", nothing),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Both daemons inject directly.
    Injected,
    /// The dedicated link is cut after the failback.
    CutLink,
}
use Variant::{CutLink, Injected};

/// How a story ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// Flows that FW2 held right before FW1 died.
    held: usize,
    /// Connections that live on through FW2.
    survive: usize,
}

impl Site {
    /// Flows that FW2 holds, in a cache or in its kernel.
    fn held(&self) -> Result<usize> {
        Ok(known(&self.lab, 1, &self.daemons[1])?.len())
    }

    fn wait_held(&self) -> Result<()> {
        let mut held = 0;
        wait::until("FW2 holds the flows", SOON, || {
            held = self.held().unwrap_or(0);
            held == COUNT
        })
        .with_context(|| format!("it holds {held} of {COUNT}"))
    }

    /// Passes messages until some time, or until FW2 does not hold the flows. Returns how
    /// many it holds then.
    fn watch(&self, connections: &mut Connections, until: Instant) -> Result<usize> {
        loop {
            pass_messages(connections, Duration::from_millis(200))?;
            let held = self.held()?;
            if held != COUNT || Instant::now() >= until {
                return Ok(held);
            }
        }
    }

    /// FW1 dies. Returns the number of connections that live on through FW2.
    fn fw1_dies(&mut self, connections: &mut Connections) -> Result<usize> {
        self.keepalived[1].expect_change()?;
        self.lab.cut(0)?;
        self.keepalived[0].kill();
        self.daemons[0].kill();
        self.keepalived[1].wait(State::Primary)?;
        Ok(connections.round(2 * SOON))
    }

    /// Waits until both daemons have received something from the other.
    fn hear_each_other(&self) -> Result<()> {
        for daemon in &self.daemons {
            let before = received(daemon)?;
            wait::until("the daemons hear each other", 2 * SOON, || {
                received(daemon).is_ok_and(|n| n > before)
            })?;
        }
        Ok(())
    }
}

/// Bytes that a daemon has received over the dedicated link.
fn received(daemon: &Daemon) -> Result<u64> {
    let text = daemon.ask(&["-s", "network"])?;
    let line = text.lines().find(|l| l.contains("Bytes recv"));
    let words: Vec<_> = line.context("no traffic")?.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "recv");
    let number = at.and_then(|at| words.get(at.checked_sub(2)?));
    Ok(number.context("no number")?.parse()?)
}

fn settings(variants: &[Variant]) -> Settings {
    let mut settings = Settings::new(Mode::Ftfw);
    settings.mode_lines = format!("PurgeTimeout {PURGE}");
    if variants.contains(&Injected) {
        settings.mode_lines += "\nDisableExternalCache on";
    }
    settings
}

/// FW2 becomes primary, then FW1 again, then FW1 dies.
fn story(world: &World, kind: Kind, variants: &[Variant]) -> Result<End> {
    let mut site = Site::start(world, kind, &settings(variants))?;
    let mut connections = site.connect(COUNT)?;
    site.wait_held()?;
    site.fw1_loses(true)?;
    pass_messages(&mut connections, Duration::from_secs(2)).context("FW2 is primary")?;
    site.fw1_loses(false)?;
    let failback = Instant::now();
    pass_messages(&mut connections, Duration::from_secs(1)).context("FW1 is primary again")?;
    site.wait_held()?;
    let mut held = COUNT;
    if variants.contains(&CutLink) {
        site.lab.fw[0].run("ip link set eth2 down")?;
        held = site.watch(&mut connections, failback + CUT)?;
        site.lab.fw[0].run("ip link set eth2 up")?;
        site.hear_each_other()?;
    }
    if held == COUNT {
        held = site.watch(&mut connections, failback + WATCH)?;
    }
    eprintln!(
        "FW1 dies {:.1} s after the failback",
        failback.elapsed().as_secs_f64()
    );
    let survive = site.fw1_dies(&mut connections)?;
    Ok(End { held, survive })
}

fn keeps(world: &World, kind: Kind, variants: &[Variant]) -> Result<()> {
    let end = story(world, kind, variants)?;
    ensure!(
        end == End {
            held: COUNT,
            survive: COUNT
        },
        "of {COUNT}: {end:?}"
    );
    Ok(())
}

/// Goal: every connection lives through six changes one after the other, the dedicated link out
/// around the fourth. Method: as many connections more are opened on each primary.
fn flaps(world: &World, variants: &[Variant]) -> Result<()> {
    const MORE: usize = 10;
    let mut site = Site::start(world, Kind::Ftfw, &settings(variants))?;
    let mut open = vec![site.connect(COUNT)?];
    site.wait_held()?;
    for change in 0..6 {
        let link = |state: &str| site.lab.fw[0].run(&format!("ip link set eth2 {state}"));
        if change == 3 {
            // What both know stays known; nothing new begins meanwhile.
            link("down")?;
        }
        site.fw1_loses(change % 2 == 0)?;
        for connections in &mut open {
            pass_messages(connections, Duration::from_millis(200))
                .with_context(|| format!("after change {change}"))?;
        }
        if change == 3 {
            site.lab.fw[0].run("ip link set eth2 up")?;
            site.hear_each_other()?;
        }
        open.push(site.connect(MORE)?);
        // A change that is faster than the link loses what has not been sent.
        std::thread::sleep(Duration::from_millis(500));
    }
    let lived: usize = open.iter_mut().map(|c| c.round(SOON)).sum();
    ensure!(lived == COUNT + 6 * MORE, "{lived} live on");
    Ok(())
}

/// What the original cannot do: the flush that the script schedules on the new backup takes
/// what the primary has injected there.
fn originals(world: &World) -> Result<()> {
    let end = story(world, Kind::Conntrackd, &[Injected])?;
    // The flush may still be under way when it is first seen.
    ensure!(end.held < COUNT && end.survive == 0, "of {COUNT}: {end:?}");
    Ok(())
}

/// The control experiment.
fn nothing(world: &World) -> Result<()> {
    let mut site = Site::start(world, Kind::None, &Settings::new(Mode::Ftfw))?;
    let mut connections = site.connect(COUNT)?;
    site.fw1_loses(true)?;
    let survive = connections.round(SOON);
    ensure!(survive == 0, "{survive} survive without a daemon");
    Ok(())
}
