//! What befalls the dedicated link.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::kills::RATE;
use super::rig::{Plan, Rig};
use super::{Course, Outcome};
use crate::relay::{Faults, Passed};

/// How much is late at most.
const LATE_MAX: Duration = Duration::from_millis(50);

/// Nothing passes in a direction, or in both.
pub(super) fn cut(course: &Course<'_>, cut: [bool; 2]) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    thread::sleep(Duration::from_millis(500));
    rig.relay.set(Faults {
        cut,
        ..Faults::default()
    });
    thread::sleep(course.pick(Duration::from_secs(4), Duration::from_secs(20)));
    rig.struck(1);
    rig.relay.set(Faults::default());
    thread::sleep(Duration::from_millis(500));
    rig.equal()?;
    let lost = count(&rig, |passed| &passed.lost);
    rig.say(format!("datagrams lost {lost}"));
    rig.die()
}

/// What the relay counts, in both directions.
fn count(rig: &Rig, counter: fn(&Passed) -> &AtomicU64) -> u64 {
    let counts = rig
        .relay
        .passed
        .iter()
        .map(|p| counter(p).load(Ordering::Relaxed));
    counts.sum()
}

/// Under load the link is so, and stays so until both replicas are equal.
fn stays(
    course: &Course<'_>,
    faults: Faults,
    what: &str,
    counter: fn(&Passed) -> &AtomicU64,
) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.relay.set(faults);
    rig.load(RATE);
    thread::sleep(course.pick(Duration::from_secs(2), Duration::from_secs(20)));
    rig.equal()?;
    let struck = count(&rig, counter);
    ensure!(struck > 0, "the relay has done nothing");
    rig.struck(1);
    rig.say(format!("datagrams {what} {struck}"));
    rig.note(1, "messages lost", "/lost")?;
    rig.die()
}

pub(super) fn loss(course: &Course<'_>) -> Result<Outcome> {
    let faults = Faults {
        loss: 0.2,
        ..Faults::default()
    };
    stays(course, faults, "lost", |passed| &passed.lost)
}

pub(super) fn reordering(course: &Course<'_>) -> Result<Outcome> {
    let faults = Faults {
        late: 0.5,
        late_max: LATE_MAX,
        ..Faults::default()
    };
    stays(course, faults, "late", |passed| &passed.late)
}

pub(super) fn duplication(course: &Course<'_>) -> Result<Outcome> {
    let faults = Faults {
        duplicate: 0.5,
        ..Faults::default()
    };
    stays(course, faults, "doubled", |passed| &passed.doubled)
}

/// What is spoilt may make any flow of another: it is over when the replicas are compared.
pub(super) fn corruption(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.relay.set(Faults {
        corrupt: 0.1,
        ..Faults::default()
    });
    rig.load(RATE);
    thread::sleep(course.pick(Duration::from_secs(2), Duration::from_secs(20)));
    rig.relay.set(Faults::default());
    let corrupted = count(&rig, |passed| &passed.corrupted);
    ensure!(corrupted > 0, "the relay has done nothing");
    rig.struck(1);
    rig.tried(corrupted);
    // What passes for a message of the peer's looks like no loss to anybody.
    rig.ask(1, &["-n"])?;
    rig.equal()?;
    rig.note(1, "messages refused", "/malformed")?;
    rig.die()
}

/// What FW1 has sent of a load comes again and again.
pub(super) fn replay(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.relay.record(0);
    rig.load(RATE);
    thread::sleep(course.pick(Duration::from_secs(2), Duration::from_secs(20)));
    rig.equal()?;
    let capture = rig.relay.recorded(0);
    ensure!(!capture.is_empty(), "nothing was recorded");
    for restarted in [None, Some(0), Some(1)] {
        if let Some(n) = restarted {
            rig.restart(n)?;
            rig.equal()?;
        }
        rig.relay.replay(0, &capture);
        rig.tried(capture.len() as u64);
        rig.struck(1);
        rig.equal()?;
    }
    rig.die()
}
