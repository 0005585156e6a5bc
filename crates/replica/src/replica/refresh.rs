//! ALARM: the paced cursor sends the internal cache once more, and what the peer does not
//! repeat expires.

use cache::{List, Slot};

use super::Replica;

impl Replica {
    /// The entry at the paced cursor that is to be sent once more (ALARM).
    pub(crate) fn next_paced(&mut self) -> Option<Slot> {
        let alarm = self.protocol.alarm_mut()?;
        let slot = alarm.next(&mut self.ledger);
        if alarm.take_round_over() {
            self.expectations.owe_all(&self.ledger, false);
        }
        slot
    }

    pub(crate) fn paced_sent(&mut self, slot: Slot) {
        if let Some(alarm) = self.protocol.alarm_mut() {
            alarm.sent(&self.ledger, slot);
        }
    }

    /// Drops the entries of the peer that were not sent again.
    pub(crate) fn expire(&mut self) {
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
        if self.protocol.expires() {
            self.external.link(slot, List::Aged);
        }
    }
}
