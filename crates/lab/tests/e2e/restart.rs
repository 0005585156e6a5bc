//! Goal: a daemon that starts again costs no flow, and leaves none that has ended, without
//! a command to either daemon.
//! Method: kill -9 and a start, in several orders; what FW2 holds, in its external cache or
//! in its kernel, is compared with the connections that live.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Mode, Settings};
use lab::topology::{Options, SERVER};
use lab::traffic::numbered::Connections;
use lab::wait;
use lab::world::World;

use crate::pair::{PORT, Pair, SOON, address, known, tuples};
use crate::{Scenario, kind};

const COUNT: usize = 1000;
/// Those that end while FW1's daemon is down.
const ENDED: usize = 300;
/// How long FW2 may take to hold everything again.
const REPAIR: Duration = Duration::from_secs(15);
/// How long an end that nobody saw may take to reach FW2: a sweep comes every 15 s.
const FORGET: Duration = Duration::from_secs(30);

const CACHED: &str = "";
const INJECTED: &str = "DisableExternalCache on";

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("restart/one_after_the_other", |w| {
        restarts(w, CACHED, |pair| {
            pair.restart(0)?;
            pair.lab.wait_quiet()?;
            pair.restart(1)
        })
    }),
    ("restart/both_at_once", |w| restarts(w, CACHED, both)),
    ("restart/one_after_the_other_injected", |w| {
        restarts(w, INJECTED, |pair| {
            pair.restart(0)?;
            pair.lab.wait_quiet()?;
            pair.restart(1)
        })
    }),
    ("restart/both_at_once_injected", |w| {
        restarts(w, INJECTED, both)
    }),
    ("restart/ten_times_under_traffic", |w| {
        under_traffic(w, CACHED)
    }),
    ("restart/ten_times_under_traffic_injected", |w| {
        under_traffic(w, INJECTED)
    }),
    ("restart/what_ended_meanwhile_is_forgotten", ended),
    ("restart/a_new_table_removes_nothing", reboot),
    ("restart/a_backup_that_lacks_flows_asks", lack),
    ("restart/a_peer_that_is_lost_and_back_is_logged", lost),
];

fn both(pair: &mut Pair) -> Result<()> {
    pair.kill(0);
    pair.kill(1);
    pair.restart(0)?;
    pair.restart(1)
}

/// A pair in FT-FW and `counts` groups of connections, which FW2 holds.
fn start<const N: usize>(
    world: &World,
    mode_lines: &str,
    counts: [usize; N],
) -> Result<(Pair, [Connections; N])> {
    let settings = Settings {
        mode_lines: mode_lines.into(),
        ..Settings::new(Mode::Ftfw)
    };
    let pair = Pair::of(world, kind(), settings, Options::default())?;
    for n in 0..2 {
        pair.lab.forget_ended_soon(n)?;
    }
    let mut open = Vec::new();
    for count in counts {
        open.push(pair.connect(SERVER, count)?);
    }
    let open = open.try_into().ok().context("as many as were asked for")?;
    pair.wait_held(counts.iter().sum(), SOON)?;
    pair.lab.wait_quiet()?;
    Ok((pair, open))
}

/// FW1 dies, and FW2 must carry on with every connection.
fn takeover(mut pair: Pair, open: &mut Connections, count: usize) -> Result<()> {
    pair.lab.cut(0)?;
    pair.kill(0);
    pair.lab.take_addresses(1)?;
    pair.fw2.become_primary()?;
    let survive = open.round(2 * SOON);
    ensure!(survive == count, "{survive} of {count} survive");
    Ok(())
}

/// Goal: a backup that has lost what its peer counts on announces that, and gets it.
fn lack(world: &World) -> Result<()> {
    let (pair, [mut open]) = start(world, CACHED, [COUNT])?;
    pair.fw2.ask(&["-f", "external"])?;
    ensure!(pair.fw2.external("dport=")?.is_empty());
    pair.wait_held(COUNT, REPAIR)?;
    let asked = format!("the peer counts on {COUNT} flows here, and 0 are held");
    ensure!(pair.fw2.log().contains(&asked), "{}", pair.fw2.log());
    // FW1 knows that they are there.
    wait::until("FW1 says that its flows are held", SOON, || {
        let status = pair.fw1.own(&["status"]).unwrap_or_default();
        status.contains(&format!("the peer holds {COUNT} of our {COUNT} flows"))
    })?;
    takeover(pair, &mut open, COUNT)
}

/// Goal: one line when nothing comes from the peer any more, one when it is back.
fn lost(world: &World) -> Result<()> {
    let (mut pair, []) = start(world, CACHED, [])?;
    let logged = |pair: &Pair, line: &str| {
        wait::until(line, REPAIR, || pair.fw2.log().contains(line)).with_context(|| pair.fw2.log())
    };
    logged(&pair, "the peer is there")?;
    pair.kill(0);
    logged(&pair, "the peer is lost")?;
    pair.restart(0)?;
    logged(&pair, "the peer is back after")?;
    logged(&pair, "the peer has started again")?;
    let lines = pair.fw2.log();
    for line in ["the peer is there", "the peer is lost", "the peer is back"] {
        let count = lines.matches(line).count();
        ensure!(count == 1, "`{line}` is logged {count} times");
    }
    Ok(())
}

fn restarts(world: &World, mode_lines: &str, restart: fn(&mut Pair) -> Result<()>) -> Result<()> {
    let (mut pair, [mut open]) = start(world, mode_lines, [COUNT])?;
    restart(&mut pair)?;
    pair.wait_held(COUNT, REPAIR)?;
    takeover(pair, &mut open, COUNT)
}

/// Opens connections until stopped, and closes nine of ten after a second. Returns those
/// that are then open.
fn churn(server: SocketAddr, stop: &AtomicBool) -> Result<Vec<TcpStream>> {
    const PER_SECOND: u32 = 300;
    let begun = Instant::now();
    let (mut kept, mut short) = (Vec::new(), VecDeque::new());
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect_timeout(&server, SOON)?;
        if number % 10 == 0 {
            kept.push(stream);
        } else {
            short.push_back(stream);
        }
        if short.len() > PER_SECOND as usize {
            short.pop_front();
        }
        number += 1;
        let due = Duration::from_secs(1) * number / PER_SECOND;
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    kept.extend(short);
    Ok(kept)
}

fn under_traffic(world: &World, mode_lines: &str) -> Result<()> {
    const RESTARTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(2500);
    let (mut pair, []) = start(world, mode_lines, [])?;
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let server = address(SERVER, PORT);
    let traffic = pair.lab.a.thread(move || churn(server, &until))?;
    let begun = Instant::now();
    for number in 0..RESTARTS {
        pair.restart(number as usize % 2)?;
        // Not a wait: traffic goes on until the next restart is due.
        thread::sleep((PAUSE * (number + 1)).saturating_sub(begun.elapsed()));
    }
    stop.store(true, Ordering::Relaxed);
    let open = traffic.join().ok().context("the traffic panicked")??;
    ensure!(open.len() > 900, "{} connections are open", open.len());
    let filter = format!("-p tcp --orig-port-dst {PORT}");
    let live = || Ok::<_, anyhow::Error>(tuples(&pair.lab.flows(0, &filter)?));
    wait::until("the others have ended", 2 * SOON, || {
        live().is_ok_and(|l| l.len() == open.len())
    })?;
    let live = live()?;
    let (mut missing, mut stale) = (0, 0);
    wait::until("FW2 holds what lives", FORGET, || {
        let held = known(&pair.lab, 1, &pair.fw2).unwrap_or_default();
        (missing, stale) = (
            live.difference(&held).count(),
            held.difference(&live).count(),
        );
        missing == 0
    })
    .with_context(|| {
        format!(
            "of {} it lacks {missing}, and has {stale} others",
            live.len()
        )
    })
}

/// Goal: what ended while FW1's daemon was down ends at FW2, and nothing else does.
fn ended(world: &World) -> Result<()> {
    let (mut pair, [mut open, closed]) = start(world, CACHED, [COUNT - ENDED, ENDED])?;
    pair.kill(0);
    closed.close();
    let filter = format!("-p tcp --orig-port-dst {PORT}");
    wait::until("they have ended on FW1", 2 * SOON, || {
        let count = pair.lab.count_flows(0, &filter);
        count.is_ok_and(|n| n == COUNT - ENDED)
    })?;
    pair.restart(0)?;
    pair.wait_held(COUNT - ENDED, FORGET)?;
    let live = tuples(&pair.lab.flows(0, &filter)?);
    ensure!(live == known(&pair.lab, 1, &pair.fw2)?, "other flows live");
    takeover(pair, &mut open, COUNT - ENDED)
}

/// The control of the above: FW1 comes back with an empty table, whose silence proves nothing.
fn reboot(world: &World) -> Result<()> {
    let (mut pair, [mut open]) = start(world, CACHED, [COUNT])?;
    pair.kill(0);
    pair.lab.reboot(0)?;
    pair.restart(0)?;
    let begun = Instant::now();
    while begun.elapsed() < FORGET {
        let held = known(&pair.lab, 1, &pair.fw2)?.len();
        let after = begun.elapsed().as_secs_f64();
        ensure!(
            held == COUNT,
            "FW2 holds {held} of {COUNT} after {after:.1} s"
        );
        thread::sleep(Duration::from_millis(200));
    }
    takeover(pair, &mut open, COUNT)
}
