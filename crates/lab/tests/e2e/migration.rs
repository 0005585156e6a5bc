//! Goal: a pair of conntrackd becomes a pair of ours, and the other way round, one firewall
//! after the other, and no connection is lost.
//!
//! Method: the steps of `docs/migration.md`, under keepalived with the original's script.
//! Connections pass messages through all of it; more are opened before each failover.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Kind, Mode, Settings};
use lab::topology::{Lab, Options};
use lab::traffic::numbered::Connections;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::ends::Ends;
use crate::pair::{PORT, SOON, known};
use crate::site::{Site, pass_messages};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("migration/ftfw", |w| there_and_back(w, Mode::Ftfw, "")),
    ("migration/ftfw_injected", |w| {
        there_and_back(w, Mode::Ftfw, "DisableExternalCache on")
    }),
    ("migration/notrack", |w| {
        there_and_back(w, Mode::Notrack, "")
    }),
    ("migration/alarm", |w| there_and_back(w, Mode::Alarm, "")),
    (
        "migration/a_backup_that_asked_for_nothing_loses_connections",
        unasked,
    ),
    (
        "migration/ours_asks_an_original_that_is_not_recognised_yet",
        |w| unrecognised(w, Asks::Ours),
    ),
    (
        "migration/an_original_asks_that_is_not_recognised_yet",
        |w| unrecognised(w, Asks::Original),
    ),
    ("migration/nobody_asks_a_new_original", |w| {
        unrecognised(w, Asks::Nobody)
    }),
];

/// Connections that are opened before each failover.
const COUNT: usize = 20;
/// ALARM repeats everything in 5 s.
const SETTLED: Duration = Duration::from_secs(15);

fn settings(mode: Mode, mode_lines: &str) -> Settings {
    let mut settings = Settings::new(mode);
    settings.mode_lines += "\n";
    settings.mode_lines += mode_lines;
    settings
}

fn there_and_back(world: &World, mode: Mode, mode_lines: &str) -> Result<()> {
    let mut site = Site::start(world, Kind::Conntrackd, &settings(mode, mode_lines))?;
    let mut open = Vec::new();
    for (kind, backup) in [
        (Kind::Ftfw, 1),
        (Kind::Ftfw, 0),
        (Kind::Conntrackd, 1),
        (Kind::Conntrackd, 0),
    ] {
        let injects = !mode_lines.is_empty();
        step(world, &mut site, &mut open, (kind, backup), injects)
            .with_context(|| format!("FW{} gets {kind}", backup + 1))?;
    }
    let lived: usize = open.iter_mut().map(|c| c.round(SOON)).sum();
    ensure!(lived == 4 * 2 * COUNT, "{lived} connections lived");
    Ok(())
}

/// The backup gets another program, learns what is there, and becomes primary.
fn step(
    world: &World,
    site: &mut Site,
    open: &mut Vec<Connections>,
    (kind, backup): (Kind, usize),
    injects: bool,
) -> Result<()> {
    open.push(site.connect(COUNT)?);
    site.replace(backup, world, kind)?;
    // FT-FW says first who is there.
    std::thread::sleep(Duration::from_secs(2));
    ask_for_all(site, open, backup, injects).context("after the request")?;
    open.push(site.connect(COUNT)?);
    wait_held(site, open, backup, injects).context("after more connections")?;
    pass_all(open)?;
    site.fw1_loses(backup == 1)?;
    pass_all(open).context("after the failover")
}

fn pass_all(open: &mut [Connections]) -> Result<()> {
    for (n, connections) in open.iter_mut().enumerate() {
        pass_messages(connections, Duration::from_millis(300))
            .with_context(|| format!("opened at {n}"))?;
    }
    Ok(())
}

/// Asks until the numbers agree: the original does not repeat a request that is lost.
fn ask_for_all(site: &Site, open: &[Connections], n: usize, injects: bool) -> Result<()> {
    for _ in 0..2 {
        site.daemons[n].ask(&["-n"])?;
        if wait_held(site, open, n, injects).is_ok() {
            return Ok(());
        }
    }
    site.daemons[n].ask(&["-n"])?;
    wait_held(site, open, n, injects)
}

/// Waits until a backup holds all flows: in its external cache, lest stale ones count that its
/// kernel has from the time when it was primary; when it injects, the kernel's are not stale.
fn wait_held(site: &Site, open: &[Connections], n: usize, injects: bool) -> Result<()> {
    let wanted: usize = open.iter().map(Connections::count).sum();
    let daemon = &site.daemons[n];
    let known = || -> Result<usize> {
        match injects {
            true => Ok(known(&site.lab, n, daemon)?.len()),
            false => Ok(daemon.external(&format!("dport={PORT} "))?.len()),
        }
    };
    let mut held = 0;
    wait::until("the backup holds the flows", SETTLED, || {
        held = known().unwrap_or(usize::MAX);
        held == wanted
    })
    .with_context(|| {
        let log = site.daemons[1 - n].log();
        format!("it holds {held} of {wanted}; the primary says {log}")
    })
}

/// The control experiment: without its `-n` a replaced backup in NOTRACK knows nothing.
fn unasked(world: &World) -> Result<()> {
    let mut site = Site::start(world, Kind::Conntrackd, &settings(Mode::Notrack, ""))?;
    let mut connections = site.connect(COUNT)?;
    site.replace(1, world, Kind::Ftfw)?;
    std::thread::sleep(Duration::from_secs(2));
    site.fw1_loses(true)?;
    let survive = connections.round(SOON);
    ensure!(survive == 0, "{survive} of {COUNT} survive");
    Ok(())
}

/// Who sends `-n`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Ours,
    Original,
    Nobody,
}

/// Goal: an original takes the place of one of ours, and a request is made before the other one
/// has noticed that. The request is obeyed. Method: flows begin in both kernels while the daemon
/// is away. The original announces its flows only when it is asked, as the run in which nobody
/// asks shows. Ours sends its flows in each run, and logs whether it was asked.
fn unrecognised(world: &World, asks: Asks) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut ends = Ends::start(world, lab, [Kind::Ftfw; 2], Settings::new(Mode::Ftfw))?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()?;
    let is_peer = |ends: &Ends, what: &str| {
        let network = ends.daemons[0].ask(&["-s", "network"]);
        network.is_ok_and(|text| text.contains(&format!("peer: {what}")))
    };
    wait::until("ours is known", SETTLED, || is_peer(&ends, "ftfw"))?;
    ends.daemons[1].kill();
    for n in 0..2 {
        ends.make(n, 50)?;
    }
    ends.begin_as(1, Kind::Conntrackd)?;
    ensure!(is_peer(&ends, "ftfw"), "the original is recognised already");
    match asks {
        Asks::Ours => ends.daemons[0].ask(&["-n"]).map(drop)?,
        Asks::Original => ends.daemons[1].ask(&["-n"]).map(drop)?,
        Asks::Nobody => {}
    }
    ends.holds(1)?;
    wait::until("the original is recognised", SETTLED, || {
        is_peer(&ends, "without trailer")
    })?;
    let is_asked = || {
        let log = ends.daemons[0].log();
        log.contains("resync requested by other node")
    };
    if asks == Asks::Original {
        wait::until("its request is obeyed", SETTLED, is_asked)?;
    } else {
        ensure!(!is_asked(), "the original has not asked");
    }
    if asks == Asks::Ours {
        ends.holds(0)?;
    } else {
        // Longer than the request takes in the other run.
        std::thread::sleep(Duration::from_secs(3));
        let known = ends.daemons[0].external("src=10.2.0.1 ")?.len();
        ensure!(known == 100, "{known} instead of those of before");
        ends.daemons[0].ask(&["-n"])?;
    }
    ends.agree()?;
    for n in 0..2 {
        ends.make(n, 50)?;
        ends.end(n, 0..30)?;
    }
    ends.agree().context("after more flows and ends")
}
