//! ALARM: every flow is sent again and again, and what is not expires.
//!
//! There is no control message, no acknowledgement and no repair: a lost message
//! is made good by the next repetition, a lost delete by the entry's expiry.
//!
//! The original arms a random timer for each flow. Here a paced cursor goes round the
//! internal cache once in `RefreshTime`, a little each tenth of a second: the same
//! bound, no timer per flow, and a load that stays even however many flows began
//! at once. Expiry needs no timers either: the external cache's entries stand in a
//! list in the order in which they were last heard of.

use std::time::Duration;

use cache::{List, Position, Slot};
use wire::v1::Mode;

use crate::entry::{Life, Step};
use crate::{Instant, Replica, Settings};

/// How often the cursor and the expiry are moved on.
const INTERVAL: Duration = Duration::from_millis(100);

/// The paced cursor, and when it is moved next.
#[derive(Debug)]
pub(crate) struct Alarm {
    position: Position,
    /// Entries that it may pass now.
    due: u128,
    at: Instant,
    /// Parts of an entry left over from the last move, in entries times nanoseconds.
    rest: u128,
}

impl Alarm {
    /// `None` in the other modes.
    pub(crate) fn new(settings: &Settings) -> Option<Alarm> {
        (settings.mode == Mode::Alarm).then(|| Alarm {
            position: Position::default(),
            due: 0,
            at: Instant::START + INTERVAL,
            rest: 0,
        })
    }

    pub(crate) fn next_due(&self) -> Instant {
        self.at
    }
}

impl Replica {
    /// Moves refresh and expiry on, if their time has come.
    pub(crate) fn alarm_due(&mut self) {
        let Some(mut alarm) = self.alarm.take_if(|a| a.at <= self.now) else {
            return;
        };
        self.refresh(&mut alarm);
        self.expire();
        alarm.at = self.now + INTERVAL;
        self.alarm = Some(alarm);
    }

    /// Lets the cursor pass the share of the internal cache that is due since the last time.
    fn refresh(&mut self, alarm: &mut Alarm) {
        let since = (self.now.since(alarm.at) + INTERVAL).as_nanos();
        let round = self.settings.refresh_time.as_nanos().max(1);
        let flows = self.ledger.len() as u128;
        let due = (flows * since + alarm.rest).min(flows * round);
        alarm.rest = due % round;
        alarm.due = (alarm.due + due / round).min(flows);
    }

    /// The entry at the paced cursor that is to be sent once more.
    pub(crate) fn next_paced(&mut self) -> Option<Slot> {
        let alarm = self.alarm.as_mut()?;
        while alarm.due > 0 {
            let Some((slot, next)) = self.ledger.walk(alarm.position) else {
                alarm.position = Position::default();
                alarm.due -= 1;
                if let Some(expectations) = &mut self.expectations {
                    expectations.owe_all(&self.ledger, false);
                }
                continue;
            };
            match self.ledger.life(slot) {
                Life::Ours => return Some(slot),
                // The live cursor sends it for the first time.
                Life::Found | Life::Offered => _ = self.ledger.step(slot, Step::Promoted),
                Life::Taken | Life::Ended => {}
            }
            alarm.position = next;
            alarm.due -= 1;
            if let Some(owed) = self.ledger.next_owed() {
                return Some(owed);
            }
        }
        None
    }

    /// The entry at the paced cursor has been sent.
    pub(crate) fn paced_sent(&mut self, slot: Slot) {
        if let Some(alarm) = &mut self.alarm
            && let Some((at, next)) = self.ledger.walk(alarm.position)
            && at == slot
        {
            alarm.position = next;
            alarm.due -= 1;
        }
    }

    /// Drops the entries of the peer that were not sent again.
    fn expire(&mut self) {
        // While a commit walks the cache it would only lose what it is to commit.
        if self.commit.is_some() {
            return;
        }
        let now = self.now.tick();
        let limit = self.settings.cache_timeout.as_secs();
        while let Some(slot) = self.external.front(List::Aged) {
            let age = now.seconds_since(self.external.times(slot).updated);
            if u64::from(age) < limit {
                break;
            }
            self.remove_external(slot);
            self.stats.external_expired += 1;
        }
    }

    /// Puts an entry of the external cache that has just been heard of behind the others.
    pub(crate) fn age(&mut self, slot: Slot) {
        if self.settings.mode == Mode::Alarm {
            self.external.link(slot, List::Aged);
        }
    }
}
