//! What befalls one firewall: no events, no room, no memory, no disk, no descriptors, another
//! time, another kernel.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::kills::RATE;
use super::load;
use super::rig::{Plan, Rig};
use super::{Course, Outcome};
use crate::bench::load::Action;
use crate::bench::table_count;
use crate::daemon::Kind;
use crate::relay::Faults;
use crate::topology::Options;
use crate::wait;

/// The daemon of FW1 stands still while more happens than its buffer holds.
pub(super) fn overrun(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(
        course,
        &Plan {
            general_lines: "NetlinkBufferSize 65536\nNetlinkBufferSizeMaxGrowth 65536".into(),
            ..Plan::new(course)
        },
    )?;
    rig.load(RATE);
    for _ in 0..course.pick(1, 10) {
        rig.signal(0, Signal::STOP)?;
        thread::sleep(Duration::from_secs(1));
        rig.signal(0, Signal::CONT)?;
        rig.struck(1);
        thread::sleep(Duration::from_millis(500));
    }
    rig.equal()?;
    if let Some(overruns) = rig.status(0, "/overruns")? {
        ensure!(overruns > 0, "no event was lost");
    }
    rig.note(0, "overruns", "/overruns")?;
    rig.die()
}

/// FW2 injects into a table that has no room.
pub(super) fn full_table(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(
        course,
        &Plan {
            injects: true,
            ..Plan::new(course)
        },
    )?;
    let fw2 = rig.lab.fw[1].clone();
    // The daemon's own datagrams make no flow that could be dropped.
    for chain in ["OUTPUT", "PREROUTING"] {
        fw2.run(&format!(
            "iptables -t raw -I {chain} -p udp -j CT --notrack"
        ))?;
    }
    let max: u32 = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?
        .trim()
        .parse()?;
    let room = max - u32::try_from(table_count(&rig.lab, 1)?)?;
    load::occupy(&fw2, room, Action::Create)?;
    rig.struck(1);
    rig.load(RATE);
    thread::sleep(course.pick(Duration::from_secs(2), Duration::from_secs(10)));
    rig.unload()?;
    let [missing, _] = rig.gap()?;
    rig.say(format!("flows missing while it was full {missing}"));
    load::occupy(&fw2, room, Action::Delete)?;
    // What the kernel has refused is not tried again by itself.
    rig.ask(1, &["-n"])?;
    rig.equal()?;
    rig.die()
}

/// FW1's daemon has what it has and gets no more.
pub(super) fn memory(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    let daemon = rig.daemons[0].as_ref().context("no daemon")?;
    daemon.limit_memory(1 << 20)?;
    load::fill(&rig.lab.fw[0], course.pick(20_000, 60_000))?;
    rig.struck(1);
    // The original goes on, without what it had no room for.
    let is_running = wait::until("the daemon ends", Duration::from_secs(5), || {
        rig.daemons[0].as_mut().is_none_or(|d| !d.is_running())
    })
    .is_err();
    ensure!(
        rig.kind != Kind::Ftfw || !is_running,
        "its memory suffices: nothing is proven"
    );
    rig.say(format!(
        "the daemon {}",
        if is_running { "goes on" } else { "ends" }
    ));
    if is_running {
        let daemon = rig.daemons[0].as_ref().context("no daemon")?;
        daemon.limit("--as=unlimited:")?;
    } else {
        rig.revive(0)?;
    }
    rig.equal()?;
    rig.die()
}

/// FW1's daemon has its folder on a disk of its own, which is filled.
pub(super) fn full_disk(course: &Course<'_>) -> Result<Outcome> {
    let dir = course.world.dir().join("fw1");
    fs::create_dir_all(&dir)?;
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&dir);
    ensure!(mount.status()?.success(), "no disk for FW1's daemon");
    let mut rig = Rig::start(course, &Plan::new(course))?;
    let ballast = dir.join("ballast");
    let mut file = fs::File::create(&ballast)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    rig.load(RATE);
    for _ in 0..course.pick(1, 5) {
        // A peer that goes and comes is worth lines of the log.
        rig.restart(1)?;
        rig.struck(1);
        thread::sleep(Duration::from_secs(1));
    }
    rig.ask(0, &["-s"])?;
    rig.equal()?;
    let log = |rig: &Rig| rig.daemons[0].as_ref().map_or(0, |d| d.log().len());
    let before = log(&rig);
    drop(file);
    fs::remove_file(&ballast)?;
    rig.ask(0, &["-n"])?;
    let goes_on = wait::until("the log goes on", Duration::from_secs(10), || {
        log(&rig) > before
    });
    goes_on?;
    rig.equal()?;
    rig.die()
}

/// FW2's daemon has no descriptor beyond the one that it holds back for commands.
pub(super) fn descriptors(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    let daemon = rig.daemons[1].as_ref().context("no daemon")?;
    daemon.limit(&format!("--nofile={}", daemon.descriptors(1)?))?;
    let path = daemon.dir().join("control");
    let silent: Vec<_> = (0..20)
        .map(|_| std::os::unix::net::UnixStream::connect(&path))
        .collect::<Result<_, _>>()?;
    thread::sleep(course.pick(Duration::from_secs(1), Duration::from_secs(10)));
    rig.struck(1);
    rig.tried(silent.len() as u64);
    rig.equal()?;
    let outcome = rig.die();
    drop(silent);
    outcome
}

/// Seconds of a day.
const DAY: u32 = 86_400;

/// Of the wall clock a peer sees the number of a daemon's first message.
pub(super) fn clock(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    for shift in [DAY, DAY.wrapping_neg(), 0] {
        rig.kill(0);
        rig.relay.shift(shift);
        rig.revive(0)?;
        rig.struck(1);
        thread::sleep(course.pick(Duration::from_secs(1), Duration::from_secs(5)));
    }
    rig.equal()?;
    rig.note(1, "starts of FW1 seen", "/peer/restarts")?;
    rig.die()
}

/// What FW1 calls `ftp` FW2 reads as something that no kernel has.
pub(super) fn helper(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(
        course,
        &Plan {
            options: Options {
                ftp: true,
                translate_ports: true,
                ..Options::default()
            },
            // The server does not speak FTP; the helper passes over what it says.
            port: 21,
            ..Plan::new(course)
        },
    )?;
    rig.relay.set(Faults {
        helper: Some([b"ftp", b"fty"]),
        ..Faults::default()
    });
    // What FW2 knows from before the renaming is sent once more.
    rig.restart(1)?;
    rig.struck(1);
    rig.equal()?;
    let kind = rig.kind;
    let (mut outcome, without) = rig.die_and_ask("/without_helper")?;
    if kind == Kind::Ftfw {
        let without = without.context("a counter")?;
        ensure!(without >= 1, "no flow lacks its helper: nothing is proven");
        outcome
            .notes
            .push(format!("flows without their helper {without}"));
    }
    Ok(outcome)
}
