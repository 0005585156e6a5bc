//! Commit: the external cache → kernel, at a takeover.
//!
//! A cursor walks the external cache twice: first the flows without a master, then the
//! others, whose masters then exist; expectations come last. [`crate::conversation`]
//! decides what is asked after each outcome.
//!
//! A peer that lives goes on announcing meanwhile. What it announces of an entry that the
//! cursor has passed is *late*: it is committed in another round, and if it comes before
//! the script empties the external cache, when that happens. So nothing is lost between
//! the script's commands.

use std::time::Duration;

use cache::{Position, Slot, Ticket};
use flow::ExpectKey;

use crate::command::{CommandId, Objects};
use crate::time::Instant;

/// Seconds that a flow gets whose timeout has run down without word of its end, and
/// the most that one gets which a restarted peer has not confirmed.
pub(crate) const RUN_DOWN_SECS: u32 = 60;

/// A script empties the external cache within this time after the commit has begun. A later
/// flush is an operator's own, and drops everything.
pub(crate) const SCRIPT_MAX: Duration = Duration::from_secs(60);

/// Rounds for what is late. A peer that announces without end must not keep the client.
pub(crate) const ROUNDS_MAX: u32 = 4;

/// From this many flows on, the group of NEW events is left meanwhile.
const LARGE: usize = 256;

/// What a pass commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    WithoutMaster,
    WithMaster,
    Expectations,
}

/// Where a pass goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Flows(Position),
    /// Behind this one.
    Expectations(Option<ExpectKey>),
}

impl At {
    pub(crate) fn first_flow() -> At {
        At::Flows(Position::default())
    }
}

/// A commit under way.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Who waits for the end; nobody, if it follows a flush of the external cache.
    pub(crate) id: Option<CommandId>,
    /// After the first one, a round commits what is late.
    pub(crate) round: u32,
    pub(crate) objects: Objects,
    pub(crate) pass: Pass,
    /// `None` once the pass has seen all.
    pub(crate) at: Option<At>,
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) failed: u64,
    pub(crate) began: Instant,
}

impl Commit {
    pub(crate) fn is_large(&self) -> bool {
        self.size >= LARGE
    }
}

/// Entries that were announced late, for a flush that must not walk through millions to find a
/// few. Some of them are not late any more.
#[derive(Debug, Default)]
pub(crate) struct Late {
    tickets: Vec<Ticket>,
    is_incomplete: bool,
}

impl Late {
    /// Half a megabyte of them. If there were more, a flush walks.
    const MAX: usize = 65_536;

    /// An entry has become late.
    pub(crate) fn note(&mut self, ticket: Ticket) {
        self.is_incomplete |= self.tickets.len() == Late::MAX;
        if !self.is_incomplete {
            self.tickets.push(ticket);
        }
    }

    /// All of them that `redeem` knows, each once, in the order of their slots; `None` if there
    /// were too many. It forgets them.
    pub(crate) fn take(&mut self, redeem: impl Fn(Ticket) -> Option<Slot>) -> Option<Vec<Slot>> {
        let Late {
            tickets,
            is_incomplete,
        } = std::mem::take(self);
        if is_incomplete {
            return None;
        }
        let mut slots: Vec<Slot> = tickets.into_iter().filter_map(redeem).collect();
        slots.sort_unstable();
        slots.dedup();
        Some(slots)
    }
}

#[cfg(test)]
mod tests {
    use cache::{Cache, Tick};
    use flow::{Addrs, Flow, L4, Proto, Tuple};

    use super::*;
    use crate::entry::External;

    fn flow(port: u16) -> Flow {
        Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: port, dst: 80 },
        })
    }

    #[test]
    fn what_is_late_is_found_once_while_it_lives() {
        let mut cache = Cache::<External>::new(10);
        let slots = [1, 2, 3].map(|port| cache.insert(&flow(port), Tick(0)).unwrap());
        let mut late = Late::default();
        for at in [2, 0, 1, 2] {
            late.note(cache.ticket(slots[at]));
        }
        cache.remove(slots[1]);
        let taken = late.take(|ticket| cache.redeem(ticket));
        assert_eq!(taken, Some(vec![slots[0], slots[2]]));
        assert_eq!(late.take(|ticket| cache.redeem(ticket)), Some(Vec::new()));
    }

    #[test]
    fn too_many_are_not_all_known() {
        let mut cache = Cache::<External>::new(10);
        let slot = cache.insert(&flow(1), Tick(0)).unwrap();
        let mut late = Late::default();
        for _ in 0..=Late::MAX {
            late.note(cache.ticket(slot));
        }
        assert_eq!(late.take(|ticket| cache.redeem(ticket)), None);
        assert_eq!(late.take(|ticket| cache.redeem(ticket)), Some(Vec::new()));
    }
}
