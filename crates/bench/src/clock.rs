//! What turns take: time of this thread's CPU, and time on the wall.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    cpu: Duration,
    wall: Instant,
}

impl Reading {
    /// The clocks now.
    pub fn now() -> Reading {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let secs = cpu.tv_sec.unsigned_abs();
        let nanos = u64::try_from(cpu.tv_nsec).unwrap_or(0);
        Reading {
            cpu: Duration::from_secs(secs) + Duration::from_nanos(nanos),
            wall: Instant::now(),
        }
    }
}

/// What some turns of one replica have taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// How many there were.
    pub count: u64,
    /// CPU time of all of them.
    pub cpu: Duration,
    /// CPU time of the longest.
    pub longest_cpu: Duration,
    /// The longest on the wall: what other programs took of it is in it.
    pub longest_wall: Duration,
}

impl Turns {
    /// One turn that began at `begun` is over.
    pub fn end(&mut self, begun: Reading) {
        let now = Reading::now();
        let cpu = now.cpu.saturating_sub(begun.cpu);
        *self += Turns {
            count: 1,
            cpu,
            longest_cpu: cpu,
            longest_wall: now.wall.duration_since(begun.wall),
        };
    }

    /// CPU time for each of `count`, in nanoseconds.
    pub fn nanos_each(&self, count: u64) -> u64 {
        let nanos = u64::try_from(self.cpu.as_nanos()).unwrap_or(u64::MAX);
        nanos.checked_div(count).unwrap_or(0)
    }
}

impl AddAssign for Turns {
    fn add_assign(&mut self, other: Turns) {
        self.count += other.count;
        self.cpu += other.cpu;
        self.longest_cpu = self.longest_cpu.max(other.longest_cpu);
        self.longest_wall = self.longest_wall.max(other.longest_wall);
    }
}
