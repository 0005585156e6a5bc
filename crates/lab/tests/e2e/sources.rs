//! Where a daemon learns of flows from, and how it is scheduled: polling instead of events, the
//! repair after lost events, the real-time scheduler.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER};
use lab::wait;
use lab::world::{self, World};
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, notrack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("sources/polling", |w| polls(w, None)),
    ("sources/polling_in_a_zone", |w| polls(w, Some(5))),
    ("sources/no_repair_when_switched_off", |w| {
        repairs(w, "off", None)
    }),
    ("sources/a_repair_after_some_seconds", |w| {
        repairs(w, "4", Some(Duration::from_secs(4)))
    }),
    ("sources/scheduler_by_default", |w| {
        scheduled(w, "", (2, 99))
    }),
    ("sources/scheduler_fifo", |w| {
        scheduled(w, "Scheduler {\nType FIFO\nPriority 20\n}", (1, 20))
    }),
    ("sources/a_scheduler_that_the_kernel_refuses", unscheduled),
];

fn general(lines: &str) -> Settings {
    Settings {
        general_lines: lines.into(),
        ..notrack()
    }
}

/// Goal: flows come and go at the peer as they do in the kernel, at the pace of the polls, and
/// without an event.
fn polls(world: &World, zone: Option<u16>) -> Result<()> {
    let options = Options {
        zone,
        ..Options::default()
    };
    let pair = Pair::start(world, general("PollSecs 1"), options)?;
    pair.lab.forget_ended_soon(0)?;
    let ends = pair.connect(SERVER, 4)?;
    let _open = pair.connect(SERVER, 6)?;
    pair.wait_external(&format!("dport={PORT} "), 10)?;
    drop(ends);
    pair.wait_external_for(&format!("dport={PORT} "), 6, Duration::from_secs(10))?;
    // Those that go on have never been taken as gone.
    thread::sleep(Duration::from_secs(3));
    let text = pair.fw2.ask(&["-s"])?;
    let (_, external) = text.split_once("cache external:").context("a cache")?;
    let ended = external
        .lines()
        .find(|l| l.starts_with("connections destroyed:"));
    let ended = ended
        .and_then(|l| l.split_whitespace().nth(2))
        .context("a number")?;
    ensure!(ended == "4", "{text}");
    let events = Pair::counter(&pair.fw1, &["-s", "runtime"], "events received:")?;
    ensure!(events == 0, "{events} events");
    ensure!(
        pair.fw1.log().contains("running in polling mode"),
        "{}",
        pair.fw1.log()
    );
    let out = pair.fw1.own_command(&["events"])?.output()?;
    ensure!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("PollSecs"));
    Ok(())
}

/// When the table is read again after lost events: not before `after`, and soon then; `None`:
/// not in the next seconds.
fn repairs(world: &World, word: &str, after: Option<Duration>) -> Result<()> {
    const SMALL: &str = "NetlinkBufferSize 65536\nNetlinkBufferSizeMaxGrowth 65536";
    let settings = general(&format!("{SMALL}\nNetlinkOverrunResync {word}"));
    let lab = Lab::build(Options::default())?;
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &settings, world.dir())?;
    let daemon = daemon.context("no daemon")?;
    let counter = |line| Pair::counter(&daemon, &["-s", "runtime"], line);
    let before = counter("resync with kernel table:")?;
    let pid = Pid::from_raw(daemon.pid().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    lab::traffic::datagrams::create(&lab.fw[0], world.dir(), 3000)?;
    kill_process(pid, Signal::CONT)?;
    wait::until("lost events are counted", SOON, || {
        counter("netlink overrun:").is_ok_and(|n| n > 0)
    })?;
    let begun = Instant::now();
    let is_read = || counter("resync with kernel table:").is_ok_and(|n| n > before);
    let Some(after) = after else {
        let is_read = wait::until("a repair", SOON, is_read);
        ensure!(
            is_read.is_err(),
            "the table was read after {:?}",
            begun.elapsed()
        );
        return Ok(());
    };
    wait::until("a repair", after + SOON, is_read)?;
    let early = Duration::from_millis(500);
    ensure!(
        begun.elapsed() + early > after,
        "after {:?}",
        begun.elapsed()
    );
    Ok(())
}

/// Policy and priority of a process, as the system shows them.
fn policy(daemon: &Daemon) -> Result<(u32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    // Behind the name in parentheses; the fields are numbered from 1 in proc(5).
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Ok((fields[41 - 3].parse()?, fields[40 - 3].parse()?))
}

fn start(world: &World, lines: &str) -> Result<Daemon> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        general_lines: lines.into(),
        ..Settings::new(Mode::Notrack)
    };
    let daemon = Daemon::start(Kind::Ftfw, &lab.fw[0], 0, &settings, world.dir())?;
    daemon.context("no daemon")
}

/// With the right to it the daemon gets the policy; without, it goes on with a warning.
fn scheduled(world: &World, lines: &str, wanted: (u32, u32)) -> Result<()> {
    let daemon = start(world, lines)?;
    let found = policy(&daemon)?;
    if world::is_privileged() {
        ensure!(found == wanted, "{found:?}, wanted {wanted:?}");
    } else {
        ensure!(daemon.log().contains("scheduler configuration failed"));
    }
    Ok(())
}

/// `Type` without `Priority` means 0, which is no real-time priority.
fn unscheduled(world: &World) -> Result<()> {
    let daemon = start(world, "Scheduler {\nType RR\n}")?;
    ensure!(policy(&daemon)? == (0, 0), "{:?}", policy(&daemon)?);
    let warning = "scheduler configuration failed";
    ensure!(daemon.log().contains(warning), "{}", daemon.log());
    Ok(())
}
