//! Bulk update: the whole internal cache is owed to the peer, a little each turn.
//!
//! Live updates go in between. Without an internal cache the kernel table is
//! dumped and passed on (see `sweep`).

use cache::{List, Position};
use wire::v1::Mode;

use crate::{Event, Replica, marks};

/// The cursor waits while this many entries are owed.
const OWED_MAX: usize = 2048;

impl Replica {
    pub(crate) fn start_bulk(&mut self) {
        if self.settings.mode == Mode::Alarm {
            return;
        }
        self.events.push_back(Event::Bulk);
        if self.settings.internal_cache {
            self.bulk = Some(Position::default());
        } else {
            self.sweeps.owe_bulk();
        }
    }

    /// True if there is more to do at once.
    pub(crate) fn advance_bulk(&mut self, items: usize) -> bool {
        // A resync asked for before the bulk must be over: the bulk is to see what it finds.
        if self.sweeps.is_resync_owed() {
            return false;
        }
        let Some(mut position) = self.bulk else {
            return false;
        };
        for _ in 0..items {
            if self.internal.queued(List::Owed) >= OWED_MAX {
                break;
            }
            let Some((slot, next)) = self.internal.walk(position) else {
                self.bulk = None;
                return false;
            };
            position = next;
            let meta = self.internal.meta(slot);
            if meta.marks & (marks::DEAD | marks::TAKEN) == 0 && meta.list() != Some(List::Owed) {
                self.internal.queue(slot, List::Owed);
            }
        }
        self.bulk = Some(position);
        self.internal.queued(List::Owed) < OWED_MAX
    }
}
