//! Pairs over a relay that loses, doubles, delays and reorders: all pairs, both ways.
//!
//! What an original cannot do is shown with two originals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode};
use lab::loss::{LossyPair, Setup, measure};
use lab::relay::Faults;
use lab::topology::SERVER;
use lab::traffic::numbered::Connections;
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, address};

const OURS: [Kind; 2] = [Kind::Ftfw; 2];
const TO_OURS: [Kind; 2] = [Kind::Conntrackd, Kind::Ftfw];
const FROM_OURS: [Kind; 2] = [Kind::Ftfw, Kind::Conntrackd];

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("loss/ftfw_1_percent_two_ftfw", |w| agree(w, OURS, 0.01)),
    ("loss/ftfw_5_percent_two_ftfw", |w| agree(w, OURS, 0.05)),
    ("loss/ftfw_20_percent_two_ftfw", |w| agree(w, OURS, 0.2)),
    ("loss/ftfw_1_percent_conntrackd_to_ftfw", |w| {
        agree(w, TO_OURS, 0.01)
    }),
    ("loss/ftfw_5_percent_conntrackd_to_ftfw", |w| {
        agree(w, TO_OURS, 0.05)
    }),
    ("loss/ftfw_20_percent_conntrackd_to_ftfw", |w| {
        agree(w, TO_OURS, 0.2)
    }),
    ("loss/ftfw_1_percent_ftfw_to_conntrackd", |w| {
        agree(w, FROM_OURS, 0.01)
    }),
    ("loss/ftfw_5_percent_ftfw_to_conntrackd", |w| {
        agree(w, FROM_OURS, 0.05)
    }),
    ("loss/ftfw_20_percent_ftfw_to_conntrackd", |w| {
        agree(w, FROM_OURS, 0.2)
    }),
    ("loss/ftfw_20_percent_injected_two_ftfw", |w| {
        injected(w, OURS)
    }),
    ("loss/ftfw_20_percent_injected_conntrackd_to_ftfw", |w| {
        injected(w, TO_OURS)
    }),
    ("loss/ftfw_20_percent_injected_ftfw_to_conntrackd", |w| {
        injected(w, FROM_OURS)
    }),
    ("loss/two_conntrackd_do_not_agree_at_20_percent", originals),
    ("loss/notrack_agrees_after_a_bulk_two_ftfw", |w| {
        notrack(w, OURS)
    }),
    ("loss/notrack_agrees_after_a_bulk_conntrackd_to_ftfw", |w| {
        notrack(w, TO_OURS)
    }),
    ("loss/notrack_agrees_after_a_bulk_ftfw_to_conntrackd", |w| {
        notrack(w, FROM_OURS)
    }),
    ("loss/sequence_numbers_wrap_two_ftfw", |w| wrap(w, OURS)),
    ("loss/sequence_numbers_wrap_conntrackd_to_ftfw", |w| {
        wrap(w, TO_OURS)
    }),
    ("loss/sequence_numbers_wrap_ftfw_to_conntrackd", |w| {
        wrap(w, FROM_OURS)
    }),
    ("loss/a_killed_backup_is_told_by_itself", killed_backup),
    ("loss/a_killed_primary_comes_back_two_ftfw", |w| {
        killed_primary(w, OURS)
    }),
    ("loss/a_killed_primary_comes_back_conntrackd_to_ftfw", |w| {
        killed_primary(w, TO_OURS)
    }),
    ("loss/a_killed_primary_comes_back_ftfw_to_conntrackd", |w| {
        killed_primary(w, FROM_OURS)
    }),
    ("loss/conntrackd_ignores_the_trailer_in_ftfw", |w| {
        trailer(w, Mode::Ftfw)
    }),
    ("loss/conntrackd_ignores_the_trailer_in_notrack", |w| {
        trailer(w, Mode::Notrack)
    }),
    ("loss/no_trailer_when_switched_off", no_trailer),
];

/// Goal: equal caches whatever the link loses.
/// Method: connections come and go; faults go on while the daemons repair.
fn agree(world: &World, kinds: [Kind; 2], loss: f64) -> Result<()> {
    let setup = Setup {
        loss,
        ..Setup::new(kinds, Mode::Ftfw)
    };
    let a = measure(world, &setup)?;
    ensure!(a.lost > 0, "the relay has lost nothing");
    ensure!(a.equal_after.is_some(), "not equal: {a:?}");
    Ok(())
}

/// The same without an external cache on FW2: the kernels' tables become equal.
fn injected(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let setup = Setup {
        loss: 0.2,
        mode_lines: "DisableExternalCache on".into(),
        ..Setup::new(kinds, Mode::Ftfw)
    };
    let pair = LossyPair::start(world, &setup)?;
    let filter = format!("-p tcp --dport {PORT}");
    let mut last = (Vec::new(), Vec::new());
    wait::until("equal tables", Duration::from_secs(15), || {
        let table = |n| pair.lab.table(n, &filter).unwrap_or_default();
        last = (table(0), table(1));
        last.0.len() == 500 && last.0 == last.1
    })
    .with_context(|| {
        let (ours, theirs) = &last;
        let lacks: Vec<_> = ours.iter().filter(|f| !theirs.contains(f)).collect();
        let has: Vec<_> = theirs.iter().filter(|f| !ours.contains(f)).collect();
        let sizes = (ours.len(), theirs.len());
        format!("flows: {sizes:?}; FW2 lacks {lacks:#?} and has {has:#?}")
    })
}

/// The control experiment of the above.
fn originals(world: &World) -> Result<()> {
    let setup = Setup {
        loss: 0.2,
        limit: Duration::from_secs(5),
        ..Setup::new([Kind::Conntrackd; 2], Mode::Ftfw)
    };
    let a = measure(world, &setup)?;
    ensure!(
        a.missing > 0,
        "two originals agree: the tests above prove nothing: {a:?}"
    );
    Ok(())
}

/// Goal: what NOTRACK has lost comes with a bulk update; between two ftfw, what has
/// ended goes too.
fn notrack(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let setup = Setup {
        loss: 0.2,
        ..Setup::new(kinds, Mode::Notrack)
    };
    let pair = LossyPair::start(world, &setup)?;
    let (flows, missing, stale) = pair.compare()?;
    ensure!(flows == 500 && missing + stale > 0, "nothing was lost");
    pair.relay.set(Faults::default());
    // An ALIVE is to come before the bulk: without it nobody knows what it left out.
    std::thread::sleep(Duration::from_millis(2500));
    pair.daemons[0].ask(&["-B"])?;
    let mut last = (0, 0, 0);
    let exact = kinds == OURS;
    wait::until("the caches agree", SOON, || {
        last = pair.compare().unwrap_or_default();
        last.0 == 500 && last.1 == 0 && (last.2 == 0 || !exact)
    })
    .with_context(|| format!("flows, missing, stale: {last:?}"))
}

fn wrap(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let setup = Setup {
        loss: 0.05,
        wraps: true,
        ..Setup::new(kinds, Mode::Ftfw)
    };
    let a = measure(world, &setup)?;
    ensure!(a.equal_after.is_some(), "not equal: {a:?}");
    Ok(())
}

/// Goal: a backup that was killed learns everything without any command.
fn killed_backup(world: &World) -> Result<()> {
    let setup = Setup {
        loss: 0.05,
        ..Setup::new(OURS, Mode::Ftfw)
    };
    let mut pair = LossyPair::start(world, &setup)?;
    pair.restart(world, Kind::Ftfw, 1)?;
    let a = pair.settle(Duration::from_secs(15))?;
    ensure!(a.flows == 500 && a.equal_after.is_some(), "{a:?}");
    let restarts = Pair::counter(&pair.daemons[0], &["-s", "network"], "Restarts:")?;
    ensure!(restarts == 1, "{restarts} restarts seen");
    Ok(())
}

/// Goal: after kill -9 of the primary's daemon nothing is missing, and every connection
/// lives on after a takeover.
/// Method: connections open while it is dead; the backup asks for everything, by itself
/// where both are ftfw and the backup knows that it is one.
fn killed_primary(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let setup = Setup {
        loss: 0.05,
        ..Setup::new(kinds, Mode::Ftfw)
    };
    let mut pair = LossyPair::start(world, &setup)?;
    pair.daemons[1].ask(&["-t"])?;
    pair.daemons[0].kill();
    let server = address(SERVER, PORT);
    let mut more = Connections::open(&pair.lab.a, server, 200)?;
    ensure!(more.round(SOON) == 200);
    pair.restart(world, kinds[0], 0)?;
    if kinds != OURS {
        // The daemons are to have greeted each other.
        std::thread::sleep(Duration::from_millis(2500));
        pair.daemons[1].ask(&["-n"])?;
    }
    let mut last = (0, 0, 0);
    wait::until("nothing is missing", Duration::from_secs(15), || {
        last = pair.compare().unwrap_or_default();
        last.0 == 700 && last.1 == 0
    })
    .with_context(|| {
        let log = pair.daemons[0].log();
        let network = pair.daemons[0].ask(&["-s", "network"]);
        let network = network.unwrap_or_default();
        format!("flows, missing, stale: {last:?}\n{log}\n{network}")
    })?;
    pair.lab.cut(0)?;
    pair.daemons[0].kill();
    pair.lab.take_addresses(1)?;
    pair.daemons[1].become_primary()?;
    let (first, second) = (pair.open.round(SOON), more.round(SOON));
    ensure!(
        first == 500 && second == 200,
        "{first} of 500 and {second} of 200 survived"
    );
    Ok(())
}

/// Goal: the original takes an ALIVE with a trailer for an ALIVE, and counts nothing.
fn trailer(world: &World, mode: Mode) -> Result<()> {
    let pair = LossyPair::start(world, &Setup::new(FROM_OURS, mode))?;
    pair.daemons[0].ask(&["-B"])?;
    let trailers = &pair.relay.passed[0].trailers;
    wait::until("trailers pass", Duration::from_secs(10), || {
        trailers.load(Ordering::Relaxed) >= 5
    })?;
    let (flows, missing, _) = pair.compare()?;
    ensure!(flows == 500 && missing == 0, "{missing} of {flows} missing");
    let text = pair.daemons[1].ask(&["-s", "network"])?;
    let counted: Vec<_> = text
        .lines()
        .take_while(|l| !l.starts_with("UDP"))
        .filter(|l| l.contains(':') && !l.ends_with(':') && !l.trim_end().ends_with(" 0"))
        .collect();
    ensure!(counted.is_empty(), "the original counts: {counted:?}");
    ensure!(peer(&pair.daemons[0])?.contains("without trailer"));
    Ok(())
}

fn no_trailer(world: &World) -> Result<()> {
    let setup = Setup {
        sync_lines: "Options { AliveTrailer off }".into(),
        ..Setup::new(OURS, Mode::Ftfw)
    };
    let off = LossyPair::start(world, &setup)?;
    let a = off.settle(Duration::from_secs(15))?;
    ensure!(a.flows == 500 && a.equal_after.is_some(), "{a:?}");
    std::thread::sleep(Duration::from_secs(2));
    for passed in &off.relay.passed {
        ensure!(passed.trailers.load(Ordering::Relaxed) == 0);
        ensure!(passed.datagrams.load(Ordering::Relaxed) > 0);
    }
    ensure!(peer(&off.daemons[1])?.contains("without trailer"));
    Ok(())
}

fn peer(daemon: &Daemon) -> Result<String> {
    let text = daemon.ask(&["-s", "network"])?;
    let line = text.lines().find(|l| l.starts_with("peer: "));
    Ok(line.context("no line about the peer")?.to_owned())
}
