//! How often events wake the loop.
//!
//! Waking up is what events cost, not reading them. So wake-ups have a rate: as long as they
//! come more slowly, each event is read at once; when they come faster, the loop does not
//! listen for events but reads what has gathered each time that a period is over.

use std::time::Duration;

use replica::Instant;

/// Time between two wake-ups when events come fast. The longer, the fewer, and the later
/// the last flow reaches the peer: at a thousand connections a second 99 of 100 shall be in
/// its kernel within 3 ms.
const PERIOD: Duration = Duration::from_micros(2500);
/// So many wake-ups may follow each other at once after a quiet time: a connection that
/// begins makes three events in the time of a packet there and back.
const BURST: u32 = 8;

/// A rate of wake-ups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    period: Duration,
    /// Moves on by a period with each wake-up, and with time: how far it is ahead of now says
    /// how many wake-ups there have been lately.
    paid: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new(true)
    }
}

impl Pace {
    /// `gathers`: events that come fast are read together. Otherwise each is read at once: a
    /// peer through which the answer comes back must know the flow before that.
    pub(crate) fn new(gathers: bool) -> Pace {
        Pace {
            period: if gathers { PERIOD } else { Duration::ZERO },
            paid: Instant::default(),
        }
    }

    /// Events have been read at `now`.
    pub(crate) fn woken(&mut self, now: Instant) {
        let period = self.period;
        self.paid = (self.paid.max(now) + period).min(now + period * (BURST + 1));
    }

    /// How long events are to gather from `now` on before they are read.
    pub(crate) fn pause(&self, now: Instant) -> Duration {
        self.paid.since(now).saturating_sub(self.period * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::START + Duration::from_micros(micros)
    }

    /// Reads events that come at these times; yields when each has been read.
    fn read(pace: &mut Pace, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut reads = Vec::new();
        let mut last = None;
        for time in times {
            // Read together with one that came before.
            if let Some(last) = last.filter(|last| *last >= time) {
                reads.push(last);
                continue;
            }
            let pause = pace.pause(at(time)).as_micros() as u64;
            last = Some(time + pause);
            pace.woken(at(time + pause));
            reads.push(time + pause);
        }
        reads
    }

    #[test]
    fn a_few_events_after_a_quiet_time_are_read_at_once() {
        let mut pace = Pace::default();
        for begin in [0, 100_000, 200_000] {
            let times = [0, 100, 200, 5000].map(|t| begin + t);
            assert_eq!(read(&mut pace, times), times);
        }
    }

    #[test]
    fn without_gathering_no_event_waits() {
        let times: Vec<u64> = (0..1000).map(|n| n * 10).collect();
        assert_eq!(read(&mut Pace::new(false), times.clone()), times);
    }

    #[test]
    fn events_slower_than_the_rate_are_never_kept_waiting() {
        let times: Vec<u64> = (0..1000).map(|n| n * 2500).collect();
        assert_eq!(read(&mut Pace::default(), times.clone()), times);
    }

    #[test]
    fn however_often_the_loop_has_read_events_the_next_ones_wait_no_longer() {
        let mut pace = Pace::default();
        for _ in 0..1000 {
            pace.woken(at(0));
        }
        assert_eq!(pace.pause(at(0)), PERIOD);
        assert_eq!(pace.pause(at(1500)), Duration::from_micros(1000));
    }

    #[test]
    fn fast_events_are_read_once_a_period_and_wait_no_longer() {
        let times: Vec<u64> = (0..10_000).map(|n| n * 1070).collect();
        let mut reads = read(&mut Pace::default(), times.clone());
        for (time, read) in times.iter().zip(&reads) {
            assert!(read - time <= 2500, "{time} is read at {read}");
        }
        reads.dedup();
        let periods = 10_000 * 1070 / 2500;
        assert!(
            (periods..periods + 10).contains(&reads.len()),
            "{}",
            reads.len()
        );
    }
}
