//! Bulk update: the whole internal cache is owed to the peer, a little each turn.
//!
//! Live updates go in between. Begin and end are told in the trailer of ALIVE: the
//! end once everything said in it is acknowledged, or sent where nothing is
//! acknowledged. Without an internal cache the kernel table is dumped and passed on
//! (see `sweep`), and nothing is claimed of it.

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
    /// Its end has been told, or there is none to be told of.
    told: bool,
    /// It was broken off: nothing is claimed of it.
    given_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    position: Position,
    /// Also what nobody has been told of.
    silent: bool,
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
            self.begin_bulk(true);
        } else {
            self.sweeps.owe_bulk();
        }
    }

    /// Sends the peer again what it should have: not what was found in the kernel at the
    /// start, which may be copies of the peer's own flows.
    pub(crate) fn start_bulk_of_told(&mut self) {
        let nothing = self.told() == 0 && self.internal.marked(marks::DEAD) == 0;
        if self.settings.internal_cache && !nothing {
            self.events.push_back(Event::Bulk);
            self.begin_bulk(false);
        }
    }

    fn begin_bulk(&mut self, silent: bool) {
        let silent = silent || self.bulk.cursor.is_some_and(|c| c.silent);
        self.bulk = BulkUpdate {
            number: self.bulk.number.wrapping_add(1).max(1),
            first: None,
            cursor: Some(Cursor {
                position: Position::default(),
                silent,
            }),
            told: false,
            given_up: false,
        };
        if self.settings.trailer {
            self.owe_alive();
        }
    }

    /// Breaks it off: what it walks through is gone.
    pub(crate) fn give_up_bulk(&mut self) {
        self.bulk.cursor = None;
        self.bulk.given_up = true;
    }

    /// Number of flows that the peer has been told of, once nothing is owed.
    fn told(&self) -> usize {
        let not_told = [marks::DEAD, marks::TAKEN, marks::SILENT];
        let not_told: usize = not_told.iter().map(|m| self.internal.marked(*m)).sum();
        self.internal.len() - not_told
    }

    /// What a message sent now may say of it.
    pub(crate) fn bulk_state(&self) -> Bulk {
        let bulk = &self.bulk;
        let is_open = bulk.cursor.is_some()
            || self.internal.marked(marks::BULK) > 0
            || self.internal.queued(List::Owed) > 0;
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
        let mut skip = marks::DEAD | marks::TAKEN;
        if !cursor.silent {
            skip |= marks::SILENT;
        }
        for _ in 0..items {
            if self.internal.queued(List::Owed) >= OWED_MAX {
                break;
            }
            let Some((slot, next)) = self.internal.walk(cursor.position) else {
                self.bulk.cursor = None;
                if let Some(expectations) = &mut self.expectations {
                    expectations.owe_all(cursor.silent);
                }
                return false;
            };
            cursor.position = next;
            if self.internal.has(slot, skip) {
                continue;
            }
            self.internal.mark(slot, marks::BULK, marks::SILENT);
            if self.internal.meta(slot).list() != Some(List::Owed) {
                self.internal.queue(slot, List::Owed);
            }
        }
        self.bulk.cursor = Some(cursor);
        self.internal.queued(List::Owed) < OWED_MAX
    }

    /// Tells the end once, as soon as it is true; every later ALIVE says it again.
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
