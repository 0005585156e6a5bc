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

use cache::{Position, Slot};

use crate::entry::{Life, Step};
use crate::ledger::Ledger;
use crate::settings::Settings;
use crate::time::Instant;

/// How often the cursor and the expiry are moved on.
const INTERVAL: Duration = Duration::from_millis(100);

/// The paced cursor, and when it is moved next.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// Time of a round (`RefreshTime`).
    round: Duration,
    position: Position,
    /// Entries that it may pass now.
    due: u128,
    /// It has gone round since that was last asked.
    is_round_over: bool,
    at: Instant,
    /// Parts of an entry left over from the last move, in entries times nanoseconds.
    rest: u128,
}

impl Alarm {
    pub(crate) fn new(settings: &Settings) -> Alarm {
        Alarm {
            round: settings.refresh_time,
            position: Position::default(),
            due: 0,
            is_round_over: false,
            at: Instant::START + INTERVAL,
            rest: 0,
        }
    }

    pub(crate) fn next_due(&self) -> Instant {
        self.at
    }

    /// Lets the cursor pass the share of so many flows that is due since the last time.
    /// False if the time has not come.
    pub(crate) fn timeout(&mut self, now: Instant, flows: usize) -> bool {
        if self.at > now {
            return false;
        }
        let since = (now.since(self.at) + INTERVAL).as_nanos();
        let round = self.round.as_nanos().max(1);
        let flows = flows as u128;
        let due = (flows * since + self.rest).min(flows * round);
        self.rest = due % round;
        self.due = (self.due + due / round).min(flows);
        self.at = now + INTERVAL;
        true
    }

    /// The entry at the paced cursor that is to be sent once more.
    pub(crate) fn next(&mut self, ledger: &mut Ledger) -> Option<Slot> {
        while self.due > 0 {
            let Some((slot, next)) = ledger.walk(self.position) else {
                self.position = Position::default();
                self.is_round_over = true;
                self.due -= 1;
                continue;
            };
            match ledger.life(slot) {
                Life::Ours => return Some(slot),
                // The live cursor sends it for the first time.
                Life::Found | Life::Offered => _ = ledger.step(slot, Step::Promoted),
                Life::Taken | Life::Ended => {}
            }
            self.position = next;
            self.due -= 1;
            if let Some(owed) = ledger.next_owed() {
                return Some(owed);
            }
        }
        None
    }

    /// The entry at the paced cursor, if it is this one, has been sent.
    pub(crate) fn sent(&mut self, ledger: &Ledger, slot: Slot) {
        if let Some((at, next)) = ledger.walk(self.position)
            && at == slot
        {
            self.position = next;
            self.due -= 1;
        }
    }

    /// True, once, when the cursor has gone round.
    pub(crate) fn take_round_over(&mut self) -> bool {
        std::mem::take(&mut self.is_round_over)
    }
}
