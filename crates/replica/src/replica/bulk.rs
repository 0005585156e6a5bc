//! Bulk updates: when one begins, what its cursor sends, and what our ALIVE claims of it.

use wire::Seq;
use wire::v1::{Bulk, BulkState};

use super::Replica;
use crate::bulk::{BulkUpdate, Found, Passed};
use crate::entry::{Internal, Life, Step};
use crate::event::Event;

impl Replica {
    /// Sends the peer all our flows.
    pub(crate) fn start_bulk(&mut self) {
        if !self.protocol.has_control() {
            return;
        }
        self.events.push_back(Event::Bulk);
        if self.settings.internal_cache {
            self.begin_bulk(Found::Announced);
        } else {
            self.sweeps.owe_bulk();
        }
    }

    /// Sends the peer again what it should have, and offers what was only found in our
    /// kernel: that may be copies of the peer's own flows.
    pub(crate) fn start_repair(&mut self) {
        let takes_offers = self.takes_offers();
        if !self.settings.internal_cache {
            if takes_offers {
                self.sweeps.owe_offers();
            }
            return;
        }
        let found = found_in_repair(takes_offers);
        let known = self.ledger.announced() + self.ledger.members(Internal::ENDED);
        let has_found = self.ledger.members(Internal::FOUND) > 0;
        let is_empty = known == 0 && !(has_found && takes_offers);
        if !is_empty {
            self.events.push_back(Event::Bulk);
        }
        // The peer is to know also that there is nothing.
        if !is_empty || takes_offers {
            self.begin_bulk(found);
        }
    }

    fn begin_bulk(&mut self, found: Found) {
        self.bulk = BulkUpdate {
            number: self.bulk.number.wrapping_add(1).max(1),
            first: None,
            found: self.bulk.found.max(Some(found)),
            last: None,
            is_end_sent: false,
            given_up: false,
        };
        self.ledger.begin_bulk();
        // The cursor comes to what lives; only tombstones are to be sent beside it.
        let ledger = &self.ledger;
        self.stream.retain_missed(|ticket, version| {
            let slot = ledger.unchanged(ticket, version);
            slot.is_some_and(|slot| !ledger.is_ours(slot))
        });
        if self.settings.trailer {
            self.owe_alive();
        }
    }

    /// True while the cursor, or the dump in its place, is on its way.
    pub(crate) fn is_bulk_under_way(&self) -> bool {
        self.bulk.found.is_some() || self.sweeps.is_bulk_owed()
    }

    /// What it has not yet announced of what was found is not ours to announce.
    pub(crate) fn claim_no_more(&mut self) {
        if self.bulk.found == Some(Found::Announced) {
            self.bulk.found = Some(found_in_repair(self.takes_offers()));
        }
    }

    /// Breaks it off: what it walks through is gone.
    pub(crate) fn give_up_bulk(&mut self) {
        self.bulk.found = None;
        self.bulk.given_up = true;
    }

    /// What a message sent now may claim of it.
    pub(crate) fn bulk_state(&self) -> Bulk {
        let bulk = &self.bulk;
        // What has left the ring unacknowledged may be a part of it.
        let is_open = bulk.found.is_some()
            || self.flows_owed() > 0
            || self.ledger.has_to_catch_up()
            || !self.is_bulk_acknowledged();
        let state = match bulk.first {
            _ if bulk.given_up || bulk.number == 0 => BulkState::None,
            // The message is the one that begins it.
            None => BulkState::UnderWay,
            Some(_) if is_open => BulkState::UnderWay,
            Some(_) if self.sweeps.is_whole() => BulkState::Complete,
            // Flows of the kernel may be missing in our cache.
            Some(_) => BulkState::None,
        };
        Bulk {
            number: bulk.number,
            first: bulk.first.unwrap_or(self.stream.next_seq()),
            flows: u32::try_from(self.ledger.announced()).unwrap_or(u32::MAX),
            state,
        }
    }

    /// True if the peer has received everything of it, or nothing is acknowledged.
    fn is_bulk_acknowledged(&self) -> bool {
        let ftfw = self.protocol.ftfw();
        let is_under_way = |last| ftfw.is_some_and(|f| f.under_way().has_object_until(last));
        self.bulk.last.is_some_and(|last| !is_under_way(last))
    }

    /// What is forgotten may be a part of it: it goes on, but its end is never announced.
    pub(crate) fn claim_no_bulk(&mut self) {
        self.bulk.given_up = true;
    }

    /// Lets the second cursors go on. True if there is more to do at once.
    pub(crate) fn advance_bulk(&mut self, items: usize) -> bool {
        if self.bulk.found.is_none() {
            self.announce_end();
        }
        if !self.bulk_goes_on() && !self.catches_up() {
            self.stream.allow(0);
            return false;
        }
        // What was allowed before has not been used: the link takes no more.
        let is_blocked = self.stream.has_allowance();
        self.stream.allow(items);
        !is_blocked
    }

    /// A datagram is filled. When nothing is left, the last number of the bulk update is known.
    /// Under a load that never ends something is owed again before the next turn.
    pub(crate) fn note_bulk_sent(&mut self) {
        let is_sent = self.bulk.found.is_none() && self.bulk.first.is_some();
        if is_sent && self.bulk.last.is_none() && self.flows_owed() == 0 {
            self.bulk.last = Some(Seq(self.stream.next_seq().0.wrapping_sub(1)));
        }
    }

    /// A resync that was asked for before the bulk update must be over: the bulk is to see
    /// what it finds.
    fn bulk_goes_on(&self) -> bool {
        self.bulk.found.is_some() && !self.sweeps.is_resync_owed()
    }

    /// Looks at the entry at the bulk cursor.
    pub(crate) fn pass_in_bulk(&mut self) -> Passed {
        let Some(found) = self.bulk.found.filter(|_| self.bulk_goes_on()) else {
            return Passed::Nothing;
        };
        let Some(slot) = self.ledger.next_in_bulk(found != Found::LeftOut) else {
            self.bulk.found = None;
            self.ledger.end_bulk();
            // The peer may hold what was left out, and would take it for ended.
            self.bulk.given_up |=
                found == Found::LeftOut && self.ledger.members(Internal::FOUND) > 0;
            self.expectations
                .owe_all(&self.ledger, found == Found::Announced);
            return Passed::Nothing;
        };
        match (self.ledger.life(slot), found) {
            (Life::Ours, _) | (Life::Found | Life::Offered, Found::Offered) => {
                self.ledger.step(slot, Step::InBulk);
                return Passed::Send(slot);
            }
            // The live cursor sends it.
            (Life::Found | Life::Offered, Found::Announced) => {
                self.ledger.step(slot, Step::Promoted);
                // What the peer announced of it goes when the peer has acknowledged this:
                // an end of a flow that was taken is never announced.
                self.disown(&self.ledger.key(slot));
            }
            (Life::Found | Life::Offered, Found::LeftOut) | (Life::Taken | Life::Ended, _) => {
                self.ledger.pass_in_bulk(slot);
            }
        }
        self.stream.use_allowance();
        Passed::Another
    }

    /// Sends the end once, as soon as it is true; every later ALIVE repeats it.
    fn announce_end(&mut self) {
        if !self.settings.trailer || self.bulk.is_end_sent {
            return;
        }
        if self.bulk.given_up || self.bulk_state().state == BulkState::Complete {
            self.bulk.is_end_sent = true;
            if !self.bulk.given_up && self.bulk.number > 0 {
                self.owe_alive();
            }
        }
    }
}

/// What becomes of what was found, if nobody has told us to claim it.
fn found_in_repair(takes_offers: bool) -> Found {
    match takes_offers {
        true => Found::Offered,
        false => Found::LeftOut,
    }
}
