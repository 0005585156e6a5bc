//! Daemons that are killed, and such that stand still.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use super::rig::{EQUAL, Plan, Rig};
use super::{Course, Outcome};
use crate::daemon::Kind;
use crate::wait;

/// Events a second of a load.
pub(super) const RATE: u32 = 3000;
/// How long a part of a bulk update may take.
const PART_PASSES: Duration = Duration::from_secs(10);
/// Whom a kill takes.
const VICTIMS: [&[usize]; 3] = [&[0], &[1], &[0, 1]];

/// The control of all others.
pub(super) fn nothing(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    thread::sleep(course.pick(Duration::from_secs(1), Duration::from_secs(10)));
    rig.equal()?;
    rig.die()
}

/// FW2's daemon is killed and started, and lacks everything; the relay stops in the middle of
/// what comes.
pub(super) fn in_bulk(course: &Course<'_>) -> Result<Outcome> {
    let filled = course.pick(1000, 10_000);
    let mut rig = Rig::start(
        course,
        &Plan {
            filled,
            ..Plan::new(course)
        },
    )?;
    let parts: &[u64] = course.pick(&[50], &[0, 10, 50, 90]);
    for part in parts {
        for victims in VICTIMS {
            rig.relay.pass_states(0, u64::from(filled) * part / 100);
            rig.restart(1)?;
            let passed = wait::until("a part has passed", PART_PASSES, || {
                rig.relay.has_passed_states(0)
            });
            // An original that passes what is left without another message is at its end, too.
            if rig.kind == Kind::Ftfw {
                passed?;
            }
            victims.iter().for_each(|n| rig.kill(*n));
            rig.relay.pass_states(0, u64::MAX);
            for n in victims {
                rig.revive(*n)?;
            }
            rig.struck(victims.len() as u64);
            rig.equal()?;
        }
    }
    rig.die()
}

/// The steps of a planned failover.
const STEPS: usize = 8;
/// The one that has the old primary empty its kernel's table after a while.
const EMPTIES: usize = 1;
/// So many of them end with the commit.
const COMMITTED: usize = 5;

/// One step: addresses and commands, from firewall `from` to the other one.
fn step(rig: &Rig, from: usize, number: usize) -> Result<()> {
    let to = 1 - from;
    match number {
        0 => rig.lab.drop_addresses(from),
        EMPTIES => rig.ask(from, &["-t"]),
        2 => rig.ask(from, &["-n"]),
        3 => rig.lab.take_addresses(to),
        4 => rig.ask(to, &["-c"]),
        5 => rig.ask(to, &["-f"]),
        6 => rig.ask(to, &["-R"]),
        _ => rig.ask(to, &["-B"]),
    }
}

/// From firewall to firewall, each time with a kill behind another step, or in front of the
/// first one.
pub(super) fn in_failover(course: &Course<'_>) -> Result<Outcome> {
    // A new backup empties its kernel's table after this time.
    let purge = course.pick(4, 10);
    let plan = Plan {
        mode_lines: format!("PurgeTimeout {purge}"),
        ..Plan::new(course)
    };
    let mut rig = Rig::start(course, &plan)?;
    let stages: Vec<usize> = course.pick(vec![4], (0..=STEPS).collect());
    let mut from = 0;
    for stage in stages {
        for victims in VICTIMS {
            let to = 1 - from;
            (0..stage).try_for_each(|n| step(&rig, from, n))?;
            victims.iter().for_each(|n| rig.kill(*n));
            for n in victims {
                rig.revive(*n)?;
            }
            // A manager waits until it is ready (`ftfw ready`). Once the new primary has
            // committed, its kernel has everything.
            if stage < COMMITTED {
                let held = rig.wait_held(from, EQUAL);
                rig.expect(held);
            }
            // The script again, from the first command to whoever was killed.
            let rest = match stage {
                0..=3 => stage,
                _ => COMMITTED - 1,
            };
            // Who was killed has forgotten that it is to empty its table.
            if victims.contains(&from) && EMPTIES < rest {
                step(&rig, from, EMPTIES)?;
            }
            (rest..STEPS).try_for_each(|n| step(&rig, from, n))?;
            rig.struck(victims.len() as u64);
            rig.look();
            let begun = Instant::now();
            let held = rig.wait_held(to, EQUAL);
            if held.is_ok() {
                rig.equal_in(begun.elapsed());
            }
            rig.expect(held);
            from = to;
        }
    }
    // FW1, the last new backup, empties its table, and must hold everything all the same.
    let emptied = rig.wait_emptied(0);
    rig.expect(emptied);
    let held = rig.wait_held(1, EQUAL);
    rig.expect(held);
    rig.die_as_fw2()
}

/// Kills by chance.
pub(super) fn storm(course: &Course<'_>) -> Result<Outcome> {
    const EVERY: Duration = Duration::from_millis(500);
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    let mut random = fastrand::Rng::with_seed(1);
    let begun = Instant::now();
    for number in 1..=course.pick(6, 60) {
        let victims = VICTIMS[random.usize(..3)];
        victims.iter().for_each(|n| rig.kill(*n));
        for n in victims {
            rig.revive(*n)?;
        }
        rig.struck(victims.len() as u64);
        thread::sleep((EVERY * number).saturating_sub(begun.elapsed()));
    }
    rig.equal()?;
    rig.die()
}

/// A daemon gets no processor for some time.
pub(super) fn stopped(course: &Course<'_>, n: usize) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(course.pick(RATE, 2 * RATE));
    thread::sleep(Duration::from_millis(500));
    for _ in 0..course.pick(1, 2) {
        rig.signal(n, Signal::STOP)?;
        thread::sleep(course.pick(Duration::from_secs(3), Duration::from_secs(10)));
        rig.signal(n, Signal::CONT)?;
        rig.struck(1);
        thread::sleep(Duration::from_millis(500));
    }
    rig.equal()?;
    rig.note(0, "overruns", "/overruns")?;
    rig.note(1, "messages lost", "/lost")?;
    rig.die()
}
