//! How long the turns of the loop take: while one lasts, everything else waits.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Turns of the loop since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    /// CPU time of the thread when the last turn ended, if the next one follows without a wait.
    cpu: Option<Duration>,
    /// The longest on the wall.
    pub(crate) longest: Duration,
    /// The longest CPU time of one that followed another without a wait. The others are not
    /// measured: to ask for it takes a system call.
    pub(crate) longest_cpu: Duration,
    /// How many took longer than each of `LONGER_THAN`.
    pub(crate) counts: [u64; Turns::LONGER_THAN.len()],
}

impl Turns {
    /// Bounds for which turns are counted: seconds, as a label and as a time.
    pub(crate) const LONGER_THAN: [(&'static str, Duration); 4] = [
        ("0", Duration::ZERO),
        ("0.001", Duration::from_millis(1)),
        ("0.005", Duration::from_millis(5)),
        ("0.02", Duration::from_millis(20)),
    ];

    /// A turn has ended after `took`. `follows`: the next one does not wait.
    pub(crate) fn end(&mut self, took: Duration, follows: bool) {
        self.longest = self.longest.max(took);
        for (count, (_, bound)) in self.counts.iter_mut().zip(Turns::LONGER_THAN) {
            *count += u64::from(took > bound);
        }
        let before = self.cpu.take();
        if follows || before.is_some() {
            let now = thread_cpu();
            let used = before.map_or(Duration::ZERO, |before| now.saturating_sub(before));
            self.longest_cpu = self.longest_cpu.max(used);
            self.cpu = follows.then_some(now);
        }
    }
}

/// CPU time that this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_by_how_long_they_take() {
        let mut turns = Turns::default();
        for ms in [2, 7, 30, 1] {
            turns.end(Duration::from_millis(ms), false);
        }
        assert_eq!(turns.counts, [4, 3, 2, 1]);
        assert_eq!(turns.longest, Duration::from_millis(30));
        assert_eq!(turns.longest_cpu, Duration::ZERO, "none followed another");
    }

    #[test]
    fn cpu_time_is_that_of_turns_that_follow_each_other() {
        let mut turns = Turns::default();
        turns.end(Duration::ZERO, true);
        let begun = thread_cpu();
        while thread_cpu() - begun < Duration::from_millis(2) {}
        turns.end(Duration::ZERO, false);
        let longest = turns.longest_cpu;
        assert!(longest >= Duration::from_millis(2), "{longest:?}");
        turns.end(Duration::ZERO, true);
        assert_eq!(turns.longest_cpu, longest);
    }
}
