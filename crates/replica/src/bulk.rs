//! Bulk update: the whole internal cache is owed to the peer, a little each turn.
//!
//! Live updates go in between. Begin and end are sent in the trailer of ALIVE: the
//! end once everything of it is acknowledged, or sent where nothing is
//! acknowledged. Without an internal cache the kernel table is dumped and passed on
//! (see `sweep`), and nothing is claimed of it.
//!
//! Of flows that were only found in our kernel nobody knows whose they are: an
//! operator's bulk update announces them, a repair offers them. The peer takes of an
//! offer what it does not own itself, and does not take it for certain.

use cache::{List, Position};
use wire::v1::{Bulk, BulkState, Mode, Seq};

use crate::{Event, Replica, marks};

/// The cursor waits while this many entries are owed.
const OWED_MAX: usize = 2048;

/// The latest bulk update.
#[derive(Debug, Default)]
pub(crate) struct BulkUpdate {
    number: u32,
    /// Sequence number of the ALIVE before it, once that is sent.
    first: Option<Seq>,
    cursor: Option<Cursor>,
    /// Its end has been sent, or there is none to be sent.
    told: bool,
    /// It was broken off: nothing is claimed of it.
    given_up: bool,
}

/// What becomes of flows that were only found in our kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// The peer cannot tell an offer from an announcement: they are left out.
    LeftOut,
    Offered,
    Announced,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    position: Position,
    found: Found,
}

impl BulkUpdate {
    /// An ALIVE has been sent.
    pub(crate) fn on_alive_sent(&mut self, seq: Seq) {
        self.first = self.first.or(Some(seq));
    }
}

impl Replica {
    /// Sends the peer all our flows.
    pub(crate) fn start_bulk(&mut self) {
        if self.settings.mode == Mode::Alarm {
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
        let found = if takes_offers {
            Found::Offered
        } else {
            Found::LeftOut
        };
        let silent = self.internal.marked(marks::SILENT);
        let ended = self.internal.marked(marks::DEAD);
        let is_empty = self.told() + ended == 0 && (silent == 0 || found == Found::LeftOut);
        if !is_empty {
            self.events.push_back(Event::Bulk);
        }
        // The peer is to know also that there is nothing.
        if !is_empty || takes_offers {
            self.begin_bulk(found);
        }
    }

    fn begin_bulk(&mut self, found: Found) {
        let found = self.bulk.cursor.map_or(found, |c| found.max(c.found));
        self.bulk = BulkUpdate {
            number: self.bulk.number.wrapping_add(1).max(1),
            first: None,
            cursor: Some(Cursor {
                position: Position::default(),
                found,
            }),
            told: false,
            given_up: false,
        };
        if self.settings.trailer {
            self.owe_alive();
        }
    }

    /// True while the cursor, or the dump in its place, is on its way.
    pub(crate) fn is_bulk_under_way(&self) -> bool {
        self.bulk.cursor.is_some() || self.sweeps.is_bulk_owed()
    }

    /// Breaks it off: what it walks through is gone.
    pub(crate) fn give_up_bulk(&mut self) {
        self.bulk.cursor = None;
        self.bulk.given_up = true;
    }

    /// Number of live flows that we announce, once nothing is owed.
    pub(crate) fn told(&self) -> usize {
        let not_told = [marks::DEAD, marks::TAKEN, marks::SILENT];
        let not_told: usize = not_told.iter().map(|m| self.internal.marked(*m)).sum();
        self.internal.len() - not_told
    }

    /// Number of live flows that we have offered.
    pub(crate) fn offered(&self) -> usize {
        self.internal.marked(marks::OFFERED)
    }

    /// Entries of the internal cache that wait to be sent.
    pub(crate) fn internal_owed(&self) -> usize {
        self.internal.queued(List::Owed) + self.internal.queued(List::Offered)
    }

    /// What a message sent now may claim of it.
    pub(crate) fn bulk_state(&self) -> Bulk {
        let bulk = &self.bulk;
        let is_open = bulk.cursor.is_some()
            || self.internal.marked(marks::BULK) > 0
            || self.internal_owed() > 0;
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
            first: bulk.first.unwrap_or(self.outbox.next_seq()),
            flows: u32::try_from(self.told()).unwrap_or(u32::MAX),
            state,
        }
    }

    /// True if there is more to do at once.
    pub(crate) fn advance_bulk(&mut self, items: usize) -> bool {
        // A resync asked for before the bulk must be over: the bulk is to see what it finds.
        if self.sweeps.is_resync_owed() {
            return false;
        }
        let Some(mut cursor) = self.bulk.cursor else {
            self.tell_end();
            return false;
        };
        for _ in 0..items {
            if self.internal_owed() >= OWED_MAX {
                break;
            }
            let Some((slot, next)) = self.internal.walk(cursor.position) else {
                self.bulk.cursor = None;
                if let Some(expectations) = &mut self.expectations {
                    expectations.owe_all(cursor.found == Found::Announced);
                }
                return false;
            };
            cursor.position = next;
            if self.internal.has(slot, marks::DEAD | marks::TAKEN) {
                continue;
            }
            let was_silent = self.internal.has(slot, marks::SILENT);
            if was_silent {
                match cursor.found {
                    Found::LeftOut => continue,
                    Found::Offered => {}
                    Found::Announced => {
                        self.internal.mark(slot, 0, marks::SILENT | marks::OFFERED);
                    }
                }
            }
            self.internal.mark(slot, marks::BULK, 0);
            // What has been sent as an offer is to be announced now.
            let is_promoted = was_silent && cursor.found == Found::Announced;
            if is_promoted || !self.is_sent_since(slot) {
                self.owe_entry(slot);
            }
        }
        self.bulk.cursor = Some(cursor);
        self.internal_owed() < OWED_MAX
    }

    /// True if an entry has been sent since the bulk update began, and waits to be
    /// acknowledged.
    fn is_sent_since(&self, slot: cache::Slot) -> bool {
        let meta = self.internal.meta(slot);
        let is_later = self.bulk.first.is_some_and(|f| f.before(Seq(meta.seq)));
        meta.list() == Some(List::Sent) && is_later
    }

    /// Queues an entry of the internal cache to be sent, as an announcement or an offer.
    pub(crate) fn owe_entry(&mut self, slot: cache::Slot) {
        let list = if self.internal.has(slot, marks::SILENT) {
            List::Offered
        } else {
            List::Owed
        };
        // Already queued: one message will carry both changes.
        if self.internal.meta(slot).list() != Some(list) {
            self.internal.queue(slot, list);
        }
    }

    /// Sends the end once, as soon as it is true; every later ALIVE repeats it.
    fn tell_end(&mut self) {
        if !self.settings.trailer || self.bulk.told {
            return;
        }
        if self.bulk.given_up || self.bulk_state().state == BulkState::Complete {
            self.bulk.told = true;
            if !self.bulk.given_up && self.bulk.number > 0 {
                self.owe_alive();
            }
        }
    }
}
