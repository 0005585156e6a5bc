//! When a cache is full, and when it has room again: one line each.

use replica::Instant;

use crate::line::{Field, Fields, Level, Line, Occasion};

/// Watches one cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fullness {
    name: &'static str,
    /// Entries that were not created, as the counter was at the last look.
    failed: u64,
    /// Since when it has been full, and the counter before.
    since: Option<(Instant, u64)>,
}

impl Fullness {
    pub(crate) fn new(name: &'static str) -> Fullness {
        Fullness {
            name,
            failed: 0,
            since: None,
        }
    }

    /// Looks at the number of entries not created since the start, and at the entries of now.
    /// Yields what is to be logged.
    ///
    /// A cache is full from the first entry that it does not take. It has room again when it
    /// has taken all since the last look and a sixteenth of it is free: at its limit it may
    /// gain and lose an entry every second.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        failed: u64,
        entries: usize,
        limit: usize,
    ) -> Option<Line> {
        let name = self.name;
        let before = std::mem::replace(&mut self.failed, failed);
        match self.since {
            None if failed > before => {
                self.since = Some((now, before));
                let line = format!(
                    "{name} is full: new flows are not kept ({limit} are its limit, see HashLimit)"
                );
                Some(Line::new(Level::Warning, line, Occasion::CacheFull.into()))
            }
            Some((since, first)) if failed == before && entries < limit - limit / 16 => {
                self.since = None;
                let secs = now.since(since).as_secs();
                let count = failed - first;
                let line = format!(
                    "{name} has room again after {secs} s: {count} times a flow was not kept"
                );
                let fields = Fields::from(Occasion::CacheHasRoom)
                    .with(Field::Flows, count)
                    .with(Field::Seconds, secs);
                Some(Line::new(Level::Notice, line, fields))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    #[test]
    fn a_full_cache_is_said_once_and_so_is_its_end() {
        let mut cache = Fullness::new("internal cache");
        assert_eq!(cache.look(at(0), 0, 100, 100), None);
        let line = cache.look(at(1), 7, 100, 100).unwrap();
        assert_eq!(line.level, Level::Warning);
        assert!(line.text.starts_with("internal cache is full"), "{line:?}");
        assert_eq!(cache.look(at(2), 9, 100, 100), None);
        // It takes nothing because nothing comes.
        assert_eq!(cache.look(at(3), 9, 100, 100), None);
        // It has room, but has refused one a moment ago.
        assert_eq!(cache.look(at(4), 10, 90, 100), None);
        let line = cache.look(at(5), 10, 90, 100).unwrap();
        assert_eq!(line.level, Level::Notice);
        assert!(
            line.text
                .ends_with("after 4 s: 10 times a flow was not kept"),
            "{line:?}"
        );
        assert_eq!(cache.look(at(6), 10, 90, 100), None);
        assert!(cache.look(at(7), 11, 100, 100).is_some());
    }

    #[test]
    fn a_cache_of_a_few_entries_has_room_again() {
        let mut cache = Fullness::new("external cache");
        assert!(cache.look(at(0), 1, 3, 3).is_some());
        assert_eq!(cache.look(at(1), 1, 3, 3), None);
        assert!(cache.look(at(2), 1, 2, 3).is_some());
    }
}
