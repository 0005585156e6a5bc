//! A manager that is wrong, or cannot make up its mind.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kills::RATE;
use super::rig::{Plan, Rig};
use super::{Course, Outcome};
use crate::daemon::Kind;
use crate::topology::SERVER;
use crate::traffic::push::Pushes;
use crate::wait;

/// How often the firewalls change places.
const FLAP: Duration = Duration::from_millis(300);
/// Where connections go on which both ends send.
const PUSH_PORT: u16 = 5007;

/// Both have the same role for a while; then FW1 has its own again, and dies.
pub(super) fn two(course: &Course<'_>, primaries: bool) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    rig.load(RATE);
    for _ in 0..course.pick(1, 5) {
        for n in 0..2 {
            rig.role(n, primaries)?;
        }
        thread::sleep(course.pick(Duration::from_secs(2), Duration::from_secs(5)));
        rig.role(0, true)?;
        rig.role(1, false)?;
        rig.struck(1);
    }
    rig.equal()?;
    rig.die()
}

/// Connections that go on while the firewalls change places.
pub(super) fn flapping(course: &Course<'_>) -> Result<Outcome> {
    let mut rig = Rig::start(course, &Plan::new(course))?;
    let server = SocketAddr::new(SERVER.parse()?, PUSH_PORT);
    let count = course.pick(50, 200);
    let every = Duration::from_millis(100);
    let pushes = Pushes::start(&rig.lab.a, &rig.lab.b, server, count, every)?;
    if rig.kind != Kind::None {
        rig.wait_held(0, Duration::from_secs(10))?;
    }
    let (begun, mut late) = (Instant::now(), 0);
    let changes = course.pick(11, 201);
    for change in 1..=changes {
        let (to, from) = (change % 2, (change + 1) % 2);
        rig.lab.drop_addresses(from)?;
        rig.lab.take_addresses(to)?;
        rig.role(to, true)?;
        rig.role(from, false)?;
        let due = FLAP * change as u32;
        late += usize::from(begun.elapsed() > due);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    rig.struck(changes as u64);
    if late > 0 {
        rig.say(format!("changes that took longer than 300 ms: {late}"));
    }
    let settled = Instant::now();
    let limit = Duration::from_secs(if rig.kind == Kind::None { 4 } else { 20 });
    let all = wait::until("all are heard again", limit, || {
        pushes.survey(Instant::now() - 3 * every).alive == count
    });
    if all.is_ok() {
        rig.say(format!(
            "all heard again after {:.1} s",
            settled.elapsed().as_secs_f64()
        ));
    }
    let survey = pushes.finish(Duration::from_secs(1))?;
    ensure!(survey.alive + survey.lost + survey.reset == count);
    rig.beside(count, survey.alive);
    rig.look();
    Ok(rig.outcome())
}
